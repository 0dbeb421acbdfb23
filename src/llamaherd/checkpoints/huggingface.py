"""Models as plain Hugging Face Llama folders: what `transformers` loads is what we write, and what it wrote we read."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..core.config import build
from ..core.errors import UserError
from ..core.files import read_json, write_json
from ..model.config import ModelConfig
from ..model.transformer import Scorer, Transformer, Trunk, materialise
from ..tokenizer.sentencepiece import Tokenizer
from ..train.state import save_tensors
from .names import to_hugging_face
from .tokenizer_json import write_tokenizer_files

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
MULTIPLIERS = ("residual_multiplier", "embedding_multiplier", "attention_multiplier", "logits_scaling")
"""Factors of Granite that Llama lacks, which is to say that they are 1."""
LIMITS = ("final_logit_softcapping", "attn_logit_softcapping", "sliding_window")
"""Limits of Gemma and Mistral that Llama lacks."""
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def config_of(model: Trunk, bos_id: int = 1, eos_id: int = 2) -> dict[str, Any]:
    """`config.json` of a model, with the rotary base under its old and its new key."""
    config = model.config
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
        "torch_dtype": str(model.dtype).removeprefix("torch."),
    }
    if isinstance(model, Scorer):
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
            raise UserError(f"{where}: not a Llama 2 architecture: {difference}")
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
    return build(ModelConfig, values, where)


def save_model(model: Trunk, tokenizer: Tokenizer, folder: Path) -> None:
    """Writes weights, config, tokenizer and chat template. Raises OSError when the disk does not take it."""
    folder.mkdir(parents=True, exist_ok=True)
    skip = "output.weight" if model.config.tied else None
    tensors = {to_hugging_face(name): weight for name, weight in model.named_parameters() if name != skip}
    save_tensors(tensors, folder / WEIGHTS)
    write_json(folder / "config.json", config_of(model, tokenizer.bos_id, tokenizer.eos_id))
    if isinstance(model, Transformer):
        ends = {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id}
        write_json(folder / "generation_config.json", {**ends, "do_sample": True, "temperature": 0.6, "top_p": 0.9})
    write_tokenizer_files(tokenizer, folder, model.config.context)


def _shards(folder: Path) -> dict[str, Path]:
    """File of each tensor."""
    if (folder / INDEX).is_file():
        index = read_json(folder / INDEX)
        files = index.get("weight_map") if isinstance(index, dict) else None
        if not isinstance(files, dict):
            raise UserError(f"{folder / INDEX}: has no weight_map; expected the index of a sharded checkpoint")
        if any(Path(str(file)).name != str(file) for file in files.values()):
            raise UserError(f"{folder / INDEX}: names a file outside its folder")
        return {name: folder / str(file) for name, file in files.items()}
    if not (folder / WEIGHTS).is_file():
        found = sorted(path.name for path in folder.glob("*.bin")) + sorted(path.name for path in folder.glob("*.pth"))
        hint = f" (found {', '.join(found)}, which are pickles and are not read; save the model as safetensors)" if found else ""
        raise UserError(f"{folder}: no {WEIGHTS} or {INDEX} there{hint}; expected a Hugging Face Llama folder")
    try:
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            return dict.fromkeys(file.keys(), folder / WEIGHTS)
    except SafetensorError as error:
        raise UserError(f"{folder / WEIGHTS}: damaged or not safetensors: {error}") from None


def load_weights(model: Trunk, folder: Path) -> None:
    """Fills `model` from a folder's safetensors. Raises UserError naming file and tensor for anything missing, unexpected, of another shape."""
    shards = _shards(folder)
    skip = {"output.weight"} if model.config.tied else set()
    wanted: dict[str, Tensor] = {to_hugging_face(name): weight for name, weight in model.named_parameters() if name not in skip}
    ignored = {"lm_head.weight"} if model.config.tied or isinstance(model, Scorer) else set()
    extra = sorted(name for name in set(shards) - set(wanted) - ignored if not name.endswith("rotary_emb.inv_freq"))
    missing = sorted(set(wanted) - set(shards))
    if missing or extra:
        what = f"lacks {missing[0]}" if missing else f"holds {extra[0]}, which the model in config.json does not have"
        raise UserError(f"{folder}: {what} ({len(missing)} missing, {len(extra)} unexpected tensors)")
    for path in sorted(set(shards.values())):
        if not path.is_file():
            raise UserError(f"{path}: is named in {INDEX} and is missing; get the whole checkpoint again")
        try:
            with safe_open(path, framework="pt") as file:
                there = set(file.keys())
                for name in sorted(name for name in wanted if shards[name] == path):
                    if name not in there:
                        raise UserError(f"{path}: lacks {name}, which {INDEX} says it holds; get the whole checkpoint again")
                    _fill(wanted[name], file.get_tensor(name), f"{path}: {name}")
        except SafetensorError as error:
            raise UserError(f"{path}: damaged or not safetensors: {error}") from None


@torch.no_grad()
def _fill(weight: Tensor, value: Tensor, name: str) -> None:
    if value.shape != weight.shape:
        raise UserError(f"{name} has shape {list(value.shape)}; config.json says {list(weight.shape)}")
    if value.dtype not in FLOATS:
        raise UserError(f"{name} is of type {str(value.dtype).removeprefix('torch.')}; expected plain 16, 32 or 64 bit floats")
    if not torch.isfinite(value).all():
        raise UserError(f"{name} holds values that are not finite; the checkpoint is damaged")
    weight.copy_(value)


def _raw_config(folder: Path) -> dict[str, Any]:
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder}: holds no config.json; expected a Hugging Face Llama folder, such as a model that llamaherd wrote")
    raw = read_json(folder / "config.json")
    if not isinstance(raw, dict):
        raise UserError(f"{folder / 'config.json'}: holds a {type(raw).__name__}; expected the config.json of a Llama model")
    return raw


def _folder_config(folder: Path, architecture: str) -> ModelConfig:
    raw = _raw_config(folder)
    named = raw.get("architectures") or [architecture]
    if architecture not in named:
        kind = "reward model" if "Sequence" in architecture else "language model"
        raise UserError(f"{folder}: architecture {named[0]}, expected {architecture} (a {kind})")
    return parse_config(raw, str(folder / "config.json"))


def _read(folder: Path, kind: type[Trunk], architecture: str, device: torch.device | str) -> tuple[Any, Tokenizer]:
    config = _folder_config(folder, architecture)
    tokenizer = Tokenizer.load(folder)
    if tokenizer.vocab_size > config.vocab_size:
        raise UserError(
            f"{folder}: tokenizer has {tokenizer.vocab_size} pieces, the model {config.vocab_size}; they do not belong together"
        )
    with torch.device("meta"):
        model = kind(config)
    model = materialise(model, device)
    load_weights(model, folder)
    return model.eval(), tokenizer


def load_model(folder: Path, device: torch.device | str = "cpu") -> tuple[Transformer, Tokenizer]:
    """A language model in float32 and its tokenizer. Raises UserError in one line for anything that is not a Llama folder."""
    model, tokenizer = _read(folder, Transformer, "LlamaForCausalLM", device)
    return model, tokenizer


def load_scorer(folder: Path, device: torch.device | str = "cpu") -> tuple[Scorer, Tokenizer]:
    """A reward model in float32 and its tokenizer. Raises UserError as load_model does."""
    raw = _raw_config(folder)
    if "LlamaForSequenceClassification" in (raw.get("architectures") or []) and raw.get("num_labels", 1) != 1:
        raise UserError(f"{folder}: a classifier of {raw['num_labels']} labels; a reward model has one")
    model, tokenizer = _read(folder, Scorer, "LlamaForSequenceClassification", device)
    return model, tokenizer


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
    try:
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            for name, weight in model.named_parameters():
                if not torch.equal(file.get_tensor(to_hugging_face(name)), weight.detach().cpu()):
                    raise OSError(f"{folder / WEIGHTS}: {name} was not written as it is in memory; the disk may be failing")
    except SafetensorError as error:
        raise OSError(f"{folder / WEIGHTS}: cannot be read back after writing: {error}") from None
