"""Roles on one base: what each says, that nothing is copied, and that turns do not mix."""

from itertools import chain

import pytest
import torch
from torch import Tensor

from llamaherd.core.seeds import torch_rng
from llamaherd.generate.config import SamplingConfig
from llamaherd.generate.engine import generate
from llamaherd.model.config import LoraConfig, ModelConfig
from llamaherd.model.layout import Layout
from llamaherd.model.lora import add_adapter, changes_of, linear_layers
from llamaherd.model.roles import ScorerOnBase, TransformerOnBase, Turns, logits_and_values, on_one_trunk
from llamaherd.model.transformer import Transformer, new_model, scorer_from

SHAPE = ModelConfig(dim=32, layers=2, heads=4, kv_heads=2, ffn=48, vocab_size=40, context=64)
LORA = LoraConfig(r=4)
NAMES = ("policy", "critic", "start")


def changes(seed: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Of any size, so that every adapter says something else."""
    found = {}
    for path, layer in linear_layers(Transformer(SHAPE), LORA.names).items():
        rng = torch_rng(seed, path)
        sizes = (LORA.r, layer.in_features), (layer.out_features, LORA.r)
        a, b = (torch.randn(*size, generator=rng) * 0.2 for size in sizes)
        found[path] = (a, b)
    return found


@pytest.fixture
def base() -> Transformer:
    model = new_model(SHAPE, 0).eval()
    for seed, name in enumerate(NAMES):
        add_adapter(model, name, changes(seed), LORA.scale)
    for name in ("policy", "critic"):
        for change in changes_of(model, name).values():
            change.requires_grad_(True)
    return model


def folded(name: str | None) -> Transformer:
    """A model of its own with an adapter in its weights."""
    model = new_model(SHAPE, 0).eval()
    if name is not None:
        for path, (a, b) in changes(NAMES.index(name)).items():
            model.get_submodule(path).weight.data += LORA.scale * (b @ a)  # type: ignore[union-attr]
    return model


TOKENS = torch.arange(3, 23)[None]
LAYOUT = Layout.of([12, 8])
WANTED = torch.tensor([3, 4, 10, 11, 15, 18])


@pytest.mark.parametrize("name", [*NAMES, None])
def test_each_role_is_the_base_with_its_adapter(base: Transformer, name: str | None) -> None:
    turns = Turns(base)
    roles = {each: TransformerOnBase(base, turns, each) for each in (*NAMES, None)}
    with torch.no_grad():
        for other in roles.values():
            other.hidden(TOKENS, LAYOUT)
        said, expected = roles[name](TOKENS, LAYOUT), folded(name)(TOKENS, LAYOUT)
        assert torch.allclose(said, expected, atol=1e-4 * expected.abs().max().item())
        head = torch.randn(1, 32, generator=torch_rng(0, "head"))
        scorer = scorer_from(folded(name))
        scorer.score.weight.copy_(head)
        assert torch.allclose(ScorerOnBase(base, turns, name, head)(TOKENS, LAYOUT, WANTED), scorer(TOKENS, LAYOUT, WANTED), atol=1e-3)


def test_no_weight_is_there_twice(base: Transformer) -> None:
    turns = Turns(base)
    policy, critic = TransformerOnBase(base, turns, "policy"), ScorerOnBase(base, turns, "critic", torch.zeros(32))
    reference = TransformerOnBase(base, turns, "start")
    held = {weight.data_ptr(): weight.nbytes for weight in chain(policy.parameters(), critic.parameters(), reference.parameters())}
    adapters = len(NAMES) * sum(a.nbytes + b.nbytes for a, b in changes(0).values())
    assert sum(held.values()) == SHAPE.parameters * 4 + adapters + 32 * 4


def test_the_engine_samples_the_role_s_own_answers_whoever_was_asked_before(base: Transformer) -> None:
    turns = Turns(base)
    policy, reference = (TransformerOnBase(base, turns, name) for name in ("policy", None))
    sampling, prompts = SamplingConfig(temperature=1.0, top_p=1.0, max_new_tokens=12), [[1, 5, 6], [1, 7], [1, 5, 9, 8]]
    reference.hidden(TOKENS)
    for role, own in ((policy, "policy"), (reference, None)):
        mine, theirs = (generate(model, prompts, sampling, [1, 2, 3], [2]) for model in (role, folded(own)))
        assert [one.ids for one in mine] == [one.ids for one in theirs]
    assert generate(policy, prompts, sampling, [1, 2, 3], [2])[0].ids != generate(reference, prompts, sampling, [1, 2, 3], [2])[0].ids


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_reach_each_role_s_own_adapter_and_no_other(base: Transformer, checkpointing: bool) -> None:
    """Both graphs stand at once, and checkpointed blocks run again when it is the other's turn."""
    turns = Turns(base)
    policy, critic = TransformerOnBase(base, turns, "policy"), ScorerOnBase(base, turns, "critic", torch.ones(32))
    policy.checkpointing = critic.checkpointing = checkpointing
    logits, values = logits_and_values(policy, critic, TOKENS, LAYOUT, WANTED)
    TransformerOnBase(base, turns, "start").hidden(TOKENS, LAYOUT)
    (logits.square().sum() + values.square().sum()).backward()  # type: ignore[no-untyped-call]
    for name, loss in (("policy", lambda m: m.output(m.hidden(TOKENS, LAYOUT, WANTED)[0])), ("critic", None)):
        alone = folded(None)
        add_adapter(alone, name, changes(NAMES.index(name)), LORA.scale)
        hidden = alone.hidden(TOKENS, LAYOUT, WANTED)[0]
        out = loss(alone) if loss else hidden.sum(-1)
        out.square().sum().backward()
        for path, change in changes_of(alone, name).items():
            mine = changes_of(base, name)[path]
            for weight, other in ((mine.a, change.a), (mine.b, change.b)):
                assert weight.grad is not None
                assert other.grad is not None
                assert torch.allclose(weight.grad, other.grad, rtol=1e-3, atol=1e-4 * other.grad.abs().max().item())
    trained = {name for name, weight in policy.named_parameters() if weight.grad is not None}
    assert {name.split(".changes.")[1].split(".")[0] for name in trained} == {"policy", "critic"}


def test_a_head_on_the_policy_s_trunk_takes_one_pass(base: Transformer, monkeypatch: pytest.MonkeyPatch) -> None:
    turns = Turns(base)
    policy, own, head = (
        TransformerOnBase(base, turns, "policy"), ScorerOnBase(base, turns, "critic", torch.ones(32)), ScorerOnBase(base, turns, "policy", torch.ones(32)),
    )  # fmt: skip
    assert (on_one_trunk(policy, own), on_one_trunk(policy, head), on_one_trunk(folded(None), scorer_from(folded(None)))) == (
        False,
        True,
        False,
    )
    apart = (policy.output(policy.hidden(TOKENS, LAYOUT, WANTED)[0]), head(TOKENS, LAYOUT, WANTED))
    passes = []
    block = base.layers[0].forward
    monkeypatch.setattr(base.layers[0], "forward", lambda *arguments: passes.append(1) or block(*arguments))
    for one, other in zip(logits_and_values(policy, head, TOKENS, LAYOUT, WANTED), apart, strict=True):
        assert torch.equal(one, other)
    assert len(passes) == 1
    logits_and_values(policy, own, TOKENS, LAYOUT, WANTED)
    assert len(passes) == 3


def test_a_head_stays_in_float32_on_a_base_of_16_bits() -> None:
    model = new_model(SHAPE, 0).to(torch.bfloat16)
    critic = ScorerOnBase(model, Turns(model), None, torch.full((32,), 1 / 3))
    assert critic.score.weight[0, 0] == torch.tensor(1 / 3)
    assert critic(TOKENS, LAYOUT, WANTED).dtype == torch.float32
