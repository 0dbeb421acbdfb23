import pytest

from llamaherd.tokenizer.sentencepiece import Tokenizer
from llamaherd.tokenizer.training import TokenizerConfig, train_tokenizer


class Letters:
    """One id per character, so that ids and masks can be worked by hand."""

    bos_id, eos_id, longest_piece = 1, 2, 1

    def encode(self, text: str) -> list[int]:
        return [ord(letter) for letter in text]

    def piece(self, id: int) -> str:
        return {1: "<s>", 2: "</s>"}.get(id, chr(id))


@pytest.fixture(scope="session")
def letters() -> Letters:
    return Letters()


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    corpus = ["[INST] <<SYS>>\nAnswer briefly.\n<</SYS>>\n\nWhere does Ada live? [/INST] Ada lives in Lima. "] * 5
    return train_tokenizer(corpus, TokenizerConfig(vocab_size=340))
