"""What both benchmarks share: the same weights in both models, turns taken pair by pair, and a table."""

import argparse
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
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


Cases = Callable[[argparse.Namespace], Iterable[Case]]


def _serve(pipe: Any, cases: Cases, options: argparse.Namespace) -> None:
    """In a process of its own, with one thread: does our side of the case whose name comes, and says how many tokens that were."""
    set_threads(1)
    work = {case.name: case.ours for case in cases(options)}
    while name := pipe.recv():
        pipe.send(work[name]())


@contextmanager
def side_by_side(cases: Cases, options: argparse.Namespace) -> Iterator[Callable[[str], int]]:
    """A call that does our side of a case in `options.processes` processes at once, as the recipe's steps run, and adds up their tokens."""
    context = multiprocessing.get_context("spawn")
    pipes, workers = [], []
    for _ in range(options.processes):
        here, there = context.Pipe()
        workers.append(context.Process(target=_serve, args=(there, cases, options), daemon=True))
        workers[-1].start()
        pipes.append(here)

    def work(name: str) -> int:
        for pipe in pipes:
            pipe.send(name)
        return sum(pipe.recv() for pipe in pipes)

    yield work
    for pipe, worker in zip(pipes, workers, strict=True):
        pipe.send("")
        worker.join()


def run(title: str, cases: Cases, arguments: Sequence[str] | None) -> None:
    """Parses the command line, sets the threads and prints the table as it comes."""
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--model", default="miniature", help="preset, model folder or RUN:VERSION")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--processes", type=int, default=1, help="of ours, with one thread each and the same work, at once")
    parser.add_argument("--pairs", type=int, default=7, help="turns of each side")
    parser.add_argument("--share", type=float, default=1.0, help="share of the usual amount of work, for a quick look")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="cpu: processor time, for one thread on a busy machine")
    parser.add_argument("--only", default="", help="cases whose name holds this text")
    options = parser.parse_args(arguments)
    if options.processes > 1 and options.clock == "cpu":
        parser.error("processor time counts one process; give --clock wall with --processes")
    set_threads(options.threads)
    import transformers

    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    print(
        f"{title}; {options.model}, float32, threads: {options.threads}, processes of ours: {options.processes}, "
        f"{options.clock} time, {platform.machine()}, {os.cpu_count()} cores,"
    )
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, load {os.getloadavg()[0]:.1f} before\n")
    print("| case | transformers, tokens/s | llamaherd, tokens/s | ratio, median of pairs | its range |\n|---|---|---|---|---|")
    with side_by_side(cases, options) if options.processes > 1 else nullcontext() as work:
        for case in cases(options):
            if options.only in case.name:
                ours = partial(work, case.name) if work else case.ours
                print(compare(Case(case.name, ours, case.theirs), options.pairs, CLOCKS[options.clock]), flush=True)
