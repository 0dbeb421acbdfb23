"""Corpus and tokenizer to token shards: sources weighted (section 2), documents shuffled, encoded between BOS and EOS."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import Field

from ..core.artifacts import Artifact, building, open_artifact
from ..core.config import Config
from ..core.errors import UserError
from ..core.seeds import python_rng
from ..data.documents import CORPUS_FILE, read_documents
from ..data.mixture import copies_of, mixture_statistics
from ..tokenizer.sentencepiece import Tokenizer


class ShardsSettings(Config):
    """How sources are mixed."""

    weights: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    """How often the documents of a source are read in one epoch; sources not named: once."""
    shard_tokens: int = Field(default=1 << 26, ge=1)
    """Tokens in a file."""


class ShardsConfig(ShardsSettings):
    """Settings and inputs."""

    corpus: Path
    """Folder of the corpus."""
    tokenizer: Path
    """Folder of the tokenizer."""


def run(config: ShardsConfig, out: Path, seed: int) -> Artifact:
    """Builds the shards, their index and a copy of the tokenizer. Raises UserError for weights of unknown sources."""
    from ..data.shards import dtype_for, encode_documents, in_order, write_shards

    corpus, vocabulary = open_artifact(config.corpus, "corpus"), open_artifact(config.tokenizer, "tokenizer")
    tokenizer = Tokenizer.load(vocabulary.path)
    sources: list[str] = []

    def texts() -> Iterator[str]:
        for document in read_documents([corpus.path / CORPUS_FILE]):
            sources.append(document.source)
            yield document.text

    parents = {"corpus": corpus, "tokenizer": vocabulary}
    with building(out, kind="shards", stage="shards", config=config, parents=parents, seed=seed) as place:
        encoded = place.folder / "encoded.bin"
        sizes = encode_documents(texts(), tokenizer, encoded)
        copies = copies_of(sources, config.weights, seed)
        order = [index for index, count in enumerate(copies) for _ in range(count)]
        if not order:
            raise UserError(f"weights: {config.weights} leave no document; give at least one source a weight above 0")
        python_rng(seed, "shards", "order").shuffle(order)
        dtype = dtype_for(tokenizer.vocab_size)
        index = write_shards(
            place.folder, in_order(encoded, dtype, sizes, order), shard_tokens=config.shard_tokens,
            dtype=dtype, bos_id=tokenizer.bos_id, tokenizer_sha256=tokenizer.hash,
        )  # fmt: skip
        encoded.unlink()
        tokenizer.save(place.folder)
        place.metrics.update(tokens=index.tokens, documents=index.documents, sources=mixture_statistics(sources, sizes, copies))
    return open_artifact(out, "shards")


def headline(artifact: Artifact) -> str:
    """What came out, in one line."""
    metrics = artifact.metrics
    mixture = ", ".join(f"{name} {row['mixed_share']:.0%}" for name, row in metrics["sources"].items())
    return f"{metrics['tokens']:,} tokens of {metrics['documents']:,} documents: {mixture}"
