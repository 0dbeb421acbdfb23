"""The one engine: ids in, ids and log-probabilities out. Chat, rollouts, rejection sampling and evaluation use it.

Sequences of a batch share a cache; finished ones leave it, and a prompt that comes several times is read once. Every
sequence brings its own seed, so what it samples does not depend on its neighbours (but for rounding in the last bits).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ..core.errors import UserError
from ..model.cache import Cache
from ..model.layout import Layout
from ..model.transformer import Transformer
from .config import SamplingConfig
from .memory import Memory
from .sampling import choose

READ_TOKENS = 1024
"""Prompt tokens read at a time: what a layer makes of them stays in a core's cache."""


@dataclass
class Completion:
    """What one sequence became. `log_probs` are the model's own (temperature 1, no nucleus), one per id, the stop included."""

    ids: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    finished: bool = False

    @property
    def text_ids(self) -> list[int]:
        """The ids without the stop."""
        return self.ids[:-1] if self.finished else self.ids


@dataclass
class Step:
    """One token for each sequence still at work: `rows` are their indices in the call, `ids` and `log_probs` match them."""

    rows: list[int]
    ids: list[int]
    log_probs: list[float]


def _check(prompts: Sequence[Sequence[int]], context: int) -> None:
    for index, prompt in enumerate(prompts):
        if not prompt:
            raise UserError(f"prompt {index + 1} has no tokens; an empty raw prompt starts from the beginning-of-sequence id")
        if len(prompt) >= context:
            raise UserError(
                f"prompt {index + 1} has {len(prompt)} tokens and the model's context is {context}, which leaves no room "
                "for an answer; shorten it or drop earlier turns"
            )


@torch.inference_mode()
def steps(
    model: Transformer,
    prompts: Sequence[Sequence[int]],
    config: SamplingConfig,
    seeds: Sequence[int],
    stop_ids: Sequence[int],
    pieces: int | None = None,
    memory: Memory | None = None,
    names: Sequence[int] = (),
) -> Iterator[Step]:
    """Generates token by token until every sequence has stopped, is `max_new_tokens` long or fills the context.

    Raises UserError for a prompt without tokens or without room. A stop id is the last one of its sequence. Only the first
    `pieces` ids are sampled: a model's vocabulary may be padded beyond its tokenizer's. A memory knows how the prompts begin,
    under their `names`, and learns what comes of them.
    """
    _check(prompts, model.config.context)
    room = [min(config.max_new_tokens, model.config.context - len(prompt)) for prompt in prompts]
    cache = Cache(model.config, [len(prompt) - 1 for prompt in prompts], max(room), model.device, model.dtype)
    before, seen = [tuple(prompt[:-1]) for prompt in prompts], [list(prompt) for prompt in prompts]
    if memory and (unread := memory.recall(names, before, cache)):
        model.read(torch.tensor([prompt[-unread:] for prompt in before], device=model.device), cache.ends(unread))
    else:
        _read(model, before, cache)
    noise = _uniforms(seeds, max(room)).to(model.device)
    rows = list(range(len(prompts)))
    newest = torch.tensor([prompt[-1] for prompt in prompts], device=model.device)
    for index in range(max(room)):
        logits = model(newest[:, None], cache)[:, 0].float()
        chosen = choose(logits[:, :pieces], config.temperature, config.top_p, noise[:, index])
        log_probs = logits.log_softmax(-1).gather(-1, chosen[:, None])[:, 0]
        ids = chosen.tolist()
        yield Step(rows, ids, log_probs.tolist())
        going = [place for place, row in enumerate(rows) if ids[place] not in stop_ids and room[row] > index + 1]
        if memory:
            for place in set(range(len(rows))).difference(going):
                memory.keep(names[rows[place]], seen[rows[place]], cache, place)
        if not going:
            return
        newest = chosen
        for place in going:
            seen[rows[place]].append(ids[place])
        if len(going) < len(rows):
            keep = _filled(going)
            cache.keep(keep)
            rows, noise, newest = [rows[place] for place in keep], noise[keep], chosen[keep]


def _read(model: Transformer, prompts: Sequence[tuple[int, ...]], cache: Cache) -> None:
    """Fills the cache with the prompts, of which equal ones are read once."""
    rows: dict[tuple[int, ...], list[int]] = {}
    for row, prompt in enumerate(prompts):
        rows.setdefault(prompt, []).append(row)
    rows.pop((), None)
    for part in _parts(rows):
        layout = Layout.of([len(prompt) for prompt in part], model.device)
        places = torch.tensor([(document, row) for document, prompt in enumerate(part) for row in rows[prompt]], device=model.device)
        tokens = torch.tensor([[token for prompt in part for token in prompt]], device=model.device)
        model.read(tokens, cache.prompts(layout, *places.unbind(1)))


def _parts(prompts: Iterable[tuple[int, ...]]) -> Iterator[list[tuple[int, ...]]]:
    """Consecutive prompts of READ_TOKENS in all, or one that is longer."""
    part: list[tuple[int, ...]] = []
    for prompt in prompts:
        if part and sum(map(len, part)) + len(prompt) > READ_TOKENS:
            yield part
            part = []
        part.append(prompt)
    if part:
        yield part


def _filled(going: list[int]) -> list[int]:
    """The places in `going` (rising), with the last ones in the gaps before them: so few sequences change their place."""
    taken, last = set(going), list(going)
    return [place if place in taken else last.pop() for place in range(len(going))]


def _uniforms(seeds: Sequence[int], count: int) -> Tensor:
    """[B, count] numbers in [0, 1), each row from its own seed."""
    return torch.from_numpy(np.stack([np.random.Generator(np.random.Philox(seed)).random(count, dtype=np.float32) for seed in seeds]))


def generate(
    model: Transformer,
    prompts: Sequence[Sequence[int]],
    config: SamplingConfig,
    seeds: Sequence[int],
    stop_ids: Sequence[int],
    pieces: int | None = None,
    batch_rows: int = 128,
    memory: Memory | None = None,
    names: Sequence[int] = (),
) -> list[Completion]:
    """A completion for every prompt, in order, as `steps` makes them; neighbours in a batch have prompts of similar length."""
    assert len(prompts) == len(seeds), "every sequence has its own seed"
    _check(prompts, model.config.context)
    completions = [Completion() for _ in prompts]
    by_length = sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))
    for start in range(0, len(by_length), batch_rows):
        batch = by_length[start : start + batch_rows]
        own = [names[i] for i in batch] if memory else ()
        for step in steps(model, [prompts[i] for i in batch], config, [seeds[i] for i in batch], stop_ids, pieces, memory, own):
            for row, token, log_prob in zip(step.rows, step.ids, step.log_probs, strict=True):
                completion = completions[batch[row]]
                completion.ids.append(token)
                completion.log_probs.append(log_prob)
                completion.finished = token in stop_ids
    return completions
