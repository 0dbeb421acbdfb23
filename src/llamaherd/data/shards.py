"""Token shards: one stream of `BOS ids EOS` documents as flat little-endian integers, in files with checksums per block.

shard-00000.bin ...   16-bit integers where the vocabulary allows, else 32-bit
index.json            what ShardIndex says
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from ..core.config import Config, build, dump
from ..core.errors import UserError
from ..core.files import naming, read_json, write_bytes, write_json

if TYPE_CHECKING:
    from ..tokenizer.sentencepiece import Tokenizer

Tokens = npt.NDArray[np.unsignedinteger[Any]]

INDEX = "index.json"
BLOCK_BYTES = 1 << 20
BATCH_TEXTS = 1024


class ShardFile(Config):
    file: str
    """Name in the folder of the index."""
    tokens: int = Field(gt=0)
    """How many."""
    sha256: tuple[str, ...]
    """Of each block of the file."""


class ShardIndex(Config):
    dtype: Literal["uint16", "uint32"]
    """Type of a token, little-endian."""
    tokens: int
    """In all shards."""
    documents: int
    """In all shards, copies counted."""
    bos_id: int
    """The id that starts each document and stands nowhere else."""
    tokenizer_sha256: str
    """Of the tokenizer's model file."""
    block_bytes: int = Field(gt=0)
    """Size of the blocks that are hashed."""
    shards: tuple[ShardFile, ...]
    """In the order of the stream."""


def dtype_for(vocab_size: int) -> Literal["uint16", "uint32"]:
    """The smallest type that holds every id."""
    return "uint16" if vocab_size <= 1 << 16 else "uint32"


def _little_endian(dtype: str) -> np.dtype[Any]:
    return np.dtype(dtype).newbyteorder("<")


def _block_hashes(content: bytes | memoryview, block_bytes: int) -> tuple[str, ...]:
    return tuple(hashlib.sha256(content[start : start + block_bytes]).hexdigest() for start in range(0, len(content), block_bytes))


def encode_documents(texts: Iterable[str], tokenizer: "Tokenizer", file: Path) -> list[int]:
    """Writes BOS, ids, EOS of every text to `file`, flat, and returns the tokens of each (a corpus need not fit in memory)."""
    dtype = _little_endian(dtype_for(tokenizer.vocab_size))
    sizes: list[int] = []
    batch: list[str] = []

    def flush() -> bytes:
        encoded = [[tokenizer.bos_id, *ids, tokenizer.eos_id] for ids in tokenizer.encode_many(batch)]
        sizes.extend(map(len, encoded))
        batch.clear()
        return np.array([id for ids in encoded for id in ids], dtype).tobytes()

    with naming(file), file.open("wb") as out:
        for text in texts:
            batch.append(text)
            if len(batch) == BATCH_TEXTS:
                out.write(flush())
        out.write(flush())
    return sizes


def in_order(file: Path, dtype: str, sizes: Sequence[int], order: Iterable[int]) -> Iterator[Tokens]:
    """Documents of a file that `encode_documents` wrote (at least one), in another order."""
    stream = np.memmap(file, _little_endian(dtype), "r")
    starts = np.concatenate(([0], np.cumsum(sizes)))
    for index in order:
        yield stream[starts[index] : starts[index + 1]]


def write_shards(
    folder: Path,
    documents: Iterable[Tokens],
    *,
    shard_tokens: int,
    dtype: Literal["uint16", "uint32"],
    bos_id: int,
    tokenizer_sha256: str,
) -> ShardIndex:
    """Writes documents one after the other into shards of `shard_tokens` (the last one shorter), and the index."""
    shards: list[ShardFile] = []
    waiting: list[Tokens] = []
    count = waiting_tokens = 0

    def write(tokens: Tokens) -> None:
        name = f"shard-{len(shards):05d}.bin"
        content = tokens.astype(_little_endian(dtype)).tobytes()
        write_bytes(folder / name, content)
        shards.append(ShardFile(file=name, tokens=len(tokens), sha256=_block_hashes(content, BLOCK_BYTES)))

    for document in documents:
        count += 1
        waiting.append(document)
        waiting_tokens += len(document)
        if waiting_tokens >= shard_tokens:
            joined = np.concatenate(waiting)
            whole = waiting_tokens - waiting_tokens % shard_tokens
            for start in range(0, whole, shard_tokens):
                write(joined[start : start + shard_tokens])
            waiting, waiting_tokens = [joined[whole:]], waiting_tokens - whole
    if waiting_tokens:
        write(np.concatenate(waiting))
    index = ShardIndex(
        dtype=dtype, tokens=sum(shard.tokens for shard in shards), documents=count, bos_id=bos_id,
        tokenizer_sha256=tokenizer_sha256, block_bytes=BLOCK_BYTES, shards=tuple(shards),
    )  # fmt: skip
    write_json(folder / INDEX, dump(index))
    return index


class TokenShards:
    """The token stream of a folder; opening it checks every size and checksum.

    Raises UserError that names file and byte offset for a missing, shortened or damaged shard.
    """

    def __init__(self, folder: Path):
        self.index = build(ShardIndex, read_json(folder / INDEX), str(folder / INDEX))
        self.bos_id, self.tokens = self.index.bos_id, self.index.tokens
        self._files = [self._open(folder / shard.file, shard) for shard in self.index.shards]
        self._starts = np.cumsum([0, *(shard.tokens for shard in self.index.shards)])
        if self.tokens != self._starts[-1]:
            found = self._starts[-1]
            raise UserError(f"{folder / INDEX}: says {self.tokens} tokens, its shards have {found}; build the shards again")

    def _open(self, path: Path, shard: ShardFile) -> Tokens:
        dtype = _little_endian(self.index.dtype)
        expected = shard.tokens * dtype.itemsize
        size = path.stat().st_size if path.is_file() else None
        if size != expected:
            found = "there is no such file" if size is None else f"it ends at byte {size}"
            raise UserError(f"{path}: {found}, expected {expected} bytes; copy it again or build the shards again")
        tokens = np.memmap(path, dtype, "r")
        hashes = _block_hashes(tokens.data.cast("B"), self.index.block_bytes)
        for block, (is_now, was) in enumerate(zip_longest(hashes, shard.sha256)):
            if is_now != was:
                start = block * self.index.block_bytes
                raise UserError(
                    f"{path}: damaged between byte {start} and {min(start + self.index.block_bytes, expected)} "
                    "(checksum differs from the index); copy it again or build the shards again"
                )
        return tokens

    def read(self, start: int, count: int) -> Tokens:
        """Tokens `start` to `start + count` of the stream, across shards: [count] of the index's type."""
        assert 0 <= start <= start + count <= self.tokens, "outside the stream"
        parts: list[Tokens] = []
        shard = int(np.searchsorted(self._starts, start, side="right")) - 1
        while count:
            offset = start - int(self._starts[shard])
            part = self._files[shard][offset : offset + count]
            parts.append(part)
            start, count, shard = start + len(part), count - len(part), shard + 1
        return np.concatenate(parts) if parts else np.empty(0, _little_endian(self.index.dtype))
