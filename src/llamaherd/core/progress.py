"""What a person watches: one line per finished stage, and a moving line while it works (terminals only)."""

import sys
import time


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
        self.live = sys.stderr.isatty()

    def update(self, done: int, note: str = "") -> None:
        now = time.perf_counter()
        if not self.live or (now - self.shown < 0.2 and done < self.total):
            return
        self.shown = now
        pace = (now - self.started) / max(1, done - self.first)
        left = clock(pace * (self.total - done))
        sys.stderr.write(f"\r\x1b[2K  {self.label} {done}/{self.total}  {left} left  {note}")
        sys.stderr.flush()

    def close(self) -> None:
        if self.live:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()
