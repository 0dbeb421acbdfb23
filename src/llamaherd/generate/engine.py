"""The one engine: ids in, ids and log-probabilities out. Chat, rollouts, rejection sampling, evaluation and serving use it.

Prompts wait; `step` lets them in where there is room, makes one token for every sequence at work and tells of each. Sequences that
end leave. Every sequence brings its own settings and seed, so what it samples does not depend on its neighbours (but for rounding
in the last bits, and not even for that with a fixed number of slots). `steps` and `generate` are the engine for a list of prompts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from math import isnan

import torch
from torch import Tensor

from ..core.errors import UserError
from ..model.transformer import Transformer
from ..tokenizer.sentencepiece import Tokenizer
from .config import SamplingConfig
from .constraint import Constraint
from .fixed import Fixed
from .gradual import Gradual
from .growing import Growing
from .memory import Memory
from .sampling import choose, penalised
from .score import alternatives
from .sequence import Completion, Event, NotNumbers, Rule, Running
from .stops import StopText

ROWS = 128
"""Sequences at work at once."""
SLOTS = 16
"""The same in the invariant mode, where a step costs as much for one as for all."""


class Engine:
    """Sequences of one model, which come and go. Only its own thread may call it.

    A stop id is the last one of its sequence. Only the first `pieces` ids are sampled (None: those of the tokenizer): a model's
    vocabulary may be padded beyond its tokenizer's. Texts, and stops that are texts, need a tokenizer. With a memory, beginnings
    of prompts are read once and kept. `continuous` lets prompts in whenever there is room and reads them a little in each step,
    otherwise they come all at once when none is at work and are read at once.
    `invariant` keeps the shapes of every step: ids and log-probabilities are then the same bits whatever else is at work, in which
    order it came and what a memory knew; `rows`, threads and machine must stay. Raises UserError where the machine cannot promise that.
    """

    def __init__(
        self, model: Transformer, stop_ids: Sequence[int] = (), tokenizer: Tokenizer | None = None, *, pieces: int | None = None,
        rows: int | None = None, memory: Memory | None = None, continuous: bool = True, invariant: bool = False,
    ):  # fmt: skip
        self._model, self._stop_ids, self._tokenizer = model, frozenset(stop_ids), tokenizer
        self._pieces = tokenizer.vocab_size if pieces is None and tokenizer else pieces
        self._rows = rows or (SLOTS if invariant else ROWS)
        self._continuous = continuous
        with torch.inference_mode():
            self._batch: Growing | Fixed
            if invariant:
                self._batch = Fixed(model, self._rows, memory)
            else:
                self._batch = Gradual(model, memory, self._rows) if continuous else Growing(model, memory)
        self._waiting: dict[int, Running] = {}
        self._count = 0

    @property
    def busy(self) -> bool:
        """Whether a step has anything to do."""
        return bool(self._waiting or self._batch.count)

    def add(
        self, prompt: Sequence[int], sampling: SamplingConfig, seed: int, what: str = "the prompt", owner: str = "",
        constraint: Constraint | None = None, begun: bool = False,
    ) -> int:  # fmt: skip
        """The number of a new sequence, which waits for its turn. What an owner's sequences begin with is remembered for that owner.
        `begun`: its text goes on from another, so a space that it begins with is said.

        Raises UserError for a prompt without tokens or without room.
        """
        room = room_for(prompt, sampling, self._model, what)
        if sampling.stop and not self._tokenizer:
            raise UserError("stop texts are found in decoded text; give the engine a tokenizer, or stop at ids")
        self._count += 1
        text = StopText(self._tokenizer, sampling.stop, begun) if self._tokenizer else None
        self._waiting[self._count] = Running(self._count, list(prompt), sampling, seed, room, text, owner, constraint)
        return self._count

    def cancel(self, *sequences: int) -> int:
        """Drops sequences, wherever they stand, and frees what they held. They have no more events. How many of them were there."""
        waited = [number for number in sequences if self._waiting.pop(number, None)]
        before = self._batch.count
        if len(waited) < len(sequences):
            with torch.inference_mode():
                self._batch.leave(set(sequences).difference(waited))
        return len(waited) + before - self._batch.count

    @torch.inference_mode()
    def step(self) -> list[Event]:
        """One token for each sequence at work. Empty when nothing is at work, or when prompts are still being read."""
        at_work = self._batch.count
        if self._waiting and at_work < self._rows and (self._continuous or not at_work):
            first = list(islice(self._waiting, self._rows - at_work))
            self._batch.admit([self._waiting.pop(number) for number in first])
        if not self._batch.count:
            return []
        running, logits = self._batch.logits()
        if not running:
            return []
        events = self._events(running, logits.float())
        if gone := {event.sequence for event in events if event.reason}:
            self._batch.leave(gone)
        return events

    def _events(self, running: list[Running], logits: Tensor) -> list[Event]:
        failed: dict[int, UserError] = {}
        ids = self._chosen(running, _constrained(running, logits[:, : self._pieces], failed))
        log_probs = logits.log_softmax(-1)
        own = log_probs.gather(-1, ids[:, None])[:, 0].tolist()
        asked = max(sequence.sampling.top_log_probs for sequence in running)
        told = alternatives(log_probs, asked) if asked else []
        events = []
        for row, (sequence, id) in enumerate(zip(running, ids.tolist(), strict=True)):
            try:
                if row in failed:
                    raise failed[row]
                if isnan(own[row]):
                    raise NotNumbers("the model's logits are not numbers (NaN): its weights are damaged, or too large for their data type")
                likeliest = told[row][: sequence.sampling.top_log_probs] if told else []
                events.append(sequence.take(id, own[row], likeliest, id in self._stop_ids))
            except UserError as error:
                events.append(sequence.fail(error))
        return events

    def _chosen(self, running: list[Running], logits: Tensor) -> Tensor:
        """[B] the next id of each sequence by its own settings; those with equal settings are chosen together."""
        uniform = torch.tensor([sequence.noise for sequence in running], device=logits.device)
        groups: dict[Rule, list[int]] = {}
        for row, sequence in enumerate(running):
            groups.setdefault(sequence.rule, []).append(row)
        if len(groups) == 1:
            return self._by_rule(running, logits, uniform)
        chosen = torch.empty(len(running), dtype=torch.long, device=logits.device)
        for rows in groups.values():
            index = torch.tensor(rows, device=logits.device)
            chosen[index] = self._by_rule([running[row] for row in rows], logits[index], uniform[index])
        return chosen

    def _by_rule(self, running: list[Running], logits: Tensor, uniform: Tensor) -> Tensor:
        """[B] the next ids of sequences with equal settings."""
        temperature, top_p, top_k, min_p, penalty = running[0].rule
        if penalty != 1:
            seen = torch.stack([sequence.seen(logits.shape[1], logits.device) for sequence in running])
            logits = penalised(logits, seen, penalty)
        return choose(logits, temperature, top_p, uniform, top_k, min_p)


def _constrained(running: list[Running], logits: Tensor, failed: dict[int, UserError]) -> Tensor:
    """Logits [B, V] of which those of ids that may not come are lowest. Rows whose constraint fails are noted in `failed`."""
    rules = [(row, sequence.constraint) for row, sequence in enumerate(running) if sequence.constraint]
    if rules:
        logits = logits.clone()
    for row, constraint in rules:
        try:
            allowed = constraint.allowed()
            if allowed is None:
                continue
            if not allowed.any():
                raise UserError("the answer cannot go on: what it is to obey leaves no token that may come next")
            logits[row].masked_fill_(~allowed.to(logits.device), float("-inf"))
        except UserError as error:
            failed[row] = error
    return logits


@dataclass
class Step:
    """One token for each sequence still at work: `rows` are their indices in the call, `ids` and `log_probs` match them."""

    rows: list[int]
    ids: list[int]
    log_probs: list[float]


def room_for(prompt: Sequence[int], sampling: SamplingConfig, model: Transformer, what: str) -> int:
    """How many tokens may follow a prompt. Raises UserError when it has no tokens or leaves no room."""
    if not prompt:
        raise UserError(f"{what} has no tokens; an empty raw prompt starts from the beginning-of-sequence id")
    context = model.config.context
    if len(prompt) >= context:
        raise UserError(
            f"{what} has {len(prompt)} tokens and the model's context is {context}, which leaves no room "
            "for an answer; shorten it or drop earlier turns"
        )
    return min(sampling.max_new_tokens, context - len(prompt))


def steps(
    model: Transformer,
    prompts: Sequence[Sequence[int]],
    config: SamplingConfig,
    seeds: Sequence[int],
    stop_ids: Sequence[int],
    pieces: int | None = None,
    memory: Memory | None = None,
) -> Iterator[Step]:
    """Generates token by token, for all prompts at once, until every sequence has stopped, is `max_new_tokens` long or fills the
    context. Raises UserError for a prompt without tokens or without room, NotNumbers.
    """
    engine = Engine(model, stop_ids, pieces=pieces, rows=len(prompts), memory=memory, continuous=False)
    numbers = _add_all(engine, prompts, config, seeds, range(len(prompts)))
    while engine.busy:
        events = [_sound(event) for event in engine.step()]
        yield Step([numbers[event.sequence] for event in events], [event.id for event in events], [event.log_prob for event in events])


def generate(
    model: Transformer,
    prompts: Sequence[Sequence[int]],
    config: SamplingConfig | Sequence[SamplingConfig],
    seeds: Sequence[int],
    stop_ids: Sequence[int],
    pieces: int | None = None,
    batch_rows: int | None = None,
    memory: Memory | None = None,
    tokenizer: Tokenizer | None = None,
    invariant: bool = False,
    continuous: bool = False,
) -> list[Completion]:
    """A completion for every prompt, in order. `config` is one for all or one for each; the rest as in Engine.

    Prompts come in batches of similar length, each after the one before has ended: by that rows share more slots and are read
    together, which is faster for many short answers than to let prompts in one by one (docs/generation.md).
    """
    assert len(prompts) == len(seeds), "every sequence has its own seed"
    by_length = sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))
    if not prompts:
        return []
    engine = Engine(
        model, stop_ids, tokenizer, pieces=pieces, rows=batch_rows, memory=memory, invariant=invariant, continuous=continuous or invariant
    )
    numbers = _add_all(engine, prompts, config, seeds, by_length)
    completions = [Completion() for _ in prompts]
    while engine.busy:
        for event in engine.step():
            if _sound(event).reason:
                completions[numbers[event.sequence]] = event.completion
    return completions


def _sound(event: Event) -> Event:
    if event.error:
        raise event.error
    return event


def _add_all(
    engine: Engine,
    prompts: Sequence[Sequence[int]],
    config: SamplingConfig | Sequence[SamplingConfig],
    seeds: Sequence[int],
    order: Sequence[int],
) -> dict[int, int]:
    """Which prompt each number is of."""
    configs = [config] * len(prompts) if isinstance(config, SamplingConfig) else config
    return {engine.add(prompts[index], configs[index], seeds[index], f"prompt {index + 1}"): index for index in order}
