"""What becomes of Markdown: its forms, and that nothing in it can run, load or hold up."""

import html
import re
import time
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamaherd.serve import markdown
from llamaherd.serve.formulas import mathml
from llamaherd.serve.markdown import blocks


class Seen(HTMLParser):
    """Tags and attributes of HTML, and its text."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.text += data


NAMES = {"href", "title", "rel", "target", "class", "start", "scope"} | markdown.MATH_ATTRIBUTES


def demand_safe(text: str) -> Seen:
    """Only tags and attributes that can neither run nor fetch anything."""
    seen = Seen("".join(blocks(text)))
    for tag, attributes in seen.tags:
        assert tag in markdown.TAGS | markdown.MATH_TAGS
        assert set(attributes) <= NAMES
        if "href" in attributes:
            assert tag == "a"
            assert re.match("(https?://|mailto:)", attributes["href"], re.IGNORECASE)
            assert (attributes["rel"], attributes["target"]) == ("noopener noreferrer nofollow", "_blank")
    return seen


ATTACKS = [
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "<svg/onload=alert(1)>", "<iframe src=javascript:alert(1)>",
    "[x](javascript:alert(1))", "[x](JaVaScRiPt:alert(1))", "[x](java\tscript:alert(1))", "[x](&#106;avascript:alert(1))",
    "[x](javascript&colon;alert(1))", "[x](data:text/html;base64,PHNjcmlwdD4=)", "[x](vbscript:msgbox)", "[x](//evil.com)", "[x](/api/export)",
    "[x]( javascript:alert(1))", "[x](<javascript:alert(1)>)", "[x](\x01javascript:alert(1))", "<javascript:alert(1)>", "<https://a\"onclick=\"b>",
    "![x](http://evil.com/a.png)", "![x](javascript:alert(1))", "![x](data:image/svg+xml,<svg onload=alert(1)>)", '![" onerror="alert(1)](http://a)',
    '[x](http://a "\\" onclick=\\"alert(1)")', "[x](http://a\"onclick=\"alert(1))", "[x]: javascript:alert(1)\n\n[x]", "`<script>`",
    "```<script>\nalert(1)\n```", '```"onclick="x\na\n```', "```html\n<script>alert(1)</script>\n```", "$\\text{<script>alert(1)</script>}$",
    "$<img src=x onerror=alert(1)>$", "$\\href{javascript:alert(1)}{x}$", "$\\style{background:url(http://evil)}{x}$",
    "$\\class{a\" onmouseover=\"b}{x}$", "$\\color{\" onclick=\"alert(1)}x$", "$\\textcolor{red;background:url(x)}{x}$", "$\\unicode{x3c}script$",
    "$&lt;script&gt;alert(1)&lt;/script&gt;$", "$\\text{&lt;img src=x onerror=alert(1)&gt;}$", "$\\hspace{1em\" onclick=\"x}$",
    "$$\\begin{matrix}<style>*{}</style>\\end{matrix}$$", "<math><mtext><table><mglyph><style><!--</style><img title=\"--&gt;&lt;img src=1 onerror=alert(1)&gt;\">",
    "<math href=javascript:alert(1)>x</math>", "$\\text{</math><script>alert(1)</script>}$", "<a href=\"javascript:alert(1)\">x</a>",
    "<style>@import 'http://evil'</style>", "<link rel=stylesheet href=http://evil>", "<base href=http://evil>", "<meta http-equiv=refresh content=0>",
    "<form action=http://evil><button>x</button></form>", "<object data=http://evil>", "<details open ontoggle=alert(1)>", "<!--><img src=x onerror=1>-->",
    "|<script>|\n|-|\n|<img src=x onerror=alert(1)>|", "# <script>x</script>", "- <svg onload=x>", "> <script>x</script>", "~~<b onclick=x>~~",
    "\\<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;", "\u202e<script>\u2066", "<scr\0ipt>alert(1)</scr\0ipt>",
    "<a\nhref=javascript:alert(1)>", "[a](http://b){onclick=alert(1)}", "[![x](javascript:alert(1))](javascript:alert(2))",
]  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("around", ["{}", "text {} more", "> {}", "- {}", "**{}**", "|a|\n|-|\n|{}|", "${}$"])
def test_attacks_come_to_nothing(attack: str, around: str) -> None:
    demand_safe(around.replace("{}", attack))


PIECES = st.one_of(
    st.sampled_from(ATTACKS), st.text(max_size=12),
    st.sampled_from(["`", "```", "```py\n", "$", "$$", "\\(", "\\)", "\\[", "\\]", "*", "**", "_", "~~", "|", "\n", "\n\n", "> ", "- ", "1. ", "# ",
                     "|-|\n", "[", "](", ")", "![", "<", ">", "\\frac{", "}", "^", "\\begin{matrix}", "\\left(", "&", "\\\\", "<http://a>", "\t", "    "]),
)  # fmt: skip


@settings(max_examples=100)
@given(st.lists(PIECES, max_size=15).map("".join))
def test_any_text_is_safe_and_never_fails(text: str) -> None:
    demand_safe(text)


@settings(max_examples=60)
@given(st.text("abc d0123xyz.,", min_size=1, max_size=80).filter(str.strip))
def test_plain_text_stays_what_it_was(text: str) -> None:
    said = Seen("".join(blocks(text))).text
    listed = re.sub(r"^\s*(\d{1,9}\.\s+|\d{1,9}\.$)*", "", text)  # what looks like a list's number is one
    assert "".join(said.split()).endswith("".join(listed.split()))


def test_forms() -> None:
    text = (
        "# Title\n\nA *b* **c** ~~d~~ `e<`  \nline [f](https://g.h/?i=1&j) <k@l.mn>\nmore\n\n> quote\n\n"
        "3. x\n4. y\n   - z\n\n---\n\n|l|r|\n|:-|-:|\n|1|`2`|\n\n    plain code\n\n```python\ndef f(): pass\n```"
    )
    found = blocks(text)
    assert [re.match("<([a-z0-9]+)", block)[1] for block in found] == ["h3", "p", "blockquote", "ol", "hr", "table", "pre", "pre"]  # type: ignore[index]
    link = ' target="_blank" rel="noopener noreferrer nofollow"'
    assert found[1] == (
        f'<p>A <em>b</em> <strong>c</strong> <s>d</s> <code>e&lt;</code><br>\nline <a href="https://g.h/?i=1&amp;j"{link}>f</a> '
        f'<a href="mailto:k@l.mn"{link}>k@l.mn</a><br>\nmore</p>\n'
    )
    assert found[3] == '<ol start="3">\n<li>x</li>\n<li>y\n<ul>\n<li>z</li>\n</ul>\n</li>\n</ol>\n'
    assert '<th scope="col" class="left">l</th>' in found[5]
    assert '<td class="right"><code>2</code></td>' in found[5]
    assert found[6] == '<pre><code class="highlight">plain code</code></pre>\n'
    assert '<span class="k">def</span>' in found[7]


def test_pictures_are_links_and_no_pictures() -> None:
    assert blocks("![alt](http://a/b.png)")[0].startswith('<p><a class="picture" href="http://a/b.png"')
    inside = Seen(blocks("[![alt](http://a/b.png)](http://c)")[0])
    assert [(tag, attributes.get("href")) for tag, attributes in inside.tags] == [("p", None), ("a", "http://c")]
    assert inside.text.strip() == "alt"


@pytest.mark.parametrize(
    ("text", "formula", "display"),
    [
        ("so $x^2$ is", "x^2", "inline"), ("so \\(x^2\\) is", "x^2", "inline"), ("so \\[x^2\\] is", "x^2", "block"), ("so $$x^2$$ is", "x^2", "block"),
        ("$$\nx\n- y\n= z\n$$", "x - y = z", "block"), ("\\[\nx\n\\]", "x", "block"), ("a\n\\[\nx\n\\]\nb", "x", "block"),
        ("- $$\n  x\n  $$", "x", "block"), ("$a\\$b$", "a\\$b", "inline"), ("|f|\n|-|\n|$x_1$|", "x_1", "inline"), ("$a_b$ and _c_", "a_b", "inline"),
    ],
)  # fmt: skip
def test_formulas_between_any_of_their_signs(text: str, formula: str, display: str) -> None:
    tags = demand_safe(text).tags
    found = [attributes for tag, attributes in tags if tag == "math"]
    assert [(one["alttext"], one["display"]) for one in found] == [(formula, display)]


@pytest.mark.parametrize("text", ["from $5 to $6", "$ 5 and 6 $", "costs $5.", "a \\$x\\$ b", "`$x$`", "$$", "$", "\\[", "a $$ b"])
def test_dollars_are_no_formulas(text: str) -> None:
    seen = demand_safe(text)
    assert "math" not in [tag for tag, _ in seen.tags]
    assert "$" in seen.text or "[" in seen.text


@pytest.mark.parametrize(
    "bad", ["\\frac{", "x^a^b", "\\left(", "\\begin{matrix}", "}", "\\def\\a{\\a\\a}\\a", "\\newcommand{\\b}{x}\\b", "^", "\\over"]
)
def test_bad_latex_is_shown_as_it_is(bad: str) -> None:
    assert Seen(blocks(f"a ${bad}$ b")[0]).text.strip() in (f"a ${bad}$ b", f"a {bad} b") or mathml(bad, False)
    assert demand_safe(f"${bad}$")


def test_a_formula_says_what_it_was_and_escapes_it() -> None:
    found = mathml('a<b & "c"', False)
    assert found is not None
    assert html.unescape(found.split('alttext="')[1].split('"')[0]) == 'a<b & "c"'
    assert "<mo>&lt;</mo>" in found


@pytest.mark.parametrize(
    ("unfinished", "tags"),
    [
        ("Text\n\n```python\ndef f(", ["p", "pre"]), ("```", ["pre"]), ("a `b", ["p"]), ("|a|b|\n|-|-|\n|1|", ["table"]), ("|a|b|\n|-", ["p"]),
        ("so\n\n$$\n\\frac{a", ["p", "div"]), ("\\[\nx", ["div"]), ("so $x^", ["p"]), ("**bold", ["p"]), ("[link](http://a", ["p"]), ("- ", ["ul"]),
    ],
)  # fmt: skip
def test_text_that_is_still_being_written(unfinished: str, tags: list[str]) -> None:
    found = blocks(unfinished)
    assert [re.match("<([a-z0-9]+)", block)[1] for block in found] == (tags if unfinished != "```" else found and ["pre"])  # type: ignore[index]


def test_what_grows_keeps_its_first_blocks() -> None:
    text = "One.\n\n- a\n- b\n\nTwo $x$.\n\n```python\nx = 1\n```\n\nThree."
    whole = blocks(text)
    for end in range(len(text)):
        assert blocks(text[:end])[:-2] == whole[: max(0, len(blocks(text[:end])) - 2)]


def test_long_things_are_cut_into_blocks() -> None:
    table = blocks("|a|b|\n|-|-|\n" + "".join(f"|{row}|x|\n" for row in range(250)))
    assert [block.count("<tr>") for block in table] == [101, 101, 51]
    assert [block.startswith('<table class="goes-on">') for block in table] == [False, True, True]
    numbers = blocks("".join(f"{row + 5}. x\n" for row in range(250)))
    assert [re.findall('start="([0-9]+)"', block) for block in numbers] == [["5"], ["105"], ["205"]]
    code = blocks("```python\n" + 'x = """a\n' * 1000 + "```")
    assert [block.count("\n") for block in code] == [400, 400, 200]
    words = "word " * 20_000
    prose = blocks(words)
    assert max(map(len, prose)) < 2 * markdown.INLINE_CHARACTERS
    assert Seen("".join(prose)).text.split() == words.split()
    assert {block.startswith('<p class="goes-on">') for block in prose[1:]} == {True}


@pytest.mark.parametrize("opening", ["> ", "- ", "1. "])
def test_nothing_is_lost_however_deep_it_lies(opening: str) -> None:
    for depth in (5, 25, 40, 70, 500):
        assert "needle" in Seen("".join(blocks(opening * depth + "needle"))).text


def test_a_table_of_very_many_columns_is_shown_as_it_is() -> None:
    found = blocks("|a" * 100 + "|\n" + "|-" * 100 + "|\n|needle|\n")
    assert not any("<table" in block for block in found)
    assert "needle" in "".join(found)


HOSTILE = {
    "brackets": "[" * 100_000, "pictures": "![" * 100_000, "emphasis": "*_" * 100_000, "both": "a**b" * 100_000, "nested": "[[]" * 100_000,
    "tildes": "~~a" * 100_000, "lines": "a\n" * 100_000, "rows": "|a|b|\n|-|-|\n" + "|x|y|\n" * 20_000, "quotes": ">" * 100_000,
    "formulas": "$x^2$ " * 60_000, "fences": "```python\nx=1\n```\n\n" * 10_000, "entities": "&#" * 100_000, "titles": '[a](b "' * 60_000,
    "sideset": "$" + "\\sideset{_a}{_b}{" * 60 + "x" + "}" * 60 + "$", "roots": "$" + "\\sqrt" * 700 + "x$", "braces": "$" + "{" * 1900 + "}" * 1900 + "$",
    "primes": "$x" + "'" * 3900 + "$", "code": "```python\n" + "f'{" * 9000 + "\n```",
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_texts_take_bounded_time(name: str) -> None:
    start = time.perf_counter()
    demand_safe(HOSTILE[name])
    assert time.perf_counter() - start < 15


def test_a_hundred_thousand_tokens_take_bounded_time() -> None:
    text = ("The **quick** brown fox, `jumps` over [the](http://x.y) lazy dog $x^2$. " * 8 + "\n\n") * 600
    start = time.perf_counter()
    found = blocks(text)
    assert time.perf_counter() - start < 10
    assert len(found) == 600
    assert "".join(found).count("fox") == 4800


def test_what_takes_too_long_is_shown_as_it_is() -> None:
    found = blocks("a **b** $x$\n\n```python\nx = 1\n```", patience_s=-1)
    assert found == ["<p>a **b** $x$</p>\n", '<pre><code class="highlight">x = 1</code></pre>\n']
