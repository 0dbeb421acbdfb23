"""The summary as a few plain lines for the terminal."""

from collections.abc import Mapping
from typing import Any

from .figures import figure_text
from .folder import as_figure
from .summary import MEASURES


def version_table(summary: Mapping[str, Any]) -> str:
    """One line per version with its three figures and their 95% intervals."""
    rows = [["version", *(name.replace("_", " ") for name in MEASURES)]]
    rows += [[row["name"], *(figure_text(as_figure(row[name])) for name in MEASURES)] for row in summary["versions"]]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)


def effect_lines(summary: Mapping[str, Any]) -> str:
    """One line per effect, verdict first."""
    width = max((len(row["shown"]) for row in summary["effects"]), default=0)
    return "\n".join(f"{row['shown']:<{width}}  {row['name']}: {figure_text(as_figure(row['here']))}" for row in summary["effects"])
