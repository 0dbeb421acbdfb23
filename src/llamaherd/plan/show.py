"""A forecast for people and for programs."""

import json
from collections.abc import Sequence

from .advice import Advice
from .forecast import Forecast, Question
from .machine import Machine

QUANTISED = " (llamaherd quantize makes such a model)"


def as_json(question: Question, machine: Machine, found: Forecast, advice: Sequence[Advice]) -> str:
    """One object; bytes and seconds are plain numbers, what is unknown is null."""
    value = {
        "task": question.task, "model": question.target.name, "parameters": question.target.shape.parameters,
        "device": machine.device, "moment": found.moment.name, "parts": dict(found.moment.parts),
        "total_bytes": found.total_bytes, "available_bytes": found.available_bytes, "fits": found.fits,
        "advice": [{"change": one.change, "total_bytes": one.total_bytes, "fits": one.fits} for one in advice],
        "disk_bytes": found.disk_bytes, "steps": found.steps, "seconds": found.seconds,
        "seconds_per_step": found.seconds_per_step, "assumed": found.assumed,
    }  # fmt: skip
    return json.dumps(value, indent=2)


def as_text(question: Question, machine: Machine, found: Forecast, advice: Sequence[Advice]) -> str:
    """A small table, whether it fits, and what would make it fit."""
    lines = [
        f"{question.task} of {question.target.name} ({question.target.shape.parameters:,} parameters) on {machine.device}: {found.assumed}",
        f"memory at its fullest ({found.moment.name}):",
    ]
    parts = sorted(((name, size) for name, size in found.moment.parts.items() if size), key=lambda part: -part[1])
    width = max(len(name) for name, _ in parts)
    lines += [f"  {name:{width}}  {size_of(size):>9}" for name, size in parts]
    verdict = "fits" if found.fits else "does not fit"
    lines.append(f"{verdict}: needs {size_of(found.total_bytes)} of {size_of(found.available_bytes)}")
    lines += [f"  {one.change}: {size_of(one.total_bytes)}{QUANTISED if '--bits' in one.change else ''}" for one in advice]
    if found.disk_bytes:
        lines.append(f"disk: {size_of(found.disk_bytes)}")
    if found.seconds is not None:
        each = "" if found.seconds_per_step is None else f" ({duration(found.seconds_per_step)} a step)"
        lines.append(f"time: about {duration(found.seconds)}{each}")
    elif found.seconds_per_step is not None:
        lines.append(f"time: about {duration(found.seconds_per_step)} a step")
    return "\n".join(lines)


def size_of(count: int) -> str:
    """`1.5 GB`, in powers of ten."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.0f} MB"


def duration(seconds: float) -> str:
    """`3.2 s`, `5 min`, `7.5 h`, `12 days`"""
    for size, unit in ((2 * 86400, "days"), (2 * 3600, "h"), (120, "min")):
        if seconds >= size:
            per = {"days": 86400, "h": 3600, "min": 60}[unit]
            return f"{seconds / per:,.1f} {unit}"
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
