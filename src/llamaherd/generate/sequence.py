"""One sequence on its way: what was asked, what came of it, and what is told of each step."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..core.errors import UserError
from .config import SamplingConfig
from .constraint import Constraint
from .stops import StopText

Reason = Literal["stop", "length", "error"]
Ids = tuple[int, ...]
Rule = tuple[float, float, int, float, float]
"""Temperature, top-p, top-k, min-p, repetition penalty."""
Alternatives = list[tuple[int, float]]
"""(id, log-probability) of the likeliest tokens, the likeliest first."""


@dataclass
class Completion:
    """What one sequence became. `log_probs` are the model's own (temperature 1, nothing left out), one per id, the stop included."""

    ids: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    finished: bool = False
    """Whether it came to its end, and was not cut by length."""
    text: str | None = None
    """Where stop texts were asked for: what stands before the first of them."""
    alternatives: list[Alternatives] = field(default_factory=list)
    """One per id, where they were asked for."""
    prompt_log_probs: list[float] = field(default_factory=list)
    """One per token of the prompt but its first, where they were asked for."""
    prompt_alternatives: list[Alternatives] = field(default_factory=list)
    known_tokens: int = 0
    """Tokens of the prompt that a memory knew, or that were read for another sequence of the same owner."""

    @property
    def text_ids(self) -> list[int]:
        """The ids without the stop; with stop texts, those of the whole text that holds one."""
        return self.ids[:-1] if self.finished and self.text is None else self.ids


class NotNumbers(UserError):
    """A model gives logits from which nothing can be chosen."""


@dataclass(slots=True)
class Event:
    """One more token of a sequence. With a tokenizer `text` is what can be shown now; `reason` says why the sequence ends, if it does.

    With reason "error" there is no token (`id` is -1): the sequence's constraint raised `error`, or its logits are NotNumbers, and it
    alone ends by that.
    """

    sequence: int
    id: int
    log_prob: float
    alternatives: Alternatives
    text: str
    reason: Reason | None
    completion: Completion
    error: UserError | None = None


class Running:
    """A sequence that waits or grows: `ids` are prompt and answer, of which the model has seen all but the last."""

    def __init__(
        self, number: int, prompt: list[int], sampling: SamplingConfig, seed: int, room: int, text: StopText | None,
        owner: str = "", constraint: Constraint | None = None,
    ):  # fmt: skip
        self.number, self.ids, self.sampling, self.text = number, list(prompt), sampling, text
        self.owner, self.constraint = owner, constraint
        self.left = room
        """Tokens that it may still get."""
        self.prompt_tokens = len(prompt)
        self.rule: Rule = (sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p, sampling.repetition_penalty)
        self.completion = Completion()
        self._noise = np.random.Generator(np.random.Philox(seed)).random(room, dtype=np.float32).tolist() if sampling.temperature else []
        self._seen: Tensor | None = None

    @property
    def seen_ids(self) -> Ids:
        """What the model has seen, or is to read."""
        return tuple(self.ids[:-1])

    @property
    def noise(self) -> float:
        """In [0, 1), decides the next token."""
        return self._noise[len(self.completion.ids)] if self._noise else 0.0

    def seen(self, vocabulary: int, device: torch.device) -> Tensor:
        """[V] whether a token stands in prompt or answer."""
        if self._seen is None:
            self._seen = torch.zeros(vocabulary, dtype=torch.bool, device=device)
            self._seen[torch.tensor([id for id in self.ids if id < vocabulary], device=device)] = True
        return self._seen

    def fail(self, error: UserError) -> Event:
        """No more tokens."""
        return Event(self.number, -1, 0.0, [], "", "error", self.completion, error)

    def take(self, id: int, log_prob: float, alternatives: Alternatives, stop: bool) -> Event:
        """One more token; `stop` says that it is a stop id. Raises UserError where a constraint does."""
        completion, text = self.completion, self.text
        completion.ids.append(id)
        completion.log_probs.append(log_prob)
        if alternatives:
            completion.alternatives.append(alternatives)
        self.ids.append(id)
        self.left -= 1
        if self._seen is not None:
            self._seen[id] = True
        if self.constraint:
            self.constraint.take(id)
        piece = "" if text is None or stop else text.feed(id)
        if text is not None and text.found is not None:
            stop = True
        reason: Reason | None = "stop" if stop else None if self.left else "length"
        if reason:
            completion.finished = stop
            if text is not None:
                piece += text.close()
                if text.found is not None:
                    completion.finished = True
                    reason = "stop"
                if self.sampling.stop:
                    completion.text = text.text
        return Event(self.number, id, log_prob, alternatives, piece, reason, completion)
