"""What is asked of a worker, and what is held of it meanwhile."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from ..generate.config import SamplingConfig
from ..generate.constraint import Constraint
from ..generate.sequence import Event
from .errors import ApiError

T = TypeVar("T")


class Mailbox(Generic[T]):
    """What comes for one reader, who takes all that is there at once. From one event loop only."""

    def __init__(self) -> None:
        self._there: list[T] = []
        self._reader: asyncio.Future[None] | None = None
        self._emptied = asyncio.Event()

    def put(self, item: T) -> None:
        """One more."""
        self._there.append(item)
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    async def take(self) -> list[T]:
        """All, as soon as there is anything; nothing is lost when this is cancelled."""
        while not self._there:
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        return self.take_now()

    async def emptied(self) -> None:
        """Returns when nothing is left, for whoever must not run ahead of the reader."""
        while self._there:
            self._emptied.clear()
            await self._emptied.wait()

    def take_now(self) -> list[T]:
        """All that is there."""
        there, self._there = self._there, []
        self._emptied.set()
        return there


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
        self._index, self._box = 0, Mailbox[tuple[int, Event | Exception]]()
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
            for _, event in await self._box.take():
                if isinstance(event, Exception):
                    raise event
                yield event
                if event.reason:
                    return

    def forward(self, index: int, box: Mailbox[tuple[int, Event | Exception]]) -> None:
        """Instead of iterating: what came and what comes goes into `box`, with `index`."""
        for _, event in self._box.take_now():
            box.put((index, event))
        self._index, self._box = index, box

    def cancel(self) -> None:
        """Frees its place, wherever it stands, at the next step; no harm when it has ended."""
        self._give_up(ApiError(499, "the answer was cancelled", code="cancelled"))

    def tell(self, event: Event | ApiError) -> None:
        """From the event loop only."""
        if not self._over:
            self._box.put((self._index, event))
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
