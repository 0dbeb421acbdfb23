"""Batches of any size whose prompts are read a little in each step: a long one holds up nobody, and may be given up half read."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..model.cache import Cache, Ends, Prompts
from ..model.layout import Layout
from ..model.transformer import Transformer
from .growing import READ_TOKENS, Growing
from .memory import BLOCK_TOKENS, Known, Memory, common
from .score import take_hidden
from .sequence import Ids, Running

STEP_TOKENS = 256
"""Prompt tokens read in a step, at most: as long as they take, sequences at work wait for their next token. Where many wait for their
first one, they are who is held up: then READ_TOKENS, of prompts that are no longer than this."""
PIECE_TOKENS = 128
"""Of these a prompt that is longer gets so many, so that short ones pass it; only one prompt at a time is read in pieces."""
LEAST_TOKENS = 32
"""A piece counts for so many even when it is shorter, since it takes a call of the model for itself."""
ROOM_TOKENS = 64
"""Slots for tokens to come that are there at once; more are made as they are needed."""


@dataclass(eq=False)
class Unread:
    """A prompt on its way in: `read` of its `ids` are known, or are in its `cache`."""

    sequence: Running
    ids: Ids
    known: Known | None = None
    read: int = 0
    cache: Cache | None = None
    leader: "Unread | None" = None
    """A prompt that came before and begins alike: once it is read, so is this one's beginning."""

    @property
    def scored(self) -> bool:
        return self.sequence.sampling.prompt_log_probs

    def begin_as(self, known: Known) -> None:
        """Takes over what a sequence that begins alike has, if that is worth a call for the rest alone."""
        tokens = common(known.ids, self.ids)
        if not self.scored and _worthwhile(tokens, self.ids) and tokens > self.read:
            self.known, self.read, self.sequence.completion.known_tokens = known, tokens, tokens


class Gradual(Growing):
    """As Growing, but `admit` only lines prompts up. They are read in the order in which they came, STEP_TOKENS in a step."""

    def __init__(self, model: Transformer, memory: Memory | None, rows: int):
        super().__init__(model, memory)
        self._rows = rows
        self._unread: list[Unread] = []

    @property
    def count(self) -> int:
        return len(self.running) + len(self._unread)

    def admit(self, sequences: Sequence[Running]) -> None:
        """Lines prompts up to be read in the steps that follow."""
        for sequence in sequences:
            prompt = Unread(sequence, sequence.seen_ids)
            if self._memory is not None and (found := self._memory.find(prompt.ids, sequence.owner)):
                prompt.begin_as(found[0])
            prompt.leader = self._leader(prompt)
            self._unread.append(prompt)

    def logits(self) -> tuple[list[Running], Tensor]:
        """As in Growing; both are empty when no prompt is whole yet."""
        self._join_read(*self._read_some())
        if self._cache is None:
            return [], torch.empty(0)
        if self._cache.full:
            self._cache.grow(self._room(self.running))
        return super().logits()

    def leave(self, gone: set[int]) -> None:
        """As in Growing; of a prompt that was not read to its end nothing is kept."""
        dropped = [prompt for prompt in self._unread if prompt.sequence.number in gone]
        if dropped:
            self._unread = [prompt for prompt in self._unread if prompt not in dropped]
            for prompt in self._unread:
                if prompt.leader in dropped:
                    prompt.leader = self._leader(prompt)
        super().leave(gone)

    def _leader(self, prompt: Unread) -> Unread | None:
        if prompt.scored:  # its log-probabilities are those of tokens that it reads itself
            return None
        beginning = prompt.ids[:BLOCK_TOKENS]
        for other in self._unread:
            if other is prompt:
                return None
            if other.ids[:BLOCK_TOKENS] == beginning and other.leader is None and other.sequence.owner == prompt.sequence.owner:
                tokens = common(other.ids, prompt.ids)
                if _worthwhile(tokens, prompt.ids) and tokens > prompt.read:
                    return other
        return None

    def _read_some(self) -> tuple[list[Unread], list[Unread]]:
        """Prompts that are to be read whole now, and those that were read to their end by pieces, or known."""
        budget = READ_TOKENS if 4 * len(self._unread) > len(self.running) else STEP_TOKENS
        in_pieces, whole, done = False, [], []
        for prompt in [prompt for prompt in self._unread if prompt.leader is None]:
            tokens = len(prompt.ids) - prompt.read
            if tokens > min(budget, STEP_TOKENS):
                if in_pieces or budget < PIECE_TOKENS:
                    continue
                in_pieces, tokens = True, PIECE_TOKENS
            if tokens == len(prompt.ids):
                whole.append(prompt)
            elif tokens:
                self._read_piece(prompt, tokens)
                tokens = max(tokens, LEAST_TOKENS)
            budget = max(0, budget - tokens)
            if prompt.read == len(prompt.ids) > 0:
                done.append(prompt)
        return sorted(whole, key=lambda prompt: -len(prompt.ids)), done  # rows of like lengths share fewer slots

    def _read_piece(self, prompt: Unread, tokens: int) -> None:
        if prompt.cache is None:
            prompt.cache = Cache(self._model.config, [len(prompt.ids)], 0, self._model.device, self._model.dtype)
            if prompt.known:
                prompt.cache.put(0, prompt.known.seen[..., : prompt.read, :])
        self._pass([(prompt, prompt.read, tokens)], prompt.cache.piece(0, prompt.read, tokens))
        prompt.read += tokens

    def _read_whole(self, prompts: list[Unread], cache: Cache) -> None:
        """Prompts that are the first sequences of a cache, in one call."""
        rows = [row for row, prompt in enumerate(prompts) if prompt.ids]
        if rows:
            layout = Layout.of([len(prompts[row].ids) for row in rows], self._model.device)
            documents, places = torch.arange(len(rows), device=self._model.device), torch.tensor(rows, device=self._model.device)
            self._pass([(prompts[row], 0, len(prompts[row].ids)) for row in rows], cache.prompts(layout, documents, places))

    def _pass(self, parts: list[tuple[Unread, int, int]], into: Prompts | Ends) -> None:
        """Reads parts (prompt, first token, tokens), and takes their log-probabilities where they are asked for."""
        ids = [id for prompt, first, tokens in parts for id in prompt.ids[first : first + tokens]]
        batch = torch.tensor([ids], device=self._model.device)
        if not any(prompt.scored for prompt, _, _ in parts):
            self._model.read(batch, into)
            return
        hidden, start = self._model.hidden(batch, into)[0], 0
        for prompt, first, tokens in parts:
            if prompt.scored:
                take_hidden(self._model, prompt.sequence, hidden[start : start + tokens], first)
            start += tokens

    def _join_read(self, whole: list[Unread], done: list[Unread]) -> None:
        """Lets prompts join the sequences at work."""
        ready = whole + done
        if not ready:
            return
        cache = self._empty([prompt.sequence for prompt in ready])
        self._read_whole(whole, cache)
        for row, prompt in enumerate(done, len(whole)):
            if prompt.cache is not None:
                cache.put(row, prompt.cache.of(0))
            elif prompt.known:
                cache.put(row, prompt.known.seen[..., : prompt.read, :])
        joining = set(ready)
        self._unread = [prompt for prompt in self._unread if prompt not in joining]
        self._lead(ready, cache)
        self._join([prompt.sequence for prompt in ready], cache)

    def _lead(self, ready: list[Unread], cache: Cache) -> None:
        """Hands what was read to the prompts that waited for it."""
        for prompt in self._unread:
            if prompt.leader in ready:
                leader = prompt.leader
                assert leader is not None
                if leader.known is None or leader.known.ids != leader.ids:
                    leader.known = Known(leader.ids, cache.of(ready.index(leader)))
                prompt.begin_as(leader.known)
                prompt.leader = None

    def _room(self, sequences: Sequence[Running]) -> int:
        return min(super()._room(sequences), ROOM_TOKENS)


def _worthwhile(tokens: int, ids: Ids) -> bool:
    """Whether so many known tokens are worth more than to be read together with other prompts."""
    return tokens >= BLOCK_TOKENS and (2 * tokens >= len(ids) or tokens >= PIECE_TOKENS)
