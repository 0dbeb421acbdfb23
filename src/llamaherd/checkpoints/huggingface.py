"""Models as plain Hugging Face Llama folders: what `transformers` loads is what we write, and what it wrote we read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..core.errors import UserError
from ..core.files import read_json, write_json
from ..model.config import ModelConfig
from ..model.transformer import Scorer, Transformer, Trunk, materialise
from ..tokenizer.sentencepiece import Tokenizer
from .names import to_hugging_face
from .source import (
    ModelKind,
    Source,
    demand_finite,
    demand_layers,
    find_tokenizer,
    intact,
    load_tokenizer,
    open_source,
    shape_of,
    small_json,
    verify,
    weight_shapes,
)
from .tensors import FLOATS, Place, read_header, read_tensor, write_tensors
from .tokenizer_json import write_tokenizer_files

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
MULTIPLIERS = ("residual_multiplier", "embedding_multiplier", "attention_multiplier", "logits_scaling")
"""Factors of Granite that Llama lacks, which is to say that they are 1."""
LIMITS = ("final_logit_softcapping", "attn_logit_softcapping", "sliding_window")
"""Limits of Gemma and Mistral that Llama lacks."""
METHOD = "llamaherd"
"""The quant_method of folders that `quantize` writes; `quantized.py` reads them, for inference alone."""
ARCHITECTURES: dict[str, ModelKind] = {"LlamaForCausalLM": "model", "LlamaForSequenceClassification": "reward-model"}
SHARD_BYTES = 5_000_000_000
"""Larger models are written in several files, none of them larger than this unless one weight is."""


def config_of(model: Trunk, bos_id: int = 1, eos_id: int = 2) -> dict[str, Any]:
    """`config.json` of a model."""
    return config_json(model.config, "reward-model" if isinstance(model, Scorer) else "model", model.dtype, bos_id, eos_id)


def config_json(config: ModelConfig, kind: ModelKind, dtype: torch.dtype, bos_id: int, eos_id: int) -> dict[str, Any]:
    """`config.json` of a shape, with the rotary base under its old and its new key."""
    shared = {
        "model_type": "llama",
        "hidden_size": config.dim,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv,
        "head_dim": config.head_size,
        "intermediate_size": config.ffn_width,
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.context,
        "rope_theta": config.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "rms_norm_eps": config.norm_eps,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "attention_dropout": 0.0,
        "tie_word_embeddings": config.tied,
        "bos_token_id": bos_id,
        "eos_token_id": eos_id,
        "torch_dtype": str(dtype).removeprefix("torch."),
    }
    if kind == "reward-model":
        # <unk> stands for padding: byte fallback never produces it. Our own code finds the end by mask, not by id.
        return shared | {
            "architectures": ["LlamaForSequenceClassification"],
            "num_labels": 1,
            "pad_token_id": 0,
            "tie_word_embeddings": False,
        }
    return shared | {"architectures": ["LlamaForCausalLM"]}


def _is_scaled(rope: Mapping[str, Any]) -> bool:
    kinds = {str(rope.get(key) or "default") for key in ("rope_type", "type")}
    return kinds != {"default"} or rope.get("factor") not in (None, 1)


def parse_config(raw: Mapping[str, Any], where: str) -> ModelConfig:
    """The shape in a `config.json`. Raises UserError that names what is not Llama's about it."""
    quantised = raw.get("quantization_config")
    if isinstance(quantised, dict) and quantised.get("quant_method") == METHOD:
        raise UserError(
            f"{where}: weights of {quantised.get('bits')} bits, which llamaherd quantize wrote for chat, generate and evaluate alone; "
            "give the model that they were made from"
        )
    found = [raw[key] for key in ("rope_scaling", "rope_parameters") if raw.get(key)]  # the old name and the new one
    ropes = [value if isinstance(value, dict) else {"rope_type": value} for value in found]
    layered = [value for part in ropes for value in part.values() if isinstance(value, dict)]
    scaled = [value for value in (*ropes, *layered) if _is_scaled(value)]
    rope = {key: value for part in ropes for key, value in part.items()}
    partial = rope.get("partial_rotary_factor", raw.get("partial_rotary_factor"))
    differences = {
        f"model_type {raw.get('model_type')!r}, expected 'llama'": raw.get("model_type") != "llama",
        f"hidden_act {raw.get('hidden_act')!r}, expected 'silu'": raw.get("hidden_act", "silu") not in ("silu", "swish"),
        "attention_bias true (Llama has no biases)": bool(raw.get("attention_bias")),
        "mlp_bias true (Llama has no biases)": bool(raw.get("mlp_bias")),
        f"scaled rotary embedding {scaled} (Llama 2 has none)": bool(scaled),
        f"rotary embeddings by kind of layer {layered} (Llama 2 has one for all)": bool(layered),
        f"partial_rotary_factor {partial} (Llama turns whole heads)": partial not in (None, 1, 1.0),
        f"quantised weights {raw.get('quantization_config')} (expected plain ones)": bool(raw.get("quantization_config")),
        **{f"{key} {raw.get(key)} (Llama has none)": raw.get(key) not in (None, 1) for key in MULTIPLIERS},
        **{f"{key} {raw.get(key)} (Llama has none)": raw.get(key) is not None for key in LIMITS},
    }
    for difference, differs in differences.items():
        if differs:
            raise UserError(f"{where}: not a Llama 2 architecture: {difference[:300]}")
    names = {
        "dim": "hidden_size", "layers": "num_hidden_layers", "heads": "num_attention_heads", "kv_heads": "num_key_value_heads",
        "head_dim": "head_dim", "ffn": "intermediate_size", "vocab_size": "vocab_size", "context": "max_position_embeddings",
        "norm_eps": "rms_norm_eps", "tied": "tie_word_embeddings",
    }  # fmt: skip
    values = {ours: raw[theirs] for ours, theirs in names.items() if raw.get(theirs) is not None}
    missing = [names[name] for name in ("dim", "layers", "heads", "ffn", "vocab_size", "context") if name not in values]
    if missing:
        raise UserError(f"{where}: has no {', '.join(missing)}; expected the config.json of a Llama model")
    values["rope_theta"] = rope.get("rope_theta", raw.get("rope_theta", 10000.0))
    values.setdefault("norm_eps", 1e-6)  # what a file that is silent about it means to transformers
    return shape_of(values, where)


def save_model(model: Trunk, tokenizer: Tokenizer, folder: Path) -> None:
    """Writes weights, config, tokenizer and chat template. Raises OSError when the disk does not take it."""
    write_hugging_face(source_of(model, tokenizer, folder), folder)


def source_of(model: Trunk, tokenizer: Tokenizer, path: Path) -> Source:
    """A model in memory as if it were on disk, at `path`."""
    kind: ModelKind = "reward-model" if isinstance(model, Scorer) else "model"
    names = tuple(weight_shapes(model.config, kind))
    return Source(path, kind, model.config, names, model.dtype, tokenizer, lambda name: model.get_parameter(name).detach().cpu())


def write_hugging_face(source: Source, folder: Path, shards: int | None = None) -> None:
    """Writes a model weight by weight as a folder that transformers loads: memory for one weight at a time.

    `shards`: how many files of weights; None: as many as SHARD_BYTES asks for. Raises OSError that names the file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    dtype = source.dtype
    ours = {to_hugging_face(name): name for name in source.names}
    shapes = {theirs: source.shapes[name] for theirs, name in ours.items()}
    sizes = [prod(shape) * dtype.itemsize for shape in shapes.values()]
    cuts = _cuts(sizes, shards) if shards else _cuts_below(sizes, SHARD_BYTES)
    files = {}
    for number, (start, end) in enumerate(pairwise(cuts), 1):
        part = dict(list(shapes.items())[start:end])
        name = WEIGHTS if len(cuts) == 2 else f"model-{number:05d}-of-{len(cuts) - 1:05d}.safetensors"
        write_tensors(folder / name, part, dtype, lambda theirs: source.read(ours[theirs]))
        files.update(dict.fromkeys(part, name))
    if len(cuts) > 2:
        totals = {"total_parameters": sum(sizes) // dtype.itemsize, "total_size": sum(sizes)}
        write_json(folder / INDEX, {"metadata": totals, "weight_map": files})
    bos_id, eos_id = source.tokenizer.bos_id, source.tokenizer.eos_id
    write_json(folder / "config.json", config_json(source.config, source.kind, dtype, bos_id, eos_id))
    if source.kind == "model":
        ends = {"bos_token_id": bos_id, "eos_token_id": eos_id}
        write_json(folder / "generation_config.json", {**ends, "do_sample": True, "temperature": 0.6, "top_p": 0.9})
    write_tokenizer_files(source.tokenizer, folder, source.config.context)


def _cuts(sizes: Sequence[int], parts: int) -> list[int]:
    """Where to cut a row of weights into so many parts of similar size, none empty: the first index of each, and the end."""
    cuts, done, total = [0], 0, sum(sizes)
    for index, size in enumerate(sizes):
        to_open, left = parts - len(cuts), len(sizes) - index
        if index > cuts[-1] and to_open and (left == to_open or done + size / 2 > total * len(cuts) / parts):
            cuts.append(index)
        done += size
    return [*cuts, len(sizes)]


def _cuts_below(sizes: Sequence[int], most: int) -> list[int]:
    """The fewest parts that hold no more than `most` each, unless one weight does."""
    for parts in range(-(-sum(sizes) // most), len(sizes)):
        cuts = _cuts(sizes, parts)
        if all(end - start == 1 or sum(sizes[start:end]) <= most for start, end in pairwise(cuts)):
            return cuts
    return list(range(len(sizes) + 1))


def open_hugging_face(folder: Path, tokenizer: Path | None = None) -> Source:
    """The model in a folder with config.json and safetensors. Raises UserError naming file and weight for anything missing, doubled,
    unexpected, of another shape or type.
    """
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder}: holds no config.json; expected a Hugging Face Llama folder, one of Meta's, or a llama2.c .bin")
    raw, where = small_json(folder / "config.json"), str(folder / "config.json")
    kind = _kind(raw, folder)
    config = parse_config(raw, where)
    places = _places(folder)
    demand_layers(config, len(places), where)
    ours = {to_hugging_face(name): name for name in weight_shapes(config, kind)}
    shapes = weight_shapes(config, kind)
    ignored = {"lm_head.weight"} if config.tied or kind == "reward-model" else set()
    extra = sorted(name for name in set(places) - set(ours) - ignored if not name.endswith("rotary_emb.inv_freq"))
    missing = sorted(set(ours) - set(places))
    if missing or extra:
        what = f"lacks {missing[0]}" if missing else f"holds {extra[0][:80]}, which the model in config.json does not have"
        raise UserError(f"{folder}: {what} ({len(missing)} missing, {len(extra)} unexpected tensors)")
    for theirs, name in ours.items():
        place, told = places[theirs], f"{places[theirs].file}: {theirs}"
        if place.shape != shapes[name]:
            raise UserError(f"{told} has shape {list(place.shape)}; config.json says {list(shapes[name])}")
        if place.dtype not in FLOATS:
            raise UserError(f"{told} is of type {place.dtype[:20]}; expected plain 16, 32 or 64 bit floats")
    pieces = load_tokenizer(find_tokenizer(folder, tokenizer), config, folder)
    _demand_same_ends(raw, pieces, where)
    theirs_of = {name: theirs for theirs, name in ours.items()}

    def read(name: str) -> Tensor:
        place = places[theirs_of[name]]
        return demand_finite(read_tensor(place), f"{place.file}: {theirs_of[name]}")

    dtype = reduce(torch.promote_types, (FLOATS[places[name].dtype] for name in ours))
    return Source(folder, kind, config, tuple(shapes), dtype, pieces, read)


def _kind(raw: Mapping[str, Any], folder: Path) -> ModelKind:
    named = raw.get("architectures") or ["LlamaForCausalLM"]
    found = [ARCHITECTURES[name] for name in named if name in ARCHITECTURES] if isinstance(named, list) else []
    if not found:
        first = named[0] if isinstance(named, list) else named
        raise UserError(f"{folder}: architecture {str(first)[:80]}, expected {' or '.join(ARCHITECTURES)}")
    labels = raw.get("num_labels", 1)
    if found[0] == "reward-model" and labels != 1:
        raise UserError(f"{folder}: a classifier of {str(labels)[:20]} labels; a reward model has one")
    return found[0]


def _places(folder: Path) -> dict[str, Place]:
    """Where each tensor lies. Raises UserError for shards that are missing, damaged, overlap, or are not what the index says."""
    if not (folder / INDEX).is_file():
        if (folder / WEIGHTS).is_file():
            return read_header(folder / WEIGHTS)
        found = sorted(path.name for path in folder.iterdir() if path.suffix in (".bin", ".pth", ".pt", ".ckpt"))
        hint = f" (found {', '.join(found)}, which are pickles and are not read; save the model as safetensors)" if found else ""
        raise UserError(f"{folder}: no {WEIGHTS} or {INDEX} there{hint}; expected a Hugging Face Llama folder")
    if (folder / WEIGHTS).is_file():
        raise UserError(f"{folder}: holds both {WEIGHTS} and {INDEX}; remove the one that is not meant")
    files = small_json(folder / INDEX).get("weight_map")
    if not isinstance(files, dict) or not all(isinstance(file, str) for file in files.values()):
        raise UserError(f"{folder / INDEX}: has no weight_map; expected the index of a sharded checkpoint")
    if any(Path(file).name != file or "\\" in file for file in files.values()):
        raise UserError(f"{folder / INDEX}: names a file outside its folder")
    places: dict[str, Place] = {}
    for file in sorted(set(files.values())):
        if not (folder / file).is_file():
            raise UserError(f"{folder / file}: is named in {INDEX} and is missing; get the whole checkpoint again")
        there = read_header(folder / file)
        lacking = sorted(name for name, of in files.items() if of == file and name not in there)
        foreign = sorted(name for name in there if files.get(name) != file)
        if lacking:
            raise UserError(f"{folder / file}: lacks {lacking[0][:80]}, which {INDEX} says it holds; get the whole checkpoint again")
        if foreign:
            told = f"says is in {files[foreign[0]]}" if foreign[0] in files else "does not name"
            raise UserError(f"{folder / file}: holds {foreign[0][:80]}, which {INDEX} {told}; get the whole checkpoint again")
        places |= there
    return places


def _demand_same_ends(raw: Mapping[str, Any], tokenizer: Tokenizer, where: str) -> None:
    """Raises UserError when the config's begin or end is one of the tokenizer's pieces and not its begin or end."""
    for name, expected in (("bos_token_id", tokenizer.bos_id), ("eos_token_id", tokenizer.eos_id)):
        given = raw.get(name)
        ids = given if isinstance(given, list) else [given]
        inside = [id for id in ids if isinstance(id, int) and 0 <= id < tokenizer.vocab_size]
        if inside and expected not in inside and len(inside) == len(ids):
            raise UserError(f"{where}: {name} is {inside[0]} and the tokenizer's {expected}; they do not belong together")


@torch.no_grad()
def fill(model: Trunk, source: Source) -> None:
    """Copies every weight of a source into a model of its shape, in the model's type and on its device."""
    for name in source.names:
        model.get_parameter(name).copy_(source.read(name))


def load_weights(model: Trunk, folder: Path) -> None:
    """Fills `model` from a folder of the same shape. Raises UserError naming file and tensor for what is damaged, missing or unexpected."""
    source = open_source(folder)
    if source.shapes != {name: tuple(weight.shape) for name, weight in model.named_parameters()}:
        raise UserError(f"{folder}: holds a model of another shape than the one to fill")
    fill(model, source)


def _load(source: Source, kind: type[Trunk], device: torch.device | str, dtype: torch.dtype) -> Any:
    with torch.device("meta"):
        model = kind(source.config)
    model = materialise(model, device, dtype)
    with intact(source.path):
        fill(model, source)
    return model.eval()


def load_model(
    path: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32, tokenizer: Path | None = None
) -> tuple[Transformer, Tokenizer]:
    """A language model and its tokenizer, from any format that open_source takes. Raises UserError in one line for what is none."""
    source = open_source(path, tokenizer)
    if source.kind != "model":
        raise UserError(f"{path}: architecture LlamaForSequenceClassification, expected LlamaForCausalLM (a language model)")
    return _load(source, Transformer, device, dtype), source.tokenizer


def load_scorer(path: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> tuple[Scorer, Tokenizer]:
    """A reward model and its tokenizer. Raises UserError as load_model does."""
    source = open_source(path)
    if source.kind != "reward-model":
        raise UserError(f"{path}: architecture LlamaForCausalLM, expected LlamaForSequenceClassification (a reward model)")
    return _load(source, Scorer, device, dtype), source.tokenizer


@dataclass(frozen=True)
class HuggingFaceFiles:
    """A model's way to disk and back, for the training loop; what is written is checked by reading it again."""

    model: Trunk
    tokenizer: Tokenizer

    def save(self, folder: Path) -> None:
        save_model(self.model, self.tokenizer, folder)
        verify_folder(self.model, self.tokenizer, folder)

    def load(self, folder: Path) -> None:
        load_weights(self.model, folder)


def verify_folder(model: Trunk, tokenizer: Tokenizer, folder: Path) -> None:
    """Reads a written folder back: same shape, same weights to the bit. Raises OSError that names the tensor."""
    if read_json(folder / "config.json") != config_of(model, tokenizer.bos_id, tokenizer.eos_id):
        raise OSError(f"{folder / 'config.json'}: was not written as it is in memory; the disk may be failing")
    verify(source_of(model, tokenizer, folder), folder)
