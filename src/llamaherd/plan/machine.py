"""The machine that is planned for: how much memory it has, and how fast it multiplies and reads, measured in a second or two."""

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

from ..core.device import free_memory_bytes
from ..core.errors import UserError

UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
HELD_BYTES = 345_000_000
"""What Python and torch with its libraries hold where nothing is measured, on Linux with torch 2.13 for CPUs."""
HELD_ON_GPU_BYTES = 600_000_000
"""Context, kernels and workspaces of CUDA, roughly."""


@dataclass(frozen=True)
class Machine:
    """A device. `flops` and `bytes_per_s`: None where nothing was measured."""

    device: str
    available_bytes: int
    held_bytes: int
    flops: float | None = None
    bytes_per_s: float | None = None

    @property
    def on_gpu(self) -> bool:
        return self.device == "cuda"


def parse_bytes(text: str) -> int:
    """Bytes of `24GB`, `1.5 GiB` or `800MB`. Raises UserError."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?I?B?)\s*", text, re.IGNORECASE)
    unit = found[2].upper() if found else ""
    unit = unit if unit.endswith("B") or not unit else f"{unit}B"
    if not found or unit not in UNITS or not float(found[1]):
        raise UserError(f"--memory {text}: expected a size such as 24GB (10^9 bytes) or 16GiB (2^30 bytes)")
    return round(float(found[1]) * UNITS[unit])


def machine(device: str | None, memory: str | None, measure: bool) -> Machine:
    """This machine, or one with so much `memory`. `device`: cpu or cuda; None: what would be used here. Raises UserError."""
    import torch

    if device not in (None, "cpu", "cuda"):
        raise UserError(f"--device {device}: expected cpu or cuda")
    here = torch.cuda.is_available()
    device = device or ("cuda" if here else "cpu")
    if device == "cuda" and not here and memory is None:
        raise UserError("--device cuda: there is no GPU here; say how much memory the one you plan for has, such as --memory 24GB")
    held = HELD_ON_GPU_BYTES if device == "cuda" else _held() if measure else HELD_BYTES
    free = parse_bytes(memory) if memory else free_memory_bytes(device)
    if free is None:
        raise UserError("this system does not say how much memory it has; give --memory, such as --memory 16GB")
    available = free + (held if device == "cpu" and measure and not memory else 0)
    if not measure or (device == "cuda" and not here):
        return Machine(device, available, held)
    from ..train.flops import peak_flops

    return Machine(device, available, held, peak_flops(torch.device(device)), _bytes_per_s(device))


def _held() -> int:
    """What a process of this kind holds before its model: this one, once it has done the same things in the smallest size."""
    import torch

    from ..checkpoints import huggingface  # noqa: F401
    from ..core.device import set_threads
    from ..model.config import ModelConfig
    from ..model.transformer import new_model
    from ..train.batches import TokenBatch, next_token_loss
    from ..train.config import OptimizerConfig
    from ..train.optimizer import adamw

    set_threads()
    model = new_model(ModelConfig(dim=64, layers=2, heads=4, kv_heads=2, ffn=128, vocab_size=64, context=64), 0)
    loss = next_token_loss(model, TokenBatch.of([([1] * length, [1] * length) for length in (40, 20)], torch.device("cpu")))
    loss.total.backward()  # type: ignore[no-untyped-call]
    adamw(model, OptimizerConfig()).step()
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return HELD_BYTES
    return pages * os.sysconf("SC_PAGE_SIZE")


def _bytes_per_s(device: str) -> float:
    """Reading speed of memory, best of a few tries."""
    import torch

    values = torch.ones(2**26 if device == "cpu" else 2**28, device=device)
    best = float("inf")
    for _ in range(4):
        started = time.perf_counter()
        values.sum().item()
        best = min(best, time.perf_counter() - started)
    return values.nbytes / best
