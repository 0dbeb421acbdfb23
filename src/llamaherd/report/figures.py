"""Charts as inline SVG, each with the table behind it and a text that says what it shows."""

import io
import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator

from ..measures.intervals import Figure

Points = Sequence[tuple[float, float]]

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#8c6d00", "#000000", "#7b3fa0")
"""Distinguishable for the colour-blind (Okabe and Ito); markers and dashes say the same again for print in grey."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES = ("-", "--", "-.", ":")
GREY = "#8a8a8a"
SIZE_INCHES = (5.0, 3.2)
"""Small enough that its text is still read when a phone shrinks it to its width."""
MOST_POINTS = 240
"""Drawn of one curve; longer ones are averaged."""
MOST_LETTERS = 46
"""What fits side by side under the axis."""
TABLE_ROWS = 12

STYLE: Any = {
    "svg.fonttype": "none", "svg.hashsalt": "llamaherd", "font.family": "sans-serif", "font.size": 10, "axes.grid": True,
    "grid.color": "#e4e4e4", "axes.axisbelow": True, "axes.spines.top": False, "axes.spines.right": False,
    "legend.frameon": False, "legend.fontsize": 9, "lines.linewidth": 1.6,
}  # fmt: skip


@dataclass(frozen=True)
class Table:
    """Rows of text; the first cell of a row is its heading."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Chart:
    title: str
    alt: str
    svg: Markup
    table: Table
    note: str = ""


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


def _svg(canvas: Canvas, prefix: str) -> Markup:
    """Inline SVG: no prolog, no metadata, ids that are unique on the page."""
    buffer = io.StringIO()
    canvas.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}-", text)
    text = re.sub(r'<svg ([^>]*?) width="[\d.]+pt" height="[\d.]+pt"', r"<svg \1", text, count=1)
    text = re.sub(r"font-family: [^;\"]*", "font-family: sans-serif", text)
    return Markup(text)


def _canvas(x_label: str, y_label: str) -> tuple[Canvas, Axes]:
    canvas = Canvas(figsize=SIZE_INCHES, layout="constrained")
    axes = canvas.add_subplot()
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    return canvas, axes


def _slug(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def line_chart(title: str, series: Mapping[str, Points], x_label: str, y_label: str, note: str = "") -> Chart:
    """Curves over steps; long ones are averaged, and the note says over how many steps. `series` must hold points."""
    assert series, title
    assert all(series.values()), title
    widths = []
    with rc_context(STYLE):
        canvas, axes = _canvas(x_label, y_label)
        for index, (name, points) in enumerate(series.items()):
            shown, width = averaged(points)
            widths.append(width)
            marker = "o" if len(shown) < 2 else ""
            axes.plot(
                [x for x, _ in shown], [y for _, y in shown], label=name, marker=marker,
                color=COLOURS[index % len(COLOURS)], linestyle=DASHES[index % len(DASHES)],
            )  # fmt: skip
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
        _legend(canvas, axes.get_lines())
        svg = _svg(canvas, _slug(title))
    if max(widths) > 1:
        note = " ".join(filter(None, (note, f"Long curves are drawn as means of up to {max(widths)} neighbouring lines.")))
    ends = [
        f"{name} from {number(points[0][1])} at {round(points[0][0])} to {number(points[-1][1])} at {round(points[-1][0])}"
        for name, points in series.items()
    ]
    rows = [(name, number(round(x)), number(y)) for name, points in series.items() for x, y in averaged(points, TABLE_ROWS)[0]]
    table = Table(f"{title}, means of neighbouring lines", ("curve", x_label, y_label), rows)
    return Chart(title, f"Line chart of {y_label} over {x_label}: {'; '.join(ends)}.", svg, table, note)


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
    return axes.errorbar(places, values, yerr=[below, above], capsize=3, markersize=5, **look)


def _crowded(labels: Sequence[str]) -> bool:
    """Whether neighbouring labels would touch when written side by side."""
    widths = [max(map(len, label.split("\n"))) for label in labels]
    return any((left + right) / 2 * len(labels) > MOST_LETTERS for left, right in pairwise(widths))


def _name_places(axes: Axes, labels: Sequence[str]) -> None:
    """Labels under their places: side by side while they fit, else wrapped, and slanted where wrapping does not help."""
    if _crowded(labels):
        width = max(1, MOST_LETTERS // len(labels))
        # Only spaces break a line in textwrap ("v5-rejection" has too short a head): let hyphens do so too.
        labels = [textwrap.fill(label.replace("-", "- "), width, break_long_words=False).replace("- ", "-") for label in labels]
    slanted = _crowded(labels)
    axes.set_xticks(range(len(labels)), labels, rotation=30 if slanted else 0, ha="right" if slanted else "center")
    axes.set_xlim(-0.6, len(labels) - 0.4)
    axes.grid(visible=False, axis="x")


def _legend(canvas: Canvas, handles: Sequence[Any]) -> None:
    if len(handles) > 1:
        canvas.legend(handles=handles, loc="outside lower center", ncols=2 if len(handles) == 4 else min(len(handles), 3))


def point_chart(
    title: str, labels: Sequence[str], series: Mapping[str, Sequence[Figure | None]], x_label: str, y_label: str, *,
    paper: Mapping[str, Sequence[float | None]] | None = None, connect: bool = False, note: str = "",
) -> Chart:  # fmt: skip
    """Figures with their intervals at labelled places, the paper's own numbers hollow in grey. Missing ones leave a gap.

    Where everything lies within 0 to 1 the axis shows all of it, so that small differences look small.
    """
    paper = paper or {}
    count, handles = len(series) + len(paper), []
    with rc_context(STYLE):
        canvas, axes = _canvas(x_label, y_label)
        for index, (name, figures) in enumerate(series.items()):
            look = {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)], "linestyle": "-" if connect else ""}
            handles.append(_intervals(axes, figures, _offset(index, count), label=name, **look))
        for index, (name, numbers) in enumerate(paper.items()):
            known = [(place + _offset(len(series) + index, count), value) for place, value in enumerate(numbers) if value is not None]
            places, values = zip(*known) if known else ((), ())
            marker = MARKERS[index % len(MARKERS)]
            handles += axes.plot(places, values, label=name, color=GREY, marker=marker, markerfacecolor="white", linestyle="")
        _name_places(axes, labels)
        if axes.dataLim.y0 >= 0 and axes.dataLim.y1 <= 1:
            axes.set_ylim(-0.02, 1.02)
        _legend(canvas, handles)
        svg = _svg(canvas, _slug(title))
    columns = (x_label, *series, *paper)
    rows = [
        (label, *(figure_text(figures[place], with_n=True) for figures in series.values()),
         *("not printed" if numbers[place] is None else number(numbers[place]) for numbers in paper.values()))
        for place, label in enumerate(labels)
    ]  # fmt: skip
    said = "; ".join(f"{row[0]}: " + ", ".join(f"{name} {cell}" for name, cell in zip(columns[1:], row[1:])) for row in rows)
    return Chart(title, f"{y_label} by {x_label}. {said}.", svg, Table(title, columns, rows), note)
