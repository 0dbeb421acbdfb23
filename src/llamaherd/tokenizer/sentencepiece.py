"""A SentencePiece model as text to ids and back (paper section 1). Text never becomes a control id, whatever it says.

The round trip `decode(encode(text)) == text` holds for any Unicode text under a model with byte fallback, with one
exception that is SentencePiece's own: U+2581 (the mark it writes for a space) comes back as a space.
"""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from sentencepiece import SentencePieceProcessor

from ..core.errors import UserError
from ..core.files import write_bytes

SPACE = "\u2581"
"""How pieces write a space."""
MODEL_FILE = "tokenizer.model"


def check_unicode(text: str) -> None:
    """Raises UserError when `text` holds a lone surrogate, which no UTF-8 can say."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        raise UserError(
            f"text holds a lone surrogate (U+{code:04X}, character {error.start + 1}), which is not valid Unicode; remove it"
        ) from None


class Tokenizer:
    """`model` is the serialized SentencePiece model. Raises UserError when it is none, or lacks bos or eos."""

    def __init__(self, model: bytes, source: str = "tokenizer"):
        self.model = model
        self._processor = SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(model)
        except RuntimeError:
            raise UserError(f"{source}: is not a SentencePiece model; expected the content of a {MODEL_FILE}") from None
        self.vocab_size: int = self._processor.vocab_size()
        self.bos_id: int = self._processor.bos_id()
        self.eos_id: int = self._processor.eos_id()
        self.unk_id: int = self._processor.unk_id()
        if min(self.bos_id, self.eos_id) < 0:
            raise UserError(f"{source}: has no begin or end symbol; expected a model with <s> and </s>, as Llama's")
        self.prefixes_space: bool = self._processor.decode_pieces([SPACE]) == ""
        """Whether a space is put before every text, and taken away again (Llama's models do)."""
        self.joins_spaces: bool = self._processor.encode("a  a") == self._processor.encode("a a")
        """Whether of several spaces one is read, and none at the ends of a text (Llama's models keep all)."""

    @classmethod
    def load(cls, path: Path) -> "Tokenizer":
        """From a model file, or a folder that holds exactly one. Raises UserError."""
        if path.is_dir():
            found = sorted(path.glob("*.model"))
            if len(found) != 1:
                there = ", ".join(file.name for file in found) or "no file of that kind"
                raise UserError(f"{path}: expected exactly one SentencePiece *.model, found {there}; name the file instead")
            path = found[0]
        try:
            return cls(path.read_bytes(), str(path))
        except OSError as error:
            raise UserError(f"{path}: cannot be read as a SentencePiece model: {error.strerror}") from None

    def save(self, folder: Path) -> None:
        """Writes `tokenizer.model` into `folder`."""
        write_bytes(folder / MODEL_FILE, self.model)

    @property
    def hash(self) -> str:
        """SHA-256 of the model: equal for tokenizers that give equal ids."""
        return hashlib.sha256(self.model).hexdigest()

    def encode(self, text: str) -> list[int]:
        """Ids of ordinary text, no begin or end; `"<s>"` is three characters here. Raises UserError for lone surrogates."""
        check_unicode(text)
        ids: list[int] = self._processor.encode(text)
        return ids

    def encode_many(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of each text, on all cores."""
        for text in texts:
            check_unicode(text)
        ids: list[list[int]] = self._processor.encode(list(texts))
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids; control ids say nothing, bytes of no character become U+FFFD. Raises UserError for foreign ids."""
        try:
            text: str = self._processor.decode(list(ids))
        except IndexError:
            foreign = next(id for id in ids if not 0 <= id < self.vocab_size)
            raise UserError(f"id {foreign} is none of this tokenizer's {self.vocab_size}; use the tokenizer of the model") from None
        return text

    def piece(self, id: int) -> str:
        """The piece as the vocabulary writes it: `▁` for a space, `<0x0A>` for a byte, `<s>` for begin."""
        piece: str = self._processor.id_to_piece(id)
        return piece

    @cached_property
    def longest_piece(self) -> int:
        """Characters of the longest piece: no text has fewer tokens than its characters over this."""
        return max(len(self.piece(id)) for id in range(self.vocab_size))

    def score(self, id: int) -> float:
        """What the trainer gave the piece: in a BPE model, the higher, the earlier it is merged."""
        score: float = self._processor.get_score(id)
        return score

    def byte(self, id: int) -> int | None:
        """The byte (0 to 255) that a byte-fallback piece stands for; None for other pieces."""
        return int(self.piece(id)[3:5], 16) if self._processor.is_byte(id) else None

    def is_control(self, id: int) -> bool:
        """Whether the piece is begin, end or the like: never the result of text."""
        control: bool = self._processor.is_control(id)
        return control


class TextStream:
    """Text of ids that come one by one; what `feed` and the last `close` return adds up to `decode` of all of them.

    `begun`: text stands before, so a space at the start is said, which `decode` would leave out.
    """

    def __init__(self, tokenizer: Tokenizer, begun: bool = False):
        self._tokenizer = tokenizer
        self._held = bytearray()
        self._begun = begun or not tokenizer.prefixes_space

    def feed(self, id: int) -> str:
        """The text that is certain now: a character made of several bytes comes with its last one."""
        byte = self._tokenizer.byte(id)
        if byte is not None:
            self._held.append(byte)
            text = self._characters()
        else:
            text = self.close()
            text += self._surface(id)
        self._begun |= text != ""
        return text

    def close(self) -> str:
        """What is left when no more ids come: U+FFFD for each byte that still waited for its character."""
        text = "\ufffd" * len(self._held)
        self._held.clear()
        self._begun |= text != ""
        return text

    def _surface(self, id: int) -> str:
        if self._tokenizer.is_control(id) or id == self._tokenizer.unk_id:
            return self._tokenizer.decode([id])
        piece = self._tokenizer.piece(id)
        if not self._begun and piece.startswith(SPACE):
            self._begun = True
            piece = piece.removeprefix(SPACE)
        return piece.replace(SPACE, " ")

    def _characters(self) -> str:
        """Whole characters at the front of the held bytes; a byte that can begin none becomes one U+FFFD, as in `decode`."""
        text = ""
        while self._held:
            try:
                text += self._held.decode()
                self._held.clear()
            except UnicodeDecodeError as error:
                if error.reason == "unexpected end of data":
                    break
                text += "\ufffd"
                del self._held[0]
        return text
