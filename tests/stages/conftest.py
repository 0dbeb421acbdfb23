from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from llamaherd.chat.dialogue import Message, checked
from llamaherd.chat.template import encode_dialogue, encode_prompt
from llamaherd.checkpoints.huggingface import save_model
from llamaherd.model.config import ModelConfig
from llamaherd.model.transformer import Transformer
from llamaherd.tokenizer.training import TokenizerConfig, train_tokenizer

ANSWER = "Ada lives in Lima."


@pytest.fixture(scope="session")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Folders of models that look at nothing but the last token, and thus give one known answer to every prompt.

    Embeddings are one-hot, the block writes nothing, and the head maps every token of the answer to the next one. With
    `endless`, the answer starts again instead of ending.
    """
    corpus = [f"[INST] <<SYS>>\nAnswer briefly.\n<</SYS>>\n\nWhere does Ada live? [/INST] {ANSWER} "] * 5
    tokenizer = train_tokenizer(corpus, TokenizerConfig(vocab_size=340))

    def folder(answer: str = ANSWER, context: int = 256, endless: bool = False) -> Path:
        prompt = checked([Message("user", "x")])
        start = encode_prompt(prompt, tokenizer)
        said = encode_dialogue(prompt.followed_by("assistant", answer), tokenizer).ids[len(start) :]
        assert len({start[-1], *said}) == 1 + len(said), "a token of the answer has two successors"
        if endless:
            said[-1] = said[0]
        size = tokenizer.vocab_size
        config = ModelConfig(dim=size, layers=1, heads=1, head_dim=2, ffn=2, vocab_size=size, context=context)
        model = Transformer(config)
        for weight in model.parameters():
            weight.data.fill_(1.0 if weight.ndim == 1 else 0.0)
        model.tok_embeddings.weight.data = torch.eye(size)
        for before, after in zip([start[-1], *said], said, strict=False):
            model.output.weight.data[after, before] = 10.0
        model.output.weight.data[said[0], tokenizer.bos_id] = 10.0
        place = tmp_path_factory.mktemp("scripted") / "parrot"
        save_model(model, tokenizer, place)
        return place

    return folder
