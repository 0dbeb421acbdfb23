"""Logits and gradients against transformers' Llama, float32, random weights large enough for attention to matter."""

from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from llamaherd.checkpoints.huggingface import config_of
from llamaherd.checkpoints.names import to_hugging_face
from llamaherd.core.seeds import torch_rng
from llamaherd.model.cache import Cache
from llamaherd.model.config import ModelConfig
from llamaherd.model.layout import Layout
from llamaherd.model.transformer import Scorer, Transformer, Trunk

BASE = ModelConfig(dim=32, layers=3, heads=4, ffn=56, vocab_size=60, context=64)
SHAPES = {
    "every head its own keys": BASE,
    "grouped queries": BASE.model_copy(update={"kv_heads": 2}),
    "one key head": BASE.model_copy(update={"kv_heads": 1}),
    "tied": BASE.model_copy(update={"tied": True, "kv_heads": 2}),
    "other rotary base": BASE.model_copy(update={"rope_theta": 777.0, "norm_eps": 1e-3}),
    "free head size": BASE.model_copy(update={"head_dim": 10, "kv_heads": 2}),
}
each_shape = pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES)


def close(ours: Tensor, theirs: Tensor) -> bool:
    return bool((ours - theirs).abs().max() <= 1e-5 * theirs.abs().max())


def pair(config: ModelConfig, kind: type[Trunk] = Transformer) -> tuple[Any, Any]:
    """Our model and theirs with the same weights."""
    ours, generator = kind(config), torch_rng(0, "parity")
    for weight in ours.parameters():
        mean = 1.0 if weight.ndim == 1 else 0.0
        weight.data.normal_(mean, 0.2, generator=generator)
    theirs_kind = transformers.LlamaForCausalLM if kind is Transformer else transformers.LlamaForSequenceClassification
    theirs = theirs_kind(transformers.LlamaConfig(**config_of(ours)))
    weights = {to_hugging_face(name): weight for name, weight in ours.named_parameters()}
    loaded = theirs.load_state_dict(weights, strict=False)
    assert loaded.missing_keys == (["lm_head.weight"] if config.tied else [])
    assert loaded.unexpected_keys == []
    return ours, theirs.eval()


def sample(*shape: int) -> Tensor:
    return torch.randint(3, BASE.vocab_size, shape, generator=torch_rng(1, "tokens"))


def same_gradients(ours: Trunk, theirs: Any) -> None:
    gradients = {name: weight.grad for name, weight in theirs.named_parameters()}
    for name, weight in ours.named_parameters():
        assert weight.grad is not None
        assert close(weight.grad, gradients[to_hugging_face(name)]), name


@each_shape
def test_logits_and_all_gradients(config: ModelConfig) -> None:
    ours, theirs = pair(config)
    tokens = sample(3, 40)
    mine, reference = ours(tokens), theirs(tokens).logits
    assert reference.std() > 0.5, "the weights are too small to tell models apart"
    assert close(mine, reference)
    for logits in (mine, reference):
        torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()).backward()
    same_gradients(ours, theirs)


@each_shape
def test_packed_documents_equal_each_alone(config: ModelConfig) -> None:
    ours, theirs = pair(config)
    lengths = [17, 1, 33, 5, 9]
    documents = sample(1, sum(lengths)).split(lengths, dim=1)
    mine = ours(torch.cat(documents, dim=1), Layout.of(lengths))
    reference = torch.cat([theirs(document).logits for document in documents], dim=1)
    assert close(mine, reference)
    weights = torch.randn(mine.shape, generator=torch_rng(2, "weights"))
    for logits in (mine, reference):
        (logits * weights).sum().backward()
    same_gradients(ours, theirs)


@each_shape
def test_cached_decoding(config: ModelConfig) -> None:
    ours, theirs = pair(config)
    lengths, steps = [9, 5, 2], 6
    documents = [sample(1, length + steps) for row, length in enumerate(lengths)]
    cache = Cache(config, lengths, steps, torch.device("cpu"), torch.float32)
    with torch.inference_mode():
        packed = torch.cat([document[:, :length] for document, length in zip(documents, lengths)], dim=1)
        order = torch.tensor([2, 0, 1])  # prompts need not be read in the order of their rows
        ours.read(packed, cache.prompts(Layout.of(lengths), order, order))
        following = torch.cat([document[:, length:] for document, length in zip(documents, lengths)])
        mine = torch.cat([ours(following[:, [step]], cache) for step in range(steps)], dim=1)
        for row, length in enumerate(lengths):
            assert close(mine[row], theirs(documents[row]).logits[0, length:])


@pytest.mark.parametrize("side", ["right", "left"])
def test_scores_are_those_of_their_classifier_whatever_the_padding(side: str) -> None:
    ours, theirs = pair(SHAPES["grouped queries"], Scorer)
    lengths = [12, 30, 1, 21]
    documents = sample(1, sum(lengths))[0].split(lengths)
    layout = Layout.of(lengths)
    mine = ours(torch.cat(documents)[None], layout)[layout.ends]
    padded, mask = torch.zeros(4, 30, dtype=torch.long), torch.zeros(4, 30, dtype=torch.long)
    for row, document in enumerate(documents):
        place = slice(0, len(document)) if side == "right" else slice(30 - len(document), 30)
        padded[row, place], mask[row, place] = document, 1
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    reference = theirs(padded, attention_mask=mask, position_ids=positions).logits[:, 0]
    assert close(mine, reference)
    for scores in (mine, reference):
        scores.sigmoid().sum().backward()
    same_gradients(ours, theirs)
