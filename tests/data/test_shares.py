from itertools import pairwise
from pathlib import Path

from llamaherd.data.shares import taken

FILE = Path("folder/rows.jsonl")
TAGGED = [number for number in range(30) if number % 3 > 0]


def test_less_safety_data_is_a_part_of_more() -> None:
    chosen = [taken(30, TAGGED, 1.0, share, 0, FILE) for share in (0.0, 0.1, 0.5, 1.0)]
    assert [len(some) for some in chosen] == [10, 12, 20, 30]
    assert all(set(less) < set(more) for less, more in pairwise(chosen))
    assert chosen[2] == sorted(chosen[2]), "in file order"
    assert chosen[2] != taken(30, TAGGED, 1.0, 0.5, 1, FILE)


def test_shares_of_a_file() -> None:
    """Half of them, all of them, and each twice with a half of them once more."""
    assert len(set(taken(30, [], 0.5, 1.0, 0, FILE))) == len(taken(30, [], 0.5, 1.0, 0, FILE)) == 15
    assert taken(30, [], 1.0, 1.0, 0, FILE) == list(range(30))
    more = taken(30, [], 2.5, 1.0, 0, FILE)
    assert (more[:60], sorted(set(more[60:]))) == ([*range(30), *range(30)], more[60:])
    assert len(more) == 75
    assert taken(30, [], 0.0, 1.0, 0, FILE) == []


def test_draws_hang_on_the_file_and_not_on_where_it_lies() -> None:
    half = taken(30, [], 0.5, 1.0, 0, FILE)
    assert half == taken(30, [], 0.5, 1.0, 0, Path("/elsewhere") / FILE)
    assert half != taken(30, [], 0.5, 1.0, 0, Path("folder/others.jsonl"))
