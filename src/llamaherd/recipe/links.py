"""What the chains of both kinds of recipes have alike: the base, every version, who judges it. Where texts come from is the kind's own."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from ..core.config import Config, dump
from ..stages.corpus import CorpusConfig
from ..stages.distill import DistillConfig
from ..stages.evaluate import TASKS, EvaluateConfig, Task
from ..stages.ghost import GhostConfig
from ..stages.ppo import PpoStageConfig
from ..stages.pretrain import PretrainConfig
from ..stages.reject import RejectConfig
from ..stages.sft import SftConfig
from ..stages.shards import ShardsConfig
from ..stages.tokenizer import TokenizerStageConfig
from .config import RecipeConfig
from .steps import Step, step

DOMAINS = ("helpfulness", "safety")
R = TypeVar("R", bound=RecipeConfig)
Inputs = Mapping[str, Any]


class Links(ABC, Generic[R]):
    """Gathers the steps of a run.

    `texts`, `prompts`: folders of documents and demonstrations, and of what models are asked. `judge`: settings by which stages know who
    judges answers; `watch`: those of PPO, which only logs what the judge says; `asked`: those of evaluations, for their test prompts.
    """

    unasked: ClassVar[frozenset[Task]] = frozenset()
    """What versions are not asked, for want of such prompts."""

    def __init__(
        self, recipe: R, run: Path, *, versions: int, texts: Path, prompts: Path, judge: Inputs, watch: Inputs, asked: Inputs
    ):  # fmt: skip
        self.recipe, self.run, self.versions, self.texts, self.prompts = recipe, run, versions, texts, prompts
        self.judge, self.watch, self.asked = judge, watch, asked
        self.steps: list[Step] = []

    @abstractmethod
    def rewards(self, n: int) -> dict[str, str]:
        """The reward models by which version `n` is made."""

    def path(self, name: str, file: str = "") -> str:
        return str(self.run / name / file if file else self.run / name)

    def add(self, name: str, stage: str, kind: type[Config], settings: Config | None = None, **inputs: Any) -> None:
        self.steps.append(step(name, stage, kind, self.recipe.seed, settings, **inputs))

    @property
    def samples(self) -> Path:
        """A few fixed prompts whose answers people see."""
        return self.prompts / "samples.jsonl"

    @property
    def demonstrations(self) -> str:
        return str(self.texts / "demonstrations.jsonl")

    @property
    def obedient(self) -> set[str]:
        """Versions of which long dialogues are asked: before and after Ghost Attention's rows join the mix, and the last one."""
        before, last = self.recipe.ghost_after, self.versions
        after = f"v{last}-rejection" if before + 1 >= last else f"v{before + 1}"
        return {f"v{before}", after, f"v{last}"}

    def base(self, **corpus: Any) -> None:
        """Cleaned documents, a vocabulary, shards, the base model; `corpus`: settings of the cleaning that are not the recipe's."""
        recipe, documents = self.recipe, [str(self.texts / "documents.jsonl")]
        self.add("corpus", "corpus", CorpusConfig, recipe.corpus, documents=documents, **corpus)
        self.add(
            "tokenizer", "tokenizer", TokenizerStageConfig, corpus=self.path("corpus"), dialogues=[self.demonstrations],
            tokenizer=dump(recipe.tokenizer),
        )  # fmt: skip
        self.add("shards", "shards", ShardsConfig, recipe.shards, corpus=self.path("corpus"), tokenizer=self.path("tokenizer"))
        self.add("base", "pretrain", PretrainConfig, recipe.pretrain, shards=self.path("shards"))
        self.steps[-1] = replace(self.steps[-1], threads=recipe.alone_threads)

    def version(self, n: int, prompts: str) -> None:
        """Rejection sampling on the file `prompts`, and tuning; for the last version PPO."""
        recipe, name, newest, rewards, last = self.recipe, f"v{n}", self.path(f"v{n - 1}"), self.rewards(n), n == self.versions
        self.add(
            f"{name}-samples", "reject", RejectConfig, recipe.reject, model=newest, version=name, **self.judge, **rewards,
            prompts=[str(self.prompts / prompts)], pool=[self.path(f"v{earlier}-samples") for earlier in range(1, n)],
        )  # fmt: skip
        self.tune(n, f"{name}-rejection" if last else name)
        if n in (1, self.versions):
            # Apart from the samples, since nothing waits for it.
            self.add(
                f"{name}-best-of", "reject", RejectConfig, recipe.reject, model=newest, version=name, **self.judge, **rewards,
                judged_prompts=[str(self.prompts / "best-of.jsonl")],
            )  # fmt: skip
        if last:
            self.add(
                name, "ppo", PpoStageConfig, recipe.ppo, model=self.path(f"{name}-rejection"), **rewards, **self.watch,
                prompts=[str(self.prompts / "ppo.jsonl")], held_out=[str(self.prompts / "held-out.jsonl")],
            )  # fmt: skip
            self.evaluation(f"{name}-rejection")
        self.evaluation(name)
        if n == recipe.ghost_after and not last:
            self.ghost_and_distillation(n)

    def tune(self, n: int, name: str) -> None:
        recipe = self.recipe
        data = [self.demonstrations, self.path(f"v{n}-samples", "dialogues.jsonl")]
        shares = [recipe.mix.demonstrations, recipe.mix.samples]
        if n > recipe.ghost_after:
            data += [self.path("ghost", "dialogues.jsonl"), self.path("distilled", "dialogues.jsonl")]
            shares += [recipe.mix.ghost, recipe.mix.distilled]
        start = "base" if recipe.tune_from == "base" else "v0"
        self.add(name, "sft", SftConfig, recipe.tune, model=self.path(start), data=data, shares=shares)

    def ghost_and_distillation(self, n: int) -> None:
        recipe, newest = self.recipe, self.path(f"v{n}")
        self.add("ghost", "ghost", GhostConfig, recipe.ghost, model=newest, scripts=[str(self.prompts / "ghost.jsonl")])
        self.add(
            "distilled", "distill", DistillConfig, recipe.distill, model=newest, safety=self.rewards(n)["safety"],
            prompts=[str(self.prompts / "distil.jsonl")], harmless=[str(self.prompts / "harmless.jsonl")],
            test=[str(self.prompts / "distil-test.jsonl")], **self.judge,
        )  # fmt: skip

    def evaluation(self, name: str) -> None:
        """All that the judge says; nothing else of the run waits for it."""
        left_out = {"rewards", *self.unasked, *(() if name in self.obedient else ("ghost",))}
        tasks = [task for task in TASKS if task not in left_out]
        self.add(
            f"{name}-evaluation", "evaluate", EvaluateConfig, self.recipe.evaluate, model=self.path(name), tasks=tasks, **self.judge,
            **self.asked,
        )  # fmt: skip

    def judgements(self) -> None:
        """The last reward models judge the answers of all versions."""
        last = self.versions
        for name in [*(f"v{n}" for n in range(last)), f"v{last}-rejection", f"v{last}"]:
            self.add(
                f"{name}-rewards", "evaluate", EvaluateConfig, self.recipe.evaluate, model=self.path(name), tasks=["rewards"],
                answers=self.path(f"{name}-evaluation"), **self.judge, **self.asked, **self.rewards(last),
            )  # fmt: skip
