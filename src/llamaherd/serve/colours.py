"""Code in colours: spans with classes, and the style sheet for them."""

import functools
from collections.abc import Iterator

from pygments.formatters import HtmlFormatter
from pygments.lexer import Lexer
from pygments.lexers import LEXERS, find_lexer_class

CHARACTERS, LINE_CHARACTERS = 30_000, 2000
"""Longest code, and longest line, that is coloured: some languages take time that grows faster than their text."""
LIGHT, DARK = "xcode", "monokai"
"""Styles of Pygments whose every colour stands out from the page's background of code as WCAG AA asks (a test computes it)."""


@functools.cache
def languages() -> dict[str, str]:
    """Every short name of a language, and its full name."""
    return {alias.lower(): name for _, name, aliases, *_ in LEXERS.values() for alias in aliases}


def coloured(code: str, language: str) -> str | None:
    """HTML of `code`, spans with classes that end with their line, or None for a language that is not known and for what is too long."""
    name = languages().get(language.lower())
    if name is None or len(code) > CHARACTERS or max(map(len, code.split("\n"))) > LINE_CHARACTERS:
        return None
    lexer = _lexer(name)
    made = "".join(line for _, line in _lines(lexer, code))
    return made if code.endswith("\n") else made.removesuffix("\n")  # the formatter ends the last line, too


@functools.cache
def _lexer(name: str) -> Lexer:
    found = find_lexer_class(name)
    assert found is not None, "the name is from the table"
    return found(stripnl=False, ensurenl=False)


def _lines(lexer: Lexer, code: str) -> Iterator[tuple[int, str]]:
    formatter: HtmlFormatter[str] = HtmlFormatter(nowrap=True)
    return formatter._format_lines(lexer.get_tokens(code))  # type: ignore[no-any-return]


def stylesheet() -> str:
    """CSS for light and dark: by `data-theme` on the root, or where that is absent by what the reader's system asks for.

    Colours of tokens alone: background and plain text are the page's.
    """
    rules = []
    for theme, style in (("light", LIGHT), ("dark", DARK)):
        formatter: HtmlFormatter[str] = HtmlFormatter(style=style)
        chosen, asked = (
            "\n".join(formatter.get_token_style_defs(place))
            for place in (f":root[data-theme={theme}] .highlight", ":root:not([data-theme]) .highlight")
        )
        rules += [chosen, f"@media (prefers-color-scheme: {theme}) {{\n{asked}\n}}"]
    return "\n".join([*rules, ""])
