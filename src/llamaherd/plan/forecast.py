"""What a task needs, from its settings alone: the parts of its fullest moment, disk and time. Nothing is loaded but data, if given."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field

from ..core.config import Config, build, merged
from ..core.errors import UserError, did_you_mean
from ..model.config import LoraConfig, ModelConfig
from ..model.memory import FLOAT, Frozen, Pass, adapter_parameters, packed_bytes, parameters
from ..stages import chat, ppo, reward, sft
from ..train.memory import Moment, Trained
from .machine import Machine
from .target import Target

Task = Literal["chat", "sft", "lora", "qlora", "reward", "ppo"]
TASKS: tuple[Task, ...] = get_args(Task)
KEPT_SHARE, KEPT_BY_LORA, KEPT_BY_QLORA = 0.48, 1.0, 0.6
"""Of activations smaller than MAPPED_BYTES, those that checkpointing frees included: freed pieces of the heap that are too small for the next tensor stay with the process.

Under an adapter they are more: its small tensors lie between them, and no gradients or moments of weights fill them up.
"""
MAPPED_BYTES = 32 << 20
"""The C library takes larger blocks from the system one by one, and gives them back as soon as they are free."""
BITSANDBYTES_BYTES = 47_000_000
"""What importing it takes, which weights of 4 bits do."""
REACHED = 0.5
"""Share of the measured matrix rate that training reaches, roughly: the rest goes to attention and everything between the products."""
STATES = 3
"""Training states on disk at most: the last two, and the next one while it is written."""
SCALE_SHARE = {8: 0.0, 4: 4 / 32}
"""Bytes beside the bits of a quantised weight: in 4 bits a scale and a zero for each group of 32, in 8 bits next to nothing."""


class ChatPlan(Config):
    """What the memory of answering depends on."""

    max_new_tokens: int = Field(256, ge=1)
    """Longest answer."""
    bits: Literal[4, 8, 16, 32] | None = None
    """Of the weights, were they quantised; null: as the model is."""


@dataclass(frozen=True)
class Question:
    """What is asked: a task for a model with settings (dotted names), for sequences of at most `context` tokens."""

    task: Task
    target: Target
    settings: Mapping[str, Any]
    context: int | None = None
    seed: int = 0

    @property
    def longest(self) -> int:
        """Tokens of a sequence. Raises UserError when the model takes no more than fewer."""
        most = self.target.shape.context
        if self.context is not None and not 2 <= self.context <= most:
            raise UserError(f"--context {self.context}: expected 2 to {most}, the model's context")
        return self.context or most

    def also(self, **changes: Any) -> "Question":
        """The same with other settings, whose dots are given as two underscores; `context` is the question's own."""
        context = changes.pop("context", self.context)
        dotted = {name.replace("__", "."): value for name, value in changes.items()}
        return Question(self.task, self.target, {**self.settings, **dotted}, context, self.seed)


@dataclass(frozen=True)
class Forecast:
    """What comes of it. `seconds`: None where nothing was measured or the number of steps is unknown."""

    moment: Moment
    available_bytes: int
    disk_bytes: int
    steps: int | None
    seconds: float | None
    seconds_per_step: float | None
    assumed: str

    @property
    def total_bytes(self) -> int:
        return self.moment.total

    @property
    def fits(self) -> bool:
        return self.total_bytes <= self.available_bytes


def forecast(question: Question, machine: Machine) -> Forecast:
    """Raises UserError for settings that the stage would refuse, and for data that it could not read."""
    if question.task == "chat":
        return _chat(question, machine)
    return _training(question, machine)


def task_of(name: str) -> Task:
    """Raises UserError for what is no task."""
    if name not in TASKS:
        raise UserError(f"no task {name!r}{did_you_mean(name, TASKS)}; there are {', '.join(TASKS)}")
    return name  # type: ignore[return-value]


def _settled(moments: Sequence[Moment], machine: Machine, widest_tensor: int, kept_share: float = KEPT_SHARE) -> Moment:
    """The fullest moment, with what the process holds besides."""
    share = 0.0 if machine.on_gpu or widest_tensor >= MAPPED_BYTES else kept_share
    held = []
    for moment in moments:
        kept = round(share * (moment.parts.get("activations", 0) + moment.passed_bytes))
        held.append(moment.beside(**{"python and torch": machine.held_bytes}, **({"kept by the allocator": kept} if kept else {})))
    return max(held, key=lambda moment: moment.total)


def weights_bytes(shape: ModelConfig, bits: int, on_gpu: bool) -> int:
    """Of a model that answers: quantised linear layers with a float embedding; plain ones are float32."""
    if bits not in SCALE_SHARE:
        return shape.parameters * bits // 8
    head = shape.vocab_size * shape.dim
    linear = shape.trunk_parameters + head
    rest = (head + shape.dim * (2 * shape.layers + 1)) * (2 if on_gpu else FLOAT)
    return round(linear * (bits / 8 + SCALE_SHARE[bits])) + rest


def _chat(question: Question, machine: Machine) -> Forecast:
    config = build(ChatPlan, merged({}, question.settings))
    shape, bits = question.target.shape, config.bits or question.target.bits
    new = min(config.max_new_tokens, question.longest - 1)
    weights = weights_bytes(shape, bits, machine.on_gpu)
    prompt = question.longest - new
    packed = 0 if bits != 32 or machine.on_gpu else packed_bytes(shape, machine.available_bytes - machine.held_bytes - weights)
    moments = chat.memory(shape, weights, prompt, new, 2 if bits == 16 else FLOAT, packed)
    seconds = None
    if machine.flops and machine.bytes_per_s:
        cache = 2 * shape.layers * shape.kv * shape.head_size * FLOAT * question.longest
        reading = shape.training_flops(prompt, prompt, 1, shape.vocab_size) / 3 / (machine.flops * REACHED)
        seconds = reading + new * (weights + cache) / machine.bytes_per_s
    assumed = f"a prompt of {prompt:,} tokens and an answer of {new:,}"
    return Forecast(_settled(moments, machine, FLOAT * shape.ffn_width * prompt), machine.available_bytes, 0, None, seconds, None, assumed)


def _training(question: Question, machine: Machine) -> Forecast:
    shape, settings = question.target.shape, dict(question.settings)
    if question.target.bits != 32:
        raise UserError(
            f"{question.target.name}: has weights of {question.target.bits} bits, which cannot be trained; plan for the model it was made of"
        )
    given = settings.get("prompts" if question.task == "ppo" else "data")
    config = _config(question, settings)
    stage: Any = {"reward": reward, "ppo": ppo}.get(question.task, sft)
    if given is not None:
        steps, count = stage.passes(config, shape, question.target.tokenizer(), question.seed)
        total: int | None = count
        if question.task != "ppo":
            assumed = f"the data given: {count:,} steps"
        else:
            assumed = f"the prompts given, answers of {config.ppo.max_new_tokens:,} tokens: {count:,} steps"
    else:
        steps, total = [stage.assumed_passes(config, question.longest)], getattr(config, "steps", None)
        longest = getattr(config, "row_tokens", None) or question.longest
        assumed = f"sequences of {longest:,} tokens, all of them full and trained; give the data to count what is there"
    extra: tuple[Any, ...] = ()
    if question.task == "ppo":
        total = config.ppo.steps() if given is None else total
        extra = (_judges(settings, shape, config),)
    moments = [moment for step in _distinct(steps) for moment in _moments(stage, config, shape, step, extra, total == 1, machine)]
    if stage is not ppo and config.base.bits == 4:
        moments = [moment.beside(bitsandbytes=BITSANDBYTES_BYTES) for moment in moments]
    per_step = _seconds_per_step(question.task, config, shape, steps, machine)
    seconds = per_step * total if per_step is not None and total else None
    disk = _disk(question.task, config, shape)
    adapter = getattr(config, "lora", None)
    share = (KEPT_BY_QLORA if config.base.bits == 4 else KEPT_BY_LORA) if adapter else KEPT_SHARE
    return Forecast(
        _settled(moments, machine, FLOAT * shape.ffn_width * max(one.tokens for step in steps for one in step), share),
        machine.available_bytes,
        disk,
        total,
        seconds,
        per_step,
        assumed,
    )


def _config(question: Question, settings: dict[str, Any]) -> Any:
    task, somewhere = question.task, question.target.name
    if task == "ppo":
        base: dict[str, Any] = {"model": somewhere, "helpfulness": somewhere, "safety": somewhere, "prompts": "prompts.jsonl"}
        return build(ppo.PpoStageConfig, merged(base, settings))
    if task == "reward":
        return build(reward.RewardConfig, merged({"model": somewhere, "data": "preferences.jsonl", "domain": "helpfulness"}, settings))
    base = {"model": somewhere, "data": "dialogues.jsonl", "row_tokens": question.longest if question.context else None}
    if task != "sft":
        base["lora"] = {"r": 16}
    if task == "qlora":
        base["base"] = {"bits": 4}
    config = build(sft.SftConfig, merged(base, settings))
    if (config.row_tokens or 2) > question.target.shape.context:
        raise UserError(
            f"row_tokens is {config.row_tokens} and the model's context {question.target.shape.context}; rows must fit the context"
        )
    return config


def _judges(settings: Mapping[str, Any], shape: ModelConfig, config: ppo.PpoStageConfig) -> list[ModelConfig | LoraConfig | None]:
    """The reward models that are given; else models like the policy, or, on one base, adapters like its own. Then the guard's and the logged
    judge's, None where there is none."""
    from ..checkpoints.peft import is_adapter, read_adapter
    from .target import target

    found: list[ModelConfig | LoraConfig | None] = []
    for name in ("helpfulness", "safety"):
        folder = Path(str(settings.get(name, "")))
        if name not in settings:
            found.append(config.roles.lora if config.roles else shape)
        elif config.roles and is_adapter(folder):
            found.append(read_adapter(folder).config)
        else:
            found.append(target(str(settings[name])).shape)
    return found + [target(str(settings[name])).shape if settings.get(name) else None for name in ("guard", "judge")]


def _distinct(steps: Sequence[list[Pass]]) -> Sequence[list[Pass]]:
    """The steps that may be the fullest: most tokens, most wanted ones."""
    size = lambda step: max(one.tokens for one in step)  # noqa: E731
    return sorted(steps, key=size)[-3:]


def _moments(
    stage: Any, config: Any, shape: ModelConfig, step: Sequence[Pass], extra: tuple[Any, ...], first_only: bool, machine: Machine
) -> list[Moment]:
    found: list[Moment] = stage.memory(config, shape, step, *extra, first_only, machine.on_gpu)
    return found


def _seconds_per_step(task: Task, config: Any, shape: ModelConfig, steps: Sequence[list[Pass]], machine: Machine) -> float | None:
    if not (machine.flops and machine.bytes_per_s):
        return None
    outputs = 1 if task == "reward" else shape.vocab_size
    flops = sum(shape.training_flops(one.tokens, one.mean_document, one.wanted, outputs) for step in steps for one in step) / len(steps)
    if task == "ppo":  # the critic's pass, and policy, reference and critic once more without gradients
        flops *= (2 if config.roles.critic == "adapter" else 4 / 3) if config.roles else 3
        ppo_config = config.ppo
        rounds = -(-ppo_config.mini_batch // ppo_config.sampler.together)
        longest = max(max(one.lengths) for step in steps for one in step)
        slots = 2 * shape.layers * shape.kv * shape.head_size * FLOAT * longest * min(ppo_config.batch, ppo_config.sampler.together)
        sampling: float = rounds * ppo_config.max_new_tokens * (shape.parameters * FLOAT + slots) / machine.bytes_per_s
        sampling /= ppo_config.epochs  # answers are used again
        return flops / (machine.flops * REACHED) + sampling
    if task in ("lora", "qlora") or getattr(config, "lora", None):
        flops *= 2 / 3
    if getattr(config, "checkpointing", False):
        flops *= 4 / 3
    return flops / (machine.flops * REACHED)


def _disk(task: Task, config: Any, shape: ModelConfig) -> int:
    """Bytes while it works: what comes of it, and the states kept on the way, each with weights and the optimizer's moments."""
    if task == "ppo":
        if config.roles:
            trained = FLOAT * adapter_parameters(shape, config.roles.lora) * (2 if config.roles.critic == "adapter" else 1)
            return STATES * 3 * trained + STATES * trained + (FLOAT * shape.parameters if config.roles.publish == "merged" else trained)
        both = parameters(shape) + parameters(shape, scorer=True)
        return FLOAT * (STATES * 3 * both + STATES * shape.parameters + shape.parameters)
    model = Trained(shape, scorer=task == "reward", frozen=Frozen(config.lora, config.base.bits) if config.lora else None)
    trained = FLOAT * adapter_parameters(shape, config.lora) if getattr(config, "lora", None) else model.weights
    return STATES * (trained + model.optimizer(config.optimizer)) + trained
