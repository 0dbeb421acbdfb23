"""Decoding of one sequence on the CPU: float32, 8 and 4 bits, beside llama.cpp's Q4_0 and the bandwidth limit.

    python -m benchmarks.quantized --shape 1.1b --threads 2
    python -m benchmarks.quantized --shape 7b --threads 2

Weights are random and made as they are held, so that a 7B model is never there in floats. All sides take turns. llama.cpp takes
part where LLAMAHERD_LLAMA_CPP_PYTHON names a Python that has llama-cpp-python, in a process of its own.
"""

import argparse
import itertools
import os
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from llamaherd.checkpoints.gguf import add_shape
from llamaherd.core.device import set_threads
from llamaherd.generate.config import SamplingConfig
from llamaherd.generate.engine import steps
from llamaherd.model.config import ModelConfig
from llamaherd.model.quantized import QuantizedLinear, Scheme, quantized_linear, replace_linears
from llamaherd.model.transformer import Transformer, materialise, on_meta

SHAPES = {
    "tiny": ModelConfig(dim=64, layers=2, heads=4, kv_heads=2, ffn=192, vocab_size=512, context=512),
    "1.1b": ModelConfig(dim=2048, layers=22, heads=32, kv_heads=4, ffn=5632, vocab_size=32000, context=512),
    "7b": ModelConfig(context=512),
}
KINDS = {"float32": None, "int8": Scheme(8), "int4": Scheme(4, 64)}
PROMPT = list(range(3, 19))
DEVIATION = 0.02
Turn = Callable[[int], float]
"""Decodes so many tokens and says how many seconds one took."""


def read_bandwidth(nbytes: int = 1 << 30) -> float:
    """Bytes per second that a sum over memory reads, the best of several."""
    memory = torch.ones(nbytes // 4)

    def once() -> float:
        started = time.perf_counter()
        memory.sum()
        return nbytes / (time.perf_counter() - started)

    return max(once() for _ in range(8))


def random_tensors(scheme: Scheme, rows: int, columns: int) -> dict[str, torch.Tensor]:
    """A quantised weight whose floats would have DEVIATION and mean 0."""
    made = {}
    for name, (dtype, shape) in scheme.layout(rows, columns).items():
        if dtype in (torch.int8, torch.uint8):
            made[name] = torch.from_numpy(np.random.default_rng(rows).integers(0, 256, shape, np.uint8)).view(dtype)
        else:
            made[name] = torch.full(shape, DEVIATION / (74 if scheme.bits == 8 else 4.6), dtype=dtype)
    if scheme.bits == 4:
        made["scale_zero"][..., 1] /= 2
    return made


def random_model(config: ModelConfig, scheme: Scheme | None) -> Transformer:
    """A model whose linear layers are made as the scheme holds them; None: float32."""

    def layer(_: str, old: torch.nn.Linear) -> QuantizedLinear:
        assert scheme
        return quantized_linear(random_tensors(scheme, old.out_features, old.in_features), scheme, old.in_features, old.out_features)

    model = on_meta(config)
    if scheme is None:
        model = materialise(model)
    else:
        replace_linears(model, layer)
        model.load_state_dict({name: torch.empty(weight.shape) for name, weight in model.named_parameters()}, strict=False, assign=True)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.fill_(1.0) if name.endswith("norm.weight") else weight.normal_(0, DEVIATION)
    return model.eval().requires_grad_(False)


def weight_bytes(model: Transformer) -> int:
    """Of the linear layers, all of which a token reads."""
    parts = [module for module in model.modules() if isinstance(module, torch.nn.Linear | QuantizedLinear)]
    return sum(tensor.nbytes for part in parts for tensor in itertools.chain(part.parameters(), part.buffers()))


def ours(model: Transformer) -> Turn:
    """A turn of the engine, greedy; the first token, which waits for the prompt, is not timed."""

    def turn(tokens: int) -> float:
        made = steps(model, [PROMPT], SamplingConfig(temperature=0, max_new_tokens=tokens + 1), [0], ())
        next(made)
        started = time.perf_counter()
        for _ in made:
            pass
        return (time.perf_counter() - started) / tokens

    return turn


THEIRS = """
import sys, time
import llama_cpp as l
path, threads, prompt = sys.argv[1], int(sys.argv[2]), [int(id) for id in sys.argv[3].split(",")]
quiet = l.llama_log_callback(lambda *_: None)
l.llama_log_set(quiet, None)
model = l.llama_model_load_from_file(path.encode(), l.llama_model_default_params())
params = l.llama_context_default_params()
params.n_ctx, params.n_threads, params.n_threads_batch = 512, threads, threads
context = l.llama_init_from_model(model, params)
def decode(ids):
    array = (l.llama_token * len(ids))(*ids)
    code = l.llama_decode(context, l.llama_batch_get_one(array, len(ids)))
    assert code == 0, (code, ids)
    return l.llama_get_logits_ith(context, -1)
size = l.llama_vocab_n_tokens(l.llama_model_get_vocab(model))
import numpy
def likeliest(logits):
    return int(numpy.ctypeslib.as_array(logits, (size,)).argmax())
print("ready", flush=True)
for line in sys.stdin:
    l.llama_memory_clear(l.llama_get_memory(context), True)
    newest = likeliest(decode(prompt))
    started = time.perf_counter()
    for _ in range(int(line)):
        newest = likeliest(decode([newest]))
    print((time.perf_counter() - started) / int(line), flush=True)
"""


def write_gguf(config: ModelConfig, file: Path) -> None:
    """A GGUF of this shape in Q4_0 with random weights and no vocabulary."""
    import gguf

    writer = gguf.GGUFWriter(file, "llama")
    add_shape(writer, config)
    writer.add_tokenizer_model("none")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_0)
    kv = config.kv * config.head_size
    block = {
        "attn_q": (config.dim, config.dim), "attn_k": (kv, config.dim), "attn_v": (kv, config.dim), "attn_output": (config.dim, config.dim),
        "ffn_gate": (config.ffn_width, config.dim), "ffn_up": (config.ffn_width, config.dim), "ffn_down": (config.dim, config.ffn_width),
    }  # fmt: skip
    shapes = {"token_embd": (config.vocab_size, config.dim), "output": (config.vocab_size, config.dim)}
    shapes |= {f"blk.{layer}.{name}": shape for layer in range(config.layers) for name, shape in block.items()}
    norms = ["output_norm", *(f"blk.{layer}.{name}" for layer in range(config.layers) for name in ("attn_norm", "ffn_norm"))]
    for name, (rows, columns) in shapes.items():
        data = (rows, columns // 32 * 18)
        writer.add_tensor_info(f"{name}.weight", data, np.dtype(np.uint8), rows * data[1], gguf.GGMLQuantizationType.Q4_0)
    for name in norms:
        writer.add_tensor_info(f"{name}.weight", (config.dim,), np.dtype(np.float32), config.dim * 4)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    scale = np.frombuffer(np.float16(DEVIATION / 4.6).tobytes(), np.uint8)
    for rows, columns in shapes.values():
        blocks = np.random.default_rng(rows).integers(0, 256, (rows, columns // 32, 18), np.uint8)
        blocks[..., :2] = scale
        writer.write_tensor_data(blocks.reshape(rows, -1))
    for _ in norms:
        writer.write_tensor_data(np.ones(config.dim, np.float32))
    writer.close()


@contextmanager
def llama_cpp(config: ModelConfig, threads: int) -> Iterator[tuple[Turn, int] | None]:
    """A turn of llama.cpp and the bytes of its weights; None where there is no llama.cpp."""
    python = os.environ.get("LLAMAHERD_LLAMA_CPP_PYTHON")
    if not python:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "random.gguf"
        write_gguf(config, file)
        command = [python, "-c", THEIRS, str(file), str(threads), ",".join(map(str, PROMPT))]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin

            def answer() -> str:
                assert process.stdout
                if line := process.stdout.readline():
                    return line
                raise SystemExit(f"{python}: llama.cpp ended with {process.wait()}")

            def turn(tokens: int) -> float:
                assert process.stdin
                process.stdin.write(f"{tokens}\n")
                process.stdin.flush()
                return float(answer())

            answer()
            yield turn, file.stat().st_size - config.vocab_size * config.dim // 32 * 18
            process.stdin.close()


def peak_gb() -> float:
    """The most memory that this process held."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table: medians over turns, and ratios of turns side by side."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=list(SHAPES), default="1.1b")
    parser.add_argument("--kinds", default=None, help="of float32, int8, int4, with commas between (default: all; 7b: int4)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=16, help="decoded in a turn")
    options = parser.parse_args(arguments)
    set_threads(options.threads)
    config = SHAPES[options.shape]
    kinds = (options.kinds or ("int4" if options.shape == "7b" else ",".join(KINDS))).split(",")
    bandwidth = read_bandwidth()
    turns: dict[str, Turn] = {}
    sizes: dict[str, int] = {}
    for kind in kinds:
        model = random_model(config, KINDS[kind])
        turns[kind], sizes[kind] = ours(model), weight_bytes(model)
    with llama_cpp(config, options.threads) as theirs:
        if theirs:
            turns["llama.cpp Q4_0"], sizes["llama.cpp Q4_0"] = theirs
        for turn in turns.values():
            turn(2)
        seconds = {name: [] for name in turns}  # type: dict[str, list[float]]
        for _ in range(options.turns):
            for name, turn in turns.items():
                seconds[name].append(turn(options.tokens))
    print(
        f"{options.shape} shape, decoding one sequence, threads: {options.threads}, {platform.machine()}, {os.cpu_count()} cores, torch "
        f"{torch.__version__}, read bandwidth {bandwidth / 1e9:.1f} GB/s, peak memory {peak_gb():.1f} GB, load {os.getloadavg()[0]:.1f}\n"
    )
    base = kinds[0]
    print(f"| weights | GB read for a token | tokens/s | limit, tokens/s | share of the limit | times {base} |\n|---|---|---|---|---|---|")
    for name, times in seconds.items():
        speed, limit = 1 / statistics.median(times), bandwidth / sizes[name]
        ratio = statistics.median(one / other for one, other in zip(seconds[base], times, strict=True))
        print(f"| {name} | {sizes[name] / 1e9:.2f} | {speed:.2f} | {limit:.1f} | {speed / limit:.0%} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
