"""Meta's folders: `params.json`, `tokenizer.model` (there or one folder up), weights in `consolidated.00.pth` and further shards.

`params.json` says nothing of the context: 4,096 tokens, Llama 2's own, unless it has a `max_seq_len`; nor whether the head is
the embedding, which Meta's code does not know. Folders written here keep both in their manifest.
"""

from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..core.artifacts import find_artifact
from ..core.errors import UserError
from ..core.files import write_json
from ..model.config import ModelConfig
from .pairs import heads_of, to_halves, to_neighbours
from .pth import load_pth, write_pths
from .source import Source, demand_finite, demand_layers, find_tokenizer, load_tokenizer, shape_of, small_json, weight_shapes

PARAMS = "params.json"
CONTEXT, NORM_EPS, ROPE_THETA = 4096, 1e-5, 10000.0
"""What Llama 2 has where params.json is silent; the epsilon is the default of Meta's code."""
TABLE = "rope.freqs"
"""Rotary frequencies, which some releases keep beside the weights."""
FIELDS = {
    "dim": "dim", "n_layers": "layers", "n_heads": "heads", "n_kv_heads": "kv_heads", "vocab_size": "vocab_size",
    "multiple_of": "multiple_of", "ffn_dim_multiplier": "ffn_multiplier", "norm_eps": "norm_eps", "rope_theta": "rope_theta",
    "max_seq_len": "context",
}  # fmt: skip
"""Meta's names and ours. `rope_theta` is Code Llama's."""
AXES = {
    "wq": 0, "wk": 0, "wv": 0, "w1": 0, "w3": 0, "output": 0,  # column-parallel: outputs are shared out
    "wo": 1, "w2": 1, "tok_embeddings": 1,  # row-parallel: inputs are; of the embedding, its width
}  # fmt: skip
"""The axis along which shards share a weight; norms are whole in each."""


def axis_of(name: str) -> int | None:
    """`layers.3.attention.wo.weight` -> 1; None for a weight that every shard holds whole."""
    return AXES.get(name.split(".")[-2])


class Shards:
    """The files of a folder, opened again when much of their mapping was read: pages that were read count as memory until then."""

    def __init__(self, folder: Path):
        self.files = sorted(folder.glob("consolidated.*.pth"))
        names = [file.name for file in self.files]
        expected = [f"consolidated.{number:02d}.pth" for number in range(max(1, len(names)))]
        if names != expected:
            missing = next(name for name in expected if name not in names)
            raise UserError(f"{folder / missing}: is missing (found {', '.join(names) or 'no shard'}); get the whole checkpoint again")
        self._open = [load_pth(file, TABLE) for file in self.files]
        self.kinds = [{name: (tuple(value.shape), value.dtype) for name, value in part.items()} for part in self._open]
        self._read_bytes, self._most_bytes = 0, max(value.nbytes for part in self._open for value in part.values()) // 4

    def demand(self, shapes: Mapping[str, tuple[int, ...]], ignored: set[str], where: str) -> None:
        """Raises UserError that names the shard which lacks a weight, has one too many, or one of another shape."""
        for file, kinds in zip(self.files, self.kinds, strict=True):
            wrong = sorted(shapes.keys() - kinds.keys()), sorted(kinds.keys() - shapes.keys() - ignored)
            if any(wrong):
                what = f"lacks {wrong[0][0]}" if wrong[0] else f"holds {wrong[1][0][:80]}, which a model of {where} does not have"
                raise UserError(f"{file}: {what} ({len(wrong[0])} missing, {len(wrong[1])} unexpected tensors)")
            for name, shape in shapes.items():
                axis, found = axis_of(name), kinds[name][0]
                part = shape if axis is None else tuple(size // len(self.files) if axis == at else size for at, size in enumerate(shape))
                if found == part and (axis is None or shape[axis] % len(self.files) == 0):
                    continue
                told = f"{file}: {name} has shape {list(found)}; {where} and {len(self.files)} shards say {list(part)}"
                whole = shape[axis] // max(1, found[axis]) if axis is not None and len(found) == len(shape) else 0
                lacking = whole > len(self.files) and found == tuple(size // whole if axis == at else size for at, size in enumerate(shape))
                raise UserError(f"{told}; {f'it is one of {whole} shards, get the others' if lacking else 'get the checkpoint again'}")

    def read(self, name: str) -> Tensor:
        """A weight, joined, in memory of its own. Raises UserError when shards disagree on one that each holds whole."""
        self._open = self._open or [load_pth(file, TABLE) for file in self.files]
        parts, axis = [part[name] for part in self._open], axis_of(name)
        for file, part in zip(self.files, parts, strict=True):
            demand_finite(part, f"{file}: {name}")
            if axis is None and not torch.equal(part, parts[0]):
                raise UserError(
                    f"{file}: {name} differs from {self.files[0].name}'s, which should be the same; get the whole checkpoint again"
                )
        value = parts[0].clone() if axis is None or len(parts) == 1 else torch.cat(parts, axis)
        self._read_bytes += value.nbytes
        if self._read_bytes > self._most_bytes:
            self._open, self._read_bytes = [], 0
        return value


def open_meta(folder: Path, tokenizer: Path | None = None) -> Source:
    """The model in a folder of Meta's, its shards joined. Raises UserError for shards that are missing, damaged or not of one model."""
    raw, where = small_json(folder / PARAMS), str(folder / PARAMS)
    values = _values(raw, where)
    shards = Shards(folder)
    rows = shards.kinds[0].get("tok_embeddings.weight", ((0,), None))[0][0]
    if by_tokenizer := values.get("vocab_size", -1) == -1:  # Meta's first release leaves it to the tokenizer
        values["vocab_size"] = max(4, rows)
    made = find_artifact(folder)
    config = shape_of(values | ({name: made.metrics[name] for name in ("context", "tied") if name in made.metrics} if made else {}), where)
    demand_layers(config, len(shards.kinds[0]), where)
    shapes = weight_shapes(config)
    shards.demand(shapes, {"output.weight"} if config.tied else set(), where)
    pieces = load_tokenizer(find_tokenizer(folder, tokenizer, folder.parent), config, folder)
    if by_tokenizer and pieces.vocab_size != rows:
        raise UserError(
            f"{where}: leaves the vocabulary to the tokenizer, which has {pieces.vocab_size:,} pieces; the weights have {rows:,}"
        )
    dtype = reduce(torch.promote_types, (kinds[name][1] for kinds in shards.kinds for name in shapes))

    def read(name: str) -> Tensor:
        value, heads = shards.read(name), heads_of(name, config)
        return to_halves(value, heads) if heads else value

    return Source(folder, "model", config, tuple(shapes), dtype, pieces, read)


def _values(raw: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Meta's fields under our names. Raises UserError for a field of another architecture, and for those that are missing."""
    known = {*FIELDS, "max_batch_size"}
    strange = sorted(name for name, value in raw.items() if name not in known and value not in (None, False))
    if strange:
        raise UserError(f"{where}: not a Llama 2 architecture: {strange[0][:80]} {str(raw[strange[0]])[:80]} (Llama 2 has none)")
    missing = [name for name in ("dim", "n_layers", "n_heads") if raw.get(name) is None]
    if missing:
        raise UserError(f"{where}: has no {', '.join(missing)}; expected the params.json of a Llama model")
    found = {ours: raw[theirs] for theirs, ours in FIELDS.items() if raw.get(theirs) is not None}
    return {"context": CONTEXT, "norm_eps": NORM_EPS, "rope_theta": ROPE_THETA} | found


def demand_meta(source: Source, shards: int) -> None:
    """Raises UserError that names what of a model the format cannot say, or what so many shards cannot share."""
    config = source.config
    if source.kind != "model" or config.head_size * config.heads != config.dim:
        what = "a reward model" if source.kind != "model" else f"heads of {config.head_size} in a width of {config.dim} (it has D / H)"
        raise UserError(f"{source.path}: Meta's format cannot hold {what}; convert to hf")
    sizes = {"heads": config.heads, "key-value heads": config.kv, "inner width": config.ffn_width, "vocabulary": config.vocab_size}
    uneven = [f"{name} {size:,}" for name, size in sizes.items() if size % shards]
    if uneven:
        raise UserError(f"--shards {shards} does not divide the model's {', '.join(uneven)}; give a number that does, such as 1")


def write_meta(source: Source, folder: Path, shards: int) -> None:
    """Writes params.json, tokenizer.model and so many shards, weight by weight. Raises OSError that names the file.

    A tied head is written out, since Meta's code has no other.
    """
    config = source.config
    names = [*source.names, *(["output.weight"] if config.tied else [])]
    shapes = source.shapes | ({"output.weight": source.shapes["tok_embeddings.weight"]} if config.tied else {})
    axes = {name: axis_of(name) for name in names}
    parts = {name: tuple(size // shards if axes[name] == at else size for at, size in enumerate(shapes[name])) for name in names}

    def shared_out(name: str) -> list[Tensor]:
        value = source.read(name if name in source.names else "tok_embeddings.weight")
        heads, axis = heads_of(name, config), axes[name]
        value = to_neighbours(value, heads) if heads else value
        return [value] * shards if axis is None else list(value.chunk(shards, axis))

    write_json(folder / PARAMS, params_of(config))
    source.tokenizer.save(folder)
    write_pths([folder / f"consolidated.{number:02d}.pth" for number in range(shards)], parts, source.dtype, map(shared_out, names))


def params_of(config: ModelConfig) -> dict[str, Any]:
    """`params.json` of a model, with a rule for the inner width that gives just that width."""
    base = ModelConfig(dim=config.dim, heads=1, multiple_of=1, head_dim=2).ffn_width
    multiples = [config.multiple_of, 256, *(1 << power for power in range(12, -1, -1))]
    fitting = [multiple for multiple in multiples if -(-base // multiple) * multiple == config.ffn_width]
    if config.ffn is None:
        rule = {"multiple_of": config.multiple_of, "ffn_dim_multiplier": config.ffn_multiplier}
    elif fitting:
        rule = {"multiple_of": fitting[0], "ffn_dim_multiplier": None}
    else:  # half a unit more, so that the code's cut to whole numbers leaves the width
        rule = {"multiple_of": 1, "ffn_dim_multiplier": (config.ffn_width + 0.5) / base}
    optional = {
        "n_kv_heads": config.kv if config.kv != config.heads else None, "ffn_dim_multiplier": rule["ffn_dim_multiplier"],
        "rope_theta": config.rope_theta if config.rope_theta != ROPE_THETA else None,
    }  # fmt: skip
    return {
        "dim": config.dim, "multiple_of": rule["multiple_of"], "n_heads": config.heads, "n_layers": config.layers,
        "norm_eps": config.norm_eps, "vocab_size": config.vocab_size,
        **{name: value for name, value in optional.items() if value is not None},
    }  # fmt: skip
