"""A piece of a text around what was sought."""

import unicodedata

BEFORE, AFTER = 40, 120
"""Characters around the hit."""


def snippet(text: str, query: str) -> tuple[str, int, int] | None:
    """(a line around the first hit, where in it the hit starts, its length in characters), or None when there is none.

    Letters are compared without case. That may make them longer ("ß" is "ss"), so places are counted back, letter by letter.
    """
    text = unicodedata.normalize("NFC", text)
    folded, sought = text.casefold(), unicodedata.normalize("NFC", query).casefold()
    first = folded.find(sought)
    if first < 0:
        return None
    start, end = first, first + len(sought)
    if len(folded) != len(text):
        start, end = _letters(text, first), _letters(text, end - 1) + 1
    left, right = max(0, start - BEFORE), end + AFTER
    before, hit, after = (" ".join(piece.split("\n")) for piece in (text[left:start], text[start:end], text[end:right]))
    before = f"{'…' if left else ''}{before}"
    return f"{before}{hit}{after}{'…' if right < len(text) else ''}", len(before), len(hit)


def _letters(text: str, place: int) -> int:
    """Which letter of `text` the place in its folded form belongs to."""
    passed = 0
    for index, letter in enumerate(text):
        passed += len(letter.casefold())
        if passed > place:
            return index
    return len(text)
