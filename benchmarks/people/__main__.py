"""Reward models on people's judgements: `python -m benchmarks.people --out DIR`; given again, it goes on where it was.

A small model pretrained on the English text of the public data, tuned on its instructions; then, for Anthropic's helpful and harmless
comparisons, a reward model for each of five folds over the dialogues' first messages, beside chance, length, a bag of words, and reward
models from random weights. Writes DIR/results.json and DIR/results.md.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from llamaherd.core.artifacts import locked
from llamaherd.core.errors import UserError
from llamaherd.core.files import read_json, write_json, write_text
from llamaherd.recipe.executor import Executor

from .figures import results
from .steps import ARMS, FULL, SEED, SMOKE, Chain, Sizes, choose
from .tables import table
from .texts import write_texts

ALONE = ("base", "chat")
"""Nothing runs beside these steps, so they take all threads."""


def texts_of(data: Path, out: Path, sizes: Sizes) -> Path:
    """The folder of texts, written if it is not there. Raises UserError when `out` was begun with other sizes."""
    folder, settings = out / "texts", out / "sizes.json"
    if settings.is_file() and read_json(settings) != asdict(sizes):
        raise UserError(f"{out} was begun with other sizes; choose another --out, or the same of --smoke")
    if not settings.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "counts.json", write_texts(data, folder, sizes.novels, sizes.rows, SEED))
        write_json(settings, asdict(sizes))
    return folder


def work(out: Path, texts: Path, sizes: Sizes, workers: int) -> None:
    """Makes every artifact that is not there yet: of each arm all candidates first, then, by what they showed, all folds."""
    made = out / "made"
    made.mkdir(exist_ok=True)
    executor = Executor(workers, 1, lambda line: print(line, flush=True))
    chain = Chain(sizes, texts, made)

    def make() -> None:
        steps = [replace(one, threads=workers) if one.name in ALONE else one for one in chain.steps]
        executor.work_through(steps, made, chain.expected_s())

    chain.foundation()
    for arm in ARMS:
        chain.candidates(arm)
        make()
        chain.folds(arm, choose(made, arm))
        make()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.people", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of all that is made")
    parser.add_argument("--data", default=os.environ.get("LLAMAHERD_DATA"), help="folder of public data (default: LLAMAHERD_DATA)")
    parser.add_argument("--smoke", action="store_true", help="tries every step in a few minutes and claims nothing")
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    parser.add_argument("--so-far", action="store_true", help="make nothing more, and measure what is there")
    options = parser.parse_args(arguments)
    if options.data is None or not Path(options.data, "preference").is_dir():
        parser.error(f"--data {options.data}: expected the folder of public data, with preference/ in it")
    try:
        with locked(options.out / "lock", str(options.out)):
            sizes = SMOKE if options.smoke else FULL
            texts = texts_of(Path(options.data), options.out, sizes)
            if not options.so_far:
                work(options.out, texts, sizes, options.workers)
            found = results(texts, options.out / "made", read_json(texts / "counts.json"))
    except UserError as error:
        sys.exit(f"error: {error}")
    write_json(options.out / "results.json", found)
    write_text(options.out / "results.md", table(found))
    print(table(found))


if __name__ == "__main__":
    main()
