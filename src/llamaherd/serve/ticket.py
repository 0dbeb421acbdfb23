"""What is asked of a worker, and what is held of it meanwhile."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from ..generate.config import SamplingConfig
from ..generate.constraint import Constraint
from ..generate.sequence import Event
from .errors import ApiError


@dataclass(frozen=True)
class Asked:
    """One sequence: ids to go on from, and how."""

    prompt: Sequence[int]
    sampling: SamplingConfig
    seed: int
    adapter: str | None = None
    owner: str = ""
    """Beginnings are remembered for each owner apart, so that nobody learns from the time it takes what others wrote."""
    constraint: Constraint | None = None
    """What it raises ends this sequence alone: a UserError as its user's fault (400), anything else as ours (500)."""
    begun: bool = False
    """Whether its text goes on from another, as in Engine.add."""
    deadline_s: float | None = None
    """Seconds from `submit` on after which it is given up with an error (504); None: the worker's own."""


class Ticket:
    """A sequence that waits or is at work, seen from the event loop. Iterate over it for its events, the last of which has a reason.

    Iterating raises ApiError when the sequence was given up: cancelled (499), past its deadline (504), at the end of the server (503),
    its constraint failed (400 or 500) or the model did (500, 503).
    """

    def __init__(self, asked: Asked, deadline_s: float | None, cancel: Callable[["Ticket"], None]):
        self.asked, self._cancel = asked, cancel
        self.loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event | ApiError] = asyncio.Queue()
        self.gone = False
        """Whether it was cancelled."""
        self._over = False
        self._timer = None if deadline_s is None else self.loop.call_later(deadline_s, self._too_late, deadline_s)
        self.submitted_s = self.newest_s = time.perf_counter()
        """When it was asked for, and when its newest token came. These and what follows belong to the worker's thread."""
        self.number: int | None = None
        """In its engine, while it is there."""
        self.begun = False
        """Whether it has a token."""

    async def __aiter__(self) -> AsyncIterator[Event]:
        while True:
            event = await self._events.get()
            if isinstance(event, ApiError):
                raise event
            yield event
            if event.reason:
                return

    def cancel(self) -> None:
        """Frees its place, wherever it stands, at the next step; no harm when it has ended."""
        self._give_up(ApiError(499, "the answer was cancelled", code="cancelled"))

    def tell(self, event: Event | ApiError) -> None:
        """From the event loop only."""
        if not self._over:
            self._events.put_nowait(event)
            if isinstance(event, ApiError) or event.reason:
                self._end()

    def _too_late(self, deadline_s: float) -> None:
        self._give_up(ApiError(504, f"the answer took longer than {deadline_s:g} seconds; ask for fewer tokens", code="deadline"))

    def _give_up(self, error: ApiError) -> None:
        if not self._over:
            self.gone = True
            self.tell(error)
            self._cancel(self)

    def _end(self) -> None:
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
