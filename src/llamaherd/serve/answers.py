"""Sequences as clients see them: their events as they come, their text, tokens and counts."""

import asyncio
import hashlib
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from ..assistant.local import Trim
from ..chat.dialogue import Message
from ..core.artifacts import code_version
from ..core.errors import UserError
from ..generate.sequence import Alternatives, Completion, Event
from ..tokenizer.sentencepiece import SPACE, TextStream, Tokenizer
from .errors import ApiError
from .guard import Guard, Refused
from .journal import tokens_made
from .service import Served
from .ticket import Mailbox
from .worker import Asked, Ticket, Worker

LOWEST = -9999.0
"""Said in place of a log-probability of minus infinity, which JSON has no word for."""

Source = Ticket | AsyncIterator[Event]
"""Where the events of one sequence come from."""


@dataclass(frozen=True)
class Begun:
    """What an answer is to: messages that end with a user, and the beginning of the answer that it goes on from."""

    messages: Sequence[Message]
    text: str = ""


async def at_work(
    worker: Worker, asked: Sequence[Asked], guard: Guard | None, begun: Sequence[Begun], whole: bool, shown: bool = True
) -> tuple[list[Ticket], Sequence[Source]]:
    """(the tickets of what was submitted, where the events of each answer come from), the prompts being checked first by the guard.

    Every prompt of `begun` has as many answers. With `whole` answers are checked at their end only, and not at all
    unless they are `shown`. Raises ApiError when there is no room.
    """
    if guard is None:
        tickets = worker.submit(asked)
        return tickets, tickets
    each = len(asked) // len(begun)
    passes = await asyncio.gather(*(guard.passes_prompt(one.messages) for one in begun))
    tickets = worker.submit([one for index, one in enumerate(asked) if passes[index // each]])
    left = iter(tickets)
    of = [begun[index // each] if passes[index // each] else None for index in range(len(asked))]

    def source(ticket: Ticket, one: Begun) -> Source:
        return guard.guarded(ticket, one.messages, one.text, whole) if shown else ticket

    return tickets, [source(next(left), one) if one else guard.refused() for one in of]


async def events(sources: Sequence[Source], tickets: Sequence[Ticket], deadline_s: float) -> AsyncIterator[list[tuple[int, Event]]]:
    """(index of the source, its event), all that have come at once, until all sources have ended. All tickets are cancelled when the
    listener leaves.

    Raises ApiError when a sequence fails, and when they take longer than the deadline, their waiting included.
    """
    box, left = Mailbox[tuple[int, Event | Exception]](), len(sources)
    too_late = ApiError(504, f"the answer took longer than this server's {deadline_s:g} s", code="deadline")
    timer = asyncio.get_running_loop().call_later(deadline_s, box.put, (-1, too_late))
    readers = []
    try:
        for index, source in enumerate(sources):
            if isinstance(source, Ticket):
                source.forward(index, box)
            else:
                readers.append(_forward(source, index, box))
        while left:
            came: list[tuple[int, Event]] = []
            failure: Exception | None = None
            for index, event in await box.take():
                if isinstance(event, Exception):
                    failure = event
                    break
                came.append((index, event))
                left -= event.reason is not None
            tokens_made(len(came))
            if came:
                yield came
            if failure:
                raise failure
    except UserError as error:
        raise ApiError(400, str(error)) from None
    finally:
        timer.cancel()
        cancel(tickets)
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)


def _forward(source: AsyncIterator[Event], index: int, box: Mailbox[tuple[int, Event | Exception]]) -> asyncio.Task[None]:
    """Puts into the box what comes from a source, and what the source fails with."""

    async def read() -> None:
        async for event in source:
            box.put((index, event))

    def ended(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and isinstance(error := task.exception(), Exception):
            box.put((index, error))

    reader = asyncio.create_task(read())
    reader.add_done_callback(ended)
    return reader


def cancel(tickets: Sequence[Ticket]) -> None:
    """Frees the places of all."""
    for ticket in tickets:
        ticket.cancel()


@dataclass(frozen=True)
class Token:
    """One token of an answer; `start` is where its text begins, in characters of what was sampled."""

    id: int
    log_prob: float
    alternatives: Alternatives
    start: int


class Said:
    """What one sequence has said: its text, trimmed if a `trim` is given, and the tokens that say it.

    Tokens whose text a stop text cut off are left out, and wait until that is certain; so is the token that ends an answer, unless
    `with_end`.
    """

    def __init__(self, tokenizer: Tokenizer, stop_ids: Sequence[int], begun: bool, trim: Trim | None, with_end: bool = False):
        self._stop_ids, self._trim, self._with_end = stop_ids, trim, with_end
        self._whole, self._sampled, self._certain = TextStream(tokenizer, begun), 0, 0
        self._waiting: deque[Token] = deque()
        self.text = ""
        self.tokens: list[Token] = []
        self.refused = False
        self.completion: Completion | None = None
        """What has become of it so far."""

    def take(self, event: Event) -> tuple[str, list[Token]]:
        """What one more event adds: text, and tokens. Of a refused answer only the refusal stays."""
        if isinstance(event, Refused):
            self.refused, self.text, self.tokens, self.completion = True, event.refusal, [], event.completion
            return event.text, []
        self._certain += len(event.text)
        if event.id in self._stop_ids:
            ends = [Token(event.id, event.log_prob, event.alternatives, self._certain)] if self._with_end else []
        else:
            self._waiting.append(Token(event.id, event.log_prob, event.alternatives, self._sampled))
            self._sampled += len(self._whole.feed(event.id))
            ends = []
        tokens = self._released(event) + ends
        text = self._trim.feed(event.text) if self._trim else event.text
        self.text += text
        self.tokens += tokens
        self.completion = event.completion
        return text, tokens

    def _released(self, event: Event) -> list[Token]:
        cut = event.reason == "stop" and event.id not in self._stop_ids
        tokens = []
        while self._waiting:
            start = self._waiting[0].start
            end = self._waiting[1].start if len(self._waiting) > 1 else self._sampled
            if not (start < self._certain and end <= self._certain) and not (event.reason and (start < self._certain or not cut)):
                break
            tokens.append(self._waiting.popleft())
        return tokens

    @property
    def finish_reason(self) -> str:
        """Of a sequence that has ended."""
        if self.refused:
            return "content_filter"
        return "stop" if self.completion and self.completion.finished else "length"


def usage(prompts: Sequence[Sequence[int]], said: Sequence[Said]) -> dict[str, Any]:
    """Tokens that were read and made, the one that ends an answer included; a prompt with several answers counts once."""
    completions = [one.completion for one in said if one.completion]
    read, made = sum(map(len, prompts)), sum(len(completion.ids) for completion in completions)
    known = sum(completion.known_tokens for completion in completions[:: max(1, len(said) // max(1, len(prompts)))])
    return {
        "prompt_tokens": read, "completion_tokens": made, "total_tokens": read + made,
        "prompt_tokens_details": {"cached_tokens": known},
    }  # fmt: skip


@cache
def _fingerprint(folder: Path, adapter: Path | None, *settings: object) -> str:
    files = [file for place in (folder, adapter) if place for file in sorted(place.iterdir()) if file.is_file()]
    seen = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return "fp_" + hashlib.sha256(repr((seen, settings)).encode()).hexdigest()[:12]


def fingerprint(served: Served) -> str:
    """Changes with what may change answers: the files of the model, the code's version, torch's, the mode, the number of threads."""
    assistant, adapter = served.worker.assistant, served.adapter
    place = served.base.adapters[adapter] if adapter else None
    return _fingerprint(served.base.folder, place, code_version(), torch.__version__, assistant.invariant, torch.get_num_threads())


def spoken(tokenizer: Tokenizer, id: int) -> tuple[str, list[int] | None]:
    """(text, bytes) of one token: a byte that is no character of its own is written as the vocabulary does, a control token has no bytes."""
    byte = tokenizer.byte(id)
    if byte is not None:
        return (chr(byte) if byte < 128 else tokenizer.piece(id)), [byte]
    piece = tokenizer.piece(id)
    if tokenizer.is_control(id) or id == tokenizer.unk_id:
        return piece, None
    text = piece.replace(SPACE, " ")
    return text, list(text.encode())


def chat_log_probs(tokenizer: Tokenizer, tokens: Sequence[Token]) -> dict[str, Any]:
    """As in OpenAI's chat completions."""

    def told(id: int, log_prob: float) -> dict[str, Any]:
        text, octets = spoken(tokenizer, id)
        return {"token": text, "logprob": max(log_prob, LOWEST), "bytes": octets}

    content = [{**told(token.id, token.log_prob), "top_logprobs": [told(*other) for other in token.alternatives]} for token in tokens]
    return {"content": content, "refusal": None}
