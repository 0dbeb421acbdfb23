"""Training steps beside those of `transformers`: same weights, same tokens, same optimizer; `python -m benchmarks.training`.

A step is forward, backward, clipping and AdamW. A token counts once, padding does not count.
"""

import argparse
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, logsigmoid

from llamaherd.core.seeds import python_rng
from llamaherd.model.transformer import scorer_from
from llamaherd.reward.pairs import Pair, pair_loss
from llamaherd.train.batches import Masked, TokenBatch, next_token_loss
from llamaherd.train.config import OptimizerConfig
from llamaherd.train.loop import LossSum
from llamaherd.train.optimizer import adamw

from .common import Case, our_model, run, transformers_twin

CONFIG = OptimizerConfig(lr=1e-5)
BATCHES = 4


def stepper(model: nn.Module, loss: Callable[[Any], tuple[Tensor, int]], batches: Sequence[Any]) -> Callable[[], int]:
    """One optimizer step on the next batch with each call, which returns the batch's tokens."""
    optimizer, following = adamw(model, CONFIG), itertools.cycle(batches)

    def step() -> int:
        optimizer.zero_grad()
        mean, tokens = loss(next(following))
        mean.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), CONFIG.clip)
        optimizer.step()
        mean.item()
        return tokens

    return step


def mean_of(part: LossSum) -> tuple[Tensor, int]:
    return part.total / part.count, part.tokens


def padded(documents: Sequence[Masked]) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, attention mask and labels (-100: not trained) as `transformers` takes them, padded on the right to the longest."""
    shape = len(documents), max(len(ids) for ids, _ in documents)
    tokens, seen, labels = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long), torch.full(shape, -100)
    for row, (ids, mask) in enumerate(documents):
        tokens[row, : len(ids)], seen[row, : len(ids)] = torch.tensor(ids), 1
        labels[row, : len(ids)] = torch.where(torch.tensor(mask) == 1, torch.tensor(ids), -100)
    return tokens, seen, labels


def language_case(name: str, model: str, ours: Sequence[list[Masked]], theirs: Sequence[list[Masked]]) -> Case:
    """Both see the same tokens; how a side cuts them into documents is its own business."""
    mine, other = our_model(model).train(), transformers_twin(our_model(model)).train()

    def our_loss(documents: list[Masked]) -> tuple[Tensor, int]:
        return mean_of(next_token_loss(mine, TokenBatch.of(documents, mine.device)))

    def their_loss(batch: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, int]:
        tokens, seen, labels = batch
        attention = None if bool(seen.all()) else seen  # without a mask they take the faster causal kernel
        logits = other(input_ids=tokens, attention_mask=attention, use_cache=False).logits
        loss = cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        return loss, int(seen.sum()) - len(tokens)

    return Case(name, stepper(mine, our_loss, ours), stepper(other, their_loss, [padded(batch) for batch in theirs]))


def reward_case(name: str, model: str, batches: Sequence[list[Pair]]) -> Case:
    mine = scorer_from(our_model(model)).train()
    other = transformers_twin(mine).train()

    def our_loss(pairs: list[Pair]) -> tuple[Tensor, int]:
        return mean_of(pair_loss(mine, pairs, safety_weight=0.0))

    def their_loss(batch: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, int]:
        tokens, seen, _ = batch
        scores = other(input_ids=tokens, attention_mask=seen, use_cache=False).logits[:, 0]
        return -logsigmoid(scores[: len(tokens) // 2] - scores[len(tokens) // 2 :]).mean(), int(seen.sum())

    as_rows = [[(ids, [0] * len(ids)) for pair in zip(*((p.chosen, p.rejected) for p in batch)) for ids in pair] for batch in batches]
    return Case(name, stepper(mine, our_loss, batches), stepper(other, their_loss, [padded(rows) for rows in as_rows]))


def cases(options: argparse.Namespace) -> list[Case]:
    """Pretraining on whole rows and on short documents, tuning on dialogues, and a reward model; sizes as in the miniature recipe."""
    rng, vocabulary = python_rng(0, "benchmark"), our_model(options.model).config.vocab_size
    rows, width, dialogues, pairs = (max(1, round(size * options.share)) for size in (8, 256, 24, 32))

    def ids(count: int) -> list[int]:
        return [rng.randrange(3, vocabulary) for _ in range(count)]

    def whole(count: int) -> Masked:
        return ids(count), [1] * count

    def cut(row: Masked) -> list[Masked]:
        """The row as documents of 10 to 40 predictions; the id after each is its last target and begins the next."""
        edges = [0]
        while edges[-1] < width:
            edges.append(min(width, edges[-1] + rng.randint(10, 40)))
        return [(row[0][a : b + 1], row[1][a : b + 1]) for a, b in itertools.pairwise(edges)]

    def dialogue() -> Masked:
        """A prompt of 20 to 150 tokens and an answer of 10 to 48, which alone is trained."""
        prompt, answer = rng.randint(20, 150), rng.randint(10, 48)
        return ids(prompt + answer), [0] * prompt + [1] * answer

    def pair() -> Pair:
        prompt = ids(rng.randint(20, 100))
        chosen, rejected = (prompt + ids(rng.randint(10, 48)) for _ in range(2))
        return Pair(chosen, rejected, 0.0, (1.0, 1.0))

    texts = [[whole(width + 1) for _ in range(rows)] for _ in range(BATCHES)]
    documents = [[document for row in batch for document in cut(row)] for batch in texts]
    tuning = [[dialogue() for _ in range(dialogues)] for _ in range(BATCHES)]
    return [
        language_case(f"pretraining, {rows} rows of {width} tokens", options.model, texts, texts),
        language_case("the same rows of documents of 10 to 40 tokens, which ours keeps apart", options.model, documents, texts),
        language_case("the same documents, which both keep apart", options.model, documents, documents),
        language_case(f"tuning, {dialogues} dialogues of 30 to 198 tokens", options.model, tuning, tuning),
        reward_case(
            f"reward model, {pairs} pairs of 30 to 148 tokens", options.model, [[pair() for _ in range(pairs)] for _ in range(BATCHES)]
        ),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    run("Training", cases, arguments)


if __name__ == "__main__":
    main()
