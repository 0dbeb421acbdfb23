"""What would make a task fit: other settings, each tried by the same arithmetic, and none named that was not."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .forecast import Forecast, Question, forecast
from .machine import Machine


@dataclass(frozen=True)
class Advice:
    """Settings as they are given on the command line, and what is needed with them."""

    change: str
    total_bytes: int
    fits: bool


def advise(question: Question, machine: Machine) -> list[Advice]:
    """Single changes after which the task fits, the mildest of each kind; where there is but one, also changes that do so together.

    At last the memory of a device that takes it as it is. Empty where it fits already.
    """
    now = forecast(question, machine)
    if now.fits:
        return []
    found = [one for kind in _kinds(question, now) if (one := _mildest(question, kind, machine)) is not None]
    if len(found) < 2:
        found = [*_together(question, now, machine), *found]
    return [*found, Advice(f"--memory={-(-now.total_bytes // 10**9)}GB, a device that has as much free", now.total_bytes, True)]


def _kinds(question: Question, now: Forecast) -> list[list[dict[str, Any]]]:
    """Kinds of changes, each from the mildest to the hardest."""
    halves = [{"context": size} for size in _halves(question.longest, 128)]
    given = question.settings
    less: list[list[dict[str, Any]]] = [] if given.get("checkpointing") else [[{"checkpointing": True}]]

    def of(name: str, default: int, least: int = 1) -> list[dict[str, Any]]:
        return [{name.replace(".", "__"): size} for size in _halves(int(given.get(name, default)), least)]

    match question.task:
        case "chat":
            return [*([[{"bits": 8}, {"bits": 4}]] if question.target.bits == 32 and "bits" not in given else []), halves]
        case "reward":
            return [of("micro_pairs", 32), *less, halves]
        case "ppo":
            roles = any(name.startswith("roles.") for name in given)
            bits = [[{"roles__bits": bits} for bits in (16, 4) if bits < int(given.get("roles.bits") or 32)]] if roles else []
            sizes = [of("ppo.micro_batch", 64), of("ppo.sampler.together", 128)]
            return [*sizes, *less, *bits, of("ppo.max_new_tokens", 256, 32), halves]
    rows = [of("micro_rows", 8), [{"row_tokens": size} for size in _halves(int(given.get("row_tokens") or question.longest), 128)]]
    adapters: list[list[dict[str, Any]]] = []
    if question.task == "sft" and not any(name.startswith("lora") for name in given):
        adapters = [[{"lora__r": 16}], [{"lora__r": 16, "base__bits": 4}]]
    elif question.task != "qlora" and given.get("base.bits") != 4:
        adapters = [[{"base__bits": 4}]]
    return [rows[0], *less, *adapters, rows[1]]


def _halves(size: int, least: int) -> list[int]:
    found = []
    while (size := size // 2) >= least:
        found.append(size)
    return found


def _mildest(question: Question, kind: list[dict[str, Any]], machine: Machine) -> Advice | None:
    for change in kind:
        if (then := forecast(question.also(**change), machine)).fits:
            return Advice(spelled(change), then.total_bytes, True)
    return None


def _together(question: Question, now: Forecast, machine: Machine) -> Iterator[Advice]:
    """The hardest change of one kind after the other, as long as each lowers the need, until it fits."""
    changes: dict[str, Any] = {}
    least = now.total_bytes
    for kind in _kinds(question, now):
        for change in kind:
            then = forecast(question.also(**{**changes, **change}), machine)
            if then.total_bytes < least:
                changes, least = {**changes, **change}, then.total_bytes
                if then.fits:
                    if len(changes) > 1:
                        yield Advice(spelled(changes), least, True)
                    return


def spelled(change: dict[str, Any]) -> str:
    """`--micro-rows=2 --checkpointing=true`"""
    words = []
    for name, value in change.items():
        text = str(value).lower() if isinstance(value, bool) else value
        words.append(f"--{name.replace('__', '.').replace('_', '-')}={text}")
    return " ".join(words)
