import math

import pytest
import torch

from llamaherd.model.cache import Cache
from llamaherd.model.config import ModelConfig
from llamaherd.model.layout import Layout
from llamaherd.model.transformer import (
    FeedForward,
    RMSNorm,
    Scorer,
    end_to_end,
    initialise,
    materialise,
    new_model,
    on_meta,
    rope_table,
    rotate,
    scorer_from,
)

SMALL = ModelConfig(dim=32, layers=2, heads=4, kv_heads=2, ffn=48, vocab_size=50, context=24)


def test_rope_angles() -> None:
    cosines, sines = rope_table(4, 100.0, 3, torch.device("cpu"))
    for position in range(3):
        angles = [position, position / 10] * 2  # theta^(2i/d): 100^0 and 100^(1/2); both halves turn alike
        assert cosines[position].tolist() == pytest.approx([math.cos(angle) for angle in angles], abs=1e-6)
        signed = [-math.sin(angle) for angle in angles[:2]] + [math.sin(angle) for angle in angles[2:]]
        assert sines[position].tolist() == pytest.approx(signed, abs=1e-6)


def test_rotate_turns_pairs_half_a_head_apart() -> None:
    cosines, sines = [0.0, 1.0, 0.0, 1.0], [-1.0, 0.0, 1.0, 0.0]  # pair 0 by 90 degrees, pair 1 by none
    turned = rotate(torch.tensor([[[[1.0, 2.0, 3.0, 4.0]]]]), torch.tensor([cosines, sines])[:, None, None, None])
    assert turned.flatten().tolist() == [-3.0, 2.0, 1.0, 4.0]


def test_scores_depend_on_distance_alone() -> None:
    table = rope_table(8, 10000.0, 40, torch.device("cpu"))[:, None, :, None]
    q, k = torch.randn(2, 1, 1, 1, 8, generator=torch.Generator().manual_seed(0))
    scores = [(rotate(q, table[:, :, i : i + 1]) * rotate(k, table[:, :, j : j + 1])).sum().item() for i, j in [(5, 2), (30, 27), (39, 36)]]
    assert scores == pytest.approx([scores[0]] * 3, abs=1e-5)
    assert rotate(q, table[:, :, :1]).equal(q)


def test_a_table_made_while_generating_serves_training() -> None:
    rope_table.cache_clear()
    model = new_model(SMALL, 0)
    tokens = torch.arange(6)[None]
    with torch.inference_mode():
        model(tokens)
    model(tokens).sum().backward()
    assert model.output.weight.grad is not None


def test_rms_norm() -> None:
    norm = RMSNorm(2, eps=0.5)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, 10.0]))
    root = math.sqrt((9 + 16) / 2 + 0.5)
    assert norm(torch.tensor([3.0, 4.0])).tolist() == pytest.approx([3 / root, 40 / root])


def test_the_mean_square_is_taken_in_float32() -> None:
    norm = RMSNorm(2, eps=1e-5).to(torch.float16)
    torch.nn.init.ones_(norm.weight)
    large = torch.tensor([600.0, 600.0], dtype=torch.float16)  # its square is beyond float16
    assert norm(large).tolist() == [1.0, 1.0]


def test_swiglu() -> None:
    part = FeedForward(ModelConfig(dim=1, heads=1, head_dim=2, ffn=2))
    with torch.no_grad():
        part.w1.weight.copy_(torch.tensor([[1.0], [-1.0]]))
        part.w3.weight.copy_(torch.tensor([[2.0], [3.0]]))
        part.w2.weight.copy_(torch.tensor([[1.0, 10.0]]))
    sigmoid = 1 / (1 + math.exp(-2))
    gate = [2 * sigmoid, -2 * (1 - sigmoid)]  # silu of 2 and of -2
    assert part(torch.tensor([2.0])).item() == pytest.approx(gate[0] * 4 + 10 * gate[1] * 6)


def test_a_token_sees_no_later_one() -> None:
    model = new_model(SMALL, 0)
    tokens = torch.arange(12)[None]
    other = tokens.clone()
    other[0, 7:] = 40
    assert model(tokens)[0, :7].equal(model(other)[0, :7])
    assert not model(tokens)[0, 7].equal(model(other)[0, 7])


def test_more_tokens_than_the_context_are_refused() -> None:
    model = new_model(SMALL, 0)
    model(torch.zeros(1, SMALL.context, dtype=torch.long))
    with pytest.raises(AssertionError, match="25 tokens in a context of 24"):
        model(torch.zeros(1, SMALL.context + 1, dtype=torch.long))


def test_wanted_tokens_alone_are_those_of_all() -> None:
    model, tokens, layout, wanted = new_model(SMALL, 0), torch.arange(9)[None], Layout.of([4, 5]), torch.tensor([0, 3, 8])
    gradients = []
    for hidden in (model.hidden(tokens, layout, wanted), model.hidden(tokens, layout)[:, wanted]):
        hidden.square().sum().backward()
        gradients.append([weight.grad.clone() for weight in model.parameters() if weight.grad is not None])
        model.zero_grad()
        gradients[-1].append(hidden.detach())
    assert all(torch.allclose(ours, whole, atol=1e-5) for ours, whole in zip(*gradients, strict=True))


def test_initial_values() -> None:
    model = new_model(ModelConfig(dim=256, layers=2, heads=4, ffn=512, vocab_size=300), 3)
    for name, weight in model.named_parameters():
        if weight.ndim == 1:
            assert weight.eq(1).all(), name
        else:
            expected = 0.01 if name.endswith(("wo.weight", "w2.weight")) else 0.02  # two layers: the root of 2 * 2
            assert weight.std().item() == pytest.approx(expected, rel=0.02), name
            assert abs(weight.mean().item()) < expected / 40, name


def test_the_seed_decides() -> None:
    first, again, other = (new_model(SMALL, seed).state_dict() for seed in (7, 7, 8))
    assert all(first[name].equal(again[name]) for name in first)
    assert not first["output.weight"].equal(other["output.weight"])
    torch.manual_seed(123)
    assert new_model(SMALL, 7).output.weight.equal(first["output.weight"])


def test_tied_weights_are_one() -> None:
    model = new_model(SMALL.model_copy(update={"tied": True}), 0)
    assert model.output.weight is model.tok_embeddings.weight
    assert sum(weight.numel() for weight in model.parameters()) == model.config.parameters


def test_scorer_starts_with_the_trunk_and_score_zero() -> None:
    model = new_model(SMALL, 0)
    scorer = scorer_from(model)
    tokens, layout = torch.arange(9)[None], Layout.of([4, 5])
    assert scorer.hidden(tokens, layout).equal(model.hidden(tokens, layout))
    assert scorer(tokens, layout).tolist() == [0.0] * 9
    scorer.tok_embeddings.weight.data.zero_()
    assert not model.tok_embeddings.weight.eq(0).all(), "the trunk is a copy"
    assert scorer_from(scorer).score.weight.eq(0).all()


def test_initialised_scorer_scores_zero() -> None:
    with torch.device("meta"):
        scorer = Scorer(SMALL)
    scorer = materialise(scorer)
    initialise(scorer, 0)
    assert scorer(torch.arange(4)[None], Layout.of([4])).tolist() == [0.0] * 4


def test_half_precision_model_runs() -> None:
    model = materialise(on_meta(SMALL), dtype=torch.bfloat16)
    initialise(model, 0)
    exact = new_model(SMALL, 0)
    logits = model(torch.arange(20)[None])
    assert logits.dtype == torch.bfloat16
    assert torch.allclose(logits.float(), exact(torch.arange(20)[None]), atol=0.02)


def cached(prompts: list[list[int]], answers: torch.Tensor) -> torch.Tensor:
    """Logits [B, T, V] where answers [B, T] follow the prompts, token by token."""
    model = new_model(SMALL, 0)
    cache = Cache(SMALL, [len(prompt) for prompt in prompts], answers.shape[1], torch.device("cpu"), torch.float32)
    layout, rows = Layout.of([len(prompt) for prompt in prompts]), torch.arange(len(prompts))
    with torch.inference_mode():
        model.read(torch.tensor([[token for prompt in prompts for token in prompt]]), cache.prompts(layout, rows, rows))
        return torch.cat([model(answers[:, [step]], cache) for step in range(answers.shape[1])], dim=1)


def test_a_cache_counts_positions_from_each_prompts_first_token() -> None:
    cache = Cache(SMALL, [3, 1], 2, torch.device("cpu"), torch.float32)
    assert cache.positions.tolist() == [3, 1]
    with torch.inference_mode():
        new_model(SMALL, 0)(torch.tensor([[4], [5]]), cache)
    assert cache.positions.tolist() == [4, 2]


def test_slots_before_a_prompt_are_never_seen() -> None:
    answers = torch.tensor([[7, 8, 9]])
    alone = cached([[5]], answers)
    beside = cached([[1, 2, 3, 4, 6], [5]], answers.expand(2, -1))
    assert torch.allclose(beside[1:], alone, atol=1e-6)


@torch.inference_mode()
def test_a_full_cache_takes_no_more() -> None:
    model, cache = new_model(SMALL, 0), Cache(SMALL, [2], 1, torch.device("cpu"), torch.float32)
    model(torch.tensor([[4]]), cache)
    with pytest.raises(AssertionError, match="cache of 3 slots is full"):
        model(torch.tensor([[4]]), cache)


def test_sequences_that_stay_move_into_the_place_of_those_that_left() -> None:
    model = new_model(SMALL, 0)
    prompts = [[1, 2, 3], [4], [5, 6], [7, 8]]
    cache = Cache(SMALL, [3, 1, 2, 2], 4, torch.device("cpu"), torch.float32)
    rows = torch.arange(4)
    with torch.inference_mode():
        model.read(torch.tensor([[token for prompt in prompts for token in prompt]]), cache.prompts(Layout.of([3, 1, 2, 2]), rows, rows))
        model(torch.tensor([[9], [9], [9], [9]]), cache)
        cache.keep([0, 3, 2])  # the second has left, the fourth takes its place
        assert cache.positions.tolist() == [4, 3, 3]
        model(torch.tensor([[10], [11], [12]]), cache)
        cache.keep([2, 1])
        found = model(torch.tensor([[13], [14]]), cache)[:, 0]
        expected = [model(torch.tensor([ids]))[0, -1] for ids in ([5, 6, 9, 12, 13], [7, 8, 9, 11, 14])]
    assert torch.allclose(found, torch.stack(expected), atol=1e-6)


@torch.inference_mode()
def test_blocks_of_sequences_attend_over_their_own_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = [[1, 2, 3, 4, 5, 6], [7, 8, 9, 10], [11, 12], [13, 14], [15]]
    answers = torch.tensor([[21, 22, 23]]).expand(5, -1)
    whole = cached(prompts, answers)
    monkeypatch.setattr("llamaherd.model.cache.BLOCK_ROWS", 2)
    assert torch.allclose(cached(prompts, answers), whole, atol=1e-6)


def test_weights_that_follow_each_other_are_one_matrix_without_a_copy() -> None:
    attention = new_model(SMALL, seed=1).layers[0].attention
    parts = attention.wq, attention.wk, attention.wv
    assert end_to_end(*parts) is None, "no gradient would reach the parts"
    with torch.no_grad():
        together = end_to_end(*parts)
        assert together is not None
        assert together.data_ptr() == attention.wq.weight.data_ptr()
        assert torch.equal(together, torch.cat([part.weight for part in parts]))
        attention.wk.weight = torch.nn.Parameter(attention.wk.weight.clone())
        assert end_to_end(*parts) is None


def test_one_product_for_queries_keys_and_values_changes_no_logit() -> None:
    model, tokens = new_model(SMALL, seed=1), torch.arange(20)[None]
    apart = model(tokens).detach()
    with torch.no_grad():
        torch.testing.assert_close(model(tokens), apart, atol=1e-6, rtol=1e-6)


def test_checkpointing_gives_the_same_gradients_to_the_bit() -> None:
    tokens, results = torch.arange(20)[None] % 50, []
    for checkpointing in (False, True):
        model, kept = new_model(SMALL, 0), []
        model.checkpointing = checkpointing
        with torch.autograd.graph.saved_tensors_hooks(lambda value: kept.append(value.numel()) or value, lambda value: value):  # noqa: B023
            loss = model(tokens, None).square().sum()
        loss.backward()
        results.append(([weight.grad for weight in model.parameters()], sum(kept)))
    for plain, again in zip(results[0][0], results[1][0], strict=True):
        assert plain is not None
        assert plain.equal(again)
    assert results[1][1] < results[0][1] / 2, "blocks kept more than their inputs"
