"""One recipe: the settings of every stage from documents to the last version.

There are two kinds. The miniature writes its own texts and has an oracle that judges; the other one, `kind: public`, reads public
files, or the user's own, and is judged by a reward model and by what answers look like.
"""

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from ..core.config import Config, build, flat, merged, parse_overrides, read_yaml
from ..core.errors import UserError, did_you_mean
from ..stages.benchmark import BenchmarkSettings
from ..stages.collect import CollectSettings
from ..stages.comparisons import ComparisonsSettings
from ..stages.corpus import CorpusSettings
from ..stages.distill import DistillSettings
from ..stages.evaluate import EvaluateSettings
from ..stages.ghost import GhostSettings
from ..stages.ppo import PpoSettings
from ..stages.pretrain import PretrainSettings
from ..stages.prompts import PromptsSettings
from ..stages.reject import RejectSettings
from ..stages.reward import RewardSettings
from ..stages.sft import SftSettings
from ..stages.shards import ShardsSettings
from ..stages.texts import TextsSettings
from ..stages.world import WorldStageConfig
from ..tokenizer.training import TokenizerConfig
from .claims.config import ClaimsConfig


class MixConfig(Config):
    """How much of each kind of dialogues stands in a version's tuning mix (0.5: half of them, 2: twice)."""

    demonstrations: float = Field(1.0, ge=0)
    """The supervised ones."""
    samples: float = Field(1.0, ge=0)
    """The pool's best answers."""
    ghost: float = Field(1.0, ge=0)
    """Ghost Attention's, once there are some."""
    distilled: float = Field(1.0, ge=0)
    """Those of safety distillation, once there are some."""


class RecipeConfig(Config):
    """What recipes of both kinds say."""

    seed: int = 0
    """The one seed; every stage draws from streams named after it."""
    threads: int | None = Field(None, ge=1)
    """CPU threads; null: two at most. Results depend on it to the last bit."""
    alone_threads: int | None = Field(None, ge=1)
    """CPU threads of pretraining, beside which no other step can run; null: `threads`."""
    workers: int = Field(1, ge=1)
    """Steps that run side by side, each in a process with `threads` threads. Results do not depend on it."""
    co2_g_per_kwh: float = Field(445.0, ge=0)
    """Carbon intensity of the electricity, for the report's estimate; the default is the world's mean of 2024 (IEA). Results do not
    depend on it."""
    tune_from: Literal["base", "v0"] = "base"
    """Where each version's tuning starts: the base, as in the paper, or V0, which a small recipe can afford."""
    ghost_after: int = Field(3, ge=1)
    """Ghost Attention and distillation sample from this version; their rows join the tuning of all later ones, if any."""
    mix: MixConfig = MixConfig()
    """What each version is tuned on."""
    corpus: CorpusSettings = CorpusSettings()
    """Cleaning."""
    tokenizer: TokenizerConfig = TokenizerConfig()
    """Vocabulary."""
    shards: ShardsSettings = ShardsSettings()
    """Mixture of sources."""
    pretrain: PretrainSettings = PretrainSettings()
    """The base model."""
    sft: SftSettings = SftSettings()
    """V0."""
    tune: SftSettings = SftSettings()
    """Tuning of each version on the pool."""
    helpfulness: RewardSettings = RewardSettings()
    """Helpfulness reward models."""
    safety: RewardSettings = RewardSettings()
    """Safety reward models."""
    reject: RejectSettings = RejectSettings()
    """Rejection sampling."""
    ppo: PpoSettings = PpoSettings()
    """The last version's PPO."""
    ghost: GhostSettings = GhostSettings()
    """Ghost Attention's answers."""
    distill: DistillSettings = DistillSettings()
    """Safety distillation's answers."""
    evaluate: EvaluateSettings = EvaluateSettings()
    """What every version is asked."""


class MiniatureRecipe(RecipeConfig):
    """What `llamaherd run` does in the embedded miniature world."""

    world: WorldStageConfig = WorldStageConfig()
    """The miniature's texts, and how many versions there are."""
    early: SftSettings = SftSettings()
    """An earlier supervised checkpoint: the second variant of the first preference batch."""
    collect: CollectSettings = CollectSettings()
    """Comparisons."""
    claims: ClaimsConfig = ClaimsConfig()
    """What `llamaherd claims` makes beyond the run."""


class OwnConfig(Config):
    """Folders of the user's own in the place of what a stage takes from the public files; null: the public files. What a stage wrote for an
    earlier run, such as runs/real-small/prompts, is such a folder, to begin from."""

    texts: Path | None = None
    """Holds documents.jsonl, held-out.jsonl and demonstrations.jsonl."""
    comparisons: Path | None = None
    """Holds helpfulness.jsonl, safety.jsonl, their -test.jsonl, and judge.jsonl."""
    prompts: Path | None = None
    """Holds the files that docs/real-small.md lists."""


class PublicRecipe(RecipeConfig):
    """What `llamaherd run` does with real text and with what people judged: the public files, or the user's own."""

    kind: Literal["public"] = "public"
    """Tells this kind of recipe."""
    data: Path | None = None
    """Folder of the public files; null: the variable LLAMAHERD_DATA."""
    versions: int = Field(2, ge=1)
    """Versions V1 to Vn."""
    own: OwnConfig = OwnConfig()
    """What is not taken from the public files."""
    texts: TextsSettings = TextsSettings()
    """Public documents and demonstrations."""
    comparisons: ComparisonsSettings = ComparisonsSettings()
    """Public comparisons."""
    prompts: PromptsSettings = PromptsSettings()
    """Public prompts, of training and of tests."""
    judge: RewardSettings = RewardSettings()
    """The reward model that nobody is tuned on, which judges in the oracle's place."""
    benchmark: BenchmarkSettings = BenchmarkSettings()
    """Benchmarks of the base, of V0 and of the last version."""


KINDS: Mapping[str, type[RecipeConfig]] = {"miniature": MiniatureRecipe, "public": PublicRecipe}


def packaged() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(
        file.name.removesuffix(".yaml")
        for file in resources.files(__package__).joinpath("recipes").iterdir()
        if file.name.endswith(".yaml")
    )


def recipe_file(spec: str) -> Path:
    """The YAML file of a packaged name, or `spec` as a path. Raises UserError that lists the names."""
    if spec in packaged():
        return Path(str(resources.files(__package__).joinpath("recipes", f"{spec}.yaml")))
    path = Path(spec)
    if not path.is_file():
        raise UserError(
            f"{spec}: no recipe of that name{did_you_mean(spec, packaged())} and no such file; there are {', '.join(packaged())}"
        )
    return path


def load_recipe(spec: str, overrides: Sequence[str] = ()) -> RecipeConfig:
    """A recipe with dotted overrides; a file that is `like` a packaged one says only where it differs. Raises ConfigError that lists every
    problem."""
    values = read_yaml(recipe_file(spec))
    if "like" in values:
        values = merged(read_yaml(_model(spec, values)), flat({name: value for name, value in values.items() if name != "like"}))
    return recipe_of(merged(values, parse_overrides(overrides)))


def _model(spec: str, values: Mapping[str, Any]) -> Path:
    """The packaged recipe that another one is like."""
    if values["like"] not in packaged():
        raise UserError(f"{spec}: like {values['like']!r}: no packaged recipe has that name; there are {', '.join(packaged())}")
    return recipe_file(str(values["like"]))


def recipe_of(values: Mapping[str, Any]) -> RecipeConfig:
    """A recipe of the kind that its settings name, where they name none the miniature's. Raises ConfigError that lists every problem."""
    kind = values.get("kind", "miniature")
    if not isinstance(kind, str) or kind not in KINDS:
        raise UserError(f"kind: given {kind!r}, expected {' or '.join(KINDS)}")
    # The miniature's says nothing of its kind, nor do folders that were begun before there was another one.
    return build(KINDS[kind], {name: value for name, value in values.items() if name != "kind"})
