"""Markdown of untrusted text as safe HTML, block by block. Run as a module it renders what it reads (see `renderer.py`).

Raw HTML is text. Links go to http, https and mailto alone, pictures become links, and whatever comes out passes through an
allow-list once more. Long tables, lists, paragraphs and code are cut into blocks that a browser lays out one by one: those
that go on from the one before have the class `goes-on`.
"""

import contextlib
import html
import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import nh3
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from pygments.token import STANDARD_TYPES

from . import colours, formulas
from .renderer import escaped

PATIENCE_S = 1.5
"""After so long the rest of a text is shown as it was written, block by block."""
INLINE_CHARACTERS = 8000
"""Longest piece of running text that is read at once: some of its rules take time that grows faster than the text."""
ROWS, LINES = 100, 400
"""Most rows of a table or items of a list, and most lines of code, in one block."""
NESTING, COLUMNS = 60, 64
"""Deepest nesting and most columns of a table; what goes beyond is shown as it was written."""
MEMORY_BYTES = 2 << 30
GOES_ON = "goes-on"

LINK = re.compile(r"(?:https?://|mailto:)[^\s]", re.IGNORECASE)
LENGTH = re.compile(r"[+-]?\d{0,2}(?:\.\d{1,6})?(?:em|ex|px|pt|mu|in|cm|mm|%)?(?: [+-]?\d{0,2}(?:\.\d{1,6})?em)*")
LENGTHS = {"width", "height", "depth", "lspace", "rspace", "voffset", "minsize", "maxsize", "linethickness", "columnspacing", "rowspacing"}
COLOURS = re.compile("[A-Za-z]{1,30}|#[0-9a-fA-F]{3,8}")


def _words(text: str) -> set[str]:
    return set(text.split())


MATH_TAGS = _words(
    "math menclose merror mfenced mfrac mi mmultiscripts mn mo mover mpadded mphantom mprescripts mroot mrow ms mspace msqrt mstyle "
    "msub msubsup msup mtable mtd mtext mtr munder munderover none"
)
MATH_ATTRIBUTES = LENGTHS | _words(
    "accent accentunder alttext columnalign columnlines display displaystyle fence form largeop mathbackground mathcolor mathvariant "
    "movablelimits notation rowlines scriptlevel separator stretchy symmetric"
)
TAGS = _words("a blockquote br code div em h3 h4 h5 h6 hr li ol p pre s span strong table tbody td th thead tr ul")
CLASSES = {
    "a": {"picture"},
    "code": {"highlight", "formula"},
    "div": {"formula"},
    "span": set(STANDARD_TYPES.values()) - {""},
    **{tag: {GOES_ON} for tag in ("ol", "p", "pre", "table", "ul")},
    **{tag: {"left", "center", "right"} for tag in ("td", "th")},
}


def _allowed(tag: str, name: str, value: str) -> str | None:
    if name in LENGTHS and tag in MATH_TAGS:
        return value if LENGTH.fullmatch(value) else None
    if name in ("mathcolor", "mathbackground"):
        return value if COLOURS.fullmatch(value) else None
    return value


_CLEANER = nh3.Cleaner(
    tags=TAGS | MATH_TAGS,
    attributes={"a": {"href"}, "ol": {"start"}, **dict.fromkeys(MATH_TAGS, MATH_ATTRIBUTES)},
    allowed_classes=CLASSES,
    attribute_filter=_allowed,
    tag_attribute_values={"th": {"scope": {"col"}}},
    set_tag_attribute_values={"a": {"target": "_blank"}},
    link_rel="noopener noreferrer nofollow",
    url_schemes={"http", "https", "mailto"},
    url_relative="deny",
    clean_content_tags={"script", "style"},
)


def _markdown() -> MarkdownIt:
    made = MarkdownIt("commonmark", {"html": False, "linkify": False, "typographer": False, "breaks": True, "maxNesting": NESTING})
    made.enable(["table", "strikethrough"])
    made.disable(["html_block", "html_inline"])
    made.validateLink = lambda url: LINK.match(url) is not None  # type: ignore[method-assign]
    formulas.add_to(made)
    rules: dict[str, Callable[..., str]] = {
        "formula": _formula, "image": _picture, "fence": _code, "code_block": _code,
    }  # fmt: skip
    for name, rule in rules.items():
        made.add_render_rule(name, rule)
    return made


def _formula(_: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: dict[str, Any]) -> str:
    token = tokens[index]
    made = formulas.mathml(token.content, token.meta["display"]) if time.monotonic() < env["end"] else None
    made = made or f'<code class="formula">{html.escape(token.meta["source"])}</code>'
    return f'<div class="formula">{made}</div>\n' if token.block else made


def _picture(_: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    """Never fetched: a link to it, or its words where a link stands around it already."""
    token = tokens[index]
    source = str(token.attrs.get("src", ""))
    words = html.escape(token.content or source)
    inside = sum(token.nesting for token in tokens[:index] if token.type in ("link_open", "link_close"))
    return words if inside else f'<a class="picture" href="{html.escape(source)}">{words}</a>'


def _code(_: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: dict[str, Any]) -> str:
    return "".join(_code_blocks(tokens[index], env))


def _code_blocks(token: Token, env: dict[str, Any]) -> Iterator[str]:
    language = (token.info.split() or [""])[0].lower()[:30]
    content = token.content.removesuffix("\n")
    made = colours.coloured(content, language) if language and time.monotonic() < env["end"] else None
    lines = (made or html.escape(content)).split("\n")
    for first in range(0, len(lines), LINES):
        on = f' class="{GOES_ON}"' if first else ""
        yield f'<pre{on}><code class="highlight">{chr(10).join(lines[first : first + LINES])}</code></pre>\n'


_MARKDOWN = _markdown()


def blocks(text: str, patience_s: float = PATIENCE_S) -> list[str]:
    """HTML of each block. What is still unread after `patience_s` is shown as it was written."""
    env: dict[str, Any] = {"end": time.monotonic() + patience_s}
    tokens: list[Token] = []
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "\ufffd")
    _MARKDOWN.block.parse(text, _MARKDOWN, env, tokens)
    lines = text.split("\n")
    made = (_CLEANER.clean(piece) for group in _groups(tokens) for piece in _rendered(group, lines, env))
    return [block for block in made if block.strip()]


def _groups(tokens: list[Token]) -> Iterator[list[Token]]:
    """The tokens of each block at the top."""
    group: list[Token] = []
    depth = 0
    for token in tokens:
        group.append(token)
        depth += token.nesting
        if not depth:
            yield group
            group = []


def _rendered(group: list[Token], lines: list[str], env: dict[str, Any]) -> Iterator[str]:
    first = group[0]
    if max(token.level for token in group) >= NESTING - 2 or sum(token.type == "th_open" for token in group) > COLUMNS:
        assert first.map, "blocks know their lines"
        yield from escaped("\n".join(lines[slice(*first.map)]))
    elif first.type in ("fence", "code_block"):
        yield from _code_blocks(first, env)
    elif first.type == "table_open":
        body = next((place for place, token in enumerate(group) if token.type == "tbody_open"), len(group) - 1)
        yield from _parts(group[: body + 1], _inside(group[body + 1 :], 2), group[-2:] if body < len(group) - 1 else group[-1:], env)
    elif first.type in ("bullet_list_open", "ordered_list_open"):
        yield from _parts(group[:1], _inside(group[1:], 1), group[-1:], env)
    elif first.type == "paragraph_open":
        for number, piece in enumerate(_pieces(group[1].content)):
            first.attrs = {"class": GOES_ON} if number else {}
            group[1].content = piece
            yield _html(group, env)
    else:
        yield _html(group, env)


def _inside(tokens: list[Token], level: int) -> list[list[Token]]:
    """Rows or items: groups of tokens that begin at `level`."""
    return list(_groups([token for token in tokens if token.level >= level]))


def _parts(opening: list[Token], items: list[list[Token]], closing: list[Token], env: dict[str, Any]) -> Iterator[str]:
    """Blocks of so many items each, every one between the same tokens."""
    start = int(opening[0].attrs.get("start", 1))
    for first in range(0, max(1, len(items)), ROWS):
        if first:
            opening[0].attrs["class"] = GOES_ON
            if opening[0].type == "ordered_list_open":
                opening[0].attrs["start"] = start + first
        yield _html([*opening, *(token for item in items[first : first + ROWS] for token in item), *closing], env)


def _pieces(text: str) -> Iterator[str]:
    """Cut where a line or a word ends."""
    while len(text) > INLINE_CHARACTERS:
        cut = max(text.rfind("\n", 1, INLINE_CHARACTERS), text.rfind(" ", INLINE_CHARACTERS // 2, INLINE_CHARACTERS))
        cut = cut if cut > 0 else INLINE_CHARACTERS
        yield text[:cut]
        text = text[cut:].lstrip("\n ")
    yield text


def _html(tokens: list[Token], env: dict[str, Any]) -> str:
    for token in tokens:
        if token.type == "inline":
            token.children = []
            for piece in _pieces(token.content):
                token.children += _inline(piece, env)
        elif token.tag in ("h1", "h2", "h3", "h4"):  # the page has its own headings above these
            token.tag = f"h{min(6, int(token.tag[1]) + 2)}"
        elif token.tag in ("th", "td"):
            aligned = re.fullmatch("text-align:(left|center|right)", str(token.attrs.get("style", "")))
            token.attrs = {**({"scope": "col"} if token.tag == "th" else {}), **({"class": aligned[1]} if aligned else {})}
    return str(_MARKDOWN.renderer.render(tokens, _MARKDOWN.options, env))


def _inline(text: str, env: dict[str, Any]) -> list[Token]:
    found: list[Token] = []
    if time.monotonic() < env["end"]:
        _MARKDOWN.inline.parse(text, _MARKDOWN, env, found)
    else:
        found = [Token("text", "", 0, content=text)]
    for token in found:
        if token.type == "text_special":  # a sign that a backslash or an entity made ordinary
            token.type = "text"
    return found


def main() -> None:
    """A JSON text on each line of standard input, and its blocks as JSON on each line of standard output."""
    with contextlib.suppress(ImportError, ValueError, OSError):  # Windows has no such limits
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    for line in sys.stdin:
        print(json.dumps(blocks(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
