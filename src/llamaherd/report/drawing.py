"""What all charts share: their look, their colours by name, and the way from a canvas to inline SVG."""

import io
import re
import textwrap
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

COLOURS = ("#0072b2", "#c84f00", "#00805f", "#b0508f", "#008a9e", "#806300", "#101010", "#7b3fa0")
"""Distinguishable for the colour-blind (after Okabe and Ito); markers and dashes say the same again for print in grey."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES = ("-", "--", "-.", ":")
GREY, GRID, INK, SOFT = "#767676", "#e3e3e3", "#1b1b1b", "#5a5a5a"
VARIABLES = {
    **{colour: f"var(--c{index})" for index, colour in enumerate(COLOURS)},
    GREY: "var(--paper)", GRID: "var(--grid)", INK: "var(--ink)", SOFT: "var(--soft)", "#ffffff": "var(--page)",
}  # fmt: skip
"""The page gives every colour its value, one for light and one for dark; `paper` is the grey of the paper's numbers."""
WIDTH_INCHES, HEIGHT_INCHES = 4.6, 3.1
"""Small enough that its text is still read when a phone shrinks it to its width."""
MOST_LETTERS = 38
"""What fits side by side under the axis."""
LEGEND_LETTERS = 62
"""What fits side by side in a legend, its lines counted as six letters."""

STYLE: Any = {
    "svg.fonttype": "none", "svg.hashsalt": "llamaherd", "font.family": "sans-serif", "font.size": 10, "axes.grid": True,
    "grid.color": GRID, "axes.axisbelow": True, "axes.spines.top": False, "axes.spines.right": False,
    "axes.edgecolor": SOFT, "xtick.color": SOFT, "ytick.color": SOFT, "axes.labelcolor": INK, "text.color": INK,
    "xtick.labelcolor": INK, "ytick.labelcolor": INK, "figure.facecolor": "none", "axes.facecolor": "none",
    "legend.frameon": False, "legend.fontsize": 9, "lines.linewidth": 1.6,
}  # fmt: skip


def canvas(x_label: str, y_label: str, height: float = HEIGHT_INCHES, width: float = WIDTH_INCHES) -> tuple[Canvas, Axes]:
    """An empty chart with named axes."""
    drawn = Canvas(figsize=(width, height), layout="constrained")
    axes = drawn.add_subplot()
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    return drawn, axes


def svg(drawn: Canvas, title: str) -> Markup:
    """Inline SVG: no prolog, no metadata, ids that are unique on the page, colours by their names."""
    buffer = io.StringIO()
    drawn.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{slug(title)}-", text)
    text = re.sub(r'<svg ([^>]*?) width="[\d.]+pt" height="[\d.]+pt"', r"<svg \1", text, count=1)
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font: \1px sans-serif", text)
    text = re.sub('"[^"]*"', lambda found: re.sub(r"(\d\.\d\d)\d+", r"\1", found[0]), text)  # places, not what is written
    return Markup(re.sub("#[0-9a-f]{6}", lambda found: VARIABLES.get(found[0], found[0]), text))


def slug(title: str) -> str:
    """`Best of N` -> `best-of-n`."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def _crowded(labels: Sequence[str]) -> bool:
    """Whether neighbouring labels would touch when written side by side."""
    widths = [max(map(len, label.split("\n"))) for label in labels]
    return any((left + right) / 2 * len(labels) > MOST_LETTERS for left, right in pairwise(widths))


def name_places(axes: Axes, labels: Sequence[str]) -> None:
    """Labels under their places: side by side while they fit, else wrapped, and slanted where wrapping does not help."""
    width = max(1, MOST_LETTERS // max(1, len(labels)))
    # Only spaces break a line in textwrap ("v5-rejection" has too short a head): let hyphens do so too.
    wrapped = [textwrap.fill(label.replace("-", "- "), width, break_long_words=False).replace("- ", "-") for label in labels]
    slanted = _crowded(labels) and _crowded(wrapped)
    written = wrapped if _crowded(labels) and not slanted else labels
    axes.set_xticks(range(len(labels)), written, rotation=30 if slanted else 0, ha="right" if slanted else "center")
    axes.set_xlim(-0.6, len(labels) - 0.4)
    axes.grid(visible=False, axis="x")


def legend(drawn: Canvas, handles: Sequence[Any]) -> None:
    """Below the axes, where it hides nothing, in as many columns as its names leave room for."""
    if len(handles) > 1:
        longest = max(len(handle.get_label()) for handle in handles)
        columns = max(1, min(3, len(handles), LEGEND_LETTERS // (longest + 6)))
        drawn.legend(handles=handles, loc="outside lower center", ncols=2 if len(handles) == 4 else columns, columnspacing=1.2)


def unit_range(axes: Axes) -> None:
    """Where everything lies within 0 to 1 the axis shows all of it, so that small differences look small."""
    if axes.dataLim.y0 >= 0 and axes.dataLim.y1 <= 1:
        axes.set_ylim(-0.02, 1.02)
