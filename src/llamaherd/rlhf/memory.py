"""What PPO holds in memory, moment by moment and by role, in bytes counted from shapes (see `model/memory.py`, `train/memory.py`)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Literal

from ..model.config import LoraConfig, ModelConfig
from ..model.memory import (
    FLOAT,
    Frozen,
    Pass,
    adapter_parameters,
    backward_buffers,
    forward_buffers,
    frozen_bytes,
    largest_in_block,
    largest_weight,
    parameters,
    trunk_saved,
    widest,
)
from ..train.config import OptimizerConfig
from ..train.memory import QUANTISING_BYTES, Moment, Trained, step_moments
from .config import PpoConfig, RolesConfig
from .sampler import rows_together, sampling_bytes

JUDGED_TOKENS = 8192
"""Tokens that a reward model reads at a time."""
READ_TOKENS = 1024
"""Tokens of prompts that the engine reads at a time."""
PARTS = ("weights", "adapters", "gradients", "optimizer", "cache", "activations")
"""Columns of the table; logits and copies of weights are activations there."""

JUDGES = ("helpfulness", "safety", "guard", "judge")
"""Whose shapes `Work.judges` gives, in this order."""

ByRole = Mapping[str, Mapping[str, int]]
"""Role -> part -> bytes."""


@dataclass(frozen=True)
class Work:
    """What PPO's memory depends on."""

    shape: ModelConfig
    """Of the policy, the critic and the reference."""
    judges: Sequence[ModelConfig | LoraConfig | None]
    """Of helpfulness and safety, then of the guard and of the judge that is logged, None where there is none: a whole reward model, or an
    adapter on the base; a benchmark may have but one."""
    ppo: PpoConfig
    optimizer: OptimizerConfig
    step: Sequence[Pass]
    """The forward passes of a step with the longest prompts and answers."""
    roles: RolesConfig | None = None
    started: bool = False
    """Whether the chat model is itself an adapter, which the reference keeps."""
    checkpointing: bool = False
    first_only: bool = False
    """There is one step alone, before whose end the optimizer holds nothing."""
    on_gpu: bool = False

    @property
    def rows(self) -> int:
        """Answers sampled together."""
        return min(rows_together(self.ppo, self.shape, self.longest_prompt, self.policy.item), self.ppo.batch)

    @property
    def longest_prompt(self) -> int:
        one = widest(self.step)
        return max(1, max(one.lengths) + 1 - one.wanted // len(one.lengths))

    @property
    def frozen(self) -> Frozen | None:
        return Frozen(self.roles.lora, self.roles.bits or 32) if self.roles else None

    @property
    def policy(self) -> Trained:
        return Trained(self.shape, frozen=self.frozen, checkpointing=self.checkpointing, on_gpu=self.on_gpu)

    @property
    def critic(self) -> Trained | None:
        """None: a head on the policy's trunk, which is next to nothing."""
        return None if self.roles and self.roles.critic == "head" else replace(self.policy, scorer=True)


def held(work: Work) -> dict[str, dict[str, int]]:
    """What every role holds throughout: weights of its own or an adapter, and while it is trained gradients and the optimizer's moments."""
    roles: dict[str, dict[str, int]] = {"base": {}, "policy": {}, "critic": {}, "reference": {}, "helpfulness": {}, "safety": {}}
    own, whole = ("adapters", 0) if work.frozen else ("weights", work.shape.parameters * FLOAT)
    for name, model in (("policy", work.policy), ("critic", work.critic)):
        if model:
            gradients, optimizer = model.gradients, model.optimizer(work.optimizer)
            roles[name] = {own: gradients if work.frozen else model.weights, "gradients": gradients, "optimizer": optimizer}
        else:
            head = work.shape.dim * FLOAT
            roles[name] = {own: head, "gradients": head, "optimizer": 2 * head}
    roles["reference"] = {own: work.policy.gradients if work.started else whole}
    if work.frozen:
        roles["base"] = {"weights": frozen_bytes(work.shape, work.frozen, work.on_gpu)}
    for name, judge in zip(JUDGES, work.judges, strict=False):
        if judge is None:
            continue
        if isinstance(judge, LoraConfig):
            roles[name] = {"adapters": FLOAT * (adapter_parameters(work.shape, judge) + work.shape.dim)}
        else:
            roles[name] = {"weights": parameters(judge, scorer=True) * FLOAT}
    return roles


@dataclass(frozen=True)
class Instant:
    """A point at which memory may be fullest, and what each role holds then."""

    name: str
    roles: ByRole

    @property
    def total(self) -> int:
        return sum(sum(parts.values()) for parts in self.roles.values())

    @property
    def moment(self) -> Moment:
        """The same, roles added up."""
        names = dict.fromkeys(part for parts in self.roles.values() for part in parts)
        return Moment(self.name, {name: sum(parts.get(name, 0) for parts in self.roles.values()) for name in names})


def instants(work: Work) -> list[Instant]:
    """The fullest moments of PPO. The gradients of an iteration's last step are there while the next answers are sampled."""
    throughout = held(work)

    def instant(name: str, without: Sequence[str] = (), **more: Mapping[str, int]) -> Instant:
        roles = {}
        for role, parts in throughout.items():
            kept = {part: size for part, size in parts.items() if part not in without}
            extra = more.get(role, {})
            roles[role] = {part: kept.get(part, 0) + extra.get(part, 0) for part in {**kept, **extra}}
        return Instant(name, roles)

    return [*_loading(work, instant), *_updating(work, instant), instant("optimizer's step"), *_sampling(work, instant)]


Make = Callable[..., Instant]


def _loading(work: Work, instant: Make) -> list[Instant]:
    """While a frozen base is read: one weight as it is stored, on its way into 4 bits also as floats, codes and what finds these."""
    if not work.frozen:
        return []
    copies = largest_weight(work.shape) * FLOAT
    if work.frozen.bits == 4:
        copies = max(copies, largest_in_block(work.shape) * QUANTISING_BYTES)
    return [instant("loading", ("gradients", "optimizer"), base={"copies": copies})]


def _updating(work: Work, instant: Make) -> list[Instant]:
    """Forward and backward of policy and critic, whose graphs stand side by side until the loss is taken."""
    one, several = widest(work.step), len(work.step) > 1
    row = work.shape.vocab_size * FLOAT
    [loss, *back] = step_moments(work.policy, one, several)
    critic = {"gradients": 0, "activations": 0}
    if work.critic:
        saved, _ = trunk_saved(work.shape, one, work.frozen, work.critic.item, work.checkpointing)
        after = 0 if work.checkpointing else backward_buffers(work.shape, one.wanted, work.critic.item)
        critic = {"gradients": work.critic.gradients if several else 0, "activations": saved + after}
    # The entropy beside the loss: log-probabilities, their exponentials and the product of both, with the logits still there.
    logits = max(loss.parts["logits"], 5 * one.wanted * row)
    without = ("gradients", "optimizer") if work.first_only else ("gradients",)
    return [
        instant("updating", without, policy={**moment.parts, "logits": logits if moment is loss else 0}, critic=critic)
        for moment in (loss, *back[:1])
    ]


def _sampling(work: Work, instant: Make) -> list[Instant]:
    """Without gradients: prompts are read and answers sampled, judged, and looked at by policy, critic and reference."""
    shape, one, item = work.shape, widest(work.step), work.policy.item
    row, rows, longest, prompt = shape.vocab_size * FLOAT, work.rows, max(one.lengths), work.longest_prompt
    cache, logits = sampling_bytes(shape, rows, longest, item)
    reading = _passing(work, Pass((prompt,) * max(1, min(rows, READ_TOKENS // prompt)), 0))
    sampling = {"cache": cache, "activations": max(reading, logits)}
    found = [instant("sampling", policy=sampling)]
    judged = Pass((min(JUDGED_TOKENS, work.ppo.batch * longest),), 1)
    for name, judge in zip(JUDGES, work.judges, strict=False):
        if judge is None:
            continue
        passing = _passing(work, judged) if isinstance(judge, LoraConfig) else forward_buffers(judge, judged)
        found.append(instant("judging", **{name: {"activations": passing}}))
    looking = {"activations": _passing(work, one), "logits": 3 * one.wanted * row}
    return [*found, instant("looking at answers", reference=looking)]


def _passing(work: Work, one: Pass) -> int:
    """A forward pass without gradients; an adapter's changes are made beside what they change, in float32."""
    item, shape = work.policy.item, work.shape
    beside = one.tokens * shape.ffn_width * (FLOAT + (FLOAT if item < FLOAT else 0)) if work.frozen else 0
    return forward_buffers(shape, one, item) + beside + work.policy.buffer * bool(work.frozen)


def table(work: Work, available_bytes: int | None) -> list[str]:
    """Memory by role in megabytes, as lines: of each part the most that a role holds at any time; then all roles when it is fullest."""
    every = instants(work)
    full = max(every, key=lambda one: one.total)

    def of(parts: Mapping[str, int], column: str) -> int:
        own = parts.get(column, 0)
        return own + parts.get("logits", 0) + parts.get("copies", 0) if column == "activations" else own

    rows = {role: [max(of(one.roles[role], part) for one in every) for part in PARTS] for role in full.roles}
    if work.roles:
        bits = work.roles.bits or 32
        rows = {(f"base, {bits} bits" if role == "base" else role): sizes for role, sizes in rows.items()}
    last = f"all at once, {full.name}"
    rows = {role: sizes for role, sizes in rows.items() if any(sizes) or role != "base"}
    rows[last] = [sum(of(parts, part) for parts in full.roles.values()) for part in PARTS]
    width = max(map(len, ("memory by role, MB", *rows)))
    lines = [" ".join([f"{'memory by role, MB':{width}}", *(f"{part:>11}" for part in PARTS)])]
    lines += [
        " ".join([f"{role:{width}}", *(f"{size / 1e6:>11,.1f}" if size else f"{'-':>11}" for size in sizes)])
        for role, sizes in rows.items()
    ]
    free = "" if available_bytes is None else f" of {available_bytes / 1e9:,.1f} GB"
    fits = available_bytes is None or full.total <= available_bytes
    lines.append(f"{'needs' if fits else 'does not fit: needs'} {_size(full.total)}{free}; answers are sampled {work.rows} at a time")
    if available_bytes is not None and not fits:
        lines += advice(work, available_bytes)
    return lines


def _size(count: int) -> str:
    return f"{count / 1e9:,.2f} GB" if count >= 1e8 else f"{count / 1e6:,.1f} MB"


def advice(work: Work, available_bytes: int) -> list[str]:
    """Settings with which it fits, as lines: of each kind alone the mildest that does; where none does, the mildest of all kinds together,
    or how much even the hardest need.
    """
    kinds = _kinds(work)
    alone = [next((one for one in kind if _total(one[1](work)) <= available_bytes), None) for kind in kinds]
    if any(alone):
        return [f"fits with {said}: {_size(_total(change(work)))}" for said, change in filter(None, alone)]

    def with_all(chosen: Sequence[Change]) -> Work:
        return reduce(lambda sofar, one: one[1](sofar), chosen, work)

    chosen = [kind[-1] for kind in kinds]
    for at in reversed(range(len(kinds))):  # the last kind is the first to be spared
        for one in (("", lambda same: same), *kinds[at]):
            milder = [*chosen[:at], one, *chosen[at + 1 :]]
            if _total(with_all(milder)) <= available_bytes:
                chosen = milder
                break
    said, total = " ".join(said for said, _ in chosen if said), _total(with_all(chosen))
    if total <= available_bytes:
        return [f"fits with {said}: {_size(total)}"]
    return [f"even with {said} it needs {_size(total)}; take a smaller model, shorter prompts and answers, or another machine"]


def _total(work: Work) -> int:
    return max(one.total for one in instants(work))


Change = tuple[str, Callable[[Work], Work]]


def _kinds(work: Work) -> list[list[Change]]:
    """Kinds of changes with the settings' names, each from the mildest to the hardest. None of them changes what is computed, but for
    the base's bits."""
    kinds = [[_together(size) for size in _halves(work.rows)], [_micro_batch(size) for size in _halves(max(map(_count, work.step)))]]
    if not work.checkpointing:
        kinds.append([("--checkpointing=true", lambda one: replace(one, checkpointing=True))])
    if work.roles:
        kinds.append([_bits(bits) for bits in (16, 4) if bits < (work.roles.bits or 32)])
    return [kind for kind in kinds if kind]


def _halves(size: int) -> list[int]:
    return [size >> times for times in range(1, size.bit_length())]


def _count(one: Pass) -> int:
    return len(one.lengths)


def _together(size: int) -> Change:
    def change(work: Work) -> Work:
        sampler = work.ppo.sampler.model_copy(update={"together": size})
        return replace(work, ppo=work.ppo.model_copy(update={"sampler": sampler}))

    return f"--ppo.sampler.together={size}", change


def _micro_batch(size: int) -> Change:
    def parts(one: Pass) -> list[Pass]:
        rows = [one.lengths[at : at + size] for at in range(0, _count(one), size)]
        return [Pass(row, one.wanted * len(row) // _count(one)) for row in rows]

    return f"--ppo.micro_batch={size}", lambda work: replace(work, step=[part for one in work.step for part in parts(one)])


def _bits(bits: Literal[4, 16]) -> Change:
    def change(work: Work) -> Work:
        assert work.roles
        return replace(work, roles=work.roles.model_copy(update={"bits": bits}))

    return f"--roles.bits={bits}", change
