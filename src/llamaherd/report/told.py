"""A version's lineage in words, for the report's tables and the terminal's."""

from collections.abc import Mapping, Sequence
from typing import Any

from .figures import figure_text, number
from .folder import as_figure

Version = Mapping[str, Any]
REGRESSION = "regression"
"""What a version is called that lost against the one before."""


def trained_on(version: Version) -> list[str]:
    """One line for each training that made it, and below it one for each file."""
    found = []
    for one in version["trained"]:
        found.append(f"{one['name']}: {one['stage']} from {one['from'] or 'elsewhere'}")
        found += [_file(file) for file in one["data"]]
    return found


def _file(file: Mapping[str, Any]) -> str:
    """`v2-samples/dialogues.jsonl, 392 rows (v1 380, v2 12)`; with a share other than all, how many it is of how many."""
    name = f"{file['artifact']}/{file['file']}" if file["artifact"] else str(file["file"])
    rows, share = file["rows"], file["share"]
    if rows is None:
        return f"{name}, rows not there any more"
    text = f"{name}, {rows:,} rows" if share == 1 else f"{name}, {round(share * rows):,} of {rows:,} rows"
    pool = ", ".join(f"{version} {count:,}" for version, count in file.get("pool", {}).items())
    return f"{text} ({pool})" if pool else text


def judged_by(version: Version) -> list[str]:
    """One line for each reward model that had a say."""
    return [
        f"{one['name']}: {number(one['pairs'])} pairs of {', '.join(one['batches']) or 'other files'}, accuracy {figure_text(as_figure(one['accuracy']))}"
        for one in version["judged_by"]
    ]


def collected(version: Version) -> list[str]:
    """One line for each new batch, and one for each model and temperature that answered."""
    found = []
    for one in version["collected"]:
        domains = ", ".join(f"{domain} {count:,}" for domain, count in one["domains"].items())
        left_out = ", ".join(f"{count:,} {reason}" for reason, count in one["dropped"].items() if count)
        found.append(f"{one['name']}: {one['comparisons']:,} comparisons ({domains})" + (f"; left out: {left_out}" if left_out else ""))
        for by in one["answered"]:
            at = "" if by["temperature"] is None else f" at temperature {by['temperature']:g}"
            found.append(f"{by['model'] or 'not named'}{at}: {by['answers']:,} answers, {by['won']:,} chosen")
    return found


def won(shares: Mapping[str, Any] | None) -> list[str]:
    """One line for each domain: the share that was won, with its interval."""
    return [f"{domain} {figure_text(as_figure(figure), with_n=True)}" for domain, figure in (shares or {}).items()] or ["not measured"]


def lineage_table(versions: Sequence[Version]) -> str:
    """For the terminal: below each version how it was made and how it did against the one before."""
    found = []
    for one in versions:
        parts = [("trained on", trained_on(one)), ("judged by", judged_by(one)), ("collected", collected(one))]
        parts += [(f"against {two['with']}", _against(two)) for two in one["compared"]]
        mark = f"  ** {REGRESSION}: lost against {'; against '.join(one['regressions'])} **" if one["regressions"] else ""
        found.append(f"{one['name']}{mark}")
        for name, lines in parts:
            found += [f"  {name if not index else '':16} {line}" for index, line in enumerate(lines)]
    return "\n".join(found)


def _against(compared: Mapping[str, Any]) -> list[str]:
    found = []
    for key, name in (("comparisons", "next round"), ("oracle", "oracle"), ("judge", "judge"), ("reward_models", "reward models")):
        if key in compared:
            found.append(f"{name}: won {', '.join(won(compared[key]))}")
    return found or ["not measured"]


def regression_lines(versions: Sequence[Version]) -> list[str]:
    """One line for each version that lost against the one before."""
    return [f"{REGRESSION}: {one['name']} lost against {'; against '.join(one['regressions'])}" for one in versions if one["regressions"]]
