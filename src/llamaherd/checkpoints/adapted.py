"""Bases and their adapters: which belongs to which, bases that are frozen for training in few bits, and both as one model.

An adapter's manifest names its base by path and hash; one that peft wrote names it by path at best.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..core.artifacts import Artifact, find_artifact, hash_of
from ..core.errors import UserError
from ..core.files import read_json
from ..model.config import BLOCK_LINEARS
from ..model.in_turn import InTurn
from ..model.lora import Change, LoraLinear, linear_layers
from ..model.nf4 import Nf4Linear
from ..model.transformer import Block, RMSNorm, Transformer, on_meta
from ..tokenizer.sentencepiece import Tokenizer
from .huggingface import load_model
from .peft import Adapter, demand_fit, is_adapter, read_adapter
from .source import PAYLOAD, Source, intact, open_source, weight_shapes

M = TypeVar("M", bound=nn.Module)

FINGERPRINTS = 64
"""Places in each file of weights that are read to tell one base from another."""


def base_artifact(path: Path) -> Artifact:
    """A base as the parent of adapters: an artifact has its own hash, other models one over their shape and pieces of their weights.

    Reading all of 13 GB only to name it would take longer than to begin.
    """
    return (find_artifact(path) if path.is_dir() else None) or Artifact(path, {"kind": "model", "hash": _fingerprint(path)})


def _fingerprint(path: Path) -> str:
    files = [path] if path.is_file() else sorted(file for file in path.iterdir() if file.suffix in PAYLOAD)
    pieces: list[Any] = [read_json(file) for file in (path / "config.json", path / "params.json") if file.is_file()]
    for file in files:
        size = file.stat().st_size
        with file.open("rb") as content:
            for start in range(0, size, max(4096, size // FINGERPRINTS)):
                content.seek(start)
                pieces.append(content.read(4096).hex())
        pieces += [file.name, size]
    return hash_of(pieces)


def bits_of(folder: Path) -> int:
    """In how many bits an adapter's base was while it was trained; 32 where nobody noted it."""
    found = find_artifact(folder)
    config = found.manifest.get("config", {}) if found else {}
    return int((config.get("base") or config.get("roles") or {}).get("bits") or 32)


def demand_base(folder: Path, base: Path) -> None:
    """Raises UserError when the manifest of an adapter names another base than `base`."""
    found = find_artifact(folder)
    noted = found.manifest.get("parents", {}).get("base") if found else None
    if noted and noted["hash"] != base_artifact(base).hash:
        raise UserError(f"{folder}: was trained on {noted['path']} ({noted['hash'][:12]}), and {base} is another model; give that base")


def base_of(folder: Path) -> Path:
    """Where an adapter's base lies: where it was, or beside the adapter under the same name.

    Raises UserError when it is not there, is another model by now, or is itself an adapter.
    """
    said = read_adapter(folder).base
    for place in [Path(said), folder.absolute().parent / Path(said).name] if said else []:
        if place.exists():
            if is_adapter(place):
                raise UserError(f"{folder}: its base {place} is itself an adapter; merge that one first")
            demand_base(folder, place)
            return place
    raise UserError(f"{folder}: an adapter whose base ({said or 'not named'}) is not here; give the base as MODEL, and --adapter {folder}")


def dequantised(source: Source) -> Source:
    """A model whose blocks' linear layers have the values that four bits leave of them, as an adapter saw them in training."""
    in_blocks = {f"{path}.weight" for path in linear_layers(on_meta(source.config), BLOCK_LINEARS)}

    def read(name: str) -> Tensor:
        value = source.read(name)
        return Nf4Linear(value).dequantised(torch.float32) if name in in_blocks else value

    return replace(source, read=read)


def headed(source: Source, adapter: Adapter) -> Source:
    """A language model with the scalar head of a reward model's adapter in its vocabulary head's place; others as they are."""
    head = adapter.head
    if head is None:
        return source
    names = tuple(weight_shapes(source.config, "reward-model"))
    return replace(source, kind="reward-model", names=names, read=lambda name: head if name == "score.weight" else source.read(name))


def folded(source: Source, adapter: Adapter) -> Source:
    """A model with an adapter's changes added to its weights as they are read, in float32. Raises UserError when it does not fit."""
    demand_fit(adapter, on_meta(source.config))
    source = headed(source, adapter)
    changes = {f"{path}.weight": Change(*pair, adapter.config.scale, 0.0) for path, pair in adapter.changes.items()}

    def read(name: str) -> Tensor:
        value = source.read(name)
        adapter.demand_same(name, value)
        return value.float() + changes[name].matrix() if name in changes else value

    return replace(source, read=read)


def demand_tokenizer(source: Source, folder: Path) -> None:
    """Raises UserError when an adapter's folder holds another tokenizer than its base."""
    if list(folder.glob("*.model")) and Tokenizer.load(folder).model != source.tokenizer.model:
        raise UserError(f"{folder}: has another tokenizer than {source.path}; it was made for another base")


def as_trained(bits: int) -> Callable[[Source], Source]:
    """What a base was to an adapter that was trained on it in so many bits."""
    return dequantised if bits == 4 else lambda source: source


def open_adapter(folder: Path) -> Source:
    """An adapter and the base that it names as one model. Raises UserError when the base is missing or another one."""
    base = open_source(base_of(folder))
    demand_tokenizer(base, folder)
    return folded(as_trained(bits_of(folder))(base), read_adapter(folder))


def load_frozen(path: Path, bits: int, device: torch.device) -> tuple[Transformer, Tokenizer]:
    """A model to train an adapter on, and its tokenizer. In 4 bits each weight is quantised as it is read, so that the model never
    stands in memory in more; what is not in blocks stays in 16 bits on a GPU and 32 on a CPU, which multiplies those faster.

    Raises UserError as load_model does.
    """
    if is_adapter(path):
        raise UserError(f"{path}: is an adapter; merge it into its base first, and train the new adapter on what comes of it")
    if bits != 4:
        return load_model(path, device, torch.float32 if bits == 32 else torch.bfloat16)
    source = open_source(path)
    if source.kind != "model":
        raise UserError(f"{path}: architecture LlamaForSequenceClassification, expected LlamaForCausalLM (a language model)")
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    model = on_meta(source.config)
    in_blocks = linear_layers(model, BLOCK_LINEARS)
    with intact(path):
        for name in source.names:
            layer = name.removesuffix(".weight")
            holder, _, last = layer.rpartition(".")
            value = source.read(name).to(device)
            if layer in in_blocks:
                setattr(model.get_submodule(holder), last, Nf4Linear(value))
            else:
                model.get_submodule(layer).weight = nn.Parameter(value.to(dtype), requires_grad=False)
    if source.config.tied:
        model.output.weight = model.tok_embeddings.weight
    return model.eval(), source.tokenizer


@torch.inference_mode()
def log_probs(source: Source, ids: Sequence[int], adapter: Adapter | None = None) -> Tensor:
    """[T, V] in float32: what a model expects after each of T tokens, with an adapter beside its weights if one is given; computed
    block by block, with one block's weights in memory. Of a reward model [T, 1]: the score after each of them.
    """
    config, states = source.config, InTurn(source.config, [torch.tensor(list(ids))])
    with torch.device("meta"):
        outputs, head = (1, "score") if source.kind == "reward-model" else (config.vocab_size, "output")
        ends = nn.ModuleDict({"norm": RMSNorm(config.dim, config.norm_eps), head: nn.Linear(config.dim, outputs, bias=False)})
    states.embed(source.read("tok_embeddings.weight"))
    for layer in range(config.layers):
        with torch.device("meta"):
            block = Block(config)
        states.block(layer, _filled(block, source, f"layers.{layer}.", adapter))
    ends = _filled(ends, source, "", adapter)
    [logits] = states.logits(ends["norm"], ends[head])  # type: ignore[arg-type]
    return logits if head == "score" else logits.log_softmax(-1)


def drift(trained: Source, adapter: Adapter, merged: Source, ids: Sequence[int]) -> dict[str, float]:
    """How far a merged model is from its base with the adapter beside it: absolute differences of log-probabilities over all tokens and the
    vocabulary, and how often the likeliest token is the same; of a reward model those of the scores, in logits, after each token."""
    before, after = log_probs(trained, ids, adapter), log_probs(merged, ids)
    difference = (before - after).abs()
    found = {"drift_mean_nats": difference.mean().item(), "drift_max_nats": difference.max().item(), "measured_tokens": len(ids)}
    if merged.kind == "reward-model":
        return found
    return {**found, "same_likeliest": (before.argmax(1) == after.argmax(1)).float().mean().item()}


def _filled(module: M, source: Source, prefix: str, adapter: Adapter | None) -> M:
    """A part of a model without memory, whose names begin with `prefix`, given its weights in float32 and what an adapter changes."""
    tied = {"output.weight": "tok_embeddings.weight"} if source.config.tied else {}
    names = [name for name, _ in module.named_parameters()]
    module.load_state_dict({name: source.read(tied.get(name, prefix + name)).float() for name in names}, assign=True)
    if adapter is None:
        return module
    for path, pair in adapter.changes.items():
        name = path.removeprefix(prefix)
        if path.startswith(prefix) and f"{name}.weight" in names:
            changed = LoraLinear(module.get_submodule(name))
            changed.changes["it"], changed.active = Change(*pair, adapter.config.scale, 0.0), "it"
            module.set_submodule(name, changed)
    return module
