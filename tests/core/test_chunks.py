"""Chunked work: each item once, in order, and the same rows whether or not the work was broken off."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from llamaherd.core.chunks import in_chunks


@pytest.mark.parametrize("size", [1, 3, 7, 100])
@pytest.mark.parametrize("count", [0, 1, 7])
def test_each_item_once_and_in_order(tmp_path: Path, size: int, count: int) -> None:
    seen: list[tuple[list[int], int]] = []

    def work(chunk: Sequence[int], first: int) -> list[dict[str, Any]]:
        seen.append((list(chunk), first))
        return [{"item": item} for item in chunk]

    items = list(range(count))
    for _ in range(2):
        assert [row["item"] for row in in_chunks(tmp_path, items, size, work)] == items
    assert [item for chunk, _ in seen for item in chunk] == items
    assert all(chunk[0] == first and len(chunk) <= size for chunk, first in seen)


def test_rows_may_be_more_or_fewer_than_items_and_are_as_json_gives_them(tmp_path: Path) -> None:
    def work(chunk: Sequence[int], first: int) -> list[dict[str, Any]]:
        return [{"pair": (item, 0.1 + 0.2)} for item in chunk for _ in range(item)]

    fresh = in_chunks(tmp_path, [0, 2, 1], 1, work)
    assert fresh == [{"pair": [item, 0.1 + 0.2]} for item in (2, 2, 1)]
    assert in_chunks(tmp_path, [0, 2, 1], 1, work) == fresh


def test_an_error_keeps_the_finished_chunks(tmp_path: Path) -> None:
    broken = True

    def work(chunk: Sequence[int], first: int) -> list[dict[str, Any]]:
        if broken and first == 4:
            raise RuntimeError("mine")
        assert broken or first >= 4, "a finished chunk was worked again"
        return [{"item": item} for item in chunk]

    with pytest.raises(RuntimeError, match="mine"):
        in_chunks(tmp_path, range(6), 2, work)
    broken = False
    assert [row["item"] for row in in_chunks(tmp_path, range(6), 2, work)] == list(range(6))
