"""Which device, how many threads and how much free memory; the only place that asks."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import UserError

if TYPE_CHECKING:
    import torch


def best_device() -> "torch.device":
    """CUDA when there is one, else the CPU (Apple's GPU is left out: float64 and some operators differ there)."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def take_own_gpu() -> None:
    """Where several processes share a machine's GPUs, as torchrun starts them, takes the one of this process's LOCAL_RANK."""
    import torch

    local = os.environ.get("LOCAL_RANK", "")
    if local.isdecimal() and torch.cuda.is_available():
        torch.cuda.set_device(int(local) % torch.cuda.device_count())


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


def free_memory_bytes(device: str) -> int | None:
    """Bytes that a process could take: what is free on the GPU; on the CPU what the system and a container's limit leave.

    None where the system does not say.
    """
    if device == "cuda":
        import torch

        return int(torch.cuda.mem_get_info()[0])
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        if not hasattr(os, "sysconf"):
            return None
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(free, _limit())


def _limit() -> int:
    """What a container leaves of its limit."""
    try:
        most = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        return sys.maxsize if most == "max" else int(most) - int(Path("/sys/fs/cgroup/memory.current").read_text())
    except (OSError, ValueError):
        return sys.maxsize
