"""A fixed number of slots, for answers that depend on nothing else: every step has the same shapes, whatever shares it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..core.device import free_memory_bytes
from ..core.errors import UserError
from ..model.memory import cache_bytes
from ..model.slots import Slots
from ..model.transformer import Transformer
from .graph import Decode
from .memory import Memory
from .score import take_prompt
from .sequence import Running

MULTIPLE = 16
"""Slots come in so many: vector instructions leave no rest then, which kernels treat otherwise, to the last bit."""


class Fixed:
    """Sequences at work, each in a slot, of which there are `rows` rounded up to MULTIPLE. A step takes one token for each row of the
    batch: the next of every sequence, and what is unread of prompts in the rows that are left.

    Raises UserError when the slots do not fit in free memory, and when this machine's products give equal rows different bits.
    """

    def __init__(self, model: Transformer, rows: int, memory: Memory | None = None):
        self._model, self._memory = model, memory
        rows = MULTIPLE * -(-rows // MULTIPLE)
        needed, free = cache_bytes(model.config, rows, model.config.context, model.dtype.itemsize), free_memory_bytes(model.device.type)
        if free is not None and needed > free:
            raise UserError(
                f"the invariant mode holds {rows} slots of {model.config.context} tokens, {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB "
                "are free; leave it, or take a model with a shorter context"
            )
        self._slots = Slots(model.config, rows, model.config.context, model.device, model.dtype)
        self._decode = Decode(model, self._slots, rows)
        self._in: list[Running | None] = [None] * rows
        self._read = [0] * rows
        """Tokens of each slot's sequence that the model has seen."""
        self._demand_equal_rows()

    @property
    def count(self) -> int:
        """Sequences that are at work, or whose prompts are read."""
        return sum(sequence is not None for sequence in self._in)

    def admit(self, sequences: Sequence[Running]) -> None:
        """Gives each sequence a slot, and what a memory knows of its beginning. Prompts are read in the steps that follow."""
        for sequence in sequences:
            slot = self._in.index(None)
            self._in[slot], self._read[slot] = sequence, 0
            # Log-probabilities of a prompt need every token of it to be seen again.
            found = (
                None if self._memory is None or sequence.sampling.prompt_log_probs else self._memory.find(sequence.seen_ids, sequence.owner)
            )
            if found:
                self._slots.put(slot, found[0].seen[..., : found[1], :])
                self._read[slot] = sequence.completion.known_tokens = found[1]

    def logits(self) -> tuple[list[Running], Tensor]:
        """The sequences whose prompts are read and the logits [B, V] of their next tokens; both may be empty."""
        rows = len(self._in)
        slots, positions, tokens = list(range(rows)), [0] * rows, [0] * rows
        spare = [row for row in range(rows) if self._in[row] is None]
        used: list[tuple[int, int, Running]] = []
        unread = [0 if sequence is None else len(sequence.ids) - 1 - read for sequence, read in zip(self._in, self._read, strict=True)]
        more = shares(unread, len(spare))
        for slot, sequence in enumerate(self._in):
            if sequence is None:
                continue
            first, last = self._read[slot], len(sequence.ids) - 1
            mine = [slot] + [spare.pop() for _ in range(more[slot])]
            for row, position in zip(mine, range(first, last + 1), strict=False):
                slots[row], positions[row], tokens[row] = slot, position, sequence.ids[position]
                used.append((row, position, sequence))
            self._read[slot] += len(mine)
        self._slots.place(slots, positions)
        logits = self._decode(tokens)
        for row, position, sequence in used:
            if sequence.sampling.prompt_log_probs and position + 1 < sequence.prompt_tokens:
                take_prompt(sequence, logits[row : row + 1], [sequence.ids[position + 1]])
        ready = [(row, sequence) for row, position, sequence in used if position == len(sequence.ids) - 1]
        return [sequence for _, sequence in ready], logits[torch.tensor([row for row, _ in ready], dtype=torch.long, device=logits.device)]

    def leave(self, gone: set[int]) -> None:
        """The sequences with these numbers leave their slots, and a memory keeps what the model made of them."""
        for slot, sequence in enumerate(self._in):
            if sequence is not None and sequence.number in gone:
                if self._memory is not None and self._read[slot]:
                    ids = sequence.ids[: self._read[slot]]
                    self._memory.keep(ids, self._slots.of(slot, self._read[slot]), sequence.owner)
                self._in[slot] = None

    def _demand_equal_rows(self) -> None:
        rows = len(self._in)
        self._slots.place(list(range(rows)), [0] * rows)
        logits = self._decode([1] * rows)
        if not (logits == logits[:1]).all():
            raise UserError(
                f"this machine's kernels give equal rows among {rows} different bits, so answers would depend on their place; "
                "take another number of slots or of threads, or leave the invariant mode"
            )


def shares(wanted: Sequence[int], there: int) -> list[int]:
    """How many of what is there each one gets: what it wants, or where that is too much as many as every other who wants more."""
    given = [0] * len(wanted)
    by_size = sorted((place for place, want in enumerate(wanted) if want), key=lambda place: wanted[place])
    for number, place in enumerate(by_size):
        given[place] = min(wanted[place], there // (len(by_size) - number))
        there -= given[place]
    return given
