"""What a section of the report is made of, and the parts that several sections share."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from ..measures.intervals import Figure, Verdict
from .figures import Chart, Points, Table, point_chart
from .folder import RunFolder, as_figure

SIGNS: Mapping[Verdict, str] = {"shown": "\u2713", "not shown": "\u2717", "undecided": "?"}


@dataclass(frozen=True)
class Answer:
    """What one version answered, and what the judge says of it in a word or two."""

    version: str
    text: str
    mark: str = ""


@dataclass(frozen=True)
class Sample:
    """One prompt and what each version answered."""

    prompt: str
    answers: Sequence[Answer]


@dataclass(frozen=True)
class Samples:
    """Samples under a heading, and the rule by which they were chosen."""

    title: str
    rule: str
    samples: Sequence[Sample]
    folded: str = ""
    """What has to be clicked before they show; empty: nothing."""


@dataclass(frozen=True)
class Fact:
    """A figure to be read at a glance."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Section:
    """A heading, sentences under it, then facts, charts, tables and samples; with none of these the page says "not measured"."""

    title: str
    intro: Sequence[str] = ()
    charts: Sequence[Chart] = ()
    tables: Sequence[Table] = ()
    samples: Sequence[Samples] = ()
    facts: Sequence[Fact] = ()

    @property
    def measured(self) -> bool:
        return bool(self.charts or self.tables or self.samples or self.facts)


def chip(verdict: Verdict) -> Markup:
    """A verdict as a coloured word with a sign, readable without the colour."""
    return Markup('<span class="chip {}"><span aria-hidden="true">{}</span>{}</span>').format(
        verdict.replace(" ", "-"), SIGNS[verdict], verdict
    )


def sign(verdict: Verdict) -> Markup:
    """A verdict as its sign alone, with the word for who cannot see it."""
    return Markup('<span class="sign {}" aria-hidden="true">{}</span><span class="hidden">{}: </span>').format(
        verdict.replace(" ", "-"), SIGNS[verdict], verdict
    )


def lines(*texts: str) -> Markup:
    """Texts under one another in a cell."""
    return Markup(" ").join(Markup('<span class="line">{}</span>').format(text) for text in texts)


def points_of(rows: Sequence[Mapping[str, Any]], key: str) -> Points:
    """(step, value) of a training's log. A null stands for a number that was not finite: a gap, not a zero."""
    return [(float(row["step"]), float(row[key])) for row in rows if row.get(key) is not None]


def version_chart(
    title: str, run: RunFolder, series: Mapping[str, Sequence[str]], y_label: str, *,
    paper: Mapping[str, float] | None = None, note: str = "",
) -> Chart | None:  # fmt: skip
    """One line per path below an evaluation's `tasks`, over all versions; None when no version measured any.

    `paper` has its numbers of the last version.
    """
    found = {name: [run.figure(version, *path) for version in run.versions] for name, path in series.items()}
    found = {name: figures for name, figures in found.items() if any(figures)}
    greys = {name: [value if version == run.last else None for version in run.versions] for name, value in (paper or {}).items()}
    labels = [run.label(version) for version in run.versions]
    return point_chart(title, labels, found, "version", y_label, paper=greys, connect=True, note=note) if found else None


def split_chart(title: str, run: RunFolder, compared: Sequence[str], path: Sequence[str], x_label: str, y_label: str) -> Chart | None:
    """Figures of a mapping such as `by_category`, one colour per compared version, one place per key."""
    tables = {version: run.task(version, *path) or {} for version in compared}
    labels = list(dict.fromkeys(key for table in tables.values() for key in table))
    found: dict[str, list[Figure | None]] = {name: [as_figure(table.get(key)) for key in labels] for name, table in tables.items() if table}
    return point_chart(title, labels, found, x_label, y_label) if any(any(figures) for figures in found.values()) else None


def present(charts: Iterable[Chart | None]) -> list[Chart]:
    """The charts that could be drawn."""
    return [chart for chart in charts if chart is not None]
