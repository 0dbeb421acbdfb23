"""Preferences from files of our own schema or of a form of `preference_forms.py`; what a row is, its fields say.

Every row passes the rules of `records.py`, whatever its form. A row that holds no comparison to learn from - a tie, an
empty answer, a template tag in a text - is refused or left out and counted.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..chat.dialogue import DialogueError
from ..core.errors import UserError
from ..core.files import read_rows, row_name
from .candidates import Candidate
from .hub import name_of
from .importers import BadRows
from .preference_forms import FORMS, Form
from .records import MALFORMED, BadPreference, Domain, Preference, parse_preference

OWN = "llamaherd"
PREFERENCES_FILE = "preferences.jsonl"
"""In an artifact of kind preferences."""
EXPECTED = (
    "a comparison: messages with chosen and rejected, or a form of others (chosen and rejected, question with answer_0 and answer_1, "
    "history with human_ref_A and human_ref_B ...; docs/preferences.md has them all)"
)


@dataclass
class Counts:
    """Rows read, by form, comparisons found, and what was left out, by reason. A row may hold several comparisons."""

    rows: Counter[str] = field(default_factory=Counter)
    comparisons: int = 0
    left_out: Counter[str] = field(default_factory=Counter)

    @property
    def reasons(self) -> str:
        """`181 tie, 3 empty answer`; the most frequent first."""
        return ", ".join(f"{count:,} {reason}" for reason, count in self.left_out.most_common())


def form_of(row: Mapping[str, Any]) -> str | None:
    """The name of a row's form; None for a row that is no comparison."""
    if _is_own(row):
        return OWN
    form = _foreign(row)
    return form.name if form else None


def _is_own(row: Mapping[str, Any]) -> bool:
    both = [row.get("chosen"), row.get("rejected")]
    return "messages" in row and bool({"chosen", "rejected"} & row.keys()) and not any(isinstance(value, list) for value in both)


def _foreign(row: Mapping[str, Any]) -> Form | None:
    # Parquet has no absent fields: a null among the two answers reads as no such field.
    fields = row.keys() | ({"chosen", "rejected"} if {"chosen", "rejected"} & row.keys() else set())
    return next((form for form in FORMS if fields.issuperset(form.fields) and form.when(row)), None)


def comparisons_of(row: Mapping[str, Any], where: str, domain: Domain) -> Iterator[Preference | BadPreference]:
    """What a row holds, each a sound comparison or why it is none; one that states no domain is of `domain`.

    Raises UserError for a row of another kind, with what it is.
    """
    own = _is_own(row)
    form = None if own else _foreign(row)
    if form is None and not own:
        raise UserError(f"{where}: is {_kind(row)}; expected {EXPECTED}")
    try:
        for one in list(form.read(row, where)) if form else [row]:
            try:
                yield parse_preference(_own(one, where, domain), where)
            except BadPreference as error:
                yield error
    except BadPreference as error:
        yield error
    except DialogueError as error:
        yield BadPreference(MALFORMED, str(error))


def _own(one: Candidate | Mapping[str, Any], where: str, domain: Domain) -> dict[str, Any]:
    """A row of our own schema with its domain. Raises BadPreference when neither answer is preferred."""
    if not isinstance(one, Candidate):
        return {**one, "domain": domain if one.get("domain") is None else one["domain"]}
    if one.preferred is None:
        raise BadPreference(one.why, f"{where}: {one.why}; neither answer is preferred")
    chosen, rejected = one.preferred, 1 - one.preferred
    return {
        "messages": [{"role": message.role, "content": message.content} for message in one.prompt],
        "chosen": one.answers[chosen], "rejected": one.answers[rejected], "grade": one.grade, "domain": one.domain or domain,
        "chosen_model": one.models[chosen], "rejected_model": one.models[rejected],
        "source": one.source, "annotator": one.annotator, "batch": one.batch,
    }  # fmt: skip


def _kind(row: Mapping[str, Any]) -> str:
    fields = ", ".join(map(str, row))[:80] or "no field"
    messages = row.get("messages")
    if isinstance(messages, list) and messages and isinstance(messages[-1], Mapping):
        return f"a {'prompt' if messages[-1].get('role') == 'user' else 'dialogue'} ({fields})"
    return f"a {'dialogue' if 'conversations' in row or 'output' in row else 'document' if 'text' in row else 'row'} ({fields})"


def read_comparisons(
    path: Path, domain: Domain, counts: Counts, bad_rows: BadRows | None = None, source: str | None = None, batch: str | None = None
) -> Iterator[Preference]:
    """The comparisons of a file, counted as they come; `source` and `batch` replace what its rows state.

    A row of another form that states no source is of its file's name. `bad_rows`: None refuses bad rows of our own
    schema and leaves out those of other forms. Raises UserError with file and row.
    """
    for found, _, _ in comparisons_and_rows(path, domain, counts, bad_rows):
        yield replace(found, source=found.source if source is None else source, batch=found.batch if batch is None else batch)


def comparisons_and_rows(
    path: Path, domain: Domain, counts: Counts, bad_rows: BadRows | None = None
) -> Iterator[tuple[Preference, Mapping[str, Any], str]]:
    """The same, each with the row that it is from, for fields beside the schema, and the row's place in words."""
    name, origin = row_name(path), name_of(path)
    stem = origin.removeprefix("hub:").split("@")[0] if origin else path.name.split(".")[0]
    for number, row in read_rows(path):
        form, where = form_of(row), f"{name} {number}"
        strict = bad_rows == "refuse" or (bad_rows is None and form == OWN)
        for found in comparisons_of(row, where, domain):
            if isinstance(found, Preference):
                counts.comparisons += 1
                yield found if form == OWN or found.source else replace(found, source=stem), row, where
            elif strict:
                raise found
            else:
                counts.left_out[found.reason] += 1
        counts.rows[form or ""] += 1
