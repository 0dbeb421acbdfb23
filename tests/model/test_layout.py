import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llamaherd.model.layout import Layout, causal_attention

lengths_lists = st.lists(st.integers(1, 40), min_size=1, max_size=12)


def test_hand_worked() -> None:
    layout = Layout.of([3, 1, 2])
    assert layout.positions.tolist() == [0, 1, 2, 0, 0, 1]
    assert layout.ends.tolist() == [2, 3, 5]
    shapes, tokens, cells = layout._rectangles
    assert shapes == [(1, 3), (1, 2), (1, 1)]
    assert tokens.tolist() == [0, 1, 2, 4, 5, 3]
    assert cells.tolist() == [0, 1, 2, 5, 3, 4]


def test_rectangles_are_padded_with_a_first_token() -> None:
    shapes, tokens, cells = Layout.of([3, 4])._rectangles
    assert shapes == [(2, 4)]
    assert tokens.tolist() == [3, 4, 5, 6, 0, 1, 2, 0]
    assert cells.tolist() == [4, 5, 6, 0, 1, 2, 3]


@given(lengths_lists)
def test_positions_and_ends(lengths: list[int]) -> None:
    layout = Layout.of(lengths)
    assert layout.positions.tolist() == [position for length in lengths for position in range(length)]
    assert layout.positions[layout.ends].tolist() == [length - 1 for length in lengths]


@given(lengths_lists)
@example([30, *[11] * 10])  # one long document must not widen many short ones
def test_rectangles_hold_every_token_once_and_little_padding(lengths: list[int]) -> None:
    shapes, tokens, cells = Layout.of(lengths)._rectangles
    assert tokens[cells].tolist() == list(range(sum(lengths)))
    assert len(tokens) == sum(documents * longest for documents, longest in shapes) <= sum(lengths) * 4 / 3


@settings(max_examples=25, deadline=None)
@given(lengths_lists, st.sampled_from([(4, 4), (4, 2), (3, 1)]))
def test_attention_is_that_of_each_document_alone(lengths: list[int], heads: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(sum(lengths))
    q, k, v = (torch.randn(1, sum(lengths), count, 6, generator=generator) for count in (heads[0], heads[1], heads[1]))
    packed = Layout.of(lengths).attend(0, q, k, v)
    alone = [causal_attention(*parts) for parts in zip(*(x.split(lengths, dim=1) for x in (q, k, v)), strict=True)]
    assert torch.allclose(packed, torch.cat(alone, dim=1), atol=1e-5)


def test_attention_by_hand() -> None:
    """Two tokens, head size 1: the second mixes both values by the softmax of its scores."""
    q, k, v = torch.tensor([5.0, 1.0]), torch.tensor([2.0, 0.0]), torch.tensor([10.0, 20.0])
    found = causal_attention(*(x.reshape(1, 2, 1, 1) for x in (q, k, v))).flatten().tolist()
    weight = torch.tensor(2.0).sigmoid().item()
    assert found == pytest.approx([10.0, 10 * weight + 20 * (1 - weight)])


@pytest.mark.parametrize("lengths", [[], [3, 0], [0]])
def test_empty_documents_are_a_bug(lengths: list[int]) -> None:
    with pytest.raises(AssertionError):
        Layout.of(lengths)
