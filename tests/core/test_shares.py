"""Ranks: who makes which chunk, and what may be joined."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from llamaherd.core.artifacts import Artifact, building, open_artifact
from llamaherd.core.chunks import in_chunks
from llamaherd.core.config import Config
from llamaherd.core.errors import UserError
from llamaherd.core.files import write_rows
from llamaherd.core.shares import WHOLE, Share, keep_chunks, parts_of, share_of

ITEMS = list(range(23))


class Settings(Config):
    """Of a stage that writes its items."""

    size: int = 3
    """Of chunks."""
    rank: int | None = None
    """See Share."""
    world_size: int | None = None
    """See Share."""
    join: bool = False
    """See Parts."""


def make(out: Path, seed: int = 0, most: int = 100, **values: Any) -> Artifact:
    """Fails after the `most`-th chunk that it had to make itself."""
    config, made = Settings(**values), list[int]()
    share = share_of(config.rank, config.world_size, config.join)

    def work(chunk: Sequence[int], first: int) -> list[dict[str, Any]]:
        if len(made) == most:
            raise KeyboardInterrupt
        made.append(first)
        return [{"item": item} for item in chunk]

    with building(share.place(out), kind="samples", stage="items", config=share.noted(config), parents={}, seed=seed) as place:
        parts = parts_of(out, place, config.join)
        rows = in_chunks(place.state / "items", ITEMS, config.size, parts.work("items", work), share)
        if share.whole:
            write_rows(place.folder / "rows.jsonl", rows)
        else:
            keep_chunks(place)
    return open_artifact(share.place(out))


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("ranks", [1, 2, 3, 20])
def test_every_chunk_has_one_rank(ranks: int) -> None:
    owners = [[share.rank for share in (Share(rank, ranks) for rank in range(ranks)) if share.has(chunk)] for chunk in range(50)]
    assert all(len(found) == 1 for found in owners)
    assert {found[0] for found in owners} == set(range(ranks))


@pytest.mark.parametrize("ranks", [2, 5, 30])
def test_the_parts_of_all_ranks_are_the_whole(tmp_path: Path, ranks: int) -> None:
    whole = make(tmp_path / "whole")
    for rank in reversed(range(ranks)):
        make(tmp_path / "joined", rank=rank, world_size=ranks)
    joined = make(tmp_path / "joined", join=True)
    assert (joined.path / "rows.jsonl").read_bytes() == (whole.path / "rows.jsonl").read_bytes()
    assert joined.hash == whole.hash


def test_the_environment_says_which_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    assert share_of(None, None, False) == WHOLE
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert share_of(None, None, False) == Share(2, 4)
    assert share_of(0, 2, False) == Share(0, 2), "settings come first"
    assert share_of(None, None, True) == WHOLE
    monkeypatch.setenv("RANK", "two")
    with pytest.raises(UserError, match="RANK=two: expected a number"):
        share_of(None, None, False)


@pytest.mark.parametrize(
    ("rank", "world_size", "join", "message"),
    [
        (4, 4, False, "rank 4 of 4: expected a rank from 0 to one less than"), (-1, 4, False, "rank -1 of 4"), (0, None, False, "give both"),
        (None, 2, False, "give both"), (0, 2, True, "join takes the parts of all ranks"),
    ],
)  # fmt: skip
def test_ranks_that_are_none(rank: int | None, world_size: int | None, join: bool, message: str) -> None:
    with pytest.raises(UserError, match=message):
        share_of(rank, world_size, join)


def test_missing_parts_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no finished part is there"):
        make(tmp_path / "out", join=True)
    for rank in (0, 2):
        make(tmp_path / "out", rank=rank, world_size=4)
    with pytest.raises(UserError, match="the part with items 4 to 6 is missing or unfinished; run its rank, then join again"):
        make(tmp_path / "out", join=True)
    assert not (tmp_path / "out").exists()
    alone = make(tmp_path / "out")
    assert alone.hash == make(tmp_path / "whole").hash, "what did not join is completed by one process"
    assert alone.manifest["config"]["join"] is False


def test_joining_goes_on_from_what_one_process_left(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "out", most=3)
    for rank in (0, 1):
        make(tmp_path / "out", rank=rank, world_size=2)
    assert make(tmp_path / "out", join=True).hash == make(tmp_path / "whole").hash


def test_the_number_of_ranks_may_change_on_the_way_and_nothing_is_made_twice(tmp_path: Path) -> None:
    """Of eight chunks a process alone makes 0 and 1, rank 1 of two 3 and 5, two ranks of three 6 and 2, and who comes last the rest."""
    whole = make(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "out", most=2)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "out", most=2, rank=1, world_size=2)
    make(tmp_path / "out", most=1, rank=0, world_size=3)
    make(tmp_path / "out", most=1, rank=2, world_size=3)
    last = make(tmp_path / "out", most=2)
    assert last.hash == whole.hash


def test_a_share_is_claimed_once(tmp_path: Path) -> None:
    config = Settings(rank=0, world_size=2)
    place = Share(0, 2).place(tmp_path / "out")
    with (
        building(place, kind="samples", stage="items", config=config, parents={}, seed=0),
        pytest.raises(UserError, match="0-of-2 is in use by another llamaherd process"),
    ):
        make(tmp_path / "out", rank=0, world_size=2)
    with pytest.raises(UserError, match="0-of-2 exists already"):
        make(tmp_path / "out", rank=0, world_size=2)


def test_parts_of_other_settings_or_seeds_are_not_joined(tmp_path: Path) -> None:
    make(tmp_path / "out", rank=0, world_size=2)
    for values, message in (({"size": 4}, "size"), ({"seed": 1}, "seed")):
        for how in ({"join": True}, {"rank": 1, "world_size": 2}, {}):
            with pytest.raises(UserError, match=f"0-of-2: was made with other {message}; give what all parts were made with, or remove"):
                make(tmp_path / "out", **values, **how)  # type: ignore[arg-type]


def test_a_changed_part_is_not_joined(tmp_path: Path) -> None:
    parts = [make(tmp_path / "out", rank=rank, world_size=2) for rank in (0, 1)]
    next(parts[1].path.rglob("chunk-*.jsonl")).write_text("{}\n")
    with pytest.raises(UserError, match="its content is not what was written"):
        make(tmp_path / "out", join=True)
