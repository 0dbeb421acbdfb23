"""What a section of the report is made of, and the parts that several sections share."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..measures.intervals import Figure
from .figures import Chart, Table, as_text, point_chart
from .folder import RunFolder, as_figure


@dataclass(frozen=True)
class Sample:
    """One prompt and what each version answered."""

    prompt: str
    answers: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Section:
    """A heading, sentences under it, then charts, tables and samples; with none of these the page says "not measured"."""

    title: str
    intro: Sequence[str] = ()
    charts: Sequence[Chart] = ()
    tables: Sequence[Table] = ()
    samples: Sequence[Sample] = field(default=())

    @property
    def measured(self) -> bool:
        return bool(self.charts or self.tables or self.samples)


def entries(value: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    """(dotted name, text) of every number, text and figure in nested metrics; lists are joined."""
    for key, inner in value.items():
        name = f"{prefix}{key}"
        if isinstance(inner, Mapping) and not as_figure(inner):
            yield from entries(inner, f"{name}.")
        else:
            yield name, as_text(inner)


def version_chart(title: str, run: RunFolder, series: Mapping[str, Sequence[str]], y_label: str, **options: Any) -> Chart | None:
    """One line per path below an evaluation's `tasks`, over all versions; None when no version measured any."""
    found = {name: [run.figure(version, *path) for version in run.versions] for name, path in series.items()}
    found = {name: figures for name, figures in found.items() if any(figures)}
    return point_chart(title, run.versions, found, "version", y_label, connect=True, **options) if found else None


def split_chart(title: str, run: RunFolder, compared: Sequence[str], path: Sequence[str], x_label: str, y_label: str) -> Chart | None:
    """Figures of a mapping such as `by_category`, one colour per compared version, one place per key."""
    tables = {version: run.task(version, *path) or {} for version in compared}
    labels = list(dict.fromkeys(key for table in tables.values() for key in table))
    found: dict[str, list[Figure | None]] = {name: [as_figure(table.get(key)) for key in labels] for name, table in tables.items() if table}
    return point_chart(title, labels, found, x_label, y_label) if any(any(figures) for figures in found.values()) else None


def present(charts: Iterable[Chart | None]) -> list[Chart]:
    """The charts that could be drawn."""
    return [chart for chart in charts if chart is not None]
