"""Every packaged recipe of the 7B, `llama2-7b-...`, through the command line, on random weights: `python -m benchmarks.seven --out DIR`.

A model of the 7B's depth and, on a CPU, of reduced width is written as a Hugging Face folder, with small data. Each recipe then runs with a
short budget: whole, and once more, killed in the middle and given again, which must end with the same bytes; what comes of it is exported
and read by transformers. Peak memory stands beside what `llamaherd plan` says of the same. On a GPU with 80 GB or more:

    python -m benchmarks.seven --width 4096 --device cuda --out DIR      # the 7B itself; --only NAME for a part, since sft saves 81 GB a state
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from llamaherd.core.errors import UserError
from llamaherd.core.files import write_text
from llamaherd.tokenizer.sentencepiece import Tokenizer

from ..pages import filled
from .bench import Bench, measure
from .inputs import SEVEN, shape_of, write_base, write_data
from .recipes import RECIPES, with_inputs
from .tables import tables


def the_tokenizer(given: Path | None) -> Tokenizer:
    """The one that is given, or the released one of the public data. Raises UserError where there is neither."""
    data = os.environ.get("LLAMAHERD_DATA")
    if given is None and not data:
        raise UserError("give --tokenizer FOLDER, or set LLAMAHERD_DATA to the folder of public data, which holds the released one")
    return Tokenizer.load(given or Path(str(data)) / "tokenizer" / "llama2")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.seven", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of models, data and results; it must not exist yet")
    parser.add_argument("--only", default="", help=f"recipes, with commas between, of {', '.join(RECIPES)}; what these read comes along")
    parser.add_argument("--width", type=int, default=32, help=f"of the model; {SEVEN.dim} is the 7B itself")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--tokenizer", type=Path, help="folder of a SentencePiece model (default: the released one in LLAMAHERD_DATA)")
    parser.add_argument("--write", type=Path, help="page to write the tables into, such as docs/performance.md")
    options = parser.parse_args(arguments)
    names = list(RECIPES) if not options.only else with_inputs(options.only.split(","), parser)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: there is no GPU here")
    try:
        if options.out.exists():
            raise UserError(f"{options.out} exists already; give another folder")
        tokenizer = the_tokenizer(options.tokenizer)
        bench = Bench(options.out, shape_of(options.width, tokenizer.vocab_size), options.device)
        options.out.mkdir(parents=True)
        torch.set_num_threads(1)
        write_base(bench.folder / "base", bench.shape, tokenizer)
        write_data(bench.folder, tokenizer)
        made = tables(bench, measure(bench, names))
        if options.write:
            write_text(options.write, filled(options.write.read_text(encoding="utf-8"), made))
    except UserError as error:
        sys.exit(f"error: {error}")
    print("\n".join(made.values()))


if __name__ == "__main__":
    main()
