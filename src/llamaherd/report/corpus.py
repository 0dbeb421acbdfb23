"""The section on the corpus: what was dropped and why, sources, languages, pronouns, toxicity, with the paper's shares in grey."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..core.files import read_json
from . import paper
from .figures import Chart, Table, number
from .folder import RunFolder, dig
from .pictures import bar_chart
from .sections import Fact, Section

MOST_LANGUAGES = 4


def corpus_section(run: RunFolder) -> Section:
    """What was read, what each filter dropped, what is left."""
    artifact = run.artifacts.get("corpus")
    if artifact is None:
        return Section("Corpus")
    file = artifact.path / "statistics.json"
    measured: Mapping[str, Any] = {**artifact.metrics, **(read_json(file) if file.exists() else {})}
    if run.real:
        return _real(run, measured)
    charts = [chart for chart in (_dropped(measured), _sources(measured), _languages(measured), *_pronouns(measured)) if chart]
    tables = [table for table in (_drops_by_source(measured),) if table]
    intro = [
        "Documents come from named sources with addresses. Hosts with personal data are on a block list, and copies go; toxic text stays, as in the paper, "
        "so that models can learn to recognise it.",
        "Languages below half of certainty are unknown, as in the paper; the miniature's invented languages are mostly among them, and now and then taken for a real one.",
    ]  # fmt: skip
    return Section("Corpus", intro, charts, tables, facts=_facts(measured))


def _real(run: RunFolder, measured: Mapping[str, Any]) -> Section:
    """Of public files: the same, with tokens, and what became of people's comparisons."""
    charts = [chart for chart in (_dropped(measured), _tokens(run), _languages(measured), *_pronouns(measured)) if chart]
    by_filter = _drops_by_source(measured)
    tables = [table for table in (_texts(run, measured), by_filter and replace(by_filter, folded=False), *_comparisons(run)) if table]
    held_out = sum((run.metric("texts", "held_out") or {}).values())
    dialogues = run.metric("texts", "counts", "demonstrations.jsonl")
    intro = [
        "Nothing of this was written for the run. Of every source a part is held out before cleaning, for bits per byte"
        + (f": {number(held_out)} documents" if held_out else "") + ". A document whose language is not certain by half counts as unknown, as in the paper.",
        *([f"{number(dialogues)} demonstrations are tuned on; left out: {_reasons(run.metric('texts', 'left_out'))}."] if dialogues else []),
    ]  # fmt: skip
    return Section("Corpus", intro, charts, tables, facts=_facts(measured))


def _reasons(counts: Mapping[str, int] | None) -> str:
    """`3 too long, 2 empty`; `none`."""
    return ", ".join(f"{number(count)} {reason}" for reason, count in (counts or {}).items() if count) or "none"


def _tokens(run: RunFolder) -> Chart | None:
    """What the shards hold of each source, before and after its weight."""
    sources = run.metric("shards", "sources") or {}
    series = {
        "of the corpus": [row["tokens"] for row in sources.values()],
        "read in one pass": [row["mixed_tokens"] for row in sources.values()],
    }
    return bar_chart("Tokens by source", list(sources), series, "tokens", "source") if sources else None


def _texts(run: RunFolder, measured: Mapping[str, Any]) -> Table | None:
    """A row for each source: documents taken, held out and kept, tokens, and its share of what is read."""
    kept: Mapping[str, Any] = measured.get("sources") or {}
    taken, held_out = (run.metric("texts", key) or {} for key in ("sources", "held_out"))
    mixture = run.metric("shards", "sources") or {}
    names = list(dict.fromkeys((*taken, *kept)))
    rows = [
        (name, number(taken.get(name)), number(held_out.get(name, 0) if taken else None), number(dig(kept, name, "documents") or 0),
         number(dig(mixture, name, "tokens")), share if (share := _share(dig(mixture, name, "mixed_share"))) else "not measured")
        for name in names
    ]  # fmt: skip
    columns = ("source", "documents", "held out", "kept", "tokens", "of what is read")
    return Table("Documents and tokens by source", columns, rows) if rows else None


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _comparisons(run: RunFolder) -> list[Table]:
    """How many of each source train and test what, how clear they are, and why others were left out."""
    sources: Mapping[str, Mapping[str, int]] = run.metric("comparisons", "sources") or {}
    left_out: Mapping[str, Mapping[str, int]] = run.metric("comparisons", "left_out") or {}
    grades: Mapping[str, Mapping[str, int]] = run.metric("comparisons", "grades") or {}
    names = list(dict.fromkeys((*left_out, *(name for counts in sources.values() for name in counts))))
    if not names:
        return []
    rows = [
        (name, *(number(counts.get(name, 0)) for counts in sources.values()), _reasons(grades.get(name)), _reasons(left_out.get(name)))
        for name in names
    ]
    columns = ("source", *(file.removesuffix(".jsonl") for file in sources), "grades", "left out")
    beyond = run.metric("comparisons", "not_taken")
    more = f"; {number(beyond)} more were not taken, by the recipe's limit" if beyond else ""
    return [Table(f"People's comparisons by source{more}", columns, rows)]


def _facts(measured: Mapping[str, Any]) -> list[Fact]:
    facts = [
        Fact(name, number(measured[key]), note)
        for name, key, note in (("Read", "read", "documents"), ("Kept", "kept", "documents"), ("Characters", "characters", "kept"))
        if measured.get(key) is not None
    ]
    toxic = dig(measured, "toxicity", "share_toxic")
    if toxic is not None:
        note = f"of documents, half of their lines or more, by a list of words; the paper: {paper.TOXIC_DOCUMENTS:.1%}, by a classifier"
        facts.append(Fact("Toxic", f"{toxic:.1%}", note))
    return facts


def _dropped(measured: Mapping[str, Any]) -> Chart | None:
    dropped = measured.get("dropped") or {}
    labels = [name.replace("_", " ") for name in dropped]
    return (
        bar_chart("Documents dropped, by filter", labels, {"dropped": list(dropped.values())}, "documents", "filter") if dropped else None
    )


def _sources(measured: Mapping[str, Any]) -> Chart | None:
    sources = measured.get("sources") or {}
    series = {"documents": [counts.get("documents") for counts in sources.values()]}
    return bar_chart("Documents kept, by source", list(sources), series, "documents", "source") if sources else None


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _languages(measured: Mapping[str, Any]) -> Chart | None:
    found = measured.get("languages") or {}
    if not found:
        return None
    names = list(dict.fromkeys([*list(found)[:MOST_LANGUAGES], *paper.LANGUAGES]))
    series = {"here": [_percent(found.get(name)) for name in names]}
    greys = {"paper": [_percent(paper.LANGUAGES.get(name)) for name in names]}
    return bar_chart("Languages", names, series, "% of documents, each step ten times more", "language", paper=greys, unit="%", log=True)


def _pronouns(measured: Mapping[str, Any]) -> list[Chart]:
    charts = []
    for title, key, note in (
        (
            "Pronouns of persons in English documents",
            "gendered",
            "She, he and unspecified (they) are shares of the documents with any of them.",
        ),
        ("First, second and third person in English documents", "person", ""),
    ):
        found = dig(measured, "english_pronouns", key)
        if found:
            theirs = paper.PRONOUNS[key]
            series, greys = {"here": [_percent(found.get(name)) for name in theirs]}, {"paper": [_percent(theirs[name]) for name in theirs]}
            charts.append(bar_chart(title, list(theirs), series, "% of documents", "pronouns", paper=greys, unit="%", note=note))
    return charts


def _drops_by_source(measured: Mapping[str, Any]) -> Table | None:
    dropped: Mapping[str, Mapping[str, int]] = dig(measured, "filters", "dropped") or {}
    read: Mapping[str, int] = dig(measured, "filters", "read") or {}
    used = [name for name, counts in dropped.items() if counts]
    if not read:
        return None
    kept = Counter(read) - Counter[str]()
    for counts in dropped.values():
        kept.subtract(counts)
    rows = [
        (source, number(count), *(number(dropped[name].get(source, 0)) for name in used), number(kept[source]))
        for source, count in read.items()
    ]
    return Table(
        "Documents by source and filter", ("source", "read", *(name.replace("_", " ") for name in used), "kept"), rows, folded=True
    )
