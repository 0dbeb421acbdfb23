"""What a model and its forward passes hold in memory, in bytes, counted from shapes alone: nothing is allocated and torch not imported.

Counted is what autograd keeps for the backward pass in `model/transformer.py`, tensor by tensor. N tokens, W of them wanted by the
head, C cells of attention's rectangles, D width, H query heads, K key-value heads, d head size, F inner width, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from .config import LoraConfig, ModelConfig
from .rectangles import rectangles

FLOAT = 4
"""Bytes of a float32, in which everything is trained."""
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Of a weight in NF4: half a byte, a byte for each block of 64, a float for each 256 of those."""
LEAST_PACKED_BYTES, MOST_PACKED_BYTES = 64 << 20, 6 << 30
"""Of a model's weights, to be laid out anew for answers: smaller ones stay in the processor's cache anyhow, larger ones take too long."""


@dataclass(frozen=True)
class Pass:
    """One forward pass: the lengths of the documents that stand end to end, and how many tokens the head runs on."""

    lengths: tuple[int, ...]
    wanted: int

    @property
    def tokens(self) -> int:
        return sum(self.lengths)

    @property
    def cells(self) -> int:
        """Places in the rectangles that attention is done in, padding included."""
        return sum(len(group) * self.lengths[group[0]] for group in rectangles(self.lengths))

    @property
    def ragged(self) -> bool:
        """Whether documents differ in length, so that queries, keys, values and outputs are gathered into rectangles and back."""
        return len(set(self.lengths)) > 1

    @property
    def mean_document(self) -> float:
        """Document length that a random token stands in, for counting attention."""
        return sum(length * length for length in self.lengths) / max(1, self.tokens)


@dataclass(frozen=True)
class Frozen:
    """A base whose weights are not trained, in `bits`, and the adapter on it."""

    lora: LoraConfig
    bits: int

    def dtype_bytes(self, on_gpu: bool) -> int:
        """Of what stands outside the quantised layers, and of activations."""
        return 2 if self.bits == 16 or (self.bits == 4 and on_gpu) else FLOAT


def linear_shapes(shape: ModelConfig) -> dict[str, tuple[int, int]]:
    """(outputs, inputs) of the linear layers of a block, and of the vocabulary head."""
    heads, keys = shape.heads * shape.head_size, shape.kv * shape.head_size
    ffn = shape.ffn_width
    return {
        "wq": (heads, shape.dim), "wk": (keys, shape.dim), "wv": (keys, shape.dim), "wo": (shape.dim, heads),
        "w1": (ffn, shape.dim), "w2": (shape.dim, ffn), "w3": (ffn, shape.dim), "output": (shape.vocab_size, shape.dim),
    }  # fmt: skip


def parameters(shape: ModelConfig, scorer: bool = False) -> int:
    """Weights of a language model, or of a trunk with a head of one output."""
    if not scorer:
        return shape.parameters
    return shape.trunk_parameters + shape.vocab_size * shape.dim + shape.dim * (2 * shape.layers + 1) + shape.dim


def adapter_parameters(shape: ModelConfig, lora: LoraConfig) -> int:
    """Weights of A [r, in] and B [out, r] of every changed layer."""
    sizes = linear_shapes(shape)
    return sum(lora.r * sum(sizes[name]) * (1 if name == "output" else shape.layers) for name in lora.names)


def frozen_bytes(shape: ModelConfig, frozen: Frozen, on_gpu: bool) -> int:
    """The base's weights; of 4 bits are the linear layers in blocks."""
    if frozen.bits != 4:
        return shape.parameters * (2 if frozen.bits == 16 else FLOAT)
    rest = shape.parameters - shape.trunk_parameters
    return round(shape.trunk_parameters * NF4_BYTES) + rest * frozen.dtype_bytes(on_gpu)


def packed_bytes(shape: ModelConfig, free_bytes: int) -> int:
    """What weights in float32 take besides once they are laid out for answers on a CPU (model/packed.py); 0 where they stay as they are:
    where that would not pay, or would take more than half of what is free.
    """
    weights = shape.parameters * FLOAT
    besides = (shape.trunk_parameters + shape.vocab_size * shape.dim * (2 if shape.tied else 1)) * FLOAT
    return besides if LEAST_PACKED_BYTES <= weights <= MOST_PACKED_BYTES and 2 * besides <= free_bytes else 0


def largest_weight(shape: ModelConfig) -> int:
    """Elements of the largest matrix."""
    return max(outputs * inputs for outputs, inputs in linear_shapes(shape).values())


def largest_in_block(shape: ModelConfig) -> int:
    """Elements of the largest matrix of a block."""
    return max(outputs * inputs for name, (outputs, inputs) in linear_shapes(shape).items() if name != "output")


def block_saved(shape: ModelConfig, one: Pass, wanted: int | None, frozen: Frozen | None = None, item: int = FLOAT) -> int:
    """What a block keeps for the backward pass. `wanted`: the tokens that go on after attention; None: all.

    Before attention x, x over its root mean square, the normed x; q, k, v, the output and a number for each query; then the same
    three for the feed-forward part, and w1 x, its silu, w3 x and their product. A frozen norm needs no x over its mean square.
    """
    tokens, after = one.tokens, one.tokens if wanted is None else wanted
    heads, keys = shape.heads * shape.head_size, shape.kv * shape.head_size
    norm = 2 if frozen else 3
    saved = tokens * shape.dim * norm + one.cells * (2 * heads + 2 * keys)
    if one.ragged or wanted is not None:
        saved += after * heads  # the outputs once more, gathered for wo
    saved += after * (shape.dim * norm + 4 * shape.ffn_width)
    found = saved * item + FLOAT * (tokens + after + one.cells * shape.heads)
    return found + (_adapter_saved(shape, tokens, after, frozen, item) if frozen else 0)


def _adapter_saved(shape: ModelConfig, tokens: int, after: int, frozen: Frozen, item: int) -> int:
    """What the changes of a block keep beside: A x of each, and x itself where it is made anew in float32 or by dropout."""
    found = 0
    for name in frozen.lora.names:
        if name == "output":
            continue
        rows, inputs = tokens if name in ("wq", "wk", "wv") else after, linear_shapes(shape)[name][1]
        found += rows * frozen.lora.r * FLOAT
        found += rows * inputs * ((FLOAT if item < FLOAT else 0) + (FLOAT + 1 if frozen.lora.dropout else 0))
    return found


def trunk_saved(
    shape: ModelConfig, one: Pass, frozen: Frozen | None = None, item: int = FLOAT, checkpointing: bool = False
) -> tuple[int, int]:
    """(what a trunk keeps for the backward pass, what of it belongs to the last block and the last norm).

    Checkpointed, the blocks keep their inputs alone; one at a time is run again, which is not counted here.
    """
    norm = one.wanted * shape.dim * (2 if frozen else 3) * item
    rope = 2 * one.tokens * shape.head_size * FLOAT
    if checkpointing:
        return rope + norm + shape.layers * one.tokens * shape.dim * item, norm
    last = block_saved(shape, one, one.wanted, frozen, item) + norm
    return rope + last + (shape.layers - 1) * block_saved(shape, one, None, frozen, item), last


def backward_buffers(shape: ModelConfig, tokens: int, item: int = FLOAT) -> int:
    """What a block's backward pass holds at its widest beside what was kept: gradients of two inner widths and of the residual stream."""
    return tokens * (2 * shape.ffn_width + 2 * shape.dim) * item


def forward_buffers(shape: ModelConfig, one: Pass, item: int = FLOAT) -> int:
    """What a block holds at its widest where no gradient is wanted: the residual stream, its norm, and three of the inner width."""
    heads = shape.heads * shape.head_size
    attention = one.cells * (5 * heads if one.ragged else 4 * heads)
    return item * (2 * one.tokens * shape.dim + max(3 * one.tokens * shape.ffn_width, attention)) + 2 * one.tokens * shape.head_size * FLOAT


def cache_bytes(shape: ModelConfig, sequences: int, slots: int, item: int = FLOAT) -> int:
    """Keys and values of so many sequences with room for `slots` tokens, with the mask over them."""
    return sequences * slots * shape.kv * item * (2 * shape.layers * shape.head_size + 1)


def widest(passes: Sequence[Pass]) -> Pass:
    """The one with the most tokens, of equals the one with the most wanted."""
    return max(passes, key=lambda one: (one.tokens, one.wanted))
