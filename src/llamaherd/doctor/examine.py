"""All looks at a patient, one after the other, and what they say in words or as JSON. Reads artifacts, nothing else."""

import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from . import answers, damage, inputs, lineage, ppo, rewards, training, tuning
from .config import Thresholds
from .finding import Finding
from .patient import Patient, open_patient

LOOKS = (rewards.look, ppo.look, answers.look, tuning.look, inputs.look, lineage.look, training.look, damage.look)
"""The last one also tells what the others could not read."""
WIDTH = 110


def examine(spec: str | Path, limits: Thresholds | None = None) -> tuple[Patient, list[Finding]]:
    """Everything that can be said of a run, a folder of artifacts or one artifact: what is wrong first, then what was not measured.

    Raises UserError when there is nothing to examine.
    """
    patient = open_patient(spec)
    found = [finding for look in LOOKS for finding in look(patient, limits or Thresholds())]
    order = ("wrong", "not measured", "healthy")
    return patient, sorted(found, key=lambda one: order.index(one.state))


def as_json(patient: Patient, found: Sequence[Finding], next_command: str | None) -> Mapping[str, Any]:
    """`path`, `healthy`, `counts` by state, `unfinished` builds, the `next` command or null, and every finding."""
    counts = {state: sum(one.state == state for one in found) for state in ("wrong", "not measured", "healthy")}
    return {
        "path": str(patient.path), "healthy": bool(counts["healthy"]) and not counts["wrong"], "counts": counts, "unfinished": patient.unfinished, "next": next_command,
        "findings": [one.to_row() for one in found],
    }  # fmt: skip


def as_text(patient: Patient, found: Sequence[Finding], everything: bool = False) -> str:
    """For people: what is wrong, where, with which numbers, what was wanted and what to do; then what nobody measured."""
    wrong, absent, healthy = ([one for one in found if one.state == state] for state in ("wrong", "not measured", "healthy"))
    count = f"{len(healthy):,} checks passed, {len(absent):,} not measured"
    lines = [f"{patient.path}: {verdict(found)} ({len(patient.artifacts)} artifacts; {count})"]
    for number, some in enumerate(_together(wrong, lambda one: one.check), 1):
        first = some[0]
        lines += ["", *_wrapped(f"{number}. {first.problem} [{first.check}]", "")]
        lines += [line for one in some for line in _wrapped(f"{one.artifact}: {one.said}", "   ")]
        lines += [*_wrapped(f"wanted: {first.wanted}", "   "), *_wrapped(f"do: {first.remedy}", "   ")]
    if absent:
        lines += ["", "not measured, and so not known to be healthy:"]
    for some in _together(absent, lambda one: f"{one.check} {re.sub('[0-9,]+', '', one.said)}"):
        more = f" and {len(some) - 1} more" if len(some) > 1 else ""
        lines += _wrapped(f"{some[0].check}: {some[0].artifact}{more}: {some[0].said}", "   ")
    if everything:
        lines += ["", "healthy:", *(line for one in healthy for line in _wrapped(f"{one.check}: {one.artifact}: {one.said}", "   "))]
    return "\n".join(lines)


def verdict(found: Sequence[Finding]) -> str:
    """`healthy`, how many things are wrong, or that nothing was there to check."""
    kinds = len({one.check for one in found if one.state == "wrong"})
    if kinds:
        return f"{kinds} thing{'s are' if kinds > 1 else ' is'} wrong"
    return "healthy" if any(one.state == "healthy" for one in found) else "nothing could be checked, so nothing is known"


def _together(found: Sequence[Finding], key: Callable[[Finding], str]) -> list[list[Finding]]:
    groups: dict[str, list[Finding]] = {}
    for one in found:
        groups.setdefault(key(one), []).append(one)
    return list(groups.values())


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=indent, subsequent_indent=indent + "   ", break_long_words=False, break_on_hyphens=False
    )
