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
    """Prompts that choose the policy and stop early; empty: the first batch of `prompts` does, which flatters the policy."""
    oracle: WorldConfig | None = None
    """Logs the miniature's oracle beside the reward (never trained on)."""


def run(config: PpoStageConfig, out: Path, seed: int) -> Artifact:
    """Trains the policy and publishes the one that answered held-out prompts best within the KL budget. Raises UserError."""
    from ..assistant.local import Assistant
    from ..checkpoints.huggingface import HuggingFaceFiles
    from ..model.transformer import scorer_from
    from ..reward.combine import Combination
    from ..reward.model import RewardModel
    from ..rlhf.ppo import ActorCritic, Ppo, ppo_loss
    from ..train.loop import train

    folders = [resolve(path) for path in (config.model, config.helpfulness, config.safety)]
    files = [data_file(path, "prompts.jsonl") for path in config.prompts]
    held_out_files = [data_file(path, "prompts.jsonl") for path in config.held_out]
    assistant = Assistant.load(folders[0])
    prompts, held_out = prompts_of(files, assistant), prompts_of(held_out_files, assistant, optional=True)
    parents = parents_of([*(folder / "config.json" for folder in folders), *files, *held_out_files])
    with building(out, kind="model", stage="ppo", config=config, parents=parents, seed=seed) as place:
        reference = Assistant.load(folders[0])
        model = ActorCritic(assistant.model, scorer_from(assistant.model))
        best = Best(HuggingFaceFiles(assistant.model, assistant.tokenizer), place.state)
        source = Ppo(
            model, reference.model, assistant, Combination(RewardModel.load(folders[1]), RewardModel.load(folders[2])),
            prompts, held_out or prompts[: config.ppo.batch], config.ppo, seed_for(seed, "ppo"), best.keep, _oracle(config.oracle),
        )  # fmt: skip
        done = train(
            model, lambda batch: ppo_loss(model, batch, config.ppo), source.batches, total_steps=source.steps(),
            config=config.optimizer, files=PpoFiles(model, assistant.tokenizer), state=place.state,
            metrics=place.log, label="PPO",
        )  # fmt: skip
        iterations = sum("ppo/iteration" in row for row in read_metrics(place.log))
        if not source.stopped:
            source.look(iterations)
        best.load(source.best["iteration"])
        place.metrics.update(
            steps=done.steps, iterations=iterations, stopped=source.stopped, published_iteration=source.best["iteration"],
            kl=source.best["kl"], kl_budget=config.ppo.kl_budget_nats, reward_first=source.looks[0]["reward"],
            reward_last=source.best["reward"], looks=source.looks,
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
    first, last = ("-" if value is None else f"{value:.2f}" for value in (metrics["reward_first"], metrics["reward_last"]))
    stopped = f"; stopped: {metrics['stopped']}" if metrics["stopped"] else ""
    return (
        f"{metrics['iterations']} iterations, the policy after {metrics['published_iteration']} published: held-out reward {first} to {last}, "
        f"KL {metrics['kl']['value']:.2f} nats (budget {metrics['kl_budget']:g}){stopped}"
    )
