"""What the doctor says: one finding for each thing it looked at, wrong or not, or not measured."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from ..measures.intervals import Figure

State = Literal["wrong", "healthy", "not measured"]


@dataclass(frozen=True)
class Finding:
    """One look at one artifact."""

    check: str
    """The name by which docs/doctor.md lists it."""
    artifact: str
    state: State
    problem: str
    """What is wrong, in plain words, if it is."""
    said: str
    """The numbers, in a sentence; for what was not measured, why not."""
    wanted: str = ""
    """The threshold."""
    remedy: str = ""
    """What to do, if it is wrong."""
    numbers: Mapping[str, Any] = field(default_factory=dict)

    def to_row(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Check:
    """What is looked at: under which name, what it is called when it is wrong, and what to do then."""

    name: str
    problem: str
    remedy: str

    def found(self, artifact: str, wrong: bool, said: str, wanted: str, **numbers: Any) -> Finding:
        """A finding with its numbers."""
        return Finding(self.name, artifact, "wrong" if wrong else "healthy", self.problem, said, wanted, self.remedy, numbers)

    def absent(self, artifact: str, why: str) -> Finding:
        """Not measured, and so never taken for healthy."""
        return Finding(self.name, artifact, "not measured", self.problem, why)


def share(one: Figure) -> str:
    """`0.62 (0.55 to 0.69) of 271`."""
    if one["value"] is None:
        return "none of 0"
    return f"{one['value']:.2f} ({one['low']:.2f} to {one['high']:.2f}) of {one['n']:,}"


def gap(one: Figure) -> str:
    """A difference with its sign and interval."""
    return "not known" if one["value"] is None else f"{one['value']:+.2f} ({one['low']:+.2f} to {one['high']:+.2f})"


def low(one: Figure) -> float:
    """The interval's lower end; minus infinity without any observation."""
    return -float("inf") if one["low"] is None else one["low"]


def high(one: Figure) -> float:
    """The interval's upper end; infinity without any observation."""
    return float("inf") if one["high"] is None else one["high"]
