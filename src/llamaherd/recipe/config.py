"""One recipe: the settings of every stage from documents to the last version."""

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Literal

from pydantic import Field

from ..core.config import Config, build, merged, parse_overrides, read_yaml
from ..core.errors import UserError, did_you_mean
from ..stages.collect import CollectSettings
from ..stages.corpus import CorpusSettings
from ..stages.distill import DistillSettings
from ..stages.evaluate import EvaluateSettings
from ..stages.ghost import GhostSettings
from ..stages.ppo import PpoSettings
from ..stages.pretrain import PretrainSettings
from ..stages.reject import RejectSettings
from ..stages.reward import RewardSettings
from ..stages.sft import SftSettings
from ..stages.shards import ShardsSettings
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
    """What `llamaherd run` does."""

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
    world: WorldStageConfig = WorldStageConfig()
    """The miniature's texts."""
    corpus: CorpusSettings = CorpusSettings()
    """Cleaning."""
    tokenizer: TokenizerConfig = TokenizerConfig()
    """Vocabulary."""
    shards: ShardsSettings = ShardsSettings()
    """Mixture of sources."""
    pretrain: PretrainSettings = PretrainSettings()
    """The base model."""
    early: SftSettings = SftSettings()
    """An earlier supervised checkpoint: the second variant of the first preference batch."""
    sft: SftSettings = SftSettings()
    """V0."""
    tune: SftSettings = SftSettings()
    """Tuning of each version on the pool."""
    collect: CollectSettings = CollectSettings()
    """Comparisons."""
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
    claims: ClaimsConfig = ClaimsConfig()
    """What `llamaherd claims` makes beyond the run."""


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
    """A recipe with dotted overrides. Raises ConfigError that lists every problem."""
    file = recipe_file(spec)
    return build(RecipeConfig, merged(read_yaml(file), parse_overrides(overrides)))
