"""A look at data: counts, and what is trained of it; and comparisons of others brought into our schema."""

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from ..core.errors import UserError

if TYPE_CHECKING:
    from ..data.records import Preference


def stats(*files: Path, model: str | None = None, json: Annotated[bool, Parameter(negative=())] = False) -> None:
    """Count documents, sources, languages and pronouns of document files, as JSON; or comparisons, turns and tokens of preferences.

    Parameters
    ----------
    files
        Files of documents or of preferences, folders of corpora or of preferences, or data sets as hub:OWNER/NAME.
    model
        Whose tokenizer counts: a folder, RUN or RUN:VERSION (default: words are counted in preferences, nothing in documents).
    json
        Preferences for programs; documents are always given as JSON.
    """
    from json import dumps

    from ..core.artifacts import resolve
    from ..data.documents import read_documents
    from ..data.statistics import StatisticsConfig, statistics
    from ..tokenizer.sentencepiece import Tokenizer

    if not files:
        raise UserError("no file given; data stats takes files of documents or of preferences, or folders that hold them")
    found = _files(files)
    tokenizer = Tokenizer.load(resolve(model)) if model else None
    count = (lambda text: len(tokenizer.encode(text))) if tokenizer else None
    if _hold_preferences(found):
        _preference_stats(found, model, count, json)
    else:
        print(dumps(statistics(read_documents(found), StatisticsConfig(), 0, count), indent=2, ensure_ascii=False))


def _files(paths: Sequence[Path]) -> list[Path]:
    """The files behind paths: of a folder its preferences if it holds any, else its documents."""
    from ..core.artifacts import resolve
    from ..data.documents import CORPUS_FILE
    from ..data.hub import is_hub
    from ..data.preferences import PREFERENCES_FILE
    from ..stages.common import data_files

    found = []
    for path in paths:
        folder = not is_hub(path) and not path.is_file() and (path.is_dir() or ":" in path.name)
        preferred = folder and (resolve(path) / PREFERENCES_FILE).is_file()
        found += data_files([path], PREFERENCES_FILE if preferred else CORPUS_FILE)
    return found


def _hold_preferences(files: Sequence[Path]) -> bool:
    """Told by the first row of each file. Raises UserError when some hold preferences and others do not."""
    from ..core.files import read_rows
    from ..data.preferences import form_of

    first = {file: next((row for _, row in read_rows(file)), None) for file in files}
    kinds = {file: form_of(row) is not None for file, row in first.items() if row is not None}
    if len(set(kinds.values())) > 1:
        one, other = (next(file for file, kind in kinds.items() if kind == wanted) for wanted in (True, False))
        raise UserError(f"{one} holds preferences and {other} does not; give files of one kind")
    return any(kinds.values())


def _preference_stats(files: Sequence[Path], model: str | None, count: Callable[[str], int] | None, as_json: bool) -> None:
    from json import dumps

    from ..data.preference_statistics import as_text, preference_statistics, words
    from ..data.preferences import Counts, read_comparisons

    counts = Counts()
    # Domains are not counted, so that it does not matter which one the rows that state none are given.
    preferences = (one for file in files for one in read_comparisons(file, "helpfulness", counts))
    found = preference_statistics(preferences, count or words)
    unit = "tokens" if count else "words"
    if as_json:
        print(dumps({"unit": unit, "model": model, **found, "left_out": dict(counts.left_out)}, indent=2, ensure_ascii=False))
        return
    if not counts.comparisons:
        raise UserError(f"no comparison in {', '.join(map(str, files))}" + (f"; left out: {counts.reasons}" if counts.left_out else ""))
    print(f"tokens are those of {model}" if count else "words are counted; --model MODEL counts the tokens of a model")
    print(as_text(found, unit))
    if counts.left_out:
        print(f"\nleft out: {counts.reasons}")


def preferences(
    *files: Path, domain: Literal["helpfulness", "safety"], out: Path, source: str | None = None, batch: str | None = None,
    bad_rows: Literal["refuse", "leave out"] | None = None,
) -> None:  # fmt: skip
    """Convert comparisons of any form in docs/preferences.md to our own schema, and say what was left out.

    Parameters
    ----------
    files
        Files of comparisons, folders that hold preferences.jsonl, or data sets as hub:OWNER/NAME.
    domain
        Of the comparisons that state none.
    out
        File to write, which must not exist yet: .jsonl, .jsonl.gz, .jsonl.zst or .parquet.
    source
        Where they come from (default: what a row says, else the name of its file).
    batch
        Which batch they belong to (default: what a row says).
    bad_rows
        Rows that hold no comparison to learn from: refuse or "leave out" (default: refused in our own schema, left out in others).
    """
    from ..core.artifacts import refuse_existing
    from ..core.files import check_rows_name
    from ..data.preferences import PREFERENCES_FILE, Counts, read_comparisons
    from ..data.records import write_preferences
    from ..stages.common import data_files

    if not files:
        raise UserError("no file given; data preferences takes files of comparisons")
    check_rows_name(out)
    refuse_existing(out)
    told = []

    def converted() -> "Iterator[Preference]":
        for file in data_files(files, PREFERENCES_FILE):
            counts = Counts()
            yield from read_comparisons(file, domain, counts, bad_rows, source, batch)
            told.append((file, counts))
        if not any(counts.comparisons for _, counts in told):
            raise UserError("; ".join(f"{file}: no comparison is left: {counts.reasons or 'it has no row'}" for file, counts in told))

    total = write_preferences(out, converted())
    for file, counts in told:
        forms = ", ".join(f"{rows:,} rows of {form}" for form, rows in counts.rows.items()) or "no row"
        left_out = f", left out {counts.left_out.total():,} ({counts.reasons})" if counts.left_out else ""
        print(f"{file}: {forms}: {counts.comparisons:,} comparisons{left_out}")
    print(f"{out}: {total:,} comparisons")


def show(file: Path, *, model: str, limit: int | None = None) -> None:
    """Print rows of a file as the model reads them, coloured by what is trained.

    Parameters
    ----------
    file
        Dialogues, prompts, preferences (of any form in docs/preferences.md) or documents as JSON lines.
    model
        Whose tokenizer: a folder, RUN or RUN:VERSION.
    limit
        How many rows (default: all).
    """
    from ..core.artifacts import resolve
    from ..data.show import show as show_rows
    from ..stages.common import rows_file
    from ..tokenizer.sentencepiece import Tokenizer

    if limit is not None and limit < 0:
        raise UserError(f"--limit is {limit}; expected a number of rows")
    show_rows(rows_file(file), Tokenizer.load(resolve(model)), sys.stdout, limit)
