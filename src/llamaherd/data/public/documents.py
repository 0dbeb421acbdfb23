"""English text for pretraining from the public files: novels, encyclopedias, stories and web pages as documents, a part held out."""

import gzip
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from ...core.files import read_rows
from ...core.seeds import python_rng
from ..documents import Document

PIECE_CHARACTERS = 6000
"""A novel is cut into documents of about this size, at the ends of paragraphs, so that rows of one batch come from many books."""
STORY_END = "<|endoftext|>"
NOVELS = tuple(f"pretrain/novels/novels-{number:02d}.jsonl.gz" for number in range(4))
FILES: Mapping[str, tuple[str, ...]] = {
    "novels": NOVELS,
    "wikitext": ("pretrain/wikitext2_valid.txt.gz", "pretrain/wikitext2_test.txt.gz"),
    "tinystories": ("pretrain/tinystories_2mb.txt.gz",),
    "c4": ("pretrain/c4_demo.jsonl.gz",),
    "wikipedia": ("pretrain/wiki_demo.txt.gz",),
}
"""The public files of each source."""

Group = tuple[str, ...]
"""Documents that stand or fall together: the pieces of one book or article."""


def groups(source: str, files: Iterable[Path]) -> Iterator[Group]:
    """The texts of a source, in order: whole books, articles, stories and pages, long ones in pieces."""
    found = (tuple(group) for path in files for group in _READERS[source](path))
    return (group for group in found if any(text.strip() for text in group))


def split(source: str, found: Iterable[Group], held_out: float, seed: int) -> tuple[list[Document], list[Document]]:
    """Documents to train on and held-out ones: of every source this share of the groups, one at least, drawn by `seed`.

    A held-out text that is also one of the others, letter for letter but for spaces, is dropped.
    """
    texts = list(found)
    order = list(range(len(texts)))
    python_rng(seed, "held out", source).shuffle(order)
    apart = set(order[: max(1, round(held_out * len(texts)))])
    trained, held = (
        [Document(text, source) for place, group in enumerate(texts) if (place in apart) == wanted for text in group if text.strip()]
        for wanted in (False, True)
    )
    seen = {_plain(document.text) for document in trained}
    return trained, [document for document in held if _plain(document.text) not in seen]


def _plain(text: str) -> str:
    return " ".join(text.split())


def _pieces(text: str) -> Iterator[str]:
    """A long text in documents of about PIECE_CHARACTERS, cut between lines."""
    held, size = list[str](), 0
    for line in text.split("\n"):
        held.append(line)
        size += len(line)
        if size >= PIECE_CHARACTERS:
            yield "\n".join(held)
            held, size = [], 0
    if held:
        yield "\n".join(held)


def _unzipped(path: Path) -> str:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return file.read()


def _books(path: Path) -> Iterator[Iterable[str]]:
    return (_pieces(row["text"]) for _, row in read_rows(path))


def _articles(path: Path) -> Iterator[Iterable[str]]:
    """WikiText-2, with its spaces around punctuation and inside numbers taken back."""
    for article in re.split(r"\n (?== [^=]+ = \n)", _unzipped(path)):
        text = re.sub(r" @(\W)@ ", r"\1", article)
        text = re.sub(r" ([.,;:!?)%'])", r"\1", text.replace("<unk>", "one").replace(" n't", "n't"))
        yield [re.sub(r"(\() ", r"\1", text)]


def _stories(path: Path) -> Iterator[Iterable[str]]:
    """All but the last one, which the file cuts off."""
    return ([story.strip()] for story in _unzipped(path).split(STORY_END)[:-1])


def _pages(path: Path) -> Iterator[Iterable[str]]:
    return ([row["text"]] for _, row in read_rows(path))


def _lines(path: Path) -> Iterator[Iterable[str]]:
    return (_pieces(line) for line in _unzipped(path).splitlines())


_READERS: Mapping[str, Callable[[Path], Iterator[Iterable[str]]]] = {
    "novels": _books,
    "wikitext": _articles,
    "tinystories": _stories,
    "c4": _pages,
    "wikipedia": _lines,
}
