"""Pretraining documents: where they come from, how they are read, and the tally of what each filter dropped."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..core.errors import UserError
from ..core.files import read_rows

CORPUS_FILE = "documents.jsonl"
"""In an artifact of kind corpus."""


@dataclass(frozen=True, slots=True)
class Document:
    """A text with its named source and address; `about` keeps the row's other fields."""

    text: str
    source: str
    url: str | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

    def with_text(self, text: str) -> "Document":
        return replace(self, text=text)

    def to_row(self) -> dict[str, Any]:
        return {**self.about, "text": self.text, "source": self.source, "url": self.url}


def parse_document(row: Mapping[str, Any], where: str, default_source: str) -> Document:
    """A Document from `{"text", "source", "url", ...}`; text may be empty. Raises UserError that names place and field."""
    text, source, url = row.get("text"), row.get("source"), row.get("url")
    source = default_source if source is None else source
    if not isinstance(text, str):
        fields = ", ".join(row) or "none"
        raise UserError(f'{where}: expected "text", the document as a string, got {text!r:.60}; the fields here are {fields}')
    if not isinstance(source, str) or not source:
        raise UserError(f'{where}: "source" is {source!r:.60}; expected the name of a source, null, or no such field')
    if url is not None and not isinstance(url, str):
        raise UserError(f'{where}: "url" is {url!r:.60}; expected an address as a string, null, or no such field')
    about = {key: value for key, value in row.items() if key not in ("text", "source", "url")}
    return Document(text, source, url, about)


def read_documents(paths: Iterable[Path]) -> Iterator[Document]:
    """The documents of JSON lines or parquet files, in order; one that names no source is of its file's name.

    Raises UserError at the first bad line, with file and line number.
    """
    for path in paths:
        name = path.name.split(".")[0]
        for number, row in read_rows(path):
            yield parse_document(row, f"{path} line {number}", name)


class Tally:
    """How many documents came in, were cleaned, and were dropped, by filter and source.

    `filters` that drop none are listed too.
    """

    def __init__(self, filters: Iterable[str] = ()) -> None:
        self.read: Counter[str] = Counter()
        self.cleaned: Counter[str] = Counter()
        self.dropped: dict[str, Counter[str]] = {name: Counter() for name in filters}

    def drop(self, name: str, document: Document) -> None:
        self.dropped.setdefault(name, Counter())[document.source] += 1

    @property
    def kept(self) -> int:
        return self.read.total() - sum(by_source.total() for by_source in self.dropped.values())

    def counts(self) -> dict[str, int]:
        """Documents dropped by each filter."""
        return {name: by_source.total() for name, by_source in self.dropped.items()}

    def to_dict(self) -> dict[str, Any]:
        """Plain values, each by source in alphabetical order."""

        def plain(counter: Counter[str]) -> dict[str, int]:
            return dict(sorted(counter.items()))

        return {
            "read": plain(self.read),
            "cleaned": plain(self.cleaned),
            "dropped": {name: plain(by_source) for name, by_source in self.dropped.items()},
        }

    def demand_some(self, paths: Sequence[Path]) -> None:
        """Raises UserError when no document is left, with what each filter dropped."""
        if self.kept:
            return
        files = ", ".join(map(str, paths)) or "no file"
        reasons = ", ".join(f"{name} dropped {count}" for name, count in self.counts().items() if count)
        why = reasons or "there were none; give files with at least one document"
        raise UserError(f"{files}: no document is left of {self.read.total()} read: {why}")
