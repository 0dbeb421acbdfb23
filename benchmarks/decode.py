"""A 110M-parameter Llama in float32 on a CPU beside `transformers` and `ctranslate2`: same random weights, greedy;
`python -m benchmarks.decode [--threads 2] [--tokenizer FILE]`.

The limit is what reading every weight once per step would give: bytes of weights over the measured read bandwidth of as many threads.
`ctranslate2` needs a tokenizer of the model's vocabulary to convert; without one its column stays empty.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from llamaherd.checkpoints.huggingface import save_model
from llamaherd.core.device import free_memory_bytes, set_threads
from llamaherd.core.seeds import python_rng
from llamaherd.generate.config import SamplingConfig
from llamaherd.generate.engine import generate
from llamaherd.model.config import preset
from llamaherd.model.packed import pack
from llamaherd.model.transformer import Transformer, new_model
from llamaherd.tokenizer.sentencepiece import Tokenizer

from .common import transformers_twin

Prompts = list[list[int]]
PROMPT_TOKENS, READ_TOKENS = 16, 512


def read_bytes_per_s() -> float:
    """Of memory far larger than any cache, the best of some passes."""
    memory, best = torch.ones(1 << 26), 0.0
    for _ in range(7):
        started = time.perf_counter()
        memory.sum()
        best = max(best, memory.nbytes / (time.perf_counter() - started))
    return best


def ours(model: Transformer, prompts: Prompts, new: int) -> None:
    found = generate(model, prompts, SamplingConfig(temperature=0, max_new_tokens=new), range(len(prompts)), ())
    assert all(len(completion.ids) == new for completion in found)


@torch.inference_mode()
def theirs(model: Any, prompts: Prompts, new: int) -> None:
    tokens = torch.tensor(prompts)
    found = model.generate(
        tokens, attention_mask=torch.ones_like(tokens), do_sample=False, max_new_tokens=new, eos_token_id=None, pad_token_id=0
    )
    assert found.shape[1] == tokens.shape[1] + new


def converted(model: Transformer, tokenizer: Tokenizer, threads: int, folder: Path) -> Callable[[Prompts, int], None]:
    """The same weights in ctranslate2."""
    import ctranslate2

    save_model(model, tokenizer, folder / "model")
    ctranslate2.converters.TransformersConverter(str(folder / "model")).convert(str(folder / "converted"))
    generator = ctranslate2.Generator(str(folder / "converted"), compute_type="float32", intra_threads=threads)

    def work(prompts: Prompts, new: int) -> None:
        pieces = [[tokenizer.piece(id) for id in prompt] for prompt in prompts]
        generator.generate_batch(pieces, max_length=new, min_length=new, sampling_topk=1, include_prompt_in_result=False)

    return work


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="stories-110m", help="preset")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--pairs", type=int, default=5, help="turns of each side")
    parser.add_argument("--new", type=int, default=48, help="new tokens of a turn")
    parser.add_argument("--tokenizer", type=Path, help="SentencePiece model with as many pieces as the preset, for ctranslate2")
    options = parser.parse_args(arguments)
    set_threads(options.threads)
    import transformers

    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    model, rng = new_model(preset(options.model), seed=0).eval(), python_rng(0, "decode")
    shape = model.config
    other = transformers_twin(model)

    def prompts(count: int, tokens: int) -> Prompts:
        return [[rng.randrange(3, shape.vocab_size) for _ in range(tokens)] for _ in range(count)]

    with tempfile.TemporaryDirectory() as folder:
        sides: dict[str, Callable[[Prompts, int], None]] = {"transformers": lambda asked, new: theirs(other, asked, new)}
        if options.tokenizer:
            sides["ctranslate2"] = converted(model, Tokenizer.load(options.tokenizer), options.threads, Path(folder))
        bandwidth, weights = read_bytes_per_s(), 4 * (shape.trunk_parameters + shape.vocab_size * shape.dim)
        pack(model, free_memory_bytes("cpu") or 0)
        sides["llamaherd"] = lambda asked, new: ours(model, asked, new)
        print(f"{options.model}, float32, {options.threads} threads, {weights / 1e6:.0f} MB read at {bandwidth / 1e9:.1f} GB/s\n")
        print("| case | " + ", tokens/s | ".join(sides) + ", tokens/s | limit | ratio to transformers, its range |")
        print("|---" * (len(sides) + 3) + "|")
        for name, count, tokens, new in (
            ("one sequence", 1, PROMPT_TOKENS, options.new),
            ("8 sequences", 8, PROMPT_TOKENS, options.new),
            (f"prompt of {READ_TOKENS} tokens", 1, min(READ_TOKENS, shape.context - 1), 1),
        ):
            made, asked = count * new if new > 1 else tokens, prompts(count, tokens)
            speeds: dict[str, list[float]] = {side: [] for side in sides}
            for turn in range(options.pairs + 1):
                for side, work in sides.items():
                    started = time.perf_counter()
                    work(asked, new)
                    if turn:  # the first is to warm up
                        speeds[side].append(made / (time.perf_counter() - started))
            ratios = sorted(mine / theirs for mine, theirs in zip(speeds["llamaherd"], speeds["transformers"], strict=True))
            limit = f"{count * bandwidth / weights:,.0f}" if new > 1 else ""
            medians = " | ".join(f"{statistics.median(found):,.1f}" for found in speeds.values())
            print(f"| {name} | {medians} | {limit} | {statistics.median(ratios):.2f}, {ratios[0]:.2f} to {ratios[-1]:.2f} |", flush=True)


if __name__ == "__main__":
    main()
