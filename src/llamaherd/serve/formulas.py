"""Formulas in LaTeX: found in Markdown between `$`, `$$`, `\\(` and `\\[`, and turned into MathML, which browsers draw themselves."""

import html
import inspect
import re
from xml.etree import ElementTree

from latex2mathml import converter, exceptions
from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline

CHARACTERS = 4000
"""Longest formula."""
DEPTH = 60
"""Most elements within each other."""
PAIRS = (("\\[", "\\]"), ("\\(", "\\)"), ("$$", "$$"), ("$", "$"))
REFUSED = re.compile(r"\\(?:newcommand|renewcommand|def|newenvironment|DeclareMathOperator|sideset|href|style|class)(?![A-Za-z])")
"""Macros grow without bound, \\sideset doubles what stands in it, and the others are no business of a formula."""
ERRORS: tuple[type[Exception], ...] = (
    ArithmeticError, AttributeError, LookupError, RuntimeError, StopIteration, TypeError, ValueError,
    *(value for value in vars(exceptions).values() if inspect.isclass(value) and issubclass(value, Exception)),
)  # fmt: skip
"""What latex2mathml raises for what it cannot read."""


def mathml(source: str, display: bool) -> str | None:
    """A `<math>` element, or None for what is too long, too deep, or no LaTeX."""
    if len(source) > CHARACTERS or not source.strip() or REFUSED.search(source):
        return None
    try:
        element = converter.convert_to_element(source, display="block" if display else "inline")
        if _depth(element) > DEPTH:
            return None
    except ERRORS:
        return None
    for one in element.iter():
        if one.text:  # the library writes signs as HTML writes them, beside letters as they are
            one.text = html.unescape(one.text)
    element.attrib.pop("xmlns")
    element.set("alttext", " ".join(source.split()))
    return ElementTree.tostring(element, encoding="unicode")


def _depth(element: ElementTree.Element) -> int:
    depth, level = 0, [element]
    while level and depth <= DEPTH:
        depth, level = depth + 1, [child for one in level for child in one]
    return depth


def inline(state: StateInline, silent: bool) -> bool:
    """The rule for a formula within a line."""
    source = state.src
    for opening, closing in PAIRS:
        if source.startswith(opening, state.pos):
            first = state.pos + len(opening)
            last = _closing(source, closing, first, min(state.posMax, first + CHARACTERS))
            text = source[first:last] if last >= 0 else ""
            if not text.strip() or (opening == "$" and _is_money(source, text, last)):
                continue
            if not silent:
                token = state.push("formula", "math", 0)
                token.content, token.markup = text.strip(), opening
                token.meta = {"display": opening in ("\\[", "$$"), "source": f"{opening}{text}{closing}"}
            state.pos = last + len(closing)
            return True
    return False


def _closing(source: str, closing: str, first: int, end: int) -> int:
    """Where it is closed, or -1; a backslash before a sign takes its meaning from it."""
    place = source.find(closing, first, end)
    while place > 0 and source[place - 1] == "\\" and (place - len(source[:place].rstrip("\\"))) % 2 == 1:
        place = source.find(closing, place + 1, end)
    return place


def _is_money(source: str, text: str, last: int) -> bool:
    """Signs for dollars: a space within, or a digit behind ("from $5 to $6")."""
    return text[0].isspace() or text[-1].isspace() or source[last + 1 : last + 2].isdigit()


def block(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """The rule for a formula on lines of its own. One that is not closed when the text ends is still being written."""
    if state.is_code_block(start):
        return False
    first = state.src[state.bMarks[start] + state.tShift[start] : state.eMarks[start]].rstrip()
    closing = {"$$": "$$", "\\[": "\\]"}.get(first[:2])
    if closing is None:
        return False
    lines, line = [first[2:]], start
    while closing not in lines[-1]:
        line += 1
        outside = line >= end or state.sCount[line] < state.blkIndent
        if outside or state.isEmpty(line) or sum(map(len, lines)) > CHARACTERS:
            if line < state.lineMax or state.level or not any(part.strip() for part in lines):
                return False
            break
        lines.append(state.src[state.bMarks[line] + state.tShift[line] : state.eMarks[line]].rstrip())
    whole, text = closing in lines[-1], "\n".join(lines)
    if whole and (not text.endswith(closing) or text.index(closing) != len(text) - 2):
        return False
    if not silent:
        token = state.push("formula", "math", 0)
        token.block, token.markup, token.map = True, first[:2], [start, line + 1]
        token.content = text.removesuffix(closing).strip() if whole else ""
        token.meta = {"display": True, "source": f"{first[:2]}{text}"}
    state.line = min(line + 1, end)
    return True


def add_to(markdown: MarkdownIt) -> None:
    """Both rules, before those that take the same signs for something else."""
    markdown.inline.ruler.before("escape", "formula", inline)
    markdown.block.ruler.before("fence", "formula", block, {"alt": ["paragraph", "reference", "blockquote", "list"]})
