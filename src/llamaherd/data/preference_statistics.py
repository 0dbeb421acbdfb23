"""What a collection of preferences holds, as in the paper: by source (table 6), by batch (table 26), grades (figure 25), safety bins.

Per comparison: turns are the user messages of its dialogue; an example is the dialogue with one answer, the mean of both; a
prompt is one user message, the mean over the dialogue's; a response is one of the two answers, their mean. Text is counted
as people wrote it, without the tags of the chat format. So an example of one turn without a system text is prompt plus response.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..measures.intervals import Figure, mean_of_sums, rate
from .records import GRADES, Preference

COLUMNS = ("turns", "per_example", "per_prompt", "per_response")
NO_GRADE, UNLABELLED = "none", "unlabelled"
BINS: Mapping[tuple[bool, bool], str] = {
    (True, False): "chosen safe, other unsafe", (True, True): "both safe", (False, False): "both unsafe", (False, True): "chosen unsafe, other safe",
}  # fmt: skip
"""The three bins of section 4, and what it excludes."""
UNNAMED = "not stated"


def words(text: str) -> int:
    """What is counted where no tokenizer is at hand."""
    return len(text.split())


class Group:
    """Sums over the comparisons of one source, of one batch, or of all."""

    def __init__(self) -> None:
        self.comparisons = 0
        self._sums = dict.fromkeys(COLUMNS, (0.0, 0.0))
        self._grades: Counter[str] = Counter()
        self._safety: Counter[str] = Counter()

    def add(self, preference: Preference, values: Mapping[str, float]) -> None:
        self.comparisons += 1
        for column, value in values.items():
            total, squares = self._sums[column]
            self._sums[column] = (total + value, squares + value * value)
        self._grades[preference.grade or NO_GRADE] += 1
        chosen, rejected = preference.chosen_safe, preference.rejected_safe
        self._safety[UNLABELLED if chosen is None or rejected is None else BINS[chosen, rejected]] += 1

    def to_dict(self) -> dict[str, Any]:
        """Averages and shares as figures; grades are shares of all comparisons, safety bins of those with both labels."""
        labelled = self.comparisons - self._safety[UNLABELLED]
        averages: dict[str, Figure] = {
            column: mean_of_sums(total, squares, self.comparisons) for column, (total, squares) in self._sums.items()
        }
        return {
            "comparisons": self.comparisons, **averages,
            "grades": {grade: rate(self._grades[grade], self.comparisons) for grade in (*GRADES, NO_GRADE)},
            "safety": {**{name: rate(self._safety[name], labelled) for name in BINS.values()}, UNLABELLED: self._safety[UNLABELLED]},
        }  # fmt: skip


def preference_statistics(preferences: Iterable[Preference], count: Callable[[str], int]) -> dict[str, Any]:
    """{"all", "sources": {name: ...}, "batches": {name: ...}}, each as `Group.to_dict`, in the order in which they come; `count` gives
    the tokens of a text."""
    whole = Group()
    sources: dict[str, Group] = {}
    batches: dict[str, Group] = {}
    for preference in preferences:
        values = _lengths(preference, count)
        whole.add(preference, values)
        sources.setdefault(preference.source or UNNAMED, Group()).add(preference, values)
        batches.setdefault(preference.batch or UNNAMED, Group()).add(preference, values)
    by_name = {"sources": sources, "batches": batches}
    return {"all": whole.to_dict(), **{kind: {name: group.to_dict() for name, group in groups.items()} for kind, groups in by_name.items()}}


def _lengths(preference: Preference, count: Callable[[str], int]) -> dict[str, float]:
    messages = preference.prompt.messages
    lengths = [count(message.content) for message in messages]
    asked = sum(length for message, length in zip(messages, lengths, strict=True) if message.role == "user")
    turns = preference.prompt.turns
    response = (count(preference.chosen) + count(preference.rejected)) / 2
    return dict(zip(COLUMNS, (turns, sum(lengths) + response, asked / turns, response), strict=True))


def as_text(found: Mapping[str, Any], unit: str) -> str:
    """Tables for people: by source; by batch, if any is stated; grades and safety labels, if there are any. `unit`: what was counted."""
    heads = ("comparisons", "turns", *(f"{unit}/{what}" for what in ("example", "prompt", "response")))
    whole = ("all", found["all"])
    tables = [_table("source", heads, [*found["sources"].items(), whole], _averages)]
    batched = list(found["batches"]) != [UNNAMED]
    groups = [*(found["batches"].items() if batched else []), whole]
    if batched:
        tables.append(_table("batch", heads, groups, _averages))
    if found["all"]["grades"][NO_GRADE]["value"] != 1:
        tables.append(_table("grade", (*GRADES, NO_GRADE), groups, lambda group: [_percent(one) for one in group["grades"].values()]))
    if found["all"]["safety"][UNLABELLED] < found["all"]["comparisons"]:
        tables.append(
            _table(
                "safety labels", (*BINS.values(), UNLABELLED), groups,
                lambda group: [f"{one:,}" if isinstance(one, int) else _percent(one) for one in group["safety"].values()],
            )
        )  # fmt: skip
    return "\n\n".join(tables)


def _averages(group: Mapping[str, Any]) -> list[str]:
    return [f"{group['comparisons']:,}", *(f"{group[column]['value']:.1f}" for column in COLUMNS)]


def _percent(one: Figure) -> str:
    return "-" if one["value"] is None else f"{one['value']:.1%}"


def _table(name: str, heads: Iterable[str], groups: Iterable[tuple[str, Any]], cells: Callable[[Mapping[str, Any]], list[str]]) -> str:
    rows = [[name, *heads], *([title, *cells(group)] for title, group in groups)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = (
        "  ".join(cell.rjust(width) if index else cell.ljust(width) for index, (cell, width) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)
