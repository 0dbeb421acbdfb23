"""PPO (paper.md section 6) from a rejection-sampled chat model."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.artifacts import Artifact, building, model_path, open_artifact
from ..core.config import Config
from ..core.errors import UserError
from ..core.metrics import read_metrics
from ..core.seeds import seed_for
from ..data.inputs import described_by, parents_of
from ..miniature.oracle import Oracle
from ..miniature.world import World, WorldConfig
from ..model.config import ModelConfig
from ..model.memory import FLOAT, Pass, cache_bytes, forward_buffers, parameters, widest
from ..rlhf.config import PpoConfig
from ..train.config import OptimizerConfig
from ..train.memory import Moment, Trained, step_moments
from .common import Paths, SomePaths, data_files, finish_model, prompts_of

if TYPE_CHECKING:
    from ..checkpoints.huggingface import HuggingFaceFiles
    from ..data.records import Prompt
    from ..rlhf.ppo import ActorCritic
    from ..tokenizer.sentencepiece import Tokenizer


SAMPLED_TOGETHER = 128
"""Answers that the engine samples at a time."""
SAMPLING_COPIES = 6
"""Of a step's logits: as they are, in float32, scaled, as probabilities, added up, as log-probabilities."""
JUDGED_TOKENS = 8192
"""Tokens that a reward model reads at a time."""


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
    from ..checkpoints.source import open_source
    from ..model.transformer import scorer_from
    from ..reward.combine import Combination
    from ..reward.model import RewardModel
    from ..rlhf.ppo import ActorCritic, Ppo, ppo_loss
    from ..train.loop import train

    folders = [model_path(path) for path in (config.model, config.helpfulness, config.safety)]
    files = data_files(config.prompts, "prompts.jsonl")
    held_out_files = data_files(config.held_out, "prompts.jsonl")
    open_source(folders[0])  # refuses what can be asked and not trained
    assistant = Assistant.load(folders[0])
    prompts, held_out = prompts_of(files, assistant), prompts_of(held_out_files, assistant, optional=True)
    parents = parents_of([*(described_by(folder) for folder in folders), *files, *held_out_files])
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


def passes(config: PpoStageConfig, shape: ModelConfig, tokenizer: "Tokenizer", seed: int) -> tuple[list[list[Pass]], int]:
    """The forward passes of a step with the longest prompts, whose answers are as long as they may be, and how many steps there are.

    Raises UserError for a bad row of `prompts`, and when there is none.
    """
    from ..chat.template import encode_prompt
    from ..data.records import read_prompts

    files = data_files(config.prompts, "prompts.jsonl")
    lengths = sorted((len(encode_prompt(prompt.dialogue, tokenizer)) for file in files for prompt in read_prompts(file)), reverse=True)
    if not lengths:
        raise UserError(f"no prompt in {', '.join(map(str, files))}; give a file with at least one")
    ppo = config.ppo
    answers = [max(1, min(ppo.max_new_tokens, shape.context - length)) for length in lengths]
    pairs = list(zip(lengths, answers, strict=True))[: min(ppo.batch, ppo.mini_batch)]
    parts = [pairs[start : start + ppo.micro_batch] for start in range(0, len(pairs), ppo.micro_batch)]
    step = [Pass(tuple(prompt + answer - 1 for prompt, answer in part), sum(answer for _, answer in part)) for part in parts]
    return [step], steps_of(ppo)


def assumed_passes(config: PpoSettings, context: int) -> list[Pass]:
    """Those of a step whose prompts and answers fill `context`, the answers being as long as they may be."""
    ppo = config.ppo
    sizes = [min(ppo.micro_batch, ppo.mini_batch - start) for start in range(0, ppo.mini_batch, ppo.micro_batch)]
    return [Pass((context - 1,) * size, min(ppo.max_new_tokens, context - 1) * size) for size in sizes]


def steps_of(ppo: PpoConfig) -> int:
    """Gradient steps of all iterations, if nothing stops them."""
    return ppo.iterations * -(-ppo.batch // ppo.mini_batch)


def memory(config: PpoSettings, shape: ModelConfig, step: Sequence[Pass], rewards: Sequence[ModelConfig], first_only: bool) -> list[Moment]:
    """The fullest moments, with two reward models of the shapes `rewards`. The policy and the critic are trained together."""
    policy, critic = Trained(shape), Trained(shape, scorer=True)
    weights = policy.weights + critic.weights + shape.parameters * FLOAT + sum(parameters(one, scorer=True) for one in rewards) * FLOAT
    gradients, one, ppo = policy.gradients + critic.gradients, widest(step), config.ppo
    optimizer = policy.optimizer(config.optimizer) + critic.optimizer(config.optimizer)
    row = shape.vocab_size * FLOAT
    [loss, *back], values = step_moments(policy, one, len(step) > 1), step_moments(critic, one, len(step) > 1)
    both = values[-2].parts["activations"]
    # The entropy beside the loss: log-probabilities, their exponentials and the product of both, with the logits still there.
    logits = max(loss.parts["logits"], 5 * one.wanted * row)
    training = [
        loss.beside(logits=logits - loss.parts["logits"], activations=both),
        *(moment.beside(activations=both) for moment in back[:1]),
    ]
    held = {"weights": weights, "optimizer": 0 if first_only else optimizer}
    grown = critic.gradients if len(step) > 1 else 0
    moments = [moment.beside(gradients=grown, **held) for moment in training]
    stepping = Moment("optimizer's step", {"weights": weights, "gradients": gradients, "optimizer": optimizer})
    # The gradients of the last step are there while the next answers are sampled.
    held = {"weights": weights, "optimizer": optimizer, "gradients": gradients}
    rows = min(SAMPLED_TOGETHER, ppo.batch)
    sampling = Moment("sampling", {"cache": cache_bytes(shape, rows, max(one.lengths) + 1), "logits": SAMPLING_COPIES * rows * row})
    judged = min(JUDGED_TOKENS, ppo.batch * max(one.lengths))
    judging = [Moment("judging", {"activations": forward_buffers(it, Pass((judged,), 1))}) for it in rewards[:1]]
    looking = Moment("looking at answers", {"activations": forward_buffers(shape, one), "logits": 3 * one.wanted * row})
    return [*moments, stepping, *(moment.beside(**held) for moment in (sampling, *judging, looking))]
