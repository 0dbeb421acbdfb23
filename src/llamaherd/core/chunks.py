"""Resumable work on a list: each chunk's rows are kept as they come, and a second start takes up after the last one."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from .files import read_rows, write_rows
from .shares import WHOLE, Share, chunk_name

T = TypeVar("T")


def chunked(
    folder: Path, items: Sequence[T], size: int, work: Callable[[Sequence[T], int], list[dict[str, Any]]], share: Share = WHOLE
) -> Iterator[list[dict[str, Any]]]:
    """Rows of `work(chunk, index of its first item)`, chunk by chunk and in order; finished chunks are read from `folder`.

    `work` must depend on its arguments only (seeds by item index), so that an interrupted pass equals an unbroken one. A rank makes
    whole chunks: what a chunk's rows are, to the last bit, does not depend on how many ranks there are.
    """
    for number, start in enumerate(range(0, len(items), size)):
        if not share.has(number):
            continue
        file = folder / chunk_name(start)
        if not file.exists():
            write_rows(file, work(items[start : start + size], start))
        # Read back even when fresh, so that no row depends on whether JSON was in between (tuples become lists).
        yield [row for _, row in read_rows(file)]


def in_chunks(
    folder: Path, items: Sequence[T], size: int, work: Callable[[Sequence[T], int], list[dict[str, Any]]], share: Share = WHOLE
) -> list[dict[str, Any]]:
    """The rows of all chunks of a share, see `chunked`."""
    return [row for rows in chunked(folder, items, size, work, share) for row in rows]
