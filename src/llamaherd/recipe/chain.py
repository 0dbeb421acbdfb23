"""The chain from documents to the last version: which stage reads what, all of it known before the first one starts.

world -> corpus -> tokenizer -> shards -> base -> v0-early, v0
then for n = 1..N: vn-preferences -> vn-helpfulness, vn-safety -> vn-samples -> vn (the last one: vn-rejection -> PPO -> vn)
after version `ghost_after`, unless it is the last: ghost, distilled; every version has an evaluation by the oracle, and at the
end a judgement by the last reward models; best-of-N is judged for the first version and the last
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from ..core.config import Config, dump
from ..miniature.vocabulary import INSULTS
from ..stages.collect import CollectConfig
from ..stages.corpus import CorpusConfig
from ..stages.distill import DistillConfig
from ..stages.evaluate import TASKS, EvaluateConfig
from ..stages.ghost import GhostConfig
from ..stages.ppo import PpoStageConfig
from ..stages.pretrain import PretrainConfig
from ..stages.reject import RejectConfig
from ..stages.reward import RewardConfig
from ..stages.sft import SftConfig, SftSettings
from ..stages.shards import ShardsConfig
from ..stages.tokenizer import TokenizerStageConfig
from ..stages.world import WorldStageConfig
from .config import RecipeConfig
from .steps import Step, step

DOMAINS = ("helpfulness", "safety")


class _Chain:
    def __init__(self, recipe: RecipeConfig, run: Path):
        self.recipe, self.run = recipe, run
        self.world = dump(recipe.world.world)
        self.steps: list[Step] = []

    @property
    def obedient(self) -> set[str]:
        """Versions of which long dialogues are asked: before and after Ghost Attention's rows join the mix, and the last one."""
        before, last = self.recipe.ghost_after, self.recipe.world.versions
        after = f"v{last}-rejection" if before + 1 >= last else f"v{before + 1}"
        return {f"v{before}", after, f"v{last}"}

    def path(self, name: str, file: str = "") -> str:
        return str(self.run / name / file if file else self.run / name)

    def rewards(self, n: int) -> dict[str, str]:
        return {domain: self.path(f"v{n}-{domain}") for domain in DOMAINS}

    def add(self, name: str, stage: str, kind: type[Config], settings: Config | None = None, **inputs: Any) -> None:
        self.steps.append(step(name, stage, kind, self.recipe.seed, settings, **inputs))

    def foundation(self) -> None:
        recipe = self.recipe
        demonstrations = self.path("world", "demonstrations.jsonl")
        self.add("world", "world", WorldStageConfig, recipe.world)
        filters = {**dump(recipe.corpus.filters), "block_list": self.path("world", "blocked-hosts.txt")}
        statistics = {**dump(recipe.corpus.statistics), "toxic_words": recipe.corpus.statistics.toxic_words or sorted(INSULTS)}
        documents = [self.path("world", "documents.jsonl")]
        self.add("corpus", "corpus", CorpusConfig, recipe.corpus, documents=documents, filters=filters, statistics=statistics)
        self.add(
            "tokenizer",
            "tokenizer",
            TokenizerStageConfig,
            corpus=self.path("corpus"),
            dialogues=[demonstrations],
            tokenizer=dump(recipe.tokenizer),
        )
        self.add("shards", "shards", ShardsConfig, recipe.shards, corpus=self.path("corpus"), tokenizer=self.path("tokenizer"))
        self.add("base", "pretrain", PretrainConfig, recipe.pretrain, shards=self.path("shards"))
        self.steps[-1] = replace(self.steps[-1], threads=recipe.alone_threads)
        self.add("v0-early", "sft", SftConfig, recipe.early, model=self.path("base"), data=[demonstrations])
        self.add("v0", "sft", SftConfig, recipe.sft, model=self.path("base"), data=[demonstrations])
        self.evaluation("v0")

    def version(self, n: int) -> None:
        """Fresh preferences, refreshed reward models, rejection sampling, tuning; for the last version PPO."""
        recipe, name, newest = self.recipe, f"v{n}", self.path(f"v{n - 1}")
        previous = self.path(f"v{n - 2}" if n > 1 else "v0-early")
        so_far = [self.path(f"v{earlier}-preferences") for earlier in range(1, n + 1)]
        self.add(
            f"{name}-preferences", "collect", CollectConfig, recipe.collect, newest=newest, previous=previous, batch=name, world=self.world,
            helpfulness=[self.path("world", f"{name}-helpfulness.jsonl")], safety=[self.path("world", f"{name}-safety.jsonl")],
        )  # fmt: skip
        for domain in DOMAINS:
            settings = getattr(recipe, domain)
            self.add(f"{name}-{domain}", "reward", RewardConfig, settings, model=newest, data=so_far, test=so_far, domain=domain)
        rewards = self.rewards(n)
        last = n == recipe.world.versions
        self.add(
            f"{name}-samples", "reject", RejectConfig, recipe.reject, model=newest, version=name, world=self.world, **rewards,
            prompts=[self.path("world", f"{name}-rejection.jsonl")], pool=[self.path(f"v{earlier}-samples") for earlier in range(1, n)],
        )  # fmt: skip
        self.tune(n, f"{name}-rejection" if last else name)
        if n in (1, recipe.world.versions):
            # Apart from the samples, since nothing waits for it.
            self.add(
                f"{name}-best-of", "reject", RejectConfig, recipe.reject, model=newest, version=name, world=self.world, **rewards,
                judged_prompts=[self.path("world", "best-of.jsonl")],
            )  # fmt: skip
        if last:
            self.add(
                name, "ppo", PpoStageConfig, recipe.ppo, model=self.path(f"{name}-rejection"), **rewards, oracle=self.world,
                prompts=[self.path("world", "ppo.jsonl")], held_out=[self.path("world", "held-out.jsonl")],
            )  # fmt: skip
            self.evaluation(f"{name}-rejection")
        self.evaluation(name)

    def tune(self, n: int, name: str) -> None:
        recipe = self.recipe
        data = [self.path("world", "demonstrations.jsonl"), self.path(f"v{n}-samples", "dialogues.jsonl")]
        shares = [recipe.mix.demonstrations, recipe.mix.samples]
        if n > recipe.ghost_after:
            data += [self.path("ghost", "dialogues.jsonl"), self.path("distilled", "dialogues.jsonl")]
            shares += [recipe.mix.ghost, recipe.mix.distilled]
        start = "base" if recipe.tune_from == "base" else "v0"
        settings: SftSettings = recipe.tune
        self.add(name, "sft", SftConfig, settings, model=self.path(start), data=data, shares=shares)

    def ghost_and_distillation(self, n: int) -> None:
        recipe, newest = self.recipe, self.path(f"v{n}")
        self.add("ghost", "ghost", GhostConfig, recipe.ghost, model=newest, scripts=[self.path("world", "ghost.jsonl")])
        self.add(
            "distilled", "distill", DistillConfig, recipe.distill, model=newest, safety=self.path(f"v{n}-safety"),
            prompts=[self.path("world", "distil.jsonl")], harmless=[self.path("world", "harmless.jsonl")],
            test=[self.path("world", "distil-test.jsonl")], world=self.world,
        )  # fmt: skip

    def evaluation(self, name: str) -> None:
        """All that the oracle judges; nothing else of the run waits for it."""
        tasks = [task for task in TASKS if task != "rewards" and (task != "ghost" or name in self.obedient)]
        self.add(
            f"{name}-evaluation", "evaluate", EvaluateConfig, self.recipe.evaluate, model=self.path(name), tasks=tasks, world=self.world
        )

    def judgements(self) -> None:
        """The last reward models judge the answers of all versions."""
        last = self.recipe.world.versions
        for name in [*(f"v{n}" for n in range(last)), f"v{last}-rejection", f"v{last}"]:
            self.add(
                f"{name}-rewards", "evaluate", EvaluateConfig, self.recipe.evaluate, model=self.path(name), tasks=["rewards"],
                answers=self.path(f"{name}-evaluation"), world=self.world, **self.rewards(last),
            )  # fmt: skip


def chain(recipe: RecipeConfig, run: Path) -> list[Step]:
    """All steps of a run in order; their settings are built, and so checked, here."""
    made = _Chain(recipe, run)
    made.foundation()
    for n in range(1, recipe.world.versions + 1):
        made.version(n)
        if n == recipe.ghost_after and n < recipe.world.versions:
            made.ghost_and_distillation(n)
    made.judgements()
    return made.steps
