"""What the ranking loss asks for beyond "higher": m(grade) of the paper's table 27, in logits."""

from typing import TYPE_CHECKING, Literal

MARGINS: dict[str, dict[str, float]] = {
    "none": {"significantly": 0.0, "better": 0.0, "slightly": 0.0, "negligibly": 0.0},
    "small": {"significantly": 1.0, "better": 2 / 3, "slightly": 1 / 3, "negligibly": 0.0},
    "large": {"significantly": 3.0, "better": 2.0, "slightly": 1.0, "negligibly": 0.0},
}
"""A row more is one more choice of `--margin`, in its help and in `llamaherd claims --only margins`."""

if TYPE_CHECKING:
    Margin = str
else:
    Margin = Literal[tuple(MARGINS)]


def margin_of(kind: str, grade: str | None) -> float:
    """The margin of a grade; a pair without a grade (foreign data) has none. KeyError for an unknown kind or grade."""
    return 0.0 if grade is None else MARGINS[kind][grade]
