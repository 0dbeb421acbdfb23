"""Batches of any size, for speed: each step has as many rows as sequences are at work, and as many slots as the longest has tokens."""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from ..model.cache import Cache
from ..model.layout import Layout
from ..model.transformer import Transformer
from .memory import BLOCK_TOKENS, Key, Known, Memory, common
from .score import score_prompt
from .sequence import Ids, Running

READ_TOKENS = 1024
"""Prompt tokens read at a time: what a layer makes of them stays in a core's cache."""
WORTHWHILE = 0.8
"""A known beginning is used where it leaves at most this share of the tokens to read."""


class Growing:
    """Sequences at work, and the cache of what the model has seen of them: all but the last token of each."""

    def __init__(self, model: Transformer, memory: Memory | None = None):
        self._model, self._memory = model, memory
        self._cache: Cache | None = None
        self.running: list[Running] = []
        """In the order of the cache."""
        self._rows = 0

    @property
    def count(self) -> int:
        """Sequences that are at work, or whose prompts are read."""
        return len(self.running)

    def admit(self, sequences: Sequence[Running]) -> None:
        """Reads the prompts and lets them join those at work. Of a beginning that is known, or common to all, only once."""
        for sequence in sequences:
            if sequence.sampling.prompt_log_probs:
                score_prompt(self._model, sequence)
        memory = self._memory or Memory()
        for owner in dict.fromkeys(sequence.owner for sequence in sequences):
            self._share({sequence.seen_ids for sequence in sequences if sequence.owner == owner}, memory, owner)
        found = [memory.find(sequence.seen_ids, sequence.owner) for sequence in sequences]
        known = _worthwhile(sequences, found)
        new = [sequence for sequence in sequences if sequence not in known]
        if new:
            cache = self._empty(new)
            self._read([(sequence.owner, sequence.seen_ids) for sequence in new], cache)
            self._join(new, cache)
        if known:
            unread = max(max(1, len(sequence.seen_ids) - tokens) for sequence, (_, tokens) in known.items())
            cache = self._empty(list(known))
            for place, (sequence, (entry, _)) in enumerate(known.items()):
                cache.put(place, entry.seen[..., : len(sequence.seen_ids) - unread, :])
            tokens = torch.tensor([sequence.seen_ids[-unread:] for sequence in known], device=self._model.device)
            self._model.read(tokens, cache.ends(unread))
            self._join(list(known), cache)

    def logits(self) -> tuple[list[Running], Tensor]:
        """The sequences at work and the logits [B, V] of their next tokens."""
        assert self._cache is not None
        newest = torch.tensor([sequence.ids[-1] for sequence in self.running], device=self._model.device)
        return self.running, self._model(newest[:, None], self._cache)[:, 0]

    def leave(self, gone: set[int]) -> None:
        """The sequences with these numbers leave, and a memory keeps what the model made of them."""
        if not any(sequence.number in gone for sequence in self.running):
            return
        assert self._cache is not None
        going = []
        for place, sequence in enumerate(self.running):
            if sequence.number not in gone:
                going.append(place)
            elif self._memory is not None:
                ids = sequence.seen_ids
                self._memory.keep(ids, self._cache.of(place)[..., : len(ids), :], sequence.owner)
        if len(going) < len(self.running):
            keep = _filled(going)
            self._cache.keep(keep)
            self.running = [self.running[place] for place in keep]
        if not going:
            self._cache = None

    def _empty(self, sequences: Sequence[Running]) -> Cache:
        lengths = [len(sequence.seen_ids) for sequence in sequences]
        return Cache(self._model.config, lengths, self._room(sequences), self._model.device, self._model.dtype)

    def _room(self, sequences: Sequence[Running]) -> int:
        return max(sequence.left for sequence in sequences)

    def _join(self, sequences: list[Running], cache: Cache) -> None:
        self.running = self.running + sequences
        if self._cache is None:
            self._cache = cache
        else:
            self._cache.join(cache, self._room(self.running), self._rows)

    def _share(self, prompts: set[Ids], memory: Memory, owner: str) -> None:
        """Reads what all prompts of an owner begin with into the memory, if that spares enough."""
        if len(prompts) < 2:
            return
        length = common(min(prompts), max(prompts))
        rest = max(1, max(map(len, prompts)) - length)
        if length < BLOCK_TOKENS or length + len(prompts) * rest > WORTHWHILE * sum(map(len, prompts)):
            return
        beginning = min(prompts)[:length]
        found = memory.find(beginning, owner)
        if found is None or found[1] < length:
            cache = Cache(self._model.config, [length], 0, self._model.device, self._model.dtype)
            self._read([(owner, beginning)], cache)
            memory.keep(beginning, cache.of(0), owner)

    def _read(self, prompts: Sequence[Key], cache: Cache) -> None:
        """Fills the cache with the prompts, of which an owner's equal ones are read once."""
        rows: dict[Key, list[int]] = {}
        for row, prompt in enumerate(prompts):
            if prompt[1]:
                rows.setdefault(prompt, []).append(row)
        device = self._model.device
        for part in _parts(rows):
            layout = Layout.of([len(ids) for _, ids in part], device)
            places = torch.tensor([(document, row) for document, prompt in enumerate(part) for row in rows[prompt]], device=device)
            tokens = torch.tensor([[token for _, ids in part for token in ids]], device=device)
            self._model.read(tokens, cache.prompts(layout, *places.unbind(1)))


def _worthwhile(sequences: Sequence[Running], found: Sequence[tuple[Known, int] | None]) -> dict[Running, tuple[Known, int]]:
    """The sequences of which so much is known that reading their ends, all as long as the longest, is less than reading them whole."""
    known = {
        sequence: entry
        for sequence, entry in zip(sequences, found, strict=True)
        if entry is not None and 2 * entry[1] >= len(sequence.seen_ids)
    }
    unread = max((max(1, len(sequence.seen_ids) - tokens) for sequence, (_, tokens) in known.items()), default=1)
    known = {sequence: entry for sequence, entry in known.items() if len(sequence.seen_ids) >= unread}
    whole = sum(map(len, {sequence.seen_ids for sequence in known}))
    return known if len(known) * unread <= WORTHWHILE * whole else {}


def _parts(prompts: Iterable[Key]) -> Iterator[list[Key]]:
    """Consecutive prompts of READ_TOKENS in all, or one that is longer."""
    part: list[Key] = []
    for prompt in prompts:
        if part and sum(len(ids) for _, ids in part) + len(prompt[1]) > READ_TOKENS:
            yield part
            part = []
        part.append(prompt)
    if part:
        yield part


def _filled(going: list[int]) -> list[int]:
    """The places in `going` (rising), with the last ones in the gaps before them: so few sequences change their place."""
    taken, last = set(going), list(going)
    return [place if place in taken else last.pop() for place in range(len(going))]
