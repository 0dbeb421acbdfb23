"""What both benchmarks share: the same weights in both models, turns taken pair by pair, and a table."""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from llamaherd.checkpoints.huggingface import config_of, load_model
from llamaherd.checkpoints.names import to_hugging_face
from llamaherd.core.artifacts import resolve
from llamaherd.core.device import set_threads
from llamaherd.model.config import preset
from llamaherd.model.transformer import Scorer, Transformer, Trunk, new_model

PEAKED = 30.0
"""Factor on a fresh model's head: its next-token distributions then have about 1 nat of entropy, like a trained model's."""


def transformers_twin(ours: Trunk) -> Any:
    """The model of `transformers` with the same weights, float32, in its default (fastest) attention."""
    import transformers

    kind = transformers.LlamaForSequenceClassification if isinstance(ours, Scorer) else transformers.LlamaForCausalLM
    theirs = kind(transformers.LlamaConfig(**config_of(ours)))
    theirs.load_state_dict({to_hugging_face(name): weight for name, weight in ours.state_dict().items()})
    theirs.eval()  # type: ignore[no-untyped-call]
    return theirs


def our_model(name: str) -> Transformer:
    """A model folder or RUN:VERSION, or the name of a preset for fresh weights with a peaked head. Raises UserError."""
    if Path(name).exists() or ":" in name:
        return load_model(resolve(name))[0].eval()
    model = new_model(preset(name), seed=0).eval()
    with torch.no_grad():
        model.output.weight *= PEAKED
    return model


@dataclass(frozen=True)
class Case:
    """One comparison: each side is a call that returns how many tokens it made or trained on."""

    name: str
    ours: Callable[[], int]
    theirs: Callable[[], int]


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def tokens_per_s(work: Callable[[], int], clock: Callable[[], float]) -> float:
    started = clock()
    tokens = work()
    return tokens / (clock() - started)


def compare(case: Case, pairs: int, clock: Callable[[], float]) -> str:
    """A row of the table: medians of both, median ratio and its range over pairs. The two take turns after one call each to warm up."""
    case.theirs(), case.ours()
    speeds = [(tokens_per_s(case.theirs, clock), tokens_per_s(case.ours, clock)) for _ in range(pairs)]
    theirs, ours = (statistics.median(side) for side in zip(*speeds, strict=True))
    ratios = sorted(mine / other for other, mine in speeds)
    spread = f"{ratios[0]:.2f} to {ratios[-1]:.2f}"
    return f"| {case.name} | {theirs:,.0f} | {ours:,.0f} | {statistics.median(ratios):.2f} | {spread} |"


def run(title: str, cases: Callable[[argparse.Namespace], Iterable[Case]], arguments: Sequence[str] | None) -> None:
    """Parses the command line, sets the threads and prints the table as it comes."""
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--model", default="miniature", help="preset, model folder or RUN:VERSION")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--pairs", type=int, default=7, help="turns of each side")
    parser.add_argument("--share", type=float, default=1.0, help="share of the usual amount of work, for a quick look")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="cpu: processor time, for one thread on a busy machine")
    parser.add_argument("--only", default="", help="cases whose name holds this text")
    options = parser.parse_args(arguments)
    set_threads(options.threads)
    import transformers

    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    print(
        f"{title}; {options.model}, float32, threads: {options.threads}, {options.clock} time, {platform.machine()}, {os.cpu_count()} cores,"
    )
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, load {os.getloadavg()[0]:.1f} before\n")
    print("| case | transformers, tokens/s | llamaherd, tokens/s | ratio, median of pairs | its range |\n|---|---|---|---|---|")
    for case in cases(options):
        if options.only in case.name:
            print(compare(case, options.pairs, CLOCKS[options.clock]), flush=True)
