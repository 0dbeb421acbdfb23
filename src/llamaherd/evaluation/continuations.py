"""How likely a language model finds continuations of a context: their log-probabilities, and whether it would have said them.

The token boundary is that of the field's harness (lm-eval, `encode_pair`): spaces at a context's end belong to the continuation, and the
continuation's ids are what the whole text has beyond as many ids as the context alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..losses.language import token_log_probs
from ..model.branches import Branches
from ..model.layout import Layout
from ..model.transformer import Transformer
from ..tokenizer.sentencepiece import Tokenizer

Ids = tuple[int, ...]
BATCH_TOKENS = 4096
HEAD_TOKENS = 512
"""Tokens whose logits are there at once."""


@dataclass(frozen=True)
class Request:
    """A context and what may follow it, as ids; each continuation is scored by itself."""

    context: Ids
    continuations: tuple[Ids, ...]

    @property
    def tree(self) -> tuple[int, ...]:
        """Tokens to read of the context and of each continuation, whose last one is only predicted."""
        return len(self.context), *(len(ids) - 1 for ids in self.continuations)


@dataclass(frozen=True)
class Likelihood:
    """Of one continuation: the sum of its tokens' log-probabilities in nats, and whether each of them was the likeliest."""

    log_prob: float
    greedy: bool


def encode_pair(tokenizer: Tokenizer, context: str, continuation: str) -> tuple[Ids, Ids]:
    """Ids of a context, which begins with BOS, and of what follows it: at least one each."""
    bare = context.rstrip()
    before = [tokenizer.bos_id, *tokenizer.encode(bare)]
    whole = [tokenizer.bos_id, *tokenizer.encode(context + continuation)]
    # A piece that reaches over the boundary can leave nothing behind it; the piece itself is then what is predicted.
    start = min(len(before), len(whole) - 1)
    return tuple(before[:start]), tuple(whole[start:])


def fitted(context: Ids, continuation: Ids, most: int) -> tuple[Ids, Ids] | None:
    """A context cut from the left so that `most` tokens are read at the most; None where the continuation alone is longer."""
    if len(continuation) > most:
        return None
    room = most + 1 - len(continuation)
    return context[-room:], continuation


def rolled(ids: Sequence[int], bos_id: int, most: int) -> list[Request]:
    """A whole text as requests that read at most `most` tokens each and together predict every token once, as lm-eval's rolling windows.

    The first one begins with BOS, each later one with what stands before its own tokens: the last token, and in the last one, which may
    have few tokens to predict, as many as it has room for.
    """
    requests = [Request((bos_id,), (tuple(ids[:most]),))] if ids else []
    for start in range(most, len(ids), most):
        end = min(start + most, len(ids))
        requests.append(Request(tuple(ids[end - most - 1 : start]), (tuple(ids[start:end]),)))
    return requests


def requests_of(pairs: Sequence[tuple[Ids, Ids]]) -> tuple[list[Request], list[tuple[int, int]]]:
    """Pairs with equal contexts as one request each, and for every pair (request, continuation)."""
    contexts: dict[Ids, list[Ids]] = {}
    places = []
    for context, continuation in pairs:
        there = contexts.setdefault(context, [])
        places.append((list(contexts).index(context), len(there)))
        there.append(continuation)
    return [Request(context, tuple(found)) for context, found in contexts.items()], places


@torch.inference_mode()
def likelihoods(model: Transformer, requests: Sequence[Request], batch_tokens: int = BATCH_TOKENS) -> list[list[Likelihood]]:
    """For each request those of its continuations, in order; batches of at most `batch_tokens` (a longer request is one of its own).

    No context with a continuation may be longer than the model's. What a batch holds besides changes a result by rounding alone.
    """
    found: list[list[Likelihood]] = [[] for _ in requests]
    sizes = [sum(request.tree) for request in requests]
    batches: list[list[int]] = []
    filled = batch_tokens
    for place in sorted(range(len(requests)), key=lambda place: -sizes[place]):
        filled += sizes[place]
        if filled > batch_tokens:
            batches.append([])
            filled = sizes[place]
        batches[-1].append(place)
    for batch in batches:
        _score(model, [requests[place] for place in batch], [found[place] for place in batch])
    return found


def _score(model: Transformer, requests: Sequence[Request], found: Sequence[list[Likelihood]]) -> None:
    tokens: list[int] = []
    wanted: list[int] = []
    targets: list[int] = []
    for request in requests:
        tokens += request.context
        last = len(tokens) - 1
        for ids in request.continuations:
            assert len(request.context) + len(ids) - 1 <= model.config.context, "longer than the context"
            wanted += [last, *range(len(tokens), len(tokens) + len(ids) - 1)]
            targets += ids
            tokens += ids[:-1]
    trees = [request.tree for request in requests]
    alone = all(len(tree) == 2 for tree in trees)
    layout = Layout.of([sum(tree) for tree in trees], model.device) if alone else Branches.of(trees, model.device)
    hidden = model.hidden(torch.tensor([tokens], device=model.device), layout, torch.tensor(wanted, device=model.device))[0]
    following = torch.tensor(targets, device=model.device)
    log_probs, likeliest = [], []
    for part, expected in zip(torch.split(hidden, HEAD_TOKENS), torch.split(following, HEAD_TOKENS), strict=True):
        logits = model.output(part).float()
        log_probs.append(token_log_probs(logits, expected).double())
        likeliest.append(logits.argmax(-1) == expected)
    sizes = [len(continuation) for request in requests for continuation in request.continuations]
    sums = [float(one.sum()) for one in torch.split(torch.cat(log_probs), sizes)]
    greedy = [bool(one.all()) for one in torch.split(torch.cat(likeliest), sizes)]
    scored = iter([Likelihood(*one) for one in zip(sums, greedy, strict=True)])
    for request, place in zip(requests, found, strict=True):
        place += [next(scored) for _ in request.continuations]
