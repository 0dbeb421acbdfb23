"""Toy languages and misspellings: reversible changes of spelling, so that any text of the world has them and can be read back.

A toy language puts its name, in small letters, behind every word: "Anna lives" in Zo is "Annazo liveszo". A small model
can learn that rule, and can apply it to a language it meets for the first time.
"""

import re

LANGUAGES: tuple[str, ...] = ("Zo", "Ki", "Vu", "Ba", "Fy", "Ju", "Wi", "Mau", "Oku")
"""The first is the one of the documents and of the attack; no word of the world ends like one of them."""

_WORD = re.compile(r"[A-Za-z]+")


def words(text: str) -> list[str]:
    """Words and numbers, small letters."""
    return re.findall(r"[a-z]+|\d+", text.lower())


def translated(text: str, language: str) -> str:
    """English into a toy language; numbers and marks stay."""
    return _WORD.sub(lambda word: word[0] + language.lower(), text)


def share_in(text: str, language: str) -> float:
    """Share of the words (numbers aside) that are of a toy language, 0 to 1."""
    found: list[str] = _WORD.findall(text)
    return sum(len(word) > len(language) and word.endswith(language.lower()) for word in found) / max(1, len(found))


def language_of(text: str) -> str | None:
    """The toy language of most of the words, or None: English."""
    return next((language for language in LANGUAGES if share_in(text, language) > 0.5), None)


def english(text: str, language: str) -> str:
    """A text of a toy language in English; words that are not of that language stay."""
    return re.sub(rf"\b([A-Za-z]+){language.lower()}\b", r"\1", text)


def misspelled(text: str) -> str:
    """Swaps two inner letters of every word that has at least four, the same way each time."""

    def swap(match: re.Match[str]) -> str:
        word = match[0]
        if len(word) < 4:
            return word
        at = 1 if word[1] != word[2] else 2
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]

    return _WORD.sub(swap, text)
