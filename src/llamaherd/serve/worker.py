"""A model at work for many: one thread owns its engines, and the event loop hands it prompts and gets events back.

Each adapter has an engine of its own on the same weights, and the engines take turns, a step each.
"""

import asyncio
import logging
import queue
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from ..assistant.local import Assistant
from ..core.errors import UserError
from ..generate.constraint import Constraint
from ..generate.engine import Engine, room_for
from ..generate.memory import Memory
from ..generate.sequence import Event, NotNumbers
from .errors import ApiError, busy
from .ticket import Asked as Asked
from .ticket import Ticket as Ticket

log = logging.getLogger(__name__)

DRAIN_POLL_S = 0.02

Latency = Literal["first_token", "token"]
"""Seconds from `submit` to a sequence's first token, and from each token to its next."""
Observer = Callable[[Latency, Sequence[float]], None]
"""Told of latencies in seconds, those of one step in one call, by the worker's thread; it must neither wait nor raise."""


@dataclass
class Stats:
    """Counts of one worker since its start. Only its thread changes them, so whoever reads them needs no lock."""

    waiting: int = 0
    """Sequences that have no token yet: they wait, or their prompts are read. Now."""
    running: int = 0
    """Sequences that have tokens and go on. Now."""
    finished: dict[str, int] = field(default_factory=lambda: {"stop": 0, "length": 0})
    """Sequences that came to their end, by reason."""
    cancelled: int = 0
    failed: int = 0
    """Sequences that ended with an error."""
    prompt_tokens_read: int = 0
    """Counted, as the next ones, when a sequence has its first token."""
    prompt_tokens_known: int = 0
    """Tokens of prompts that were found in memory, and so not read."""
    tokens: int = 0
    """Tokens that were made."""
    steps: int = 0
    step_s: float = 0.0
    """Seconds in steps, without waiting for the processor's other models."""
    observer: Observer | None = None


class ConstraintBroke(UserError):
    """A constraint failed by no fault of its user."""


class Guarded:
    """A constraint that raises nothing but UserError, and allows ids of one vocabulary."""

    def __init__(self, constraint: Constraint, pieces: int):
        self._constraint, self._pieces = constraint, pieces

    def allowed(self) -> Tensor | None:
        try:
            allowed = self._constraint.allowed()
            if allowed is not None and (allowed.shape != (self._pieces,) or allowed.dtype != torch.bool):
                raise TypeError(f"a mask of {self._pieces} bool was expected")
            return allowed
        except UserError:
            raise
        except Exception as error:
            raise _broke(error) from None

    def take(self, id: int) -> None:
        try:
            self._constraint.take(id)
        except UserError:
            raise
        except Exception as error:
            raise _broke(error) from None


def _broke(error: Exception) -> ConstraintBroke:
    # Its message may hold what somebody said, and so stays out of the log.
    log.error("a constraint failed: %s\n%s", type(error).__name__, "".join(traceback.format_tb(error.__traceback__)))
    return ConstraintBroke(f"what the answer is to obey failed ({type(error).__name__})")


@dataclass(eq=False)
class Desk:
    """The engine of one adapter and the tickets of its sequences by number."""

    adapter: str | None
    engine: Engine
    tickets: dict[int, Ticket] = field(default_factory=dict)


class Worker:
    """The thread of one model. `compute` is held during steps: models that share a processor take turns (serve/turns.py).

    Raises UserError when the model's engine cannot be had on this machine.
    """

    def __init__(
        self, assistant: Assistant, waiting: int, compute: AbstractContextManager[object], rows: int | None = None, memory_bytes: int = 0,
        deadline_s: float | None = None,
    ):  # fmt: skip
        self.assistant, self._most, self._compute, self._rows, self._memory_bytes = assistant, waiting, compute, rows, memory_bytes
        self._deadline_s = deadline_s
        self.stats = Stats()
        self._desks: dict[str | None, Desk] = {}
        self._inbox: queue.SimpleQueue[tuple[Literal["add", "cancel", "end", "close"], Ticket | None]] = queue.SimpleQueue()
        self._lock = threading.Lock()  # of what follows, and of the order in which orders are given
        self._open = 0
        self._refusal: tuple[str, str] | None = None
        self._desk(None)
        self._thread = threading.Thread(target=self._run, name=f"model {assistant.name}", daemon=True)
        self._thread.start()

    @property
    def open(self) -> int:
        """Sequences that wait or are at work."""
        return self._open

    @property
    def alive(self) -> bool:
        """Whether there is anyone to work; False after `close`, and should the thread ever die."""
        return self._thread.is_alive()

    def submit(self, asked: Sequence[Asked]) -> list[Ticket]:
        """All of them, or none: raises ApiError when there is no room for so many, and UserError for prompts that cannot be gone on
        with. From the event loop only.
        """
        for one in {id(one.prompt): one for one in asked}.values():
            self._demand_fit(one)
        with self._lock:
            self.demand_room(len(asked))
            tickets = [Ticket(one, self._deadline_s if one.deadline_s is None else one.deadline_s, self.cancel) for one in asked]
            self._open += len(tickets)
            for ticket in tickets:
                self._inbox.put(("add", ticket))
        return tickets

    def demand_room(self, count: int) -> None:
        """Raises ApiError where `submit` would now refuse so many, so that no trouble is taken over what is asked."""
        if count > self._most:
            raise ApiError(400, f"{count} answers were asked for at once, and the server's queue has room for {self._most}")
        if self._refusal:
            message, code = self._refusal
            raise ApiError(503, message, code=code, headers={"Retry-After": "5"})
        if self._open + count > self._most:
            raise busy()

    def cancel(self, ticket: Ticket) -> None:
        """See Ticket.cancel."""
        self._inbox.put(("cancel", ticket))

    async def drain(self, seconds: float) -> None:
        """Takes no more, and waits for what is at work; what is left after so many seconds ends with an error."""
        self._refuse("the server is ending; try again later", "draining")
        until = time.monotonic() + seconds
        while self._open and self.alive and time.monotonic() < until:
            await asyncio.sleep(DRAIN_POLL_S)
        self._inbox.put(("end", None))
        while self._open and self.alive:  # no longer than the step that is being made
            await asyncio.sleep(DRAIN_POLL_S)

    def close(self) -> None:
        """Ends the thread after its step; sequences at work end with an error."""
        self._refuse("the server is ending; try again later", "draining")
        self._inbox.put(("close", None))
        self._thread.join()

    def _refuse(self, message: str, code: str) -> None:
        with self._lock:
            self._refusal = self._refusal or (message, code)

    def _demand_fit(self, asked: Asked) -> None:
        model = self.assistant.model
        room_for(asked.prompt, asked.sampling, model, "the prompt")
        if min(asked.prompt) < 0 or max(asked.prompt) >= model.config.vocab_size:
            raise UserError(f"the prompt has ids outside of the model's vocabulary, which go from 0 to {model.config.vocab_size - 1}")

    # From here on in the worker's thread.

    def _run(self) -> None:
        try:
            while self._take_orders():
                for desk in list(self._desks.values()):
                    if desk.engine.busy:
                        self._step(desk)
        except BaseException:
            log.critical("the thread of a model died")
            raise
        finally:
            self._refuse("the model has stopped; the server must be started again", "failed")
            while not self._inbox.empty():
                order, ticket = self._inbox.get()
                if order == "add" and ticket is not None:
                    self.stats.waiting += 1
                    self._fail([ticket], _ended())
            self._end_all()

    def _take_orders(self) -> bool:
        """Adds and cancels what was ordered, and waits for orders when there is nothing to do; False at the end."""
        idle = not any(desk.engine.busy for desk in self._desks.values())
        cancelled: list[Ticket] = []
        while idle or not self._inbox.empty():
            order, ticket = self._inbox.get()
            idle = False
            if order == "close":
                return False
            if order == "end":
                self._end_all()
            elif order == "add":
                assert ticket is not None
                self._add(ticket)
            elif ticket is not None and ticket.number is not None:
                cancelled.append(ticket)
        self._drop(cancelled)
        return True

    def _add(self, ticket: Ticket) -> None:
        asked = ticket.asked
        self.stats.waiting += 1
        if ticket.gone:
            self.stats.cancelled += 1
            self._leave([ticket])
            return
        try:
            desk = self._desk(asked.adapter)
            constraint = Guarded(asked.constraint, self.assistant.tokenizer.vocab_size) if asked.constraint else None
            ticket.number = desk.engine.add(
                asked.prompt, asked.sampling, asked.seed, owner=asked.owner, constraint=constraint, begun=asked.begun
            )
        except Exception:  # of this one request; the thread goes on for the others
            log.exception("a request could not be taken")  # what is its user's fault was told in `submit`
            self._fail([ticket], ApiError(503, "the model cannot take this request now; ask again later", code="failed"))
            return
        desk.tickets[ticket.number] = ticket

    def _desk(self, adapter: str | None) -> Desk:
        """With a new engine when there is none."""
        if adapter not in self._desks:
            assistant = self.assistant
            memory = Memory(self._memory_bytes) if self._memory_bytes else None
            with self._compute:  # an engine may try its machine
                assistant.switch(adapter)
                engine = Engine(
                    assistant.model, assistant.stop_ids, assistant.tokenizer, rows=self._rows, memory=memory, invariant=assistant.invariant,
                )  # fmt: skip
            self._desks[adapter] = Desk(adapter, engine)
        return self._desks[adapter]

    def _drop(self, tickets: Sequence[Ticket]) -> None:
        """Cancels what is still there of these."""
        numbers: dict[str | None, list[int]] = {}
        for ticket in tickets:
            if ticket.number is not None:
                numbers.setdefault(ticket.asked.adapter, []).append(ticket.number)
                del self._desks[ticket.asked.adapter].tickets[ticket.number]
                self.stats.cancelled += 1
                self._leave([ticket])
        for adapter, gone in numbers.items():
            self._free(self._desks[adapter], gone)

    def _free(self, desk: Desk, numbers: Sequence[int]) -> None:
        try:
            desk.engine.cancel(*numbers)
        except Exception as error:
            self._lost(desk, error)

    def _step(self, desk: Desk) -> None:
        try:
            with self._compute:
                started = time.perf_counter()
                self.assistant.switch(desk.adapter)
                events = desk.engine.step()
        except Exception as error:
            self._lost(desk, error)
            return
        now = time.perf_counter()
        self.stats.steps += 1
        self.stats.step_s += now - started
        if events:
            self._hand_out(desk, events, now)

    def _lost(self, desk: Desk, error: Exception) -> None:
        """The engine's state is lost: whoever was in it is told, and the next one gets a new engine."""
        log.error("a step failed", exc_info=error)
        self._desks.pop(desk.adapter, None)
        self._fail(list(desk.tickets.values()), _as_told(error))

    def _hand_out(self, desk: Desk, events: Sequence[Event], now: float) -> None:
        stats, told, waited, took = self.stats, [], [], []
        for event in events:
            ticket = desk.tickets[event.sequence]
            told.append((ticket, _as_told(event.error) if event.error else event))
            if event.error:
                stats.failed += 1
            elif not ticket.begun:
                ticket.begun = True
                stats.waiting -= 1
                stats.running += 1
                stats.prompt_tokens_known += event.completion.known_tokens
                stats.prompt_tokens_read += len(ticket.asked.prompt) - event.completion.known_tokens
                waited.append(now - ticket.submitted_s)
            else:
                took.append(now - ticket.newest_s)
            ticket.newest_s = now
            if event.reason:
                del desk.tickets[event.sequence]
                self._leave([ticket])
                if not event.error:
                    stats.finished[event.reason] += 1
        stats.tokens += len(waited) + len(took)
        self._tell(told)
        if stats.observer:
            try:
                stats.observer("first_token", waited)
                stats.observer("token", took)
            except Exception:  # whoever counts must not end what is counted
                log.exception("latencies could not be noted")
                stats.observer = None

    def _end_all(self) -> None:
        for desk in list(self._desks.values()):
            there, desk.tickets = desk.tickets, {}
            self._fail(list(there.values()), _ended())
            self._free(desk, list(there))

    def _fail(self, tickets: Sequence[Ticket], error: ApiError) -> None:
        self.stats.failed += len(tickets)
        self._leave(tickets)
        self._tell([(ticket, error) for ticket in tickets])

    def _leave(self, tickets: Sequence[Ticket]) -> None:
        """These are open no more."""
        for ticket in tickets:
            ticket.number = None
            if ticket.begun:
                self.stats.running -= 1
            else:
                self.stats.waiting -= 1
        with self._lock:
            self._open -= len(tickets)

    def _tell(self, told: Sequence[tuple[Ticket, Event | ApiError]]) -> None:
        """One call into the event loop for all events of a step."""
        loops: dict[asyncio.AbstractEventLoop, list[tuple[Ticket, Event | ApiError]]] = {}
        for ticket, event in told:
            loops.setdefault(ticket.loop, []).append((ticket, event))
        for loop, events in loops.items():
            try:
                loop.call_soon_threadsafe(_deliver, events)
            except RuntimeError:  # the loop is closed: nobody listens any more
                for ticket, _ in events:
                    if ticket.number is not None:
                        self._inbox.put(("cancel", ticket))


def _deliver(events: Sequence[tuple[Ticket, Event | ApiError]]) -> None:
    for ticket, event in events:
        ticket.tell(event)


def _ended() -> ApiError:
    return ApiError(503, "the server ended before the answer did", code="ended")


def _as_told(error: Exception) -> ApiError:
    """Whose fault it was, without the words of a machine."""
    if isinstance(error, ConstraintBroke | NotNumbers):
        return ApiError(500, str(error), code="failed")
    if isinstance(error, UserError):
        return ApiError(400, str(error))
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error):
        return ApiError(503, "the server ran out of memory; ask again, or for less", code="out_of_memory", headers={"Retry-After": "5"})
    return ApiError(500, f"the model failed ({type(error).__name__}); ask again", code="failed")
