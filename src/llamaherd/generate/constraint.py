"""Sequences that may not say everything: whoever constrains one says before each of its tokens which ids may come."""

from typing import Protocol

from torch import Tensor


class Constraint(Protocol):
    """The rules of one sequence, which follow what it has said."""

    def allowed(self) -> Tensor | None:
        """[V] bool: whether each of the tokenizer's ids, the stop ids among them, may come next; None: any may. Raises UserError."""

    def take(self, id: int) -> None:
        """Notes that this id came. Raises UserError."""
