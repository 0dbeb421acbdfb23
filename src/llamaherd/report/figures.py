"""Charts of curves and of figures as inline SVG, each with the table behind it and a text that says what it shows."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ..measures.intervals import Figure
from .drawing import COLOURS, DASHES, GREY, MARKERS, SOFT, STYLE, canvas, legend, name_places, svg, unit_range

Points = Sequence[tuple[float, float]]

MOST_POINTS = 80
"""Drawn of one curve; longer ones are averaged."""
TABLE_ROWS = 12


@dataclass(frozen=True)
class Table:
    """Rows of text or markup; the first cell of a row is its heading. A folded one opens when its caption is clicked."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    folded: bool = False
    look: str = ""
    """A class of the page's style."""


@dataclass(frozen=True)
class Chart:
    """A picture, the words for who cannot see it, the numbers behind it. A wide one takes the whole row."""

    title: str
    alt: str
    svg: Markup
    table: Table
    note: str = ""
    wide: bool = False


def number(value: Any) -> str:
    """A number as people read it: `0.123`, `1,234`, `1.2e-05`; other values as text."""
    if value is None:
        return "not measured"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, int) or (value == int(value) and abs(value) >= 1000):
        return f"{int(value):,}"
    size = abs(value)
    return f"{value:.3f}" if 0.001 <= size < 10 or size == 0 else f"{value:,.0f}" if 1000 <= size < 1e9 else f"{value:.3g}"


def figure_text(one: Figure | None, with_n: bool = False) -> str:
    """`0.62 (0.55 to 0.69)`, or `not measured`."""
    if one is None or one["value"] is None:
        return "not measured"
    text = f"{number(one['value'])} ({number(one['low'])} to {number(one['high'])})"
    return f"{text}, n {one['n']:,}" if with_n else text


def short(value: float | Figure | None) -> str:
    """Two decimals, for sentences: `0.62`; `?` for what was not measured."""
    plain = value["value"] if isinstance(value, dict) else value
    return "?" if plain is None else f"{plain:.2f}"


def signed(one: Figure) -> str:
    """A difference in sentences: `+0.38 (+0.35 to +0.40)`, with the signs of print."""
    value, low, high = (f"{one[key] or 0.0:+.2f}".replace("-", "\u2212") for key in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def as_text(value: Any) -> str:
    """Any metric as text: a figure with its interval, a list joined by spaces, else as `number` writes it."""
    if isinstance(value, Mapping) and value.keys() >= {"value", "low", "high", "n"}:
        return figure_text({"value": value["value"], "low": value["low"], "high": value["high"], "n": value["n"]})
    return " ".join(map(number, value)) if isinstance(value, (list, tuple)) else number(value)


def averaged(points: Points, most: int = MOST_POINTS) -> tuple[list[tuple[float, float]], int]:
    """At most `most` points, each the mean of `width` neighbours, and that width."""
    width = max(1, math.ceil(len(points) / most))
    groups = [points[start : start + width] for start in range(0, len(points), width)]
    return [(sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups], width


def line_chart(
    title: str, series: Mapping[str, Points], x_label: str, y_label: str, note: str = "", *,
    levels: Mapping[str, float] | None = None, marked: tuple[str, float] | None = None,
) -> Chart:  # fmt: skip
    """Curves over steps; long ones are averaged, and the note says over how many steps. `series` must hold points.

    `levels` are drawn as lines across, such as a budget; `marked` names one place on the x axis.
    """
    assert series, title
    assert all(series.values()), title
    levels, widths = levels or {}, []
    with rc_context(STYLE):
        drawn, axes = canvas(x_label, y_label)
        for index, (name, points) in enumerate(series.items()):
            shown, width = averaged(points)
            widths.append(width)
            axes.plot(
                [x for x, _ in shown], [y for _, y in shown], label=name, marker="o" if len(shown) < 12 else "", markersize=4,
                color=COLOURS[index % len(COLOURS)], linestyle=DASHES[index % len(DASHES)],
            )  # fmt: skip
        for name, level in levels.items():
            axes.axhline(level, color=SOFT, linestyle=":", label=name)
        if marked:
            axes.axvline(marked[1], color=SOFT, linestyle="--", linewidth=1, label=marked[0])
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
        legend(drawn, axes.get_lines())
        picture = svg(drawn, title)
    if max(widths) > 1:
        note = " ".join(filter(None, (note, f"Long curves are drawn as means of up to {max(widths)} neighbouring lines.")))
    said = [
        f"{name} from {number(points[0][1])} at {round(points[0][0])} to {number(points[-1][1])} at {round(points[-1][0])}"
        for name, points in series.items()
    ]
    said += [f"{name} {number(level)}" for name, level in levels.items()]
    said += [f"{marked[0]} at {round(marked[1])}"] if marked else []
    rows = [(name, number(round(x)), number(y)) for name, points in series.items() for x, y in averaged(points, TABLE_ROWS)[0]]
    table = Table(f"{title}, means of neighbouring lines", ("curve", x_label, y_label), rows)
    return Chart(title, f"Line chart of {y_label} over {x_label}: {'; '.join(said)}.", picture, table, note)


def _offset(index: int, count: int) -> float:
    return (index - (count - 1) / 2) * min(0.16, 0.6 / count)


def _intervals(axes: Axes, figures: Sequence[Figure | None], offset: float, **look: Any) -> Any:
    """Draws one series of figures beside its labels; returns its legend handle."""
    drawn = [
        (place + offset, one["value"], one["value"] - one["low"], one["high"] - one["value"])
        for place, one in enumerate(figures)
        if one and one["value"] is not None and one["low"] is not None and one["high"] is not None
    ]
    places, values, below, above = zip(*drawn) if drawn else ((), (), (), ())
    return axes.errorbar(places, values, yerr=[below, above], capsize=2.5, markersize=5, **look)


def point_chart(
    title: str, labels: Sequence[str], series: Mapping[str, Sequence[Figure | None]], x_label: str, y_label: str, *,
    paper: Mapping[str, Sequence[float | None]] | None = None, connect: bool = False, note: str = "",
) -> Chart:  # fmt: skip
    """Figures with their intervals at labelled places, the paper's own numbers hollow in grey. Missing ones leave a gap.

    Where everything lies within 0 to 1 the axis shows all of it, so that small differences look small.
    """
    paper = paper or {}
    count, handles = len(series) + len(paper), []
    line = "-" if connect else ""
    with rc_context(STYLE):
        drawn, axes = canvas(x_label, y_label)
        for index, (name, figures) in enumerate(series.items()):
            ours = {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)], "linestyle": line}
            handles.append(_intervals(axes, figures, _offset(index, count), label=name, **ours))
        for index, (name, numbers) in enumerate(paper.items()):
            known = [(place + _offset(len(series) + index, count), value) for place, value in enumerate(numbers) if value is not None]
            places, values = zip(*known) if known else ((), ())
            look: dict[str, Any] = {
                "color": GREY,
                "marker": MARKERS[index % len(MARKERS)],
                "markerfacecolor": "white",
                "linestyle": line and ":",
            }
            handles += axes.plot(places, values, label=name, linewidth=1, markersize=5, **look)
        name_places(axes, labels)
        unit_range(axes)
        legend(drawn, handles)
        picture = svg(drawn, title)
    columns = (x_label, *series, *paper)
    rows = [
        (label, *(figure_text(figures[place], with_n=True) for figures in series.values()),
         *("not printed" if numbers[place] is None else number(numbers[place]) for numbers in paper.values()))
        for place, label in enumerate(labels)
    ]  # fmt: skip
    everything: dict[str, Sequence[float | None]] = {name: [one and one["value"] for one in figures] for name, figures in series.items()}
    said = [
        f"{name}: " + ", ".join(f"{label} {short(value)}" for label, value in zip(labels, found) if value is not None)
        for name, found in (everything | dict(paper)).items()
    ]
    return Chart(title, f"{y_label} by {x_label}. {'; '.join(said)}.", picture, Table(title, columns, rows), note)
