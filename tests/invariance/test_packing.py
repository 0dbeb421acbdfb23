"""What a document's tokens give and teach does not depend on what stands beside it."""

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llamaherd.core.seeds import torch_rng
from llamaherd.model.layout import Layout
from llamaherd.model.transformer import Transformer
from llamaherd.train.batches import TokenBatch, next_token_loss

once_is_enough = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def gradients(model: Transformer) -> torch.Tensor:
    found = torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])
    model.zero_grad()
    return found


@once_is_enough
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=8))
def test_packed_logits_and_gradients_equal_each_document_alone(model: Transformer, lengths: list[int]) -> None:
    tokens = torch.randint(40, (1, sum(lengths)), generator=torch_rng(sum(lengths)))
    targets = torch.randint(40, (sum(lengths),), generator=torch_rng(len(lengths)))
    packed = model(tokens, Layout.of(lengths))[0]
    torch.nn.functional.cross_entropy(packed, targets, reduction="sum").backward()
    of_packed = gradients(model)
    alone = torch.cat([model(document)[0] for document in tokens.split(lengths, dim=1)])
    torch.nn.functional.cross_entropy(alone, targets, reduction="sum").backward()
    of_alone = gradients(model)
    assert torch.allclose(packed, alone, atol=1e-5 * alone.abs().max().item())
    assert torch.allclose(of_packed, of_alone, atol=1e-5 * of_alone.abs().max().item())


@once_is_enough
@given(order=st.permutations(range(5)))
def test_the_loss_does_not_depend_on_the_order(model: Transformer, order: list[int]) -> None:
    documents = [([(7 * i + 3 * j) % 40 for j in range(i * 6 + 2)], [j % 3 > 0 for j in range(i * 6 + 2)]) for i in range(5)]
    cpu = torch.device("cpu")
    first = next_token_loss(model, TokenBatch.of(documents, cpu))
    other = next_token_loss(model, TokenBatch.of([documents[index] for index in order], cpu))
    assert other.count == first.count
    assert torch.allclose(first.total, other.total, rtol=1e-5)


def test_another_document_cannot_be_seen(model: Transformer) -> None:
    tokens = torch.randint(40, (1, 20), generator=torch_rng(5))
    other = tokens.clone()
    other[0, :8] = 0
    layout = Layout.of([8, 12])
    assert model(tokens, layout)[0, 8:].equal(model(other, layout)[0, 8:])
    assert not model(tokens)[0, 8:].equal(model(other)[0, 8:])
