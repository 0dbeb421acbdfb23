"""The chain on real text and people's judgements, and what its settings ask of each other.

texts -> corpus -> tokenizer -> shards -> base -> v0; comparisons and v0 -> judge, v1-helpfulness, v1-safety
then for n = 1..N: vn-samples -> vn (the last one: vn-rejection -> PPO -> vn), all by the one pair of reward models
after version `ghost_after`, unless it is the last: ghost, distilled; every version has an evaluation by the judge, and at the end
a judgement by the reward models and a comparison with v0; the base, v0 and the last version have benchmarks
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from ..core.config import dump
from ..core.errors import UserError
from ..data.public import comparisons, demonstrations, documents, prompts
from ..data.public.sources import public_files, public_folder
from ..stages import benchmark
from ..stages.benchmark import BenchmarkConfig
from ..stages.comparisons import ComparisonsConfig
from ..stages.evaluate import Task
from ..stages.judge import JudgeConfig
from ..stages.prompts import PromptsConfig
from ..stages.reward import RewardConfig
from ..stages.sft import SftConfig
from ..stages.texts import TextsConfig
from .config import PublicRecipe
from .links import DOMAINS, Links

FILES = {
    "texts": ("documents.jsonl", "held-out.jsonl", "demonstrations.jsonl"),
    "comparisons": (*(f"{domain}{part}.jsonl" for domain in DOMAINS for part in ("", "-test")), "judge.jsonl"),
    "prompts": (
        "rejection.jsonl", "ppo.jsonl", "held-out.jsonl", "best-of.jsonl", "distil.jsonl", "harmless.jsonl", "distil-test.jsonl",
        "ghost.jsonl", *(f"test/{name}.jsonl" for name in ("helpfulness", "safety", "borderline", "ghost", "samples")),
    ),
}  # fmt: skip
"""What a folder of the user's own has to hold, by the setting that names it: what the stage of that name writes."""
PUBLIC: Mapping[str, Callable[[PublicRecipe], Iterable[str]]] = {
    "texts": lambda recipe: [*(file for source in recipe.texts.held_out for file in documents.FILES[source]), *demonstrations.FILES],
    "comparisons": lambda recipe: [file for file, _ in comparisons.SETS.values()],
    "prompts": lambda recipe: prompts.FILES,
}
"""The public files that each stage reads."""


def folder_of(recipe: PublicRecipe, run: Path, name: str) -> Path:
    """The user's own folder of texts, comparisons or prompts, or the run's."""
    own: Path | None = getattr(recipe.own, name)
    return own or run / name


class PublicChain(Links[PublicRecipe]):
    """The steps of a run on real text."""

    unasked: ClassVar[frozenset[Task]] = frozenset({"people"})

    def __init__(self, recipe: PublicRecipe, run: Path):
        asked, judge = folder_of(recipe, run, "prompts"), {"judge": str(run / "judge")}
        super().__init__(
            recipe, run, versions=recipe.versions, texts=folder_of(recipe, run, "texts"), prompts=asked, judge=judge, watch=judge,
            asked={"asked": str(asked / "test")},
        )  # fmt: skip
        self.comparisons = folder_of(recipe, run, "comparisons")
        self.taken()
        self.base()
        self.add("v0", "sft", SftConfig, recipe.sft, model=self.path("base"), data=[self.demonstrations])
        self.judges()
        self.evaluation("v0")
        for n in range(1, self.versions + 1):
            self.version(n, "rejection.jsonl")
        self.judgements()
        self.comparison_with_v0()
        self.benchmarks()

    @property
    def samples(self) -> Path:
        return self.prompts / "test" / "samples.jsonl"

    def rewards(self, n: int) -> dict[str, str]:
        """People compared answers once, so there is one pair for all versions."""
        return {domain: self.path(f"v1-{domain}") for domain in DOMAINS}

    def taken(self) -> None:
        """What is not the user's own is taken from the public files."""
        recipe, own = self.recipe, self.recipe.own
        if own.texts is None:
            self.add("texts", "texts", TextsConfig, recipe.texts, data=recipe.data)
        if own.comparisons is None:
            self.add("comparisons", "comparisons", ComparisonsConfig, recipe.comparisons, data=recipe.data)
        if own.prompts is None:
            tuned = {"demonstrations": self.demonstrations, "comparisons": str(self.comparisons)}
            self.add("prompts", "prompts", PromptsConfig, recipe.prompts, data=recipe.data, **tuned)

    def judges(self) -> None:
        """The judge on comparisons that nothing else sees, and the reward models by which all versions are made."""
        v0, folder = self.path("v0"), self.comparisons
        trained, tested = ([str(folder / f"{domain}{part}.jsonl") for domain in DOMAINS] for part in ("", "-test"))
        own = [str(folder / "judge.jsonl")]
        self.add("judge", "reward", RewardConfig, self.recipe.judge, model=v0, data=own, test=tested, domain="helpfulness")
        for domain in DOMAINS:
            settings = getattr(self.recipe, domain)
            self.add(f"v1-{domain}", "reward", RewardConfig, settings, model=v0, data=trained, test=tested, domain=domain)

    def comparison_with_v0(self) -> None:
        last, asked = self.versions, [str(self.prompts / "test" / f"{domain}.jsonl") for domain in DOMAINS]
        for name in [*(f"v{n}" for n in range(1, last)), f"v{last}-rejection", f"v{last}"]:
            self.add(
                f"{name}-wins", "judge", JudgeConfig, model=self.path(name), opponent=self.path("v0"), tasks=["win-rate"], prompts=asked,
                sampling=dump(self.recipe.evaluate.sampling), **self.judge,
            )  # fmt: skip
            self.steps[-1] = replace(self.steps[-1], reads=(name, "v0", "judge"))

    def benchmarks(self) -> None:
        held_out = [str(self.texts / "held-out.jsonl")]
        for name in ("base", "v0", f"v{self.versions}"):
            self.add(
                f"{name}-benchmarks", "benchmark", BenchmarkConfig, self.recipe.benchmark, model=self.path(name), data=self.recipe.data,
                held_out=held_out,
            )  # fmt: skip


def problems(recipe: PublicRecipe) -> Iterator[str]:
    """What its stages would refuse, but for lengths that do not fit the context."""
    if recipe.own.texts is None and (unknown := [name for name in recipe.shards.weights if name not in recipe.texts.held_out]):
        yield f"shards.weights: no source {', '.join(unknown)}; those that are read are {', '.join(recipe.texts.held_out)}"
    blocked = recipe.corpus.filters.block_list
    if blocked is not None and not blocked.is_file():
        yield f"corpus.filters.block_list: {blocked} is no file; give one with a host on each line"
    yield from _own(recipe)
    yield from _absent(recipe)


def _own(recipe: PublicRecipe) -> Iterator[str]:
    for name, files in FILES.items():
        folder: Path | None = getattr(recipe.own, name)
        if folder is not None and (absent := [file for file in files if not (folder / file).is_file()]):
            yield f"own.{name}: {folder} lacks {', '.join(absent)}; docs/real-small.md says what each holds"


def _absent(recipe: PublicRecipe) -> Iterator[str]:
    """Public files that are not there, with whence they come; those of the benchmarks apart, since these may lie in a folder of one's own."""
    wanted = [file for name, files in PUBLIC.items() if getattr(recipe.own, name) is None for file in files(recipe)]
    told = dict[str, None]()
    for there in (lambda: wanted and public_files(public_folder(recipe.data), dict.fromkeys(wanted)), lambda: _of_benchmarks(recipe)):
        try:
            there()
        except UserError as error:
            told[str(error)] = None
    yield from told


def _of_benchmarks(recipe: PublicRecipe) -> Mapping[Any, Path]:
    return benchmark.files_of(recipe.benchmark.tasks, recipe.data)
