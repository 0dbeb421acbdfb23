"""Training a tokenizer with the settings of Llama's (paper section 1): BPE, digits split, bytes for unknown characters."""

import io
import re
from collections.abc import Iterable, Iterator

from pydantic import Field
from sentencepiece import SentencePieceTrainer

from ..core.config import Config
from ..core.errors import UserError
from .sentencepiece import Tokenizer, check_unicode

_UNKNOWN_MARK = "\u2585"
"""SentencePiece leaves out every sentence with this character, which it uses inside."""


class TokenizerConfig(Config):
    """What may differ between tokenizers; all else is fixed by section 1."""

    vocab_size: int = Field(default=32_000, gt=3 + 256)
    """Number of pieces, among them <unk>, <s>, </s> and the 256 bytes."""
    character_coverage: float = Field(default=0.99995, ge=0.98, le=1.0)
    """Share of the corpus's characters that get a piece of their own; the rest is written in bytes."""
    max_piece_length: int = Field(default=16, ge=1, le=512)
    """Longest piece, in characters."""
    max_sentence_bytes: int = Field(default=4192, ge=16)
    """Longer lines are cut at a space for training; nothing is left out."""


def sentences(texts: Iterable[str], limit_bytes: int) -> Iterator[str]:
    """The lines of all texts, cut so that SentencePiece, which silently skips what it cannot take, skips none.

    A line is cut at a space: the one that SentencePiece puts before every sentence stands for it, so the words counted
    are the same. Only a word longer than the limit is cut inside. Raises UserError for lone surrogates.
    """
    for text in texts:
        check_unicode(text)
        for line in re.split(f"[\n{_UNKNOWN_MARK}]", text):
            rest = line.encode()
            start = 0
            while len(rest) - start > limit_bytes:
                end = rest.rfind(b" ", start + 1, start + limit_bytes + 1)
                step = 1
                if end < 0:
                    end, step = start + limit_bytes, 0
                    while rest[end] & 0xC0 == 0x80:  # inside a character
                        end -= 1
                yield rest[start:end].decode()
                start = end + step
            if start < len(rest):
                yield rest[start:].decode()


def train_tokenizer(texts: Iterable[str], config: TokenizerConfig) -> Tokenizer:
    """A tokenizer for these texts, the same one every time; the corpus is held in memory, as SentencePiece does anyway.

    Raises UserError when there is no text, or the vocabulary does not fit the corpus.
    """
    corpus = list(sentences(texts, config.max_sentence_bytes))
    if not corpus:
        raise UserError("no text to train a tokenizer on: the corpus is empty; give documents or dialogues")
    model = io.BytesIO()
    try:
        SentencePieceTrainer.train(
            sentence_iterator=iter(corpus), model_writer=model, minloglevel=2, model_type="bpe",
            vocab_size=config.vocab_size, character_coverage=config.character_coverage,
            max_sentencepiece_length=config.max_piece_length, max_sentence_length=config.max_sentence_bytes,
            byte_fallback=True, split_digits=True, allow_whitespace_only_pieces=True,
            split_by_unicode_script=True, split_by_whitespace=True, split_by_number=True,
            normalization_rule_name="identity", add_dummy_prefix=True, remove_extra_whitespaces=False,
            unk_id=0, bos_id=1, eos_id=2, pad_id=-1, unk_surface=" \u2047 ",
        )  # fmt: skip
    except RuntimeError as error:
        raise _explained(error, config.vocab_size) from error
    return Tokenizer(model.getvalue())


def _explained(error: RuntimeError, vocab_size: int) -> Exception:
    """The trainer's two complaints about the vocabulary as one line with the fix; any other error as it is."""
    if most := re.search(r"Vocabulary size too high .*<= (\d+)", str(error)):
        return UserError(f"vocab_size {vocab_size}: this corpus gives at most {most[1]} pieces; lower vocab_size, or give more text")
    if least := re.search(r"smaller than required_chars\. \d+ vs (\d+)", str(error)):
        return UserError(
            f"vocab_size {vocab_size}: this corpus needs at least {least[1]} pieces for its characters; "
            "raise vocab_size, or lower character_coverage"
        )
    return error
