"""What many tests need: a small tokenizer and random models that say short things, built once per session."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from llamaherd.checkpoints.huggingface import save_model
from llamaherd.core.device import set_threads
from llamaherd.core.seeds import torch_rng
from llamaherd.model.config import ModelConfig
from llamaherd.model.transformer import Scorer, Transformer, scorer_from
from llamaherd.tokenizer.sentencepiece import Tokenizer
from llamaherd.tokenizer.training import TokenizerConfig, train_tokenizer

# Times depend on who else uses the machine; they are no property of the code.
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")
set_threads(1)

PEOPLE, CITIES = ("Ada", "Ben", "Eva", "Max"), ("Lima", "Oslo", "Rome", "Kyiv")


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """For small talk in the chat format, and for any other text by its bytes."""
    facts = [f"{person} lives in {city}." for person in PEOPLE for city in CITIES]
    chats = [f"[INST] <<SYS>>\nAnswer briefly.\n<</SYS>>\n\nWhere does {name} live? [/INST] {fact} " for name, fact in zip(PEOPLE * 4, facts, strict=True)]
    return train_tokenizer([*facts, *chats], TokenizerConfig(vocab_size=340))


@pytest.fixture(scope="session")
def make_tiny(tokenizer: Tokenizer) -> Callable[[int], Transformer]:
    """Random weights from a seed, large enough for answers to vary, with a bias to stop after a few tokens."""

    def make(seed: int) -> Transformer:
        model = Transformer(ModelConfig(dim=16, layers=1, heads=2, kv_heads=1, ffn=24, vocab_size=tokenizer.vocab_size, context=128))
        for name, weight in model.named_parameters():
            weight.data.normal_(0.0, 0.3, generator=torch_rng(seed, "weights", name)) if weight.ndim > 1 else weight.data.fill_(1.0)
        with torch.no_grad():
            # The first channel is the same for every token and so acts as a bias: for stopping, against lone bytes.
            model.tok_embeddings.weight[:, 0] = 2.0
            for name, weight in model.named_parameters():
                if name.endswith(("wo.weight", "w2.weight")):
                    weight[0] = 0.0
            model.output.weight[:, 0] = 0.0
            model.output.weight[3 : 3 + 256, 0] = -2.0
            model.output.weight[tokenizer.eos_id, 0] = 2.5
        return model.eval()

    return make


@pytest.fixture
def tiny_model(make_tiny: Callable[[int], Transformer]) -> Transformer:
    return make_tiny(0)


@pytest.fixture
def tiny_scorer(tiny_model: Transformer) -> Scorer:
    """A reward model on the same trunk, with a random head."""
    return random_scorer(tiny_model, 0)


def random_scorer(model: Transformer, seed: int) -> Scorer:
    scorer = scorer_from(model).eval()
    head = scorer.score.weight.data
    head.normal_(0.0, 2.0, generator=torch_rng(seed, "head"))
    end = scorer.hidden(torch.tensor([[1, *range(259, 300), 2]]))[0, -1].detach()
    head[0, 0] -= (head[0] @ end) / end[0]  # scores of either sign
    return scorer


@pytest.fixture(scope="session")
def tiny_folder(make_tiny: Callable[[int], Transformer], tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds chat models `v0` and `v0-early` and reward models `helpfulness` and `safety`."""
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("v0", "v0-early")):
        save_model(make_tiny(seed), tokenizer, folder / name)
    for seed, name in enumerate(("helpfulness", "safety")):
        save_model(random_scorer(make_tiny(0), seed), tokenizer, folder / name)
    return folder
