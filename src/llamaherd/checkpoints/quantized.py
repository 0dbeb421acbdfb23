"""Folders of models with weights of 8 or 4 bits: ours alone, for inference. Others take 16 bits or GGUF, which `convert` writes.

Like a Hugging Face folder, but for `quantization_config` in config.json and, in place of each linear weight, the tensors of
`model/quantized.py`. These lie in the file as the kernels read them, so that loading maps the file and copies nothing.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ..core.artifacts import check_files
from ..core.errors import UserError
from ..core.files import write_json
from ..model.config import ModelConfig
from ..model.quantized import BITS, GROUPS, Scheme, quantize, quantized_linear, replace_linears
from ..model.transformer import Transformer, on_meta
from ..tokenizer.sentencepiece import Tokenizer
from .huggingface import METHOD, WEIGHTS, config_json, load_model, parse_config
from .names import to_hugging_face
from .source import Source, demand_finite, demand_layers, find_tokenizer, intact, load_tokenizer, small_json, weight_shapes
from .tensors import FLOATS, NAMES, Place, read_header, write_parts
from .tokenizer_json import write_tokenizer_files

TYPES = {torch.int8: "I8", torch.uint8: "U8", **NAMES}

Watch = Callable[[str, Mapping[str, Tensor], Mapping[str, Mapping[str, Tensor]]], None]
"""(part, its float weights by their names in the part, the quantised ones among them): told of each part of a model as it is made."""


def is_quantized(path: Path) -> bool:
    """Whether it is a folder with weights that llamaherd quantised."""
    return path.is_dir() and (path / "config.json").is_file() and _method(small_json(path / "config.json")) == METHOD


def _method(raw: Mapping[str, Any]) -> Any:
    settings = raw.get("quantization_config")
    return settings.get("quant_method") if isinstance(settings, dict) else None


def is_linear(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a weight is of a linear layer: what is quantised."""
    return len(shape) == 2 and name != "tok_embeddings.weight"


def _own_head(config: ModelConfig) -> ModelConfig:
    # A tied head is the embedding, which stays as it is: in 8 or 4 bits it is a matrix of its own.
    return config.model_copy(update={"tied": False})


def layout(config: ModelConfig, scheme: Scheme, dtype: torch.dtype) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    """Type and shape of every tensor of the file, in its order; `dtype` is that of embedding and norms."""
    found: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {}
    for name, shape in weight_shapes(_own_head(config)).items():
        stem = name.removesuffix("weight")
        if is_linear(name, shape):
            found |= {stem + kind: told for kind, told in scheme.layout(*shape).items()}
        else:
            found[name] = (dtype, shape)
    return {to_hugging_face(name): told for name, told in found.items()}


def write_quantized(source: Source, scheme: Scheme, folder: Path, watch: Watch | None = None) -> None:
    """Quantises a model part by part (embedding, each block, norm, head) into a folder: memory for the largest part.

    Raises UserError for weights that are damaged, OSError that names a file the disk does not take.
    """
    folder.mkdir(parents=True, exist_ok=True)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape) in layout(source.config, scheme, source.dtype).items():
        start, end = end, end + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": TYPES[dtype], "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % 64)
    with intact(source.path):
        write_parts(folder / WEIGHTS, [len(text).to_bytes(8, "little"), text], _tensors(source, scheme, watch))
    tokenizer = source.tokenizer
    settings = {"quant_method": METHOD, "bits": scheme.bits, **({"group": scheme.group} if scheme.group else {})}
    shape_json = config_json(source.config, "model", source.dtype, tokenizer.bos_id, tokenizer.eos_id)
    write_json(folder / "config.json", shape_json | {"quantization_config": settings})
    write_tokenizer_files(tokenizer, folder, source.config.context)


def _tensors(source: Source, scheme: Scheme, watch: Watch | None) -> Iterator[Tensor]:
    """The tensors of the file in its order; `watch` is told of a part before its first tensor is written."""
    for part, names in _parts(source.config).items():
        floats = {}
        for inner in names:
            name = "tok_embeddings.weight" if part == "output" and source.config.tied else f"{part}.{inner}"
            floats[inner] = source.read(name)
        quantised = {
            inner: quantize(weight, scheme) for inner, weight in floats.items() if is_linear(f"{part}.{inner}", tuple(weight.shape))
        }
        if watch:
            watch(part, floats, quantised)
        for inner, weight in floats.items():
            yield from quantised[inner].values() if inner in quantised else [weight.to(source.dtype)]


def _parts(config: ModelConfig) -> dict[str, list[str]]:
    """The weights of each part of a model, in order: {"layers.0": ["attention_norm.weight", ...], ...}."""
    found: dict[str, list[str]] = {}
    for name in weight_shapes(_own_head(config)):
        words = name.split(".")
        cut = 2 if words[0] == "layers" else 1
        found.setdefault(".".join(words[:cut]), []).append(".".join(words[cut:]))
    return found


def _scheme(raw: Mapping[str, Any], where: str) -> Scheme:
    settings = dict(raw["quantization_config"])
    settings.pop("quant_method")
    bits, group = settings.pop("bits", None), settings.pop("group", None)
    known = bits in BITS and type(bits) is int and (group is None if bits == 8 else group in GROUPS and type(group) is int)
    if settings or not known:
        raise UserError(
            f"{where}: quantised by a scheme that this version does not know ({str(raw['quantization_config'])[:200]}); "
            f"expected 8 bits, or 4 bits in groups of {', '.join(map(str, GROUPS))}; quantise the model again"
        )
    return Scheme(bits, group)


def load_quantized(folder: Path, device: torch.device | str = "cpu", tokenizer: Path | None = None) -> tuple[Transformer, Tokenizer]:
    """A model of 8 or 4 bits and its tokenizer; embedding and norms in float32, on CUDA in bfloat16.

    On the CPU its weights stay in the file, which is mapped into memory. Raises UserError naming the file for what is damaged,
    missing, unexpected or of an unknown scheme.
    """
    where = str(folder / "config.json")
    check_files(folder, lambda name: Path(name).suffix in (".json", ".model"))
    raw = small_json(folder / "config.json")
    scheme = _scheme(raw, where)
    config = parse_config({key: value for key, value in raw.items() if key != "quantization_config"}, where)
    if not (folder / WEIGHTS).is_file():
        raise UserError(f"{folder}: no {WEIGHTS} there; quantise the model again")
    places = read_header(folder / WEIGHTS)
    demand_layers(config, len(places), where)
    _demand_layout(folder / WEIGHTS, places, config, scheme)
    pieces = load_tokenizer(find_tokenizer(folder, tokenizer), config, folder)
    with intact(folder):
        try:
            with safe_open(folder / WEIGHTS, framework="pt") as file:
                return _filled(config, scheme, torch.device(device), file, folder / WEIGHTS), pieces
        except SafetensorError as error:
            raise UserError(f"{folder / WEIGHTS}: damaged or not safetensors: {error}") from None


def _demand_layout(file: Path, places: Mapping[str, Place], config: ModelConfig, scheme: Scheme) -> None:
    """Raises UserError when the file holds other tensors than a model of this shape and scheme has."""
    embedding = places.get(to_hugging_face("tok_embeddings.weight"))
    if embedding is None or embedding.dtype not in FLOATS:
        raise UserError(f"{file}: holds no embedding of plain floats; quantise the model again")
    wanted = layout(config, scheme, FLOATS[embedding.dtype])
    extra, missing = sorted(places.keys() - wanted.keys()), sorted(wanted.keys() - places.keys())
    if missing or extra:
        what = f"lacks {missing[0]}" if missing else f"holds {extra[0][:80]}, which the model in config.json does not have"
        raise UserError(f"{file}: {what} ({len(missing)} missing, {len(extra)} unexpected tensors); quantise the model again")
    for name, (dtype, shape) in wanted.items():
        place = places[name]
        if (place.dtype, place.shape) != (TYPES[dtype], shape) or place.nbytes != math.prod(shape) * dtype.itemsize:
            raise UserError(
                f"{file}: {name} is {place.dtype[:20]} {list(place.shape)}; config.json says {TYPES[dtype]} {list(shape)}; "
                "quantise the model again"
            )


def _filled(config: ModelConfig, scheme: Scheme, device: torch.device, file: Any, path: Path) -> Transformer:
    def tensor(name: str) -> Tensor:
        theirs = to_hugging_face(name)
        value: Tensor = file.get_tensor(theirs)
        if value.is_floating_point():
            demand_finite(value, f"{path}: {theirs}")
        return value.to(device)

    def layer(name: str, old: nn.Linear) -> Any:
        rows, columns = old.out_features, old.in_features
        tensors = {kind: tensor(f"{name}.{kind}") for kind in scheme.layout(rows, columns)}
        return quantized_linear(tensors, scheme, columns, rows)

    model = on_meta(_own_head(config))
    replace_linears(model, layer)
    plain = torch.bfloat16 if device.type == "cuda" else torch.float32
    rest = {name: tensor(name).to(plain) for name, _ in model.named_parameters()}
    model.load_state_dict(rest, strict=False, assign=True)
    model.config = config
    return model.eval().requires_grad_(False)


def load_for_inference(path: Path, device: torch.device | str = "cpu", tokenizer: Path | None = None) -> tuple[Transformer, Tokenizer]:
    """A language model to ask and not to train, from any format and of any bits. Raises UserError as `load_model` does."""
    return load_quantized(path, device, tokenizer) if is_quantized(path) else load_model(path, device, tokenizer=tokenizer)
