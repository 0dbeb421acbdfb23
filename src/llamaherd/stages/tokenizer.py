"""Corpus and rendered dialogues to a tokenizer (section 1): having seen dialogues, it gives their tags few pieces."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from ..chat.template import pair_texts
from ..core.artifacts import Artifact, building, open_artifact
from ..core.config import Config
from ..data.documents import CORPUS_FILE, read_documents
from ..data.inputs import parents_of
from ..data.records import read_dialogues
from ..tokenizer.training import TokenizerConfig, train_tokenizer
from .common import Paths, plain_files

MEASURED_DOCUMENTS = 1000


class TokenizerStageConfig(Config):
    corpus: Path
    """Folder of the corpus."""
    dialogues: Paths = ()
    """Files of dialogues whose rendered text is learned from too."""
    tokenizer: TokenizerConfig = TokenizerConfig()
    """Size and settings of the vocabulary."""


def run(config: TokenizerStageConfig, out: Path, seed: int) -> Artifact:
    """Builds `tokenizer.model`; the training has no randomness, so the seed changes nothing."""
    corpus = open_artifact(config.corpus, "corpus")
    dialogues = plain_files(config.dialogues, "dialogues.jsonl")
    parents = parents_of(dialogues, corpus=corpus)

    def documents() -> Iterator[str]:
        return (document.text for document in read_documents([corpus.path / CORPUS_FILE]))

    def texts() -> Iterator[str]:
        yield from documents()
        for path in dialogues:
            for dialogue in read_dialogues(path, ends_with="either"):
                yield from pair_texts(dialogue)

    with building(out, kind="tokenizer", stage="tokenizer", config=config, parents=parents, seed=seed) as place:
        tokenizer = train_tokenizer(texts(), config.tokenizer)
        tokenizer.save(place.folder)
        sample = list(islice(documents(), MEASURED_DOCUMENTS))
        tokens = sum(map(len, tokenizer.encode_many(sample)))
        place.metrics.update(
            vocab_size=tokenizer.vocab_size, characters_per_token=sum(map(len, sample)) / tokens,
            example=[tokenizer.piece(id) for id in tokenizer.encode(sample[0])[:20]],
        )  # fmt: skip
    return open_artifact(out, "tokenizer")


def headline(artifact: Artifact) -> str:
    """What came out, in one line."""
    metrics = artifact.metrics
    example = " ".join(metrics["example"])
    return f"{metrics['vocab_size']:,} pieces, {metrics['characters_per_token']:.2f} characters a token: {example}"
