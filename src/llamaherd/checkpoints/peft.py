"""Adapters as PEFT folders: `adapter_config.json` and `adapter_model.safetensors`, so that `peft` loads ours and we load its.

What an adapter says beyond plain LoRA on linear layers is refused by its name: it would give other answers here than there.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..core.artifacts import check_files
from ..core.config import build
from ..core.errors import UserError
from ..core.files import read_json, write_json
from ..model.config import LoraConfig
from ..model.lora import Changes, LoraLinear, add_adapter, changes_of, check_fit, linear_layers
from ..model.transformer import Scorer, Trunk
from ..train.state import save_tensors
from .names import to_hugging_face

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
HEAD = f"{PREFIX}score.weight"
"""The scalar head of a reward model that was trained as an adapter (PEFT's task type SEQ_CLS), saved whole beside it."""
NAMES = {
    "wq": "q_proj", "wk": "k_proj", "wv": "v_proj", "wo": "o_proj", "w1": "gate_proj", "w2": "down_proj", "w3": "up_proj", "output": "lm_head",
}  # fmt: skip
"""Our layers and PEFT's `target_modules`."""
UNDERSTOOD = {
    "r", "lora_alpha", "lora_dropout", "use_rslora", "target_modules", "base_model_name_or_path", "peft_type", "layers_to_transform",
}  # fmt: skip
NEUTRAL = {
    "task_type": ("CAUSAL_LM", "SEQ_CLS"), "bias": ("none",), "init_lora_weights": (True, "gaussian", "orthogonal", "eva"),
    "megatron_core": ("megatron.core",), "qalora_group_size": (16,), "fan_in_fan_out": (False,),
}  # fmt: skip
"""What other settings may say without changing the outcome; nothing, false, null and empty are harmless for all of them."""
HEADS = {"score", "classifier"}
"""What peft lists among `modules_to_save` of a classifier, whatever its head is called; the head itself is read, or missed, by its tensor."""
COPIES = {
    f"{PREFIX}lm_head.base_layer.weight": "output.weight",
    f"{PREFIX}lm_head.weight": "output.weight",
    f"{PREFIX}model.embed_tokens.weight": "tok_embeddings.weight",
}
"""What peft may save of the base beside its adapter."""
NOTES = {"auto_mapping", "peft_version", "revision", "inference_mode", "runtime_config", "eva_config", "layers_pattern", "exclude_modules"}
"""Settings that say where an adapter comes from, or how it came to the layers that its tensors name anyway."""


@dataclass(frozen=True)
class Adapter:
    """An adapter as it lies on disk."""

    folder: Path
    config: LoraConfig
    changes: Changes
    whole: bool
    """Whether every layer of the names in `config` is to have a change, as opposed to those of some blocks."""
    base: str
    """What it says its base is: a path, a name, or nothing."""
    copies: Mapping[str, Tensor]
    """Weights of the base that peft saved along (it does where the vocabulary head has a change), by our names."""
    head: Tensor | None = None
    """[1, D]: the scalar head, where base and adapter make a reward model."""

    def demand_same(self, name: str, weight: Tensor) -> None:
        """Raises UserError when it comes with another weight than the base's: of a vocabulary that was made larger, or trained."""
        copy = self.copies.get(name)
        if copy is not None and (copy.shape != weight.shape or not torch.equal(copy, weight.detach().cpu().to(copy.dtype))):
            raise UserError(
                f"{self.folder}: comes with {name} of its own, which is not the base's; that is not supported, merge it with peft"
            )


def is_adapter(folder: Path) -> bool:
    return (folder / CONFIG).is_file()


def _raw_config(folder: Path) -> dict[str, Any]:
    if not is_adapter(folder):
        raise UserError(f"{folder}: holds no {CONFIG}; expected an adapter folder, such as `llamaherd sft --lora.r=16` or peft writes")
    raw = read_json(folder / CONFIG)
    if not isinstance(raw, dict):
        raise UserError(f"{folder / CONFIG}: holds a {type(raw).__name__}; expected the settings of a PEFT adapter")
    return raw


def _lora_config(raw: Mapping[str, Any], where: str) -> LoraConfig:
    """The rank and scale that `adapter_config.json` states. Raises UserError that names what goes beyond plain LoRA."""
    if raw.get("peft_type") != "LORA":
        raise UserError(f"{where}: peft_type is {raw.get('peft_type')!r}; expected LORA, the only kind of adapter that is read")
    for name, value in raw.items():
        if name == "modules_to_save" and isinstance(value, list) and HEADS.issuperset(map(str, value)):
            continue
        if value and name not in UNDERSTOOD | NOTES and value not in NEUTRAL.get(name, ()):
            raise UserError(
                f"{where}: {name} is {str(value)[:60]!r}, which is not supported; make the adapter without it, or merge it with peft"
            )
    targets = raw.get("target_modules")
    if not isinstance(targets, (str, list)) or not targets:
        raise UserError(f"{where}: target_modules is {str(targets)[:60]!r}; expected names such as q_proj and v_proj")
    ours = {theirs: mine for mine, theirs in NAMES.items()}
    # A pattern, or a path such as layers.0.self_attn.q_proj: which layers those are is said by the tensors.
    last = list(dict.fromkeys(str(target).rpartition(".")[2] for target in targets)) if isinstance(targets, list) else list(ours)
    strange = next((name for name in last if name not in ours), None)
    if strange:
        raise UserError(f"{where}: target_modules names {strange}, which is not a linear layer of Llama's ({', '.join(ours)})")
    values = {
        "r": raw.get("r"),
        "alpha": raw.get("lora_alpha"),
        "dropout": raw.get("lora_dropout", 0.0),
        "rslora": raw.get("use_rslora", False),
    }
    return build(LoraConfig, {**values, "layers": [ours[name] for name in last]}, where)


def _to_ours(key: str, where: str) -> tuple[str, str]:
    """`base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight` -> (`layers.0.attention.wq`, `A`)."""
    match = re.fullmatch(re.escape(PREFIX) + r"(lm_head|model\.layers\.(\d+)\.(?:self_attn|mlp)\.(\w+))\.lora_([AB])\.weight", key)
    ours = {theirs: mine for mine, theirs in NAMES.items()}
    if match is None or (match[3] and match[3] not in ours):
        kinds = {"lora_magnitude": "DoRA", "embedding": "an embedding's adapter", "embed_tokens": "an embedding", "bias": "a bias"}
        what = next((text for sign, text in kinds.items() if sign in key), "a tensor that is no A or B of a linear layer of Llama's")
        raise UserError(f"{where}: holds {key}, {what}, which is not supported")
    if match[1] == "lm_head":
        return "output", match[4]
    name = ours[match[3]]
    path = f"layers.{int(match[2])}.{'attention' if name in ('wq', 'wk', 'wv', 'wo') else 'feed_forward'}.{name}"
    if to_hugging_face(f"{path}.weight") != f"{match[1]}.weight":
        raise UserError(f"{where}: holds {key}, which is no layer of Llama's")
    return path, match[4]


def _tensors(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        pickled = path.with_suffix(".bin")
        hint = f"; {pickled.name} is a pickle and is not read, save the adapter as safetensors" if pickled.is_file() else ""
        raise UserError(f"{path}: no such file; expected the weights of the adapter{hint}")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except SafetensorError as error:
        raise UserError(f"{path}: damaged or not safetensors: {error}") from None


def read_adapter(folder: Path) -> Adapter:
    """An adapter that llamaherd or peft wrote, in float32. Raises UserError in one line for anything but whole, plain LoRA."""
    raw = _raw_config(folder)
    check_files(folder, lambda name: name in (CONFIG, TENSORS))
    config = _lora_config(raw, str(folder / CONFIG))
    path, parts = folder / TENSORS, dict[tuple[str, str], Tensor]()
    tensors = _tensors(path)
    copies = {ours: tensors.pop(key) for key, ours in COPIES.items() if key in tensors}
    head = _head(tensors.pop(HEAD, None), raw.get("task_type") == "SEQ_CLS", folder)
    for key, value in tensors.items():
        if not value.is_floating_point() or not torch.isfinite(value).all():
            raise UserError(f"{path}: {key} holds values that are not finite numbers; the adapter is damaged")
        parts[_to_ours(key, str(path))] = value.float()
    changes = {}
    for layer in dict.fromkeys(layer for layer, _ in parts):
        pair = [parts.get((layer, side)) for side in "AB"]
        if pair[0] is None or pair[1] is None:
            raise UserError(f"{path}: {layer} has {'no A' if pair[0] is None else 'no B'}; get the whole adapter again")
        a, b = pair[0], pair[1]
        if a.ndim != 2 or b.ndim != 2 or a.shape[0] != config.r or b.shape[1] != config.r:
            raise UserError(f"{path}: {layer} has A {list(a.shape)} and B {list(b.shape)}; {CONFIG} says rank {config.r}")
        changes[layer] = (a, b)
    if not changes:
        raise UserError(f"{path}: holds no tensor; get the whole adapter again")
    targets = raw["target_modules"]
    some = isinstance(targets, str) or any("." in target for target in targets)
    some = some or any(raw.get(name) is not None for name in ("layers_to_transform", "exclude_modules"))
    return Adapter(folder, config, changes, not some, str(raw.get("base_model_name_or_path") or ""), copies, head)


def _head(head: Tensor | None, scores: bool, folder: Path) -> Tensor | None:
    """The scalar head in float32. Raises UserError when it is missing, of several labels, damaged, or there without a use."""
    if (head is not None) != scores:
        what = "names task_type SEQ_CLS, and its tensors hold no score.weight" if scores else "holds score.weight and no task_type SEQ_CLS"
        raise UserError(f"{folder}: {what}; a reward model's adapter has both, get it again")
    if head is None:
        return None
    if head.ndim != 2 or head.shape[0] != 1 or not head.is_floating_point() or not torch.isfinite(head).all():
        raise UserError(f"{folder / TENSORS}: score.weight is {list(head.shape)}; expected finite numbers for one label, [1, width]")
    return head.float()


def demand_fit(adapter: Adapter, model: Trunk) -> None:
    """Raises UserError in one line unless an adapter was made for a model of this shape, which may be on the meta device."""
    check_fit(model, adapter.changes, str(adapter.folder))
    if adapter.head is not None and adapter.head.shape[1] != model.config.dim:
        raise UserError(
            f"{adapter.folder}: its head is for a width of {adapter.head.shape[1]}, the base's is {model.config.dim}; give its base"
        )
    missing = linear_layers(model, adapter.config.names).keys() - adapter.changes.keys() if adapter.whole else set()
    if missing:
        raise UserError(
            f"{adapter.folder}: changes no {min(missing)}, which this model of {model.config.layers} layers has; "
            "it was made for another base, or is not whole"
        )


def lay_over(model: Trunk, name: str, adapter: Adapter) -> None:
    """Lays an adapter over a model under a name and puts it to work. Raises UserError when they do not belong together."""
    demand_fit(adapter, model)
    if adapter.head is not None:
        raise UserError(f"{adapter.folder}: is a reward model's adapter, which scores and does not answer; give it to score, ppo or reject")
    for copied in adapter.copies:
        layer = model.get_submodule(copied.removesuffix(".weight"))
        adapter.demand_same(copied, (layer.base if isinstance(layer, LoraLinear) else layer).weight)  # type: ignore[arg-type, union-attr]
    add_adapter(model, name, adapter.changes, adapter.config.scale, adapter.config.dropout)


def write_adapter(model: Trunk, name: str, config: LoraConfig, base: str, folder: Path) -> None:
    """Writes one of a model's adapters as a PEFT folder, a scorer's with its head. Raises OSError when the disk does not take it."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {}
    for layer, change in changes_of(model, name).items():
        stem = PREFIX + to_hugging_face(f"{layer}.weight").removesuffix(".weight")
        tensors |= {f"{stem}.lora_A.weight": change.a, f"{stem}.lora_B.weight": change.b}
    scores = isinstance(model, Scorer)
    if scores:
        tensors[HEAD] = model.get_parameter("score.weight")
    save_tensors(tensors, folder / TENSORS)
    alpha = int(config.alpha) if config.alpha.is_integer() else config.alpha
    write_json(folder / CONFIG, {
        "base_model_name_or_path": base, "bias": "none", "fan_in_fan_out": False, "inference_mode": True, "init_lora_weights": True,
        "lora_alpha": alpha, "lora_dropout": config.dropout, "modules_to_save": ["score"] if scores else None, "peft_type": "LORA", "r": config.r,
        "target_modules": sorted(NAMES[name] for name in config.names), "task_type": "SEQ_CLS" if scores else "CAUSAL_LM", "use_dora": False,
        "use_rslora": config.rslora,
    })  # fmt: skip


def verify_adapter(model: Trunk, name: str, folder: Path) -> None:
    """Reads a written adapter back. Raises OSError when it is not what is in memory."""
    try:
        read = read_adapter(folder)
    except UserError as error:
        raise OSError(f"{error}; the disk may be failing") from None
    written = read.changes
    if isinstance(model, Scorer) and (read.head is None or not torch.equal(read.head, model.score.weight.detach().cpu().float())):
        raise OSError(f"{folder / TENSORS}: score.weight was not written as it is in memory; the disk may be failing")
    for layer, change in changes_of(model, name).items():
        if not all(torch.equal(there, mine.detach().cpu()) for there, mine in zip(written[layer], (change.a, change.b), strict=True)):
            raise OSError(f"{folder / TENSORS}: {layer} was not written as it is in memory; the disk may be failing")


@dataclass(frozen=True)
class AdapterFiles:
    """An adapter's way to disk and back, for the training loop: neither holds anything of the base."""

    model: Trunk
    name: str
    config: LoraConfig
    base: str

    def save(self, folder: Path) -> None:
        write_adapter(self.model, self.name, self.config, self.base, folder)
        verify_adapter(self.model, self.name, folder)

    def load(self, folder: Path) -> None:
        read = read_adapter(folder)
        with torch.no_grad():
            for layer, change in changes_of(self.model, self.name).items():
                change.a.copy_(read.changes[layer][0])
                change.b.copy_(read.changes[layer][1])
            if read.head is not None:
                self.model.get_parameter("score.weight").copy_(read.head)
