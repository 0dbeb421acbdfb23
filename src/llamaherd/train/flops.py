"""The machine's matrix rate, measured, so that utilisation means the same on every device."""

import time
from functools import lru_cache

import torch

from ..core.seeds import torch_rng


@lru_cache(maxsize=4)
def peak_flops(device: torch.device, dtype: torch.dtype = torch.float32) -> float:
    """Operations per second of a large matrix product of that precision (best of a few tries)."""
    on_gpu = device.type == "cuda"
    size = 8192 if on_gpu else 768
    matrix = torch.randn(size, size, generator=torch_rng(0, "peak_flops")).to(device, dtype)
    best = float("inf")
    for _ in range(5):
        if on_gpu:
            torch.cuda.synchronize(device)
        started = time.perf_counter()
        matrix @ matrix
        if on_gpu:
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best
