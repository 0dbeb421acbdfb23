"""The miniature's chain, and what its settings ask of each other.

world -> corpus -> tokenizer -> shards -> base -> v0-early, v0
then for n = 1..N: vn-preferences -> vn-helpfulness, vn-safety -> vn-samples -> vn (the last one: vn-rejection -> PPO -> vn)
after version `ghost_after`, unless it is the last: ghost, distilled; every version has an evaluation by the oracle, and at the
end a judgement by the last reward models; best-of-N is judged for the first version and the last
"""

from collections.abc import Iterator
from pathlib import Path

from ..core.config import dump
from ..core.errors import UserError
from ..core.seeds import seed_for
from ..miniature.documents import SHARES
from ..miniature.vocabulary import INSULTS
from ..miniature.world import World
from ..stages import temperatures
from ..stages.collect import CollectConfig
from ..stages.evaluate import TASKS, test_prompts
from ..stages.reward import RewardConfig
from ..stages.sft import SftConfig
from ..stages.world import WorldStageConfig, prompt_files
from .config import MiniatureRecipe
from .links import DOMAINS, Links


class MiniatureChain(Links[MiniatureRecipe]):
    """The steps of a run in the miniature."""

    def __init__(self, recipe: MiniatureRecipe, run: Path):
        world, texts = dump(recipe.world.world), run / "world"
        self.world = {"world": world}
        super().__init__(
            recipe, run, versions=recipe.world.versions, texts=texts, prompts=texts, judge=self.world, watch={"oracle": world}, asked={}
        )
        self.foundation()
        for n in range(1, self.versions + 1):
            self.preferences(n)
            self.version(n, f"v{n}-rejection.jsonl")
        self.judgements()

    def rewards(self, n: int) -> dict[str, str]:
        return {domain: self.path(f"v{n}-{domain}") for domain in DOMAINS}

    def foundation(self) -> None:
        recipe = self.recipe
        self.add("world", "world", WorldStageConfig, recipe.world)
        filters = {**dump(recipe.corpus.filters), "block_list": self.path("world", "blocked-hosts.txt")}
        statistics = {**dump(recipe.corpus.statistics), "toxic_words": recipe.corpus.statistics.toxic_words or sorted(INSULTS)}
        self.base(filters=filters, statistics=statistics)
        self.add("v0-early", "sft", SftConfig, recipe.early, model=self.path("base"), data=[self.demonstrations])
        self.add("v0", "sft", SftConfig, recipe.sft, model=self.path("base"), data=[self.demonstrations])
        self.evaluation("v0")

    def preferences(self, n: int) -> None:
        """Fresh comparisons, and reward models that have learned from all so far."""
        recipe, name, newest = self.recipe, f"v{n}", self.path(f"v{n - 1}")
        previous = self.path(f"v{n - 2}" if n > 1 else "v0-early")
        so_far = [self.path(f"v{earlier}-preferences") for earlier in range(1, n + 1)]
        self.add(
            f"{name}-preferences", "collect", CollectConfig, recipe.collect, newest=newest, previous=previous, batch=name, **self.world,
            helpfulness=[self.path("world", f"{name}-helpfulness.jsonl")], safety=[self.path("world", f"{name}-safety.jsonl")],
        )  # fmt: skip
        for domain in DOMAINS:
            settings = getattr(recipe, domain)
            self.add(f"{name}-{domain}", "reward", RewardConfig, settings, model=newest, data=so_far, test=so_far, domain=domain)


def problems(recipe: MiniatureRecipe) -> Iterator[str]:
    """What its stages would refuse, but for lengths that do not fit the context."""
    yield from _sources(recipe)
    yield from _prompts(recipe)


def _sources(recipe: MiniatureRecipe) -> Iterator[str]:
    unknown = [name for name in recipe.shards.weights if name not in SHARES]
    if unknown:
        yield f"shards.weights: no source {', '.join(unknown)}; the miniature's are {', '.join(SHARES)}"
    if recipe.corpus.filters.block_list is not None:
        yield "corpus.filters.block_list: a recipe's is the miniature's own; add hosts by corpus.filters.blocked_hosts"


def _prompts(recipe: MiniatureRecipe) -> Iterator[str]:
    """Prompts are drawn as the stages will draw them: a world has only so many different ones."""
    world = World(recipe.world.world)
    try:
        prompt_files(world, recipe.world, seed_for(recipe.seed, "world"))
    except UserError as error:
        yield f"world: {error}"
    for task in TASKS:
        try:
            test_prompts(world, recipe.evaluate, task)
        except UserError as error:
            yield f"evaluate, {task}: {error}"
    try:
        temperatures.test_prompts(world, recipe.claims.temperatures)
    except UserError as error:
        yield f"claims.temperatures: {error}"
