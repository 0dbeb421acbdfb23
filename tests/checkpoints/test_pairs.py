import torch

from llamaherd.checkpoints.pairs import heads_of, to_halves, to_neighbours
from llamaherd.model.config import ModelConfig


def test_one_head_of_four_worked_by_hand() -> None:
    rows = torch.tensor([[0.0], [1.0], [2.0], [3.0]])  # neighbours: pairs (0, 1) and (2, 3)
    assert to_halves(rows, 1).flatten().tolist() == [0, 2, 1, 3]  # halves: pairs (0, 2) and (1, 3) hold the same rows
    assert to_neighbours(to_halves(rows, 1), 1).equal(rows)


def test_heads_stay_apart_and_both_ways_undo_each_other() -> None:
    rows = torch.arange(3 * 6 * 5.0).view(18, 5)
    for head in range(3):
        part = slice(6 * head, 6 * head + 6)
        assert to_halves(rows, 3)[part].equal(to_halves(rows[part], 1))
    assert to_neighbours(to_halves(rows, 3), 3).equal(rows)
    assert to_halves(to_neighbours(rows, 3), 3).equal(rows)


def test_keys_have_fewer_heads_than_queries_and_others_are_not_turned() -> None:
    config = ModelConfig(dim=32, heads=8, kv_heads=2)
    found = {part: heads_of(f"layers.0.attention.{part}.weight", config) for part in ("wq", "wk", "wv", "wo")}
    assert found == {"wq": 8, "wk": 2, "wv": None, "wo": None}
