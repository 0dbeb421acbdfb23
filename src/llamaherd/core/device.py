"""Which device and how many threads; the only place that asks."""

import os
from typing import TYPE_CHECKING

from .errors import UserError

if TYPE_CHECKING:
    import torch


def best_device() -> "torch.device":
    """CUDA when there is one, else the CPU (Apple's GPU is left out: float64 and some operators differ there)."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def set_threads(threads: int | None = None) -> int:
    """Fixes torch's CPU threads, since results depend on them to the last bit. None: LLAMAHERD_THREADS, else at most 2.

    Raises UserError when LLAMAHERD_THREADS is not a positive number.

    Idle OpenMP threads sleep instead of spinning: a spinning pair beside another busy process runs many times slower.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import torch

    chosen = threads or _wished() or min(2, os.cpu_count() or 1)
    torch.set_num_threads(chosen)
    return chosen


def _wished() -> int | None:
    text = os.environ.get("LLAMAHERD_THREADS", "")
    if text and not (text.isdecimal() and int(text)):
        raise UserError(f"LLAMAHERD_THREADS={text}: expected a positive number of threads; unset it to use the default")
    return int(text) if text else None
