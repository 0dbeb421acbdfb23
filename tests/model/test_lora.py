"""LoRA against peft on the same weights, and what several adapters on one base share."""

from typing import Any

import peft
import pytest
import torch
import transformers
from torch import Tensor

from llamaherd.checkpoints.huggingface import config_of
from llamaherd.checkpoints.names import to_hugging_face
from llamaherd.checkpoints.peft import NAMES
from llamaherd.core.config import ConfigError, build
from llamaherd.core.errors import UserError
from llamaherd.core.seeds import torch_rng
from llamaherd.model.config import LoraConfig, ModelConfig
from llamaherd.model.lora import Change, LoraLinear, adapters, add_adapter, changes_of, linear_layers, new_changes, switch
from llamaherd.model.nf4 import Nf4Linear
from llamaherd.model.transformer import Transformer, end_to_end, lay_end_to_end
from llamaherd.train.config import OptimizerConfig
from llamaherd.train.optimizer import adamw

BASE = ModelConfig(dim=32, layers=2, heads=4, kv_heads=2, ffn=56, vocab_size=60, context=64)


def new_base(config: ModelConfig = BASE) -> Transformer:
    model, generator = Transformer(config), torch_rng(0, "base")
    for weight in model.parameters():
        weight.data.normal_(1.0 if weight.ndim == 1 else 0.0, 0.2, generator=generator)
    return model


def random_changes(model: Transformer, config: LoraConfig, seed: int) -> dict[str, tuple[Tensor, Tensor]]:
    """An adapter that has learnt something: B is not zero."""
    new = new_changes(model, config, seed)
    return {path: (a, torch.randn(b.shape, generator=torch_rng(seed, "b", path)) * 0.2) for path, (a, b) in new.items()}


def theirs_of(model: Transformer, config: LoraConfig, name: str) -> Any:
    """peft's model with the weights of ours and of one of its adapters."""
    base = transformers.LlamaForCausalLM(transformers.LlamaConfig(**config_of(model)))
    weights = {}
    for path, weight in model.named_parameters():
        if ".changes." not in path:
            weights[to_hugging_face(path.replace(".base.", "."))] = weight
    for path, module in model.named_modules():
        if isinstance(module, Nf4Linear):
            weights[to_hugging_face(f"{path.replace('.base', '')}.weight")] = module.looked_up()
    assert base.load_state_dict(weights, strict=False).unexpected_keys == []
    settings = peft.LoraConfig(
        r=config.r, lora_alpha=config.alpha, use_rslora=config.rslora, target_modules=[NAMES[name] for name in config.names]
    )
    theirs = peft.get_peft_model(base, settings)
    tensors = {
        f"base_model.model.{to_hugging_face(path + '.weight').removesuffix('.weight')}.lora_{side}.default.weight": value
        for path, change in changes_of(model, name).items()
        for side, value in (("A", change.a), ("B", change.b))
    }
    loaded = theirs.load_state_dict(tensors, strict=False)
    assert loaded.unexpected_keys == []
    assert not [key for key in loaded.missing_keys if "lora" in key]
    return theirs.train()


def loss_of(logits: Tensor, tokens: Tensor) -> Tensor:
    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())


def close(ours: Tensor, theirs: Tensor) -> bool:
    return bool((ours - theirs).abs().max() <= 1e-5 * theirs.abs().max())


SETTINGS = {
    "all": LoraConfig(r=4, alpha=8),
    "attention's two": LoraConfig(r=3, alpha=5, layers=("wq", "wv")),
    "rank-stabilised": LoraConfig(r=8, alpha=4, rslora=True, layers=("wk", "wo", "w2")),
    "with the head": LoraConfig(r=2, alpha=6, layers=("w1", "w3", "output")),
}


@pytest.mark.parametrize("bits", [32, 4])
@pytest.mark.parametrize("config", SETTINGS.values(), ids=SETTINGS)
def test_losses_and_gradients_are_peft_s_over_several_steps(config: LoraConfig, bits: int) -> None:
    ours = new_base()
    if bits == 4:
        quantise(ours)
    add_adapter(ours, "one", new_changes(ours, config, 0), config.scale)
    theirs = theirs_of(ours, config, "one")
    settings = OptimizerConfig(lr=0.01, weight_decay=0.0)
    mine, reference = adamw(ours, settings), adamw(theirs, settings)
    ours.train()
    for step in range(5):
        tokens = torch.randint(3, 60, (2, 20), generator=torch_rng(step, "tokens"))
        losses = [loss_of(logits, tokens) for logits in (ours(tokens), theirs(tokens).logits)]
        assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-6)
        for loss, optimizer in zip(losses, (mine, reference)):
            optimizer.zero_grad()
            loss.backward()
        gradients = {name: weight.grad for name, weight in theirs.named_parameters() if weight.grad is not None}
        for path, change in changes_of(ours, "one").items():
            stem = f"base_model.model.{to_hugging_face(path + '.weight').removesuffix('.weight')}"
            for side, weight in (("A", change.a), ("B", change.b)):
                assert weight.grad is not None
                assert close(weight.grad, gradients.pop(f"{stem}.lora_{side}.default.weight")), (step, path, side)
        assert gradients == {}
        mine.step()
        reference.step()
    trained = {name for name, weight in ours.named_parameters() if weight.grad is not None}
    assert all(".changes.one." in name for name in trained)


def quantise(model: Transformer) -> None:
    for path, layer in linear_layers(model, ("wq", "wk", "wv", "wo", "w1", "w2", "w3")).items():
        parent, _, last = path.rpartition(".")
        setattr(model.get_submodule(parent), last, Nf4Linear(layer.weight))


def test_a_change_worked_by_hand() -> None:
    """x (2, 1), A (1, 3), B (1, -1), scale 2: A x = 5, so the change is 2 * (5, -5)."""
    layer = LoraLinear(torch.nn.Linear(2, 2, bias=False))
    layer.base.weight.data = torch.eye(2)
    layer.changes["one"] = Change(torch.tensor([[1.0, 3.0]]), torch.tensor([[1.0], [-1.0]]), 2.0, 0.0)
    x = torch.tensor([[2.0, 1.0]])
    assert layer(x).tolist() == [[2.0, 1.0]]
    layer.active = "one"
    assert layer(x).tolist() == [[12.0, -9.0]]
    assert layer.changes["one"].matrix().tolist() == [[2.0, 6.0], [-2.0, -6.0]]


def test_a_new_adapter_changes_nothing_and_its_values_come_from_the_seed() -> None:
    model, config, tokens = new_base(), LoraConfig(r=4), torch.arange(3, 20)[None]
    before = model(tokens)
    first, again, other = (new_changes(model, config, seed) for seed in (0, 0, 1))
    add_adapter(model, "new", first, config.scale)
    assert model(tokens).equal(before)
    for path, (a, b) in first.items():
        assert a.equal(again[path][0])
        assert not a.equal(other[path][0])
        assert b.count_nonzero() == 0
        assert 0.9 / a.shape[1] ** 0.5 < a.abs().max() <= 1 / a.shape[1] ** 0.5
    assert len({a.flatten()[0].item() for a, _ in first.values()}) == len(first), "two layers start alike"


def test_adapters_share_one_base_and_are_switched() -> None:
    model, config, tokens = new_base(), LoraConfig(r=2, alpha=4), torch.arange(3, 20)[None]
    plain = model(tokens)
    places = {name: weight.data_ptr() for name, weight in model.named_parameters()}
    alone = {}
    for seed, name in enumerate(("one", "two")):
        single = new_base()
        add_adapter(single, name, random_changes(single, config, seed), config.scale)
        alone[name] = single(tokens)
        add_adapter(model, name, random_changes(model, config, seed), config.scale)
    assert adapters(model) == ["one", "two"]
    for name in ("one", "two", "one"):
        switch(model, name)
        assert model(tokens).equal(alone[name])
        assert (model(tokens) - plain).abs().max() > 0.1
    switch(model, None)
    assert model(tokens).equal(plain)
    after = {name.replace(".base.", "."): weight.data_ptr() for name, weight in model.named_parameters() if ".changes." not in name}
    assert after == places, "the base was copied"
    extra = sum(weight.numel() for name, weight in model.named_parameters() if ".changes." in name)
    assert extra == 2 * sum(a.numel() + b.numel() for a, b in new_changes(new_base(), config, 0).values())


def test_layers_with_adapters_are_not_multiplied_as_one() -> None:
    model = new_base()
    attention = model.layers[0].attention
    lay_end_to_end(attention.wq, attention.wk, attention.wv)
    tokens, config = torch.arange(3, 20)[None], LoraConfig(layers=("wk",), r=2)
    with torch.no_grad():
        assert end_to_end(attention.wq, attention.wk, attention.wv) is not None
        add_adapter(model, "one", random_changes(model, config, 0), config.scale)
        assert end_to_end(attention.wq, attention.wk, attention.wv) is None
        without_gradients = model(tokens)
    assert close(without_gradients, model(tokens))


def test_dropout_falls_on_the_change_alone_and_only_in_training() -> None:
    model, config, tokens = new_base(), LoraConfig(r=4, alpha=8), torch.arange(3, 40)[None]
    add_adapter(model, "one", random_changes(model, config, 0), config.scale, dropout=0.5)
    model.eval()
    steady = model(tokens)
    assert model(tokens).equal(steady)
    model.train()
    torch.manual_seed(0)
    noisy = model(tokens)
    assert not noisy.equal(steady)
    torch.manual_seed(0)
    assert model(tokens).equal(noisy)
    switch(model, None)
    assert model(tokens).equal(new_base()(tokens))


def test_a_sixteen_bit_base_keeps_its_type_and_the_adapter_its_own() -> None:
    model, config = new_base().bfloat16(), LoraConfig(r=4, alpha=8)
    add_adapter(model, "one", random_changes(model, config, 0), config.scale)
    logits = model(torch.arange(3, 20)[None])
    assert logits.dtype == torch.bfloat16
    logits.float().sum().backward()
    [gradient, *_] = [weight.grad for weight in model.parameters() if weight.requires_grad]
    assert gradient is not None
    assert gradient.dtype == torch.float32


def test_what_does_not_fit() -> None:
    config = LoraConfig(r=2)
    for other, expected in (
        (BASE.model_copy(update={"layers": 3}), "changes layers.2.attention.wq, which a model of 2 layers does not have"),
        (BASE.model_copy(update={"ffn": 60}), r"layers.0.feed_forward.w1 has A \[2, 32\] and B \[60, 2\], the base's layer is \[56, 32\]"),
        (BASE.model_copy(update={"dim": 36}), "it was made for another base"),
    ):
        model = new_base()
        with pytest.raises(UserError, match=expected) as found:
            add_adapter(model, "one", new_changes(new_base(other), config, 0), config.scale)
        assert "\n" not in str(found.value)
        assert adapters(model) == []
    model = new_base()
    changes = new_changes(model, config, 0)
    for name in ("", "a.b", "a b", "keys", "-x"):
        with pytest.raises(UserError, match="expected letters, digits"):
            add_adapter(model, name, changes, 1.0)
    add_adapter(model, "one", changes, 1.0)
    with pytest.raises(UserError, match="two adapters are called 'one'"):
        add_adapter(model, "one", changes, 1.0)
    with pytest.raises(UserError, match="no adapter 'two'; there are one"):
        switch(model, "two")
    tied = new_base(BASE.model_copy(update={"tied": True}))
    with pytest.raises(UserError, match="shares with its embedding; leave `output` out"):
        add_adapter(tied, "one", new_changes(tied, LoraConfig(r=2, layers=("output",)), 0), 1.0)


def test_settings() -> None:
    assert LoraConfig(r=16, alpha=32).scale == 2
    assert LoraConfig(r=16, alpha=32, rslora=True).scale == 8
    assert build(LoraConfig, {"layers": ["wq", "wv"]}).names == ("wq", "wv")
    for values, expected in (
        ({"layers": []}, "expected different names"),
        ({"layers": ["wq", "wq"]}, "different names"),
        ({"r": 0}, "r: given 0"),
    ):
        with pytest.raises(ConfigError, match=expected):
            build(LoraConfig, values)
    with pytest.raises(ConfigError, match="layers"):
        build(LoraConfig, {"layers": ["q_proj"]})
