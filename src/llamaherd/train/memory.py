"""What a training step holds in memory, moment by moment, in bytes counted from shapes (see `model/memory.py`)."""

from collections.abc import Mapping
from dataclasses import dataclass

from ..model.config import ModelConfig
from ..model.memory import (
    FLOAT,
    Frozen,
    Pass,
    adapter_parameters,
    backward_buffers,
    block_saved,
    frozen_bytes,
    largest_in_block,
    largest_weight,
    parameters,
    trunk_saved,
)
from .config import OptimizerConfig

QUANTISING_BYTES = 16
"""Of a weight on its way into 4 bits: as stored, in float32, scaled, and as wide and narrow index."""
BLOCK_ELEMENTS = 2**25
"""Logits whose gradients are made at a time, as in `losses/language.py`."""


@dataclass(frozen=True)
class Moment:
    """A point at which memory may be fullest, and the bytes of what is held then, by name."""

    name: str
    parts: Mapping[str, int]
    passed_bytes: int = 0
    """Of activations that were made and freed again on the way here, besides those in `parts`."""

    @property
    def total(self) -> int:
        return sum(self.parts.values())

    def beside(self, **others: int) -> "Moment":
        """The same with more held; names that are there already are added up."""
        names = dict.fromkeys([*others, *self.parts])
        return Moment(self.name, {name: others.get(name, 0) + self.parts.get(name, 0) for name in names}, self.passed_bytes)


@dataclass(frozen=True)
class Trained:
    """A model in training. `scorer`: a head of one output; `frozen`: an adapter on a base that stays as it is."""

    shape: ModelConfig
    scorer: bool = False
    frozen: Frozen | None = None
    checkpointing: bool = False
    on_gpu: bool = False

    @property
    def item(self) -> int:
        """Bytes of a number in activations."""
        return self.frozen.dtype_bytes(self.on_gpu) if self.frozen else FLOAT

    @property
    def weights(self) -> int:
        """Bytes of the weights, an adapter's included."""
        if self.frozen:
            return frozen_bytes(self.shape, self.frozen, self.on_gpu) + self.gradients
        return parameters(self.shape, self.scorer) * FLOAT

    @property
    def gradients(self) -> int:
        """Bytes of the gradients: of all weights, or of the adapter's."""
        return FLOAT * (adapter_parameters(self.shape, self.frozen.lora) if self.frozen else parameters(self.shape, self.scorer))

    def optimizer(self, config: OptimizerConfig) -> int:
        """Bytes of the two moments of every trained weight: floats, or single bytes with a float for each block of 256."""
        per_weight = 2 * (1 + FLOAT / 256) if config.kind.endswith("8bit") else 2 * FLOAT
        return round(self.gradients // FLOAT * per_weight)

    @property
    def later_gradients(self) -> int:
        """Bytes of the gradients that are there when the backward pass reaches the last block but one."""
        if self.frozen:
            return self.gradients // max(1, self.shape.layers)
        head = self.shape.dim * (1 if self.scorer else self.shape.vocab_size)
        return FLOAT * (head + self.shape.trunk_parameters // self.shape.layers)

    @property
    def buffer(self) -> int:
        """Bytes of the largest gradient before it is added to what is there, or of the largest weight out of 4 bits."""
        if self.frozen:
            return largest_in_block(self.shape) * self.item if self.frozen.bits == 4 else 0
        if self.scorer:
            return self.shape.vocab_size * self.shape.dim * FLOAT
        return largest_weight(self.shape) * FLOAT * (2 if self.shape.tied else 1)


def step_moments(model: Trained, one: Pass, several: bool) -> list[Moment]:
    """The fullest moments of a forward and backward pass. `several`: a step has more passes, so gradients of others are there already.

    The logits stand once as they are and once as log-probabilities, which are what the loss keeps; on the way back as
    log-probabilities and gradients.
    """
    saved, last = trunk_saved(model.shape, one, model.frozen, model.item, model.checkpointing)
    gradients = model.gradients if several else 0
    moments = []
    if not model.scorer:
        row = model.shape.vocab_size * FLOAT
        logits, cut = one.wanted * row, min(one.wanted, max(1, BLOCK_ELEMENTS // model.shape.vocab_size)) * row
        forward = logits * model.item // FLOAT + logits + (cut if model.item < FLOAT else 0)
        backward = max(logits + 2 * cut, 2 * logits)
        moments = [Moment("loss", {"activations": saved, "logits": max(forward, backward), "gradients": gradients})]
    buffers = backward_buffers(model.shape, one.tokens, model.item)
    block = block_saved(model.shape, one, None, model.frozen, model.item)
    if model.checkpointing:
        again = {"activations": saved + block + buffers, "gradients": max(gradients, model.later_gradients) + model.buffer}
        passed = trunk_saved(model.shape, one, model.frozen, model.item)[0] - saved
        return [Moment(moment.name, moment.parts, passed) for moment in [*moments, Moment("backward pass", again)]]
    if model.shape.layers > 1:
        there = max(gradients, model.later_gradients)
        moments.append(Moment("backward pass", {"activations": saved - last + buffers, "gradients": there + model.buffer}))
    after = backward_buffers(model.shape, one.wanted, model.item)
    moments.append(Moment("backward pass", {"activations": saved + after, "gradients": gradients + model.buffer}))
    return [*moments, Moment("last gradients", {"activations": block, "gradients": model.gradients + model.buffer})]
