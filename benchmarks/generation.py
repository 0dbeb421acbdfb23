"""New tokens a second beside `transformers`: same weights, same prompts, float32, temperature 1; `python -m benchmarks.generation`.

Only tokens up to and including a sequence's stop count. `transformers` gets prompts padded on the left with their mask, in the
batch size (of 64 and all) that is faster for it; what repeats a prompt gets `num_return_sequences`.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import cycle, islice
from typing import Any

import torch

from llamaherd.core.seeds import python_rng
from llamaherd.generate.config import SamplingConfig
from llamaherd.generate.engine import generate
from llamaherd.model.transformer import Transformer

from .common import Case, our_model, run, transformers_twin

Prompts = Sequence[Sequence[int]]
ROWS = 64
LENGTHS = (16, 17, 18, 19, 20, 21, 23, 25, 30, 33, 36, 45, 64, 82, 106, 135)
"""Tokens of the miniature's prompts: the middles of 16 equal parts of all of them."""
ANSWER_TOKENS = 18
"""Mean length of its answers."""


def ours(model: Transformer, prompts: Prompts, sampling: SamplingConfig, stops: Sequence[int], copies: int) -> int:
    repeated = [prompt for prompt in prompts for _ in range(copies)]
    return sum(len(completion.ids) for completion in generate(model, repeated, sampling, range(len(repeated)), stops))


@torch.inference_mode()
def _theirs(model: Any, prompts: Prompts, sampling: SamplingConfig, stops: Sequence[int], copies: int) -> int:
    width = max(map(len, prompts))
    tokens, seen = torch.zeros(2, len(prompts), width, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        tokens[row, width - len(prompt) :], seen[row, width - len(prompt) :] = torch.tensor(prompt), 1
    found = model.generate(
        tokens, attention_mask=seen, do_sample=True, temperature=1.0, top_k=0, top_p=sampling.top_p, num_return_sequences=copies,
        max_new_tokens=sampling.max_new_tokens, eos_token_id=list(stops) or None, pad_token_id=0,
    )[:, width:]  # fmt: skip
    stopped = torch.isin(found, torch.tensor(list(stops), dtype=torch.long)).int()
    return int((stopped.cumsum(1) - stopped == 0).sum())  # no stop before the token


def theirs(model: Any, prompts: Prompts, sampling: SamplingConfig, stops: Sequence[int], copies: int, rows: int) -> int:
    by_length = sorted(prompts, key=len)
    parts = [by_length[first : first + rows] for first in range(0, len(by_length), rows)]
    return sum(_theirs(model, part, sampling, stops, copies) for part in parts)


def case(model: str, name: str, prompts: Prompts, sampling: SamplingConfig, stops: Sequence[int] = (), copies: int = 1) -> Case:
    mine = our_model(model)
    other = transformers_twin(mine)
    best, seconds = len(prompts), float("inf")
    for rows in 2 * [min(ROWS, len(prompts)), len(prompts)]:
        started = time.process_time()
        theirs(other, prompts, sampling, stops, copies, rows)
        if time.process_time() - started < seconds:
            best, seconds = rows, time.process_time() - started
    return Case(name, partial(ours, mine, prompts, sampling, stops, copies), partial(theirs, other, prompts, sampling, stops, copies, best))


def cases(options: argparse.Namespace) -> Iterator[Case]:
    """Prompts, and answers of at most 48 tokens, as long as those of the miniature recipe; and a case without padding or stops."""
    rng, config = python_rng(0, "benchmark"), our_model(options.model).config
    few, many, new = (max(2, round(size * options.share)) for size in (ROWS, 4 * ROWS, 48))

    def prompts(lengths: Sequence[int]) -> Prompts:
        return [[rng.randrange(3, config.vocab_size) for _ in range(length)] for length in lengths]

    some, more = (prompts(list(islice(cycle(LENGTHS), count))) for count in (few, many))
    plain, nucleus = (SamplingConfig(temperature=1.0, top_p=top_p, max_new_tokens=new) for top_p in (1.0, 0.95))
    stops = rng.sample(range(3, config.vocab_size), config.vocab_size // ANSWER_TOKENS)  # so one token in so many ends a sequence
    kinds: list[tuple[str, Prompts, SamplingConfig, Sequence[int], int]] = [
        (f"{few} sequences that stop, top-p 0.95", some, nucleus, stops, 1),
        (f"{many} sequences that stop, top-p 0.95", more, nucleus, stops, 1),
        (f"{few} prompts, 8 answers each that stop, top-p 0.95", some, nucleus, stops, 8),
        (f"{few} sequences, {new} new tokens each", some, plain, (), 1),
        (f"{few} sequences, {new} new tokens each, top-p 0.95", some, nucleus, (), 1),
        (f"{many} sequences, {new} new tokens each", more, plain, (), 1),
        (f"{many} sequences, {new} new tokens each, top-p 0.95", more, nucleus, (), 1),
        (f"{few} prompts of 64 tokens, {new} new tokens each", prompts([64] * few), plain, (), 1),
    ]
    return (case(options.model, *kind) for kind in kinds if options.only in kind[0])


def main(arguments: Sequence[str] | None = None) -> None:
    run("Generation", cases, arguments)


if __name__ == "__main__":
    main()
