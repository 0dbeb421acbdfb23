"""What a person watches: one line per finished stage, and a moving line while it works (terminals only)."""

import shutil
import sys
import time
from collections.abc import Callable

listener: Callable[[str], None] | None = None
"""Takes the moving line instead of the terminal; an empty text says that it is over."""


def clock(seconds: float) -> str:
    """`75` -> `1:15`."""
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Progress:
    """A line on standard error that is rewritten in place; silent when that is not a terminal."""

    def __init__(self, label: str, total: int, done: int = 0):
        self.label, self.total, self.first = label, total, done
        self.started = self.shown = time.perf_counter()
        self.live = listener is not None or sys.stderr.isatty()

    def update(self, done: int, note: str = "") -> None:
        now = time.perf_counter()
        if not self.live or (now - self.shown < 0.2 and done < self.total):
            return
        self.shown = now
        pace = (now - self.started) / max(1, done - self.first)
        left = clock(pace * (self.total - done))
        (listener or show)(f"{self.label} {done}/{self.total}  {left} left  {note}")

    def close(self) -> None:
        if self.live:
            (listener or show)("")


def show(text: str) -> None:
    """Puts the text where the moving line was, cut to the terminal's width: a second row could not be taken back."""
    room = shutil.get_terminal_size().columns - 3
    sys.stderr.write(f"\r\x1b[2K  {text[:room]}" if text else "\r\x1b[2K")
    sys.stderr.flush()
