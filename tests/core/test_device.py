"""Threads, and the line that moves."""

import io
import os
import sys

import pytest
import torch

from llamaherd.core.device import best_device, set_threads
from llamaherd.core.errors import UserError
from llamaherd.core.progress import Progress, clock


def test_threads_are_what_is_wished_else_at_most_two(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    monkeypatch.delenv("LLAMAHERD_THREADS", raising=False)
    assert set_threads() == torch.get_num_threads() == min(2, os.cpu_count() or 1)
    monkeypatch.setenv("LLAMAHERD_THREADS", "1")
    assert set_threads() == torch.get_num_threads() == 1
    for wrong in ("two", "0", "-1", "1.5"):
        monkeypatch.setenv("LLAMAHERD_THREADS", wrong)
        with pytest.raises(UserError, match=f"LLAMAHERD_THREADS={wrong}: expected a positive number"):
            set_threads()
    assert set_threads(before) == before


def test_the_device_can_compute() -> None:
    assert torch.ones(2, device=best_device()).sum().item() == 2


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (59.4, "0:59"), (59.5, "1:00"), (75, "1:15"), (3599.6, "1:00:00"), (7325, "2:02:05")],
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_progress_shows_on_terminals_only(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for stream, shown in ((Terminal(), True), (io.StringIO(), False)):
        monkeypatch.setattr(sys, "stderr", stream)
        progress = Progress("sft", 10)
        progress.update(10, "loss 1.5")
        progress.close()
        assert ("sft 10/10  0:00 left  loss 1.5" in stream.getvalue()) is shown
        assert bool(stream.getvalue()) is shown
