"""Charts of other kinds: a plane, bars, a timeline, an attention map; each with its table and its words, as in figures."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Patch

from ..measures.intervals import Figure
from .drawing import COLOURS, GREY, SOFT, STYLE, WIDTH_INCHES, canvas, legend, svg
from .figures import Chart, Table, figure_text, number, short

ROW_INCHES = 0.16
"""Height of one row of a timeline."""
ENDS: tuple[Literal["low", "high"], ...] = ("low", "high")
INSTRUCTION_SHARE = 0.12
"""How wide an instruction is drawn beside its dialogue, at least."""


def plane_chart(
    title: str, points: Mapping[str, tuple[Figure, Figure]], x_label: str, y_label: str, *,
    paper: Mapping[str, tuple[float, float]] | None = None, paper_name: str = "paper", note: str = "",
) -> Chart:  # fmt: skip
    """Figures in two dimensions, joined in their order, both intervals as a cross; the paper's path in grey. All within 0 to 1.

    Both axes show the same tenths, those in which anything stands.
    """
    paper = paper or {}
    places = [*paper.values(), *((x[end] or 0.0, y[end] or 0.0) for x, y in points.values() for end in ENDS)]
    reached = [value for place in places for value in place]
    ends = math.floor(10 * min(reached)) / 10, math.ceil(10 * max(reached)) / 10
    with rc_context(STYLE):
        drawn, axes = canvas(x_label, y_label, height=WIDTH_INCHES * 0.92)
        axes.axhline(0.5, color=SOFT, linewidth=0.8)
        axes.axvline(0.5, color=SOFT, linewidth=0.8)
        handles: list[Any] = axes.plot(
            [x for x, _ in paper.values()], [y for _, y in paper.values()],
            label=paper_name, color=GREY, marker="o", markerfacecolor="white", linestyle=":", linewidth=1, markersize=5,
        ) if paper else []  # fmt: skip
        for name, place in paper.items():
            axes.annotate(name, place, xytext=(4, -9), textcoords="offset points", fontsize=8, color=GREY).set_in_layout(False)
        middle = {name: (x["value"] or 0.0, y["value"] or 0.0) for name, (x, y) in points.items()}
        axes.plot([x for x, _ in middle.values()], [y for _, y in middle.values()], color=COLOURS[0], linewidth=1)
        for name, (x, y) in points.items():
            at = middle[name]
            spread = [[[at[axis] - (one["low"] or 0.0)], [(one["high"] or 0.0) - at[axis]]] for axis, one in enumerate((x, y))]
            axes.errorbar(*at, xerr=spread[0], yerr=spread[1], color=COLOURS[0], marker="o", markersize=5, elinewidth=0.5)
        _name_points(axes, middle, ends)
        axes.set_xlim(ends)
        axes.set_ylim(ends)
        handles += [Patch(color=COLOURS[0], label="here, 95% intervals")]
        legend(drawn, handles)
        picture = svg(drawn, title)
    columns = ("version", f"{x_label}, here", f"{y_label}, here", f"{x_label}, {paper_name}", f"{y_label}, {paper_name}")
    rows = [
        (name, *(figure_text(points[name][axis], with_n=True) if name in points else "not measured" for axis in (0, 1)),
         *(number(paper[name][axis]) if name in paper else "not printed" for axis in (0, 1)))
        for name in dict.fromkeys((*points, *paper))
    ]  # fmt: skip
    said = ", ".join(f"{name} at {short(x)} and {short(y)}" for name, (x, y) in points.items())
    return Chart(title, f"Plane of {x_label} and {y_label}: {said}.", picture, Table(title, columns, rows), note)


def _name_points(axes: Axes, places: Mapping[str, tuple[float, float]], ends: tuple[float, float]) -> None:
    """Names beside the points, those of neighbours above one another, with a line to whose name they are."""
    size = ends[1] - ends[0]
    put: list[tuple[float, float]] = []
    for name, (x, y) in sorted(places.items(), key=lambda item: item[1][1]):
        left = x > ends[1] - 0.25 * size
        at = (x - 0.03 * size if left else x + 0.03 * size, y + 0.02 * size)
        beside = [other[1] for other in put if abs(other[0] - at[0]) < 0.25 * size]
        at = (at[0], max([at[1], *(other + 0.045 * size for other in beside)]))
        put.append(at)
        axes.annotate(
            name, (x, y), xytext=at, ha="right" if left else "left", fontsize=9, weight="bold",
            arrowprops={"arrowstyle": "-", "color": SOFT, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 2},
        ).set_in_layout(False)  # fmt: skip


def bar_chart(
    title: str, labels: Sequence[str], series: Mapping[str, Sequence[float | None]], x_label: str, y_label: str, *,
    paper: Mapping[str, Sequence[float | None]] | None = None, unit: str = "", note: str = "", log: bool = False,
) -> Chart:  # fmt: skip
    """Plain numbers as bars that run from the left, one group per label, the paper's hollow in grey; `y_label` says what the labels are."""
    everything = {**series, **(paper or {})}
    thickness = 0.8 / len(everything)
    with rc_context(STYLE):
        drawn, axes = canvas(x_label, "", height=0.7 + (0.2 * len(everything) + 0.12) * len(labels))
        for index, (name, values) in enumerate(everything.items()):
            known = [(place + index * thickness, value) for place, value in enumerate(values) if value is not None]
            places, sizes = zip(*known) if known else ((), ())
            grey = name not in series
            look: dict[str, Any] = {"facecolor": "none", "edgecolor": GREY} if grey else {"facecolor": COLOURS[index % len(COLOURS)]}
            bars = axes.barh(places, sizes, height=thickness * 0.9, label=name, **look)
            axes.bar_label(bars, [_amount(size) for size in sizes], padding=2, fontsize=8, color=GREY if grey else "#1b1b1b")
        axes.set_yticks([place + (len(everything) - 1) * thickness / 2 for place in range(len(labels))], labels)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        if log:
            axes.set_xscale("log")
        axes.margins(x=0.16)
        if len(everything) > 1:
            drawn.legend(loc="outside lower center", ncols=3)
        picture = svg(drawn, title)
    rows = [
        (label, *("not measured" if (found := values[place]) is None else f"{_amount(found)}{unit}" for values in everything.values()))
        for place, label in enumerate(labels)
    ]
    said = "; ".join(
        f"{name}: " + ", ".join(f"{label} {_amount(value)}" for label, value in zip(labels, values) if value is not None)
        for name, values in everything.items()
    )
    return Chart(title, f"Bars of {x_label}. {said}.", picture, Table(title, (y_label, *everything), rows), note)


def _amount(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"


@dataclass(frozen=True)
class Span:
    """One bar of a timeline, in minutes from its beginning; `group` gives its colour."""

    name: str
    group: str
    start: float
    end: float


def timeline_chart(title: str, spans: Sequence[Span], note: str = "") -> Chart:
    """One row per span, in their order: what ran when, and beside what."""
    groups = list(dict.fromkeys(span.group for span in spans))
    with rc_context(STYLE):
        drawn, axes = canvas("minutes", "", height=1.0 + ROW_INCHES * len(spans), width=WIDTH_INCHES * 1.1)
        longest = max(span.end for span in spans)
        for place, span in enumerate(spans):
            width = max(span.end - span.start, longest / 400)
            axes.barh(place, width, left=span.start, height=0.72, color=COLOURS[groups.index(span.group) % len(COLOURS)])
            late = span.end > 0.8 * longest
            axes.annotate(
                clock_text(span.end - span.start), (span.start if late else span.end, place), xytext=(-3 if late else 3, 0),
                textcoords="offset points", va="center", ha="right" if late else "left", fontsize=7, color=SOFT,
            )  # fmt: skip
        axes.set_yticks(range(len(spans)), [span.name for span in spans], fontsize=7.5)
        axes.set_ylim(len(spans) - 0.4, -0.6)
        axes.set_xlim(0, longest * 1.02)
        axes.grid(visible=False, axis="y")
        handles = [Patch(color=COLOURS[index % len(COLOURS)], label=group) for index, group in enumerate(groups)]
        drawn.legend(handles=handles, loc="outside lower center", ncols=3)
        picture = svg(drawn, title)
    rows = [(span.name, span.group, clock_text(span.start), clock_text(span.end - span.start)) for span in spans]
    ends = f"{len(spans)} steps over {clock_text(longest)}, the first {spans[0].name}, the last {spans[-1].name}"
    longest_steps = sorted(spans, key=lambda span: span.start - span.end)[:3]
    said = ", ".join(f"{span.name} {clock_text(span.end - span.start)}" for span in longest_steps)
    table = Table(title, ("step", "kind", "started at", "took"), rows)
    return Chart(title, f"Timeline of {ends}; the longest are {said}.", picture, table, note, wide=True)


def clock_text(minutes: float) -> str:
    """`3:07` of minutes."""
    seconds = round(minutes * 60)
    return f"{seconds // 60}:{seconds % 60:02d}"


def attention_to_instruction(bins: Sequence[Mapping[str, Any]], rows: Sequence[Sequence[float]]) -> dict[int, float]:
    """By turn, how much an answer looks at the instruction: the mean over the answer's places of the largest weight to any of its."""
    system = sum(one["role"] == "system" for one in bins)
    found: dict[int, list[float]] = {}
    for one, row in zip(bins, rows):
        if one["role"] == "assistant":
            found.setdefault(one["turn"], []).append(max(row[:system], default=0.0))
    return {turn: sum(weights) / len(weights) for turn, weights in found.items()}


def attention_chart(title: str, bins: Sequence[Mapping[str, Any]], rows: Sequence[Sequence[float]], note: str = "") -> Chart:
    """How much each part of a dialogue (down) looks at each earlier one (across): the deeper the colour, the more.

    `bins` say of each place its role and turn; those of the instruction stand first, and are drawn wider than the others.
    """
    system = sum(one["role"] == "system" for one in bins)
    size, turns = len(bins) - system, [one["turn"] for one in bins]
    widths = [max(1, round(INSTRUCTION_SHARE * size / system)) if place < system else 1 for place in range(len(bins))]
    starts = [sum(widths[:place]) for place in range(len(bins))]
    shades = np.zeros((size, sum(widths), 4))
    shades[:, :, :3] = to_rgb(COLOURS[1])
    for place, row in enumerate(rows[system:]):
        # The square root lets the eye see small weights too.
        shades[place, : sum(widths[: len(row)]), 3] = np.repeat(np.sqrt(row), widths[: len(row)])
    firsts = [place for place in range(size) if place == 0 or turns[system + place] != turns[system + place - 1]]
    with rc_context({**STYLE, "axes.grid": False}):
        drawn, axes = canvas("looked at: the instruction, then turn", "looking: turn", height=WIDTH_INCHES * 0.9)
        axes.imshow(shades, interpolation="nearest", aspect="auto")
        axes.axvline(starts[system] - 0.5, color=SOFT, linewidth=0.8)
        few = firsts[:: max(1, len(firsts) // 8)]
        axes.set_xticks([starts[system + place] for place in few], [str(turns[system + place]) for place in few])
        axes.set_yticks(few, [str(turns[system + place]) for place in few])
        picture = svg(drawn, title)
    table_rows = [(str(turn), number(weight)) for turn, weight in attention_to_instruction(bins, rows).items()]
    said = f"turn {table_rows[0][0]} {table_rows[0][1]}, turn {table_rows[-1][0]} {table_rows[-1][1]}" if table_rows else "no answer"
    table = Table(f"{title}: how much each answer looks at the instruction", ("turn", "attention to the instruction"), table_rows)
    return Chart(title, f"Attention map of {size} parts of a dialogue. Answers look at the instruction: {said}.", picture, table, note)
