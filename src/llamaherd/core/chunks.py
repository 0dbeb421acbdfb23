"""Resumable work on a list: each chunk's rows are kept as they come, and a second start takes up after the last one."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from .files import read_rows, write_rows

T = TypeVar("T")


def in_chunks(
    folder: Path, items: Sequence[T], size: int, work: Callable[[Sequence[T], int], list[dict[str, Any]]]
) -> list[dict[str, Any]]:
    """Rows of `work(chunk, index of its first item)` over all chunks, in order; finished chunks are read from `folder`.

    `work` must depend on its arguments only (seeds by item index), so that an interrupted pass equals an unbroken one.
    """
    rows: list[dict[str, Any]] = []
    for start in range(0, len(items), size):
        file = folder / f"chunk-{start:08d}.jsonl"
        if not file.exists():
            write_rows(file, work(items[start : start + size], start))
        # Read back even when fresh, so that no row depends on whether JSON was in between (tuples become lists).
        rows += [row for _, row in read_rows(file)]
    return rows
