"""PPO (paper.md section 6) from a rejection-sampled chat model."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.artifacts import Artifact, building, open_artifact, resolve
from ..core.config import Config
from ..core.metrics import read_metrics
from ..core.seeds import seed_for
from ..data.inputs import parents_of
from ..measures.intervals import mean
from ..miniature.oracle import Oracle
from ..miniature.world import World, WorldConfig
from ..rlhf.config import PpoConfig
from ..train.config import OptimizerConfig
from .common import Paths, SomePaths, data_file, finish_model, prompts_of

if TYPE_CHECKING:
    from ..checkpoints.huggingface import HuggingFaceFiles
    from ..data.records import Prompt
    from ..rlhf.ppo import ActorCritic
    from ..tokenizer.sentencepiece import Tokenizer


class PpoSettings(Config):
    """How PPO runs; defaults are the paper's for 7B and 13B where it prints them."""

    ppo: PpoConfig = PpoConfig()
    """Sampling, reward and update."""
    optimizer: OptimizerConfig = OptimizerConfig(lr=1e-6, schedule="constant")
    """AdamW and schedule."""


class PpoStageConfig(PpoSettings):
    """Settings and inputs."""

    model: Path
    """The chat model that PPO starts from and stays near."""
    helpfulness: Path
    """Helpfulness reward model."""
    safety: Path
    """Safety reward model."""
    prompts: SomePaths
    """Files of prompts."""
    held_out: Paths = ()
    """Prompts for early stopping; empty: it looks at the KL budget only."""
    oracle: WorldConfig | None = None
    """Logs the miniature's oracle beside the reward (never trained on)."""


def run(config: PpoStageConfig, out: Path, seed: int) -> Artifact:
    """Trains the policy; stopped early, it publishes the policy of the best look (or the last one within the budget). Raises UserError."""
    from ..assistant.local import Assistant
    from ..checkpoints.huggingface import HuggingFaceFiles
    from ..model.transformer import scorer_from
    from ..reward.combine import Combination
    from ..reward.model import RewardModel
    from ..rlhf.ppo import ActorCritic, Ppo, ppo_loss
    from ..train.loop import train

    folders = [resolve(path) for path in (config.model, config.helpfulness, config.safety)]
    files = [data_file(path, "prompts.jsonl") for path in config.prompts]
    held_out = [data_file(path, "prompts.jsonl") for path in config.held_out]
    assistant = Assistant.load(folders[0])
    prompts, looks = prompts_of(files, assistant), prompts_of(held_out, assistant, optional=True)
    parents = parents_of([*(folder / "config.json" for folder in folders), *files, *held_out])
    with building(out, kind="model", stage="ppo", config=config, parents=parents, seed=seed) as place:
        reference = Assistant.load(folders[0])
        model = ActorCritic(assistant.model, scorer_from(assistant.model))
        best = Best(HuggingFaceFiles(assistant.model, assistant.tokenizer), place.state)
        source = Ppo(
            model, reference.model, assistant, Combination(RewardModel.load(folders[1]), RewardModel.load(folders[2])),
            prompts, looks, config.ppo, seed_for(seed, "ppo"), _oracle(config.oracle), keep=best.keep,
        )  # fmt: skip
        done = train(
            model, lambda batch: ppo_loss(model, batch, config.ppo), source.batches, total_steps=source.steps(),
            config=config.optimizer, files=PpoFiles(model, assistant.tokenizer), state=place.state,
            metrics=place.log, label="PPO",
        )  # fmt: skip
        if source.stopped is not None and source.best_iteration is not None:
            best.load(source.best_iteration)
        rows = [row for row in read_metrics(place.log) if "ppo/kl_k3" in row]
        late = rows[-max(1, len(rows) // 4) :]
        place.metrics.update(
            steps=done.steps, iterations=len(rows), stopped=source.stopped, best_iteration=source.best_iteration, kl_budget=config.ppo.kl_budget_nats,
            kl=mean([row["ppo/kl_k3"] for row in late]), reward_first=rows[0]["ppo/reward"] if rows else None,
            reward_last=rows[-1]["ppo/reward"] if rows else None,
        )  # fmt: skip
        finish_model(place, assistant.model, assistant.tokenizer, f"{out.name}: chat model after PPO", place.metrics)
    return open_artifact(out, "model")


@dataclass(frozen=True)
class PpoFiles:
    """Policy and critic side by side."""

    model: "ActorCritic"
    tokenizer: "Tokenizer"

    def save(self, folder: Path) -> None:
        from ..checkpoints.huggingface import HuggingFaceFiles

        HuggingFaceFiles(self.model.policy, self.tokenizer).save(folder / "policy")
        HuggingFaceFiles(self.model.critic, self.tokenizer).save(folder / "critic")

    def load(self, folder: Path) -> None:
        from ..checkpoints.huggingface import HuggingFaceFiles

        HuggingFaceFiles(self.model.policy, self.tokenizer).load(folder / "policy")
        HuggingFaceFiles(self.model.critic, self.tokenizer).load(folder / "critic")


@dataclass(frozen=True)
class Best:
    """The policy of the best look so far, and of the one before it: a resumed run may go on from before the newest."""

    files: "HuggingFaceFiles"
    state: Path

    def keep(self, iteration: int) -> None:
        self.files.save(self.state / f"best-{iteration}")
        for older in sorted(self.state.glob("best-*"), key=lambda folder: int(folder.name[5:]))[:-2]:
            shutil.rmtree(older)

    def load(self, iteration: int) -> None:
        self.files.load(self.state / f"best-{iteration}")


def _oracle(config: WorldConfig | None) -> Any:
    if config is None:
        return None
    oracle = Oracle(World(config))

    def observe(prompts: "Sequence[Prompt]", answers: Sequence[str]) -> float:
        scores = [oracle.judge(prompt.dialogue, answer).helpfulness for prompt, answer in zip(prompts, answers, strict=True)]
        return sum(scores) / len(scores)

    return observe


def headline(artifact: Artifact) -> str:
    """What came out, in one line."""
    metrics = artifact.metrics
    if not metrics["iterations"]:
        return f"no iteration: {metrics['stopped']}"
    first, last = ("-" if value is None else f"{value:.2f}" for value in (metrics["reward_first"], metrics["reward_last"]))
    moved = f"reward {first} to {last}"
    stopped = f"; stopped: {metrics['stopped']}" if metrics["stopped"] else ""
    return f"{metrics['iterations']} iterations, {moved}, KL {metrics['kl']['value']:.2f} nats (budget {metrics['kl_budget']:g}){stopped}"
