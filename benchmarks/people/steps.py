"""The artifacts of the benchmark, all made by the ordinary stages: foundation, reward models to choose settings by, one for every fold."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamaherd.core.artifacts import find_artifact
from llamaherd.core.config import Config
from llamaherd.data.records import DOMAINS, Domain
from llamaherd.recipe.steps import Step, step
from llamaherd.stages.corpus import CorpusConfig
from llamaherd.stages.pretrain import PretrainConfig
from llamaherd.stages.reward import RewardConfig
from llamaherd.stages.sft import SftConfig
from llamaherd.stages.shards import ShardsConfig
from llamaherd.stages.tokenizer import TokenizerStageConfig

from .texts import DEVELOPMENT, FOLDS

SEED = 0
ARMS = ("chat", "fresh")
"""What reward models start from: the pretrained and tuned model, and random weights of the same shape."""
CANDIDATES: Mapping[str, tuple[float, float]] = {"a": (3e-4, 1.0), "b": (1e-3, 1.0)}
"""Learning rate and passes over the comparisons that are tried on the development part; one pass, as in the paper."""
WEIGHTS = {"novels": 0.3, "wikitext": 2.0, "tinystories": 2.0, "c4": 6.0, "wikipedia": 4.0}
"""How often each source is read in one epoch: more of what was written in our days, which are few."""


@dataclass(frozen=True)
class Sizes:
    """How large everything is."""

    vocabulary: int
    shape: Mapping[str, int]
    row_tokens: int
    batch_rows: int
    steps: int
    warmup: int
    novels: int | None
    """Novels of each file; None: all."""
    rows: int | None
    """Dialogues, and comparisons of each domain; None: all."""


FULL = Sizes(
    4096, {"dim": 192, "layers": 4, "heads": 6, "kv_heads": 3, "ffn": 512, "context": 1024}, row_tokens=512, batch_rows=8, steps=1300,
    warmup=60, novels=None, rows=None,
)  # fmt: skip
"""An hour or two on two cores."""
SMOKE = Sizes(
    1024, {"dim": 32, "layers": 2, "heads": 2, "kv_heads": 1, "ffn": 64, "context": 1024}, row_tokens=128, batch_rows=4, steps=20,
    warmup=5, novels=1, rows=150,
)  # fmt: skip
"""Tries every step, and claims nothing."""


class Chain:
    """The steps, with names by which `figures.py` finds what they made."""

    def __init__(self, sizes: Sizes, texts: Path, made: Path):
        self.sizes, self.texts, self.made = sizes, texts, made
        self.steps: list[Step] = []

    def add(self, name: str, stage: str, kind: type[Config], **settings: Any) -> None:
        self.steps.append(step(name, stage, kind, SEED, **settings))

    def foundation(self) -> None:
        """Corpus, tokenizer, shards, the base model, the chat model, and the model of random weights."""
        sizes, dialogues = self.sizes, [str(self.texts / "dialogues.jsonl")]
        path = {name: str(self.made / name) for name in ("corpus", "tokenizer", "shards", "base")}
        self.add("corpus", "corpus", CorpusConfig, documents=[str(self.texts / "documents.jsonl")], statistics={"sample": 0.1})
        self.add(
            "tokenizer", "tokenizer", TokenizerStageConfig, corpus=path["corpus"], dialogues=dialogues,
            tokenizer={"vocab_size": sizes.vocabulary},
        )  # fmt: skip
        self.add("shards", "shards", ShardsConfig, corpus=path["corpus"], tokenizer=path["tokenizer"], weights=WEIGHTS)
        shape = {**sizes.shape, "vocab_size": sizes.vocabulary}
        rows = {"shards": path["shards"], "model": shape, "row_tokens": sizes.row_tokens}
        self.add(
            "base", "pretrain", PretrainConfig, **rows, batch_rows=sizes.batch_rows, steps=sizes.steps,
            optimizer={"lr": 3e-3, "warmup_steps": sizes.warmup},
        )  # fmt: skip
        self.add("chat", "sft", SftConfig, model=path["base"], data=dialogues, epochs=1.0, batch_rows=8, optimizer={"lr": 1e-3})
        # One step at a rate below float32's resolution: the weights stay as they were drawn.
        self.add("fresh", "pretrain", PretrainConfig, **rows, batch_rows=1, steps=1, optimizer={"lr": 1e-12, "warmup_steps": 0})

    def reward(self, name: str, arm: str, domain: Domain, part: int, candidate: str) -> None:
        """A reward model on one domain's comparisons alone, tested on those of both domains in the part that it has not seen."""
        lr, epochs = CANDIDATES[candidate]
        self.add(
            name, "reward", RewardConfig, model=str(self.made / arm), domain=domain, margin="none", safety_weight=0.0, other_share=0.0,
            data=[str(self.texts / f"{domain}-train-{part}.jsonl")], test=[str(self.texts / f"test-{part}.jsonl")], epochs=epochs,
            batch_pairs=16, micro_pairs=16, optimizer={"lr": lr, "warmup_share": 0.1},
        )  # fmt: skip

    def candidates(self, arm: str) -> None:
        """Every candidate of an arm for every domain: trained without fold 1 and the development part, tested on the latter."""
        for candidate in CANDIDATES:
            for domain in DOMAINS:
                self.reward(candidate_name(arm, candidate, domain), arm, domain, DEVELOPMENT, candidate)

    def folds(self, arm: str, chosen: str) -> None:
        """For every domain and fold the reward model that is tested on it."""
        for domain in DOMAINS:
            for fold in range(1, FOLDS + 1):
                self.reward(fold_name(arm, domain, fold), arm, domain, fold, chosen)

    def expected_s(self) -> dict[str, float]:
        """Rough seconds of each step on one core, for the order of work and the time left; the smoke test takes what it takes."""
        fixed = {"corpus": 90.0, "tokenizer": 90.0, "shards": 60.0, "base": 1700.0, "chat": 90.0, "fresh": 3.0}
        epochs = {one.name: one.config.epochs for one in self.steps if isinstance(one.config, RewardConfig)}
        return {**fixed, **{name: 110.0 * passes for name, passes in epochs.items()}}


def candidate_name(arm: str, candidate: str, domain: Domain) -> str:
    return f"{arm}-candidate-{candidate}-{domain}"


def fold_name(arm: str, domain: Domain, fold: int) -> str:
    return f"{arm}-{domain}-{fold}"


def choose(made: Path, arm: str) -> str:
    """An arm's candidate with the highest accuracy on the development part, mean of both domains; of equals the first."""
    scores = {candidate: sum(_accuracy(made / candidate_name(arm, candidate, domain)) for domain in DOMAINS) for candidate in CANDIDATES}
    return max(scores, key=lambda candidate: scores[candidate])


def _accuracy(folder: Path) -> float:
    artifact = find_artifact(folder)
    assert artifact, folder
    return float(artifact.metrics["accuracy"]["own"]["all"]["value"])
