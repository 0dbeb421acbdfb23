"""PPO (paper.md section 6) from a rejection-sampled chat model."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import model_validator

from ..core.artifacts import Artifact, Kind, Workplace, building, model_path, open_artifact
from ..core.config import Config
from ..core.device import best_device, free_memory_bytes
from ..core.errors import UserError
from ..core.metrics import read_metrics
from ..core.seeds import seed_for
from ..data.inputs import described_by, parents_of
from ..miniature.world import WorldConfig
from ..model.config import LoraConfig, ModelConfig
from ..model.memory import Pass
from ..rlhf.config import PpoConfig, RolesConfig
from ..rlhf.memory import Work, instants, table
from ..train.config import OptimizerConfig
from ..train.memory import Moment
from .common import (
    Paths,
    SomePaths,
    data_files,
    finish_adapter,
    finish_model,
    finish_source,
    judge_of,
    judge_paths,
    prompts_of,
    reward_path,
)

if TYPE_CHECKING:
    from ..data.records import Prompt
    from ..rlhf.ppo import ActorCritic, Observe
    from ..rlhf.roles import Roles
    from ..tokenizer.sentencepiece import Tokenizer
    from ..train.state import ModelFiles


SAMPLES = "sampled.jsonl"
"""Some answers of each iteration, in the artifact."""


class PpoSettings(Config):
    """How PPO runs; defaults are the paper's for 7B and 13B where it prints them."""

    ppo: PpoConfig = PpoConfig()
    """Sampling, reward and update."""
    optimizer: OptimizerConfig = OptimizerConfig(lr=1e-6, schedule="constant")
    """AdamW and schedule."""
    roles: RolesConfig | None = None
    """One base for all five models, such as --roles.lora.r=16; null: each has weights of its own."""
    checkpointing: bool = False
    """Blocks keep only their input and are run again for the gradient: the same result, less memory, about a third more time."""


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
    """Prompts that choose the policy and stop early; none given: the first batch of `prompts` does, which flatters the policy."""
    guard: Path | None = None
    """A general reward model, trained on other data, that judges every look and is never trained on: it stops what games the others."""
    oracle: WorldConfig | None = None
    """Logs the miniature's oracle beside the reward (never trained on)."""
    judge: Path | None = None
    """Logs a judge of real text in the oracle's place: a helpfulness reward model that nothing is tuned on."""

    @model_validator(mode="after")
    def _one_judges(self) -> "PpoStageConfig":
        if self.oracle and self.judge:
            raise ValueError("oracle and judge are both given, and one figure is logged; give the judge for real text, else the oracle")
        return self


def run(config: PpoStageConfig, out: Path, seed: int) -> Artifact:
    """Trains the policy and publishes the one that answered held-out prompts best within the KL budget. Raises UserError."""
    from ..checkpoints.adapted import base_artifact
    from ..reward.model import RewardModel
    from ..rlhf.greedy import demand_same_greedy
    from ..rlhf.ppo import Ppo, ppo_loss
    from ..rlhf.roles import separate_roles, shared_roles
    from ..train.loop import train

    folders = [model_path(config.model), reward_path(config.helpfulness, "helpfulness"), reward_path(config.safety, "safety")]
    files = data_files(config.prompts, "prompts.jsonl")
    held_out_files = data_files(config.held_out, "prompts.jsonl")
    guards = [model_path(config.guard)] if config.guard else []
    judging = judge_paths(config.judge, *folders[1:], *guards)
    start = config.ppo.critic.start
    roles = shared_roles(folders, config.roles, start, seed, best_device()) if config.roles else separate_roles(folders, start)
    model, assistant = roles.model, roles.assistant
    model.policy.checkpointing = model.critic.checkpointing = config.checkpointing
    prompts, held_out = prompts_of(files, assistant), prompts_of(held_out_files, assistant, optional=not held_out_files)
    demand_same_greedy(assistant, roles.reference, prompts)
    base = {"base": base_artifact(roles.base.path)} if roles.base else {}
    parents = parents_of([*(described_by(folder) for folder in (*folders, *guards, *judging)), *files, *held_out_files], **base)
    kind: Kind = "adapter" if config.roles and config.roles.publish == "adapter" else "model"
    with building(out, kind=kind, stage="ppo", config=config, parents=parents, seed=seed) as place:
        best = Best(roles.policy_files, place.state)
        source = Ppo(
            model, roles.reference, assistant, roles.rewards, prompts, held_out or prompts[: config.ppo.batch], config.ppo,
            seed_for(seed, "ppo"), best.keep, _observer(config, judging), RewardModel.load(guards[0]) if guards else None,
            place.log.with_name(SAMPLES),
        )  # fmt: skip
        done = train(
            model, lambda batch: ppo_loss(model, batch, config.ppo), source.batches, total_steps=source.steps(),
            config=config.optimizer, files=roles.files, state=place.state, metrics=place.log, label="PPO",
            lr_factor=_lr_factor(config, model), annotate=source.annotate,
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
        if config.guard:
            place.metrics.update(guard_first=source.looks[0]["guard"], guard_last=source.best["guard"])
        _publish(place, roles, kind, best.folder(source.best["iteration"]), out.name, assistant.prompt_ids(prompts[0].dialogue))
        shutil.copyfile(place.log.with_name(SAMPLES), place.folder / SAMPLES)
    return open_artifact(out, kind)


def _lr_factor(config: PpoStageConfig, model: "ActorCritic") -> Callable[[str], float]:
    """What the learning rate of a weight is multiplied by: the critic's may be another than the policy's."""
    factor = 1.0 if config.ppo.critic.lr is None else config.ppo.critic.lr / config.optimizer.lr
    return lambda name: factor if model.is_critic(name) else 1.0


def _publish(place: Workplace, roles: "Roles", kind: Kind, best: Path, name: str, ids: Sequence[int]) -> None:
    """Writes the policy, which lies in `best` too: whole, or its adapter, or the base as it was in training with the adapter merged in, and
    then how far that drifts from the two side by side, on the prompt `ids`."""
    from ..checkpoints.adapted import as_trained, drift, folded
    from ..checkpoints.peft import read_adapter
    from ..checkpoints.source import open_source

    assistant, base, title = roles.assistant, roles.base, f"{name}: {'adapter' if kind == 'adapter' else 'chat model'} after PPO"
    if base is None:
        finish_model(place, assistant.model, assistant.tokenizer, title, place.metrics)
    elif kind == "adapter":
        finish_adapter(place, base.files, assistant.tokenizer, title, place.metrics)
    else:
        trained, adapter = as_trained(base.bits)(open_source(base.path)), read_adapter(best)
        finish_source(place, folded(trained, adapter), title, place.metrics)
        place.metrics.update(drift(trained, adapter, open_source(place.folder), ids))


@dataclass(frozen=True)
class Best:
    """The policy of the best look so far, and of the one before it: a resumed run may go on from before the newest."""

    files: "ModelFiles"
    state: Path

    def folder(self, iteration: int) -> Path:
        return self.state / f"best-{iteration}"

    def keep(self, iteration: int) -> None:
        self.files.save(self.folder(iteration))
        for older in sorted(self.state.glob("best-*"), key=lambda folder: int(folder.name[5:]))[:-2]:
            shutil.rmtree(older)

    def load(self, iteration: int) -> None:
        self.files.load(self.folder(iteration))


def _observer(config: PpoStageConfig, judging: Sequence[Path]) -> "Observe | None":
    """Mean helpfulness by whoever judges, None if nobody does."""
    if config.oracle is None and not judging:
        return None
    judge = judge_of(judging, config.oracle or WorldConfig())

    def observe(prompts: "Sequence[Prompt]", answers: Sequence[str]) -> float:
        scores = [found.helpfulness for found in judge.judge_all(prompts, answers)]
        return sum(scores) / len(scores)

    return observe


def headline(artifact: Artifact) -> str:
    """What came out, in one line."""
    metrics = artifact.metrics
    first, last = ("-" if value is None else f"{value:.2f}" for value in (metrics["reward_first"], metrics["reward_last"]))
    stopped = f"; stopped: {metrics['stopped']}" if metrics["stopped"] else ""
    judged = [metrics[name]["value"] for name in ("guard_first", "guard_last")] if "guard_first" in metrics else []
    guard = ", guard " + " to ".join("-" if value is None else f"{value:.2f}" for value in judged) if judged else ""
    drifts = f"; merged, it drifts by {metrics['drift_mean_nats']:.2g} nats on average" if "drift_mean_nats" in metrics else ""
    return (
        f"{metrics['iterations']} iterations, the policy after {metrics['published_iteration']} published: held-out reward {first} to {last}{guard}, "
        f"KL {metrics['kl']['value']:.2f} nats (budget {metrics['kl_budget']:g}){drifts}{stopped}"
    )


def passes(config: PpoStageConfig, shape: ModelConfig, tokenizer: "Tokenizer", seed: int) -> tuple[list[list[Pass]], int]:
    """The forward passes of a step with the longest prompts, whose answers are as long as they may be, and how many steps there are.

    Raises UserError for a bad row of `prompts`, for a prompt that fills the context, and when there is none.
    """
    lengths = _prompt_lengths(config, shape, tokenizer)
    return [_longest_step(config.ppo, shape, lengths)], config.ppo.steps(len(lengths))


def _prompt_lengths(config: PpoStageConfig, shape: ModelConfig, tokenizer: "Tokenizer") -> list[int]:
    """Of all prompts, the longest first. Raises UserError as `passes` does."""
    from ..chat.fit import demand_room
    from ..chat.template import encode_prompt
    from ..data.records import read_prompts

    files, lengths = data_files(config.prompts, "prompts.jsonl"), list[int]()
    for file in files:
        for number, prompt in enumerate(read_prompts(file), 1):
            lengths.append(len(encode_prompt(prompt.dialogue, tokenizer)))
            demand_room(lengths[-1], shape.context, f"{file}: prompt {number}")
    if not lengths:
        raise UserError(f"no prompt in {', '.join(map(str, files))}; give a file with at least one")
    return sorted(lengths, reverse=True)


def _longest_step(ppo: PpoConfig, shape: ModelConfig, lengths: Sequence[int]) -> list[Pass]:
    answers = [max(1, min(ppo.max_new_tokens, shape.context - length)) for length in lengths]
    pairs = list(zip(lengths, answers, strict=True))[: min(ppo.batch, ppo.mini_batch)]
    parts = [pairs[start : start + ppo.micro_batch] for start in range(0, len(pairs), ppo.micro_batch)]
    return [Pass(tuple(prompt + answer - 1 for prompt, answer in part), sum(answer for _, answer in part)) for part in parts]


def assumed_passes(config: PpoSettings, context: int) -> list[Pass]:
    """Those of a step whose prompts and answers fill `context`, the answers being as long as they may be."""
    ppo = config.ppo
    sizes = [min(ppo.micro_batch, ppo.mini_batch - start) for start in range(0, ppo.mini_batch, ppo.micro_batch)]
    return [Pass((context - 1,) * size, min(ppo.max_new_tokens, context - 1) * size) for size in sizes]


def memory(
    config: PpoSettings, shape: ModelConfig, step: Sequence[Pass], judges: Sequence[ModelConfig | LoraConfig | None], first_only: bool,
    on_gpu: bool = False,
) -> list[Moment]:  # fmt: skip
    """The fullest moments, with reward models of the shapes or the adapters `judges`. Policy and critic are trained together."""
    work = Work(shape, judges, config.ppo, config.optimizer, step, config.roles, False, config.checkpointing, first_only, on_gpu)
    return [one.moment for one in instants(work)]


def announced(config: PpoStageConfig, seed: int) -> list[str]:
    """Memory by role, and the sum against what there is, before anything is loaded. Raises UserError as `run` does."""
    from ..checkpoints.adapted import base_artifact
    from ..checkpoints.peft import is_adapter, read_adapter
    from ..checkpoints.source import open_source
    from ..rlhf.roles import bits_of_base

    folders = [model_path(path) for path in (config.model, config.helpfulness, config.safety)]
    start, roles, device = open_source(folders[0]), config.roles, best_device()
    started = roles is not None and is_adapter(folders[0])
    if roles:
        own = {"lora": read_adapter(folders[0]).config} if started else {}
        roles = roles.model_copy(update={"bits": bits_of_base(roles, folders), **own})
    judges: list[ModelConfig | LoraConfig | None] = [
        read_adapter(folder).config if roles and is_adapter(folder) else open_source(folder).config for folder in folders[1:]
    ]
    judges += [open_source(model_path(path)).config if path else None for path in (config.guard, config.judge)]
    lengths = _prompt_lengths(config, start.config, start.tokenizer)
    ppo = config.ppo.model_copy(update={"batch": min(config.ppo.batch, len(lengths))})
    step, first_only = _longest_step(ppo, start.config, lengths), config.ppo.steps(len(lengths)) == 1
    on_gpu = device.type == "cuda"
    work = Work(start.config, judges, ppo, config.optimizer, step, roles, started, config.checkpointing, first_only, on_gpu)
    lines = table(work, free_memory_bytes(device.type))
    if ppo.batch < config.ppo.batch:
        lines.append(f"there are {ppo.batch:,} prompts, fewer than a batch of {config.ppo.batch:,}: an iteration has that many answers")
    if config.guard and base_artifact(model_path(config.guard)).hash in {base_artifact(folder).hash for folder in folders[1:]}:
        lines.append(f"the guard {config.guard} is one of the two reward models, and sees nothing that the reward does not")
    return lines
