"""Errors for users: one line that says what was given, what was expected, and what fixes it."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(ValueError):
    """Something the user gave cannot work. The command line prints it without a traceback."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`" (did you mean 'lr'?)"` when `name` looks like a known one, else an empty string."""
    close = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""


def one_line(text: str, most: int = 300) -> str:
    """A stranger's words without line breaks, without what could steer a terminal, and no longer than `most` characters."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return line if len(line) <= most else f"{line[:most]}..."
