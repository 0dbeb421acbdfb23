"""Code in colours, and the style sheet."""

import re
from html.parser import HTMLParser

import pytest
from pygments.styles import get_style_by_name

from llamaherd.serve.colours import CHARACTERS, DARK, LIGHT, LINE_CHARACTERS, coloured, stylesheet
from llamaherd.serve.page.routes import FILES


def plain(code: str) -> str:
    """The text of HTML."""
    found: list[str] = []
    parser = HTMLParser()
    parser.handle_data = found.append  # type: ignore[method-assign]
    parser.feed(code)
    parser.close()
    return "".join(found)


@pytest.mark.parametrize(
    ("code", "language"),
    [("def f(x):\n    return x < 1\n\n", "python"), ("\n<a>&amp;\n", "html"), ("SELECT 1", "SQL"), ("", "c"), ("f'{" * 40, "py")],
)
def test_colours_change_no_letter(code: str, language: str) -> None:
    made = coloured(code, language)
    assert made is not None
    assert plain(made) == code
    assert all(line.count("<span") == line.count("</span>") for line in made.split("\n"))


def test_what_is_not_coloured() -> None:
    assert coloured("x", "no-such-language") is None
    assert coloured("x\n" * CHARACTERS, "python") is None
    assert coloured("x" * (LINE_CHARACTERS + 1), "python") is None


def luminance(colour: str) -> float:
    """Of WCAG 2.1."""
    colour = colour.lstrip("#")
    colour = "".join(2 * digit for digit in colour) if len(colour) == 3 else colour
    parts = [int(colour[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    red, green, blue = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize(("name", "sign"), [(LIGHT, "#f"), (DARK, "#1")])
def test_every_colour_stands_out_from_the_page(name: str, sign: str) -> None:
    [page] = {found for found in re.findall(r"--code-bg: (#\w+)", FILES["app.css"].content.decode()) if found.startswith(sign)}
    colours = [(f"#{token['color']}", f"#{token['bgcolor']}" if token["bgcolor"] else page) for _, token in get_style_by_name(name)]
    for colour, behind in colours:
        if colour == "#None":
            continue
        low, high = sorted((luminance(colour), luminance(behind)))
        assert (high + 0.05) / (low + 0.05) >= 4.5, (colour, behind)


def test_the_style_sheet_has_both_themes_and_loads_nothing() -> None:
    css = stylesheet()
    for start in (":root[data-theme=light] .highlight", ":root[data-theme=dark] .highlight", "@media (prefers-color-scheme: dark)"):
        assert f"{start} " in css
    assert all(re.match(r"(:root\S+ \.highlight \.\w+ \{.*|@media .*\{|\})$", line) for line in css.splitlines()), "of tokens alone"
    assert css.count("{") == css.count("}")
    assert not re.search(r"url\(|@import|https?:", css)
