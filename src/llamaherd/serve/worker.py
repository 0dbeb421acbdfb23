"""A model at work for many: one thread owns its engines, and the event loop hands it prompts and gets events back.

Each adapter has an engine of its own on the same weights, and the engines take turns, a step each.
"""

import asyncio
import logging
import queue
import threading
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from ..assistant.local import Assistant
from ..generate.config import SamplingConfig
from ..generate.constraint import Constraint
from ..generate.engine import Engine
from ..generate.memory import Memory
from ..generate.sequence import Event
from .errors import ApiError, busy

log = logging.getLogger(__name__)


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


class Ticket:
    """A sequence that waits or is at work, seen from the event loop. Iterate over it for its events, the last of which has a reason."""

    def __init__(self, worker: "Worker", asked: Asked):
        self.asked, self._worker = asked, worker
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event | Exception] = asyncio.Queue()
        self.gone = False
        """Whether it was cancelled."""

    async def __aiter__(self) -> AsyncIterator[Event]:
        while True:
            event = await self._events.get()
            if isinstance(event, Exception):
                raise event
            yield event
            if event.reason:
                return

    def cancel(self) -> None:
        """Frees its place, wherever it stands; no harm when it has ended."""
        self.gone = True
        self._worker.cancel(self)

    def tell(self, event: Event | Exception) -> None:
        """From the event loop only."""
        self._events.put_nowait(event)


class Worker:
    """The thread of one model. `compute` is held during steps: models that share a processor take turns."""

    def __init__(
        self, assistant: Assistant, waiting: int, compute: threading.Lock, rows: int | None = None, memory_bytes: int = 0,
    ):  # fmt: skip
        self.assistant, self._most, self._compute, self._rows, self._memory_bytes = assistant, waiting, compute, rows, memory_bytes
        self._engines: dict[str | None, Engine] = {}
        self._tickets: dict[tuple[str | None, int], Ticket] = {}
        self._inbox: queue.SimpleQueue[tuple[str, Ticket | None]] = queue.SimpleQueue()
        self._open = 0
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=f"model {assistant.name}", daemon=True)
        self._thread.start()

    @property
    def open(self) -> int:
        """Sequences that wait or are at work."""
        return self._open

    def submit(self, asked: Sequence[Asked]) -> list[Ticket]:
        """All of them, or none: raises ApiError when there is no room for so many. From the event loop only."""
        with self._lock:
            if self._open + len(asked) > self._most:
                raise busy()
            self._open += len(asked)
        tickets = [Ticket(self, one) for one in asked]
        for ticket in tickets:
            self._inbox.put(("add", ticket))
        return tickets

    def cancel(self, ticket: Ticket) -> None:
        """See Ticket.cancel."""
        self._inbox.put(("cancel", ticket))

    def close(self) -> None:
        """Ends the thread after its step; sequences at work end with an error."""
        self._inbox.put(("close", None))
        self._thread.join()

    def _run(self) -> None:
        while self._take_orders():
            for adapter, engine in list(self._engines.items()):
                if engine.busy:
                    self._step(adapter, engine)
        for place in list(self._tickets):
            self._end(place, ApiError(503, "the server ended before the answer did", code="ended"))

    def _take_orders(self) -> bool:
        """Adds and cancels what was ordered, and waits for orders when there is nothing to do; False at the end."""
        idle = not any(engine.busy for engine in self._engines.values())
        while idle or not self._inbox.empty():
            order, ticket = self._inbox.get()
            if ticket is None:
                return False
            idle = False
            if order == "add" and not ticket.gone:
                self._add(ticket)
            elif order == "add":
                self._close_one()
            else:
                self._cancel(ticket)
        return True

    def _add(self, ticket: Ticket) -> None:
        asked = ticket.asked
        try:
            if asked.adapter not in self._engines:
                self._engines[asked.adapter] = self._engine()
            number = self._engines[asked.adapter].add(
                asked.prompt, asked.sampling, asked.seed, owner=asked.owner, constraint=asked.constraint
            )
        except Exception as error:  # of this one request; the thread goes on for the others
            self._close_one()
            self._tell([(ticket, error)])
            return
        self._tickets[asked.adapter, number] = ticket

    def _cancel(self, ticket: Ticket) -> None:
        for (adapter, number), other in self._tickets.items():
            if other is ticket:
                self._engines[adapter].cancel(number)
                del self._tickets[adapter, number]
                self._close_one()
                return

    def _engine(self) -> Engine:
        assistant = self.assistant
        memory = Memory(self._memory_bytes) if self._memory_bytes else None
        return Engine(
            assistant.model, assistant.stop_ids, assistant.tokenizer, rows=self._rows, memory=memory, invariant=assistant.invariant,
        )  # fmt: skip

    def _step(self, adapter: str | None, engine: Engine) -> None:
        try:
            with self._compute:
                self.assistant.switch(adapter)
                events = engine.step()
        except Exception as error:  # the engine's state is lost: whoever was in it is told, and the next one gets a new engine
            log.exception("a step failed")
            del self._engines[adapter]
            for place in [place for place in self._tickets if place[0] == adapter]:
                self._end(place, ApiError(500, f"the model failed ({type(error).__name__}); ask again", code="failed"))
            return
        told = [(self._tickets[adapter, event.sequence], event) for event in events]
        for event in events:
            if event.reason:
                del self._tickets[adapter, event.sequence]
                self._close_one()
        self._tell(told)

    def _end(self, place: tuple[str | None, int], error: Exception) -> None:
        ticket = self._tickets.pop(place)
        self._close_one()
        self._tell([(ticket, error)])

    def _close_one(self) -> None:
        with self._lock:
            self._open -= 1

    def _tell(self, told: Sequence[tuple[Ticket, Event | Exception]]) -> None:
        """One call into the event loop for all events of a step."""
        loops: dict[asyncio.AbstractEventLoop, list[tuple[Ticket, Event | Exception]]] = {}
        for ticket, event in told:
            loops.setdefault(ticket._loop, []).append((ticket, event))
        for loop, events in loops.items():
            if not loop.is_closed():
                loop.call_soon_threadsafe(_deliver, events)


def _deliver(events: Sequence[tuple[Ticket, Event | Exception]]) -> None:
    for ticket, event in events:
        ticket.tell(event)
