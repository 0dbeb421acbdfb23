import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llamaherd.model.branches import Branches
from llamaherd.model.layout import causal_attention

trees_lists = st.lists(st.tuples(st.integers(1, 12), st.integers(0, 4), st.integers(0, 9)), min_size=1, max_size=5)


def test_positions_by_hand() -> None:
    """Two branches go on from the trunk of the first tree; the second tree is a trunk alone, with an empty branch."""
    assert Branches.of([(3, 2, 1), (2, 0)]).positions.tolist() == [0, 1, 2, 3, 4, 3, 0, 1]


def test_who_sees_whom_by_hand() -> None:
    ((shape, tokens, seen),), cells = Branches.of([(2, 1, 1)])._rectangles
    assert shape == (1, 4)
    assert tokens.tolist() == cells.tolist() == [0, 1, 2, 3]
    assert seen[0, 0].int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 0, 1]]


@settings(max_examples=20, deadline=None)
@given(trees_lists, st.sampled_from([(4, 4), (4, 2)]))
def test_attention_is_that_of_each_branch_after_its_trunk_alone(trees: list[tuple[int, ...]], heads: tuple[int, int]) -> None:
    count = sum(map(sum, trees))
    generator = torch.Generator().manual_seed(count)
    q, k, v = (torch.randn(1, count, number, 6, generator=generator) for number in (heads[0], heads[1], heads[1]))
    together = Branches.of(trees).attend(0, q, k, v)
    start = 0
    for trunk, *branches in trees:
        own = list(range(start, start + trunk))
        place = start + trunk
        for size in (0, *branches):
            text = [*own, *range(place, place + size)]
            alone = causal_attention(q[:, text], k[:, text], v[:, text])
            assert torch.allclose(together[:, text], alone, atol=1e-5)
            place += size
        start += sum((trunk, *branches))
