"""A safety reward model that reads along (paper.md section 5): prompts before they are answered, answers before they are sent.

It fails closed: what cannot be scored is refused. Dialogues cross as text, so guard and model need not share a tokenizer.
"""

import asyncio
import logging
import statistics
import time
from bisect import bisect_left
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass

from ..chat.dialogue import Dialogue, DialogueError, Message, checked
from ..generate.sequence import Completion, Event
from ..measures.calibration import sigmoid
from ..reward.model import RewardModel
from .config import GuardConfig
from .errors import busy
from .metrics import Metrics, Outcome, Where
from .worker import Ticket

log = logging.getLogger(__name__)

STAND_INS = ("", "Sure, here is how to do that.", "No.")
"""Answers that say nothing themselves: a prompt's logit is the mean of its logits under them (docs/serve-guard.md has the measurement)."""

BATCH_TOKENS = 8192


@dataclass(slots=True)
class Refused(Event):
    """The last event of an answer that was refused. `text` is what ends a stream, `refusal` what stands for the whole answer."""

    refusal: str = ""


@dataclass(frozen=True)
class Score:
    """Of a prompt or an answer. `left_out`: oldest turns that the guard's context had no room for."""

    logit: float
    left_out: int

    @property
    def value(self) -> float:
        """0 to 1, the higher the safer."""
        return sigmoid(self.logit)


class Guard:
    """Decides on prompts and answers. Checks that come at once are scored as one batch; with `alone` each for itself, so that a
    decision is the same bits whatever else is decided. `compute` is held during each batch. From one event loop only.
    """

    def __init__(
        self, model: RewardModel, name: str, config: GuardConfig, compute: AbstractContextManager[object], metrics: Metrics,
        alone: bool = False, most_prompts: int = 256,
    ):  # fmt: skip
        self.model, self.name, self.config, self.refusal = model, name, config, config.refusal
        self._most_prompts, self._prompts = most_prompts, 0
        self._compute, self._metrics, self._alone = compute, metrics, alone
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="guard")
        self._waiting: list[tuple[Dialogue, asyncio.Future[Score | BaseException]]] = []
        self._at_work: asyncio.Task[None] | None = None

    def close(self) -> None:
        """Ends its thread, after the batch that it is at."""
        self._thread.shutdown(cancel_futures=True)

    def threshold(self, where: Where) -> float:
        """What scores less is refused."""
        return (self.config.prompt_threshold if where == "prompt" else None) or self.config.threshold

    def scores(self, dialogues: Sequence[Dialogue]) -> list[Score]:
        """Of dialogues that end with an answer, or with a user, whose prompt is then meant. In any thread.

        Raises UserError when a score is not finite, or when the last turn alone exceeds the guard's context.
        """
        finished: list[Dialogue] = []
        names: list[str] = []  # without a word of the text, since errors may be logged
        left_out: list[int] = []
        for number, dialogue in enumerate(dialogues, 1):
            answers = STAND_INS if dialogue.last.role == "user" else (dialogue.last.content,)
            most = max(self._left_out(dialogue.prompt.followed_by("assistant", answer)) for answer in answers)
            kept = _without_oldest(dialogue.prompt, most)
            finished += [kept.followed_by("assistant", answer) for answer in answers]
            names += [f"text {number}"] * len(answers)
            left_out.append(most)
        logits = self.model.logits(finished, 1 if self._alone else BATCH_TOKENS, names, self._compute)
        of: dict[str, list[float]] = {}
        for name, logit in zip(names, logits, strict=True):
            of.setdefault(name, []).append(logit)
        return [Score(statistics.fmean(found), most) for found, most in zip(of.values(), left_out, strict=True)]

    async def passes_prompt(self, messages: Sequence[Message]) -> bool:
        """Whether messages that end with a user may be answered at all; counted. Raises ApiError when too many wait already."""
        if self.config.where == "answers":
            return True
        if self._prompts >= self._most_prompts:
            raise busy()
        self._prompts += 1
        try:
            return self._decided("prompt", await self._check("prompt", messages))
        finally:
            self._prompts -= 1

    async def guarded(self, ticket: Ticket, messages: Sequence[Message], begun: str = "", whole: bool = False) -> AsyncIterator[Event]:
        """A sequence's events, each given out only when all text up to it has passed; at the first text that has not, the sequence is
        cancelled and a `Refused` is the last. `begun` is what the answer was to go on from; with `whole` it is checked at its end only.
        """
        reader, text, released = _Reader(ticket), begun, False
        reads = self.config.where != "prompts"
        try:
            while portion := await reader.portion(None if whole else self.config.portion_tokens if reads else 1):
                text += "".join(event.text for event in portion)
                if reads:
                    outcome = await self._check("answer", (*messages, Message("assistant", text)))
                    if outcome != "passed" or portion[-1].reason:
                        self._decided("answer", outcome)
                    if outcome != "passed":
                        ticket.cancel()
                        yield self._refused(portion[-1].completion, f"\n\n{self.refusal}" if released else self.refusal)
                        return
                for event in portion:
                    released = released or bool(event.text.strip())
                    yield event
        finally:
            await reader.close()

    async def refused(self) -> AsyncIterator[Event]:
        """The answer to a prompt that did not pass."""
        yield self._refused(Completion(), self.refusal)

    def _refused(self, completion: Completion, text: str) -> Refused:
        return Refused(0, -1, 0.0, [], text, "stop", completion, refusal=self.refusal)

    def _left_out(self, dialogue: Dialogue) -> int:
        """So many of its oldest turns have no room; at most all but the last."""
        return bisect_left(range(dialogue.turns - 1), True, key=lambda count: self.model.fits(_without_oldest(dialogue, count)))

    def _decided(self, where: Where, outcome: Outcome) -> bool:
        self._metrics.decided(where, outcome)
        return outcome == "passed"

    async def _check(self, where: Where, messages: Sequence[Message]) -> Outcome:
        started = time.perf_counter()
        try:
            dialogue = checked(messages)
        except DialogueError:  # a forged tag, a blank prompt
            return "failed"
        future: asyncio.Future[Score | BaseException] = asyncio.get_running_loop().create_future()
        self._waiting.append((dialogue, future))
        if self._at_work is None or self._at_work.done():
            self._at_work = asyncio.create_task(self._score_waiting())
        score = await future
        self._metrics.guard_seconds.observe(time.perf_counter() - started)
        if isinstance(score, BaseException):
            log.error("the guard could not score a text, which is refused: %s: %s", type(score).__name__, score)
            return "failed"
        self._metrics.guard_turns_left_out.inc(score.left_out)
        return "passed" if score.value >= self.threshold(where) else "refused"

    async def _score_waiting(self) -> None:
        """Batch by batch, until nothing waits. A batch that fails is scored text by text, so that only those fail that must."""
        while self._waiting:
            batch, self._waiting = self._waiting, []
            dialogues = [dialogue for dialogue, _ in batch]
            try:
                found = await self._scored(dialogues)
                if isinstance(found[0], BaseException):
                    found = [(await self._scored([dialogue]))[0] for dialogue in dialogues]
                for (_, future), score in zip(batch, found, strict=True):
                    if not future.done():
                        future.set_result(score)
            finally:
                for _, future in batch:
                    future.cancel()

    async def _scored(self, dialogues: list[Dialogue]) -> Sequence[Score | BaseException]:
        """Their scores, or for each of them what went wrong."""
        work = asyncio.get_running_loop().run_in_executor(self._thread, self.scores, dialogues)
        await asyncio.wait({work})
        error = work.exception()
        return work.result() if error is None else [error] * len(dialogues)


class _Reader:
    """Takes a ticket's events as they come, so that a portion holds all that came while the one before was checked."""

    def __init__(self, ticket: Ticket):
        self._events: list[Event] = []
        self._came, self._over = asyncio.Event(), False
        self._task = asyncio.create_task(self._read(ticket))

    async def _read(self, ticket: Ticket) -> None:
        try:
            async for event in ticket:
                self._events.append(event)
                self._came.set()
        finally:
            self._over = True
            self._came.set()

    async def portion(self, tokens: int | None) -> list[Event]:
        """At least so many events, or all that are left. Raises what the sequence ended with, once its events are read."""
        while (tokens is None or len(self._events) < tokens) and not self._over:
            self._came.clear()
            await self._came.wait()
        if not self._events:
            await self._task
        portion, self._events = self._events, []
        return portion

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


def _without_oldest(dialogue: Dialogue, count: int) -> Dialogue:
    """Without so many of its oldest turns; the system text stays."""
    system = dialogue.messages[: dialogue.system is not None]
    return checked((*system, *dialogue.messages[len(system) + 2 * count :]), dialogue.trained)
