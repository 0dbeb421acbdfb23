"""What a model writes, as the page shows it: rendered, harmless, and put in without long frames."""

from typing import Any

import httpx
import pytest
from playwright.sync_api import expect
from tests.serve.browser.conftest import Site, answers, ask

RENDER = """async ([text, step]) => {
    const {renderInto, settled} = await import("/static/render.js");
    const element = document.createElement("div");
    element.className = "message-body";
    document.getElementById("messages").append(element);
    for (let end = step; step && end < text.length; end += step) {
        renderInto(element, text.slice(0, end), {streaming: true});
        await new Promise((resolve) => setTimeout(resolve, 2));
    }
    renderInto(element, text);
    await settled(element);
    element.querySelectorAll(".copy").forEach((button) => button.remove());
    return [element.textContent, [...element.querySelectorAll("*")].filter((one) => one.localName !== "div").map((one) => one.localName)];
}"""
"""Renders a text into the page, `step` characters at a time or (0) at once; returns its text and tags in order."""

WHOLE = """async (text) => {
    const answer = await fetch("/api/render", {
        method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify({texts: [text]}),
    });
    const element = new DOMParser().parseFromString((await answer.json()).html[0].join(""), "text/html").body;
    return [element.textContent, [...element.querySelectorAll("*")].filter((one) => one.localName !== "div").map((one) => one.localName)];
}"""

FRAMES = """async (text) => {
    const {renderInto, settled} = await import("/static/render.js");
    const element = document.createElement("div");
    element.className = "message-body";
    document.getElementById("messages").append(element);
    const frames = [];
    let before = performance.now(), going = true;
    requestAnimationFrame(function frame(now) {
        frames.push(now - before);
        before = now;
        if (going) requestAnimationFrame(frame);
    });
    renderInto(element, text);
    await settled(element);
    await new Promise((resolve) => setTimeout(resolve, 200));
    going = false;
    frames.sort((a, b) => a - b);
    return {late: frames[Math.floor(0.95 * frames.length)], count: frames.length, text: element.textContent};
}"""

HOSTILE = """<script>window.hacked = 1</script>

<img src="http://198.51.100.7/x.png" onerror="window.hacked = 2">

![picture](http://198.51.100.7/y.png) and [one](javascript:window.hacked=3), [two](JaVaScRiPt:window.hacked=4), <a href="data:text/html,x">three</a>

<iframe src="http://198.51.100.7/"></iframe><svg onload="window.hacked = 5"></svg><p style="position:fixed">over</p>

<http://198.51.100.7/z> and [fine](https://example.org/page)

$\\frac{1}{$ and $$\\href{javascript:window.hacked=6}{x}$$ and $\\style{background:url(http://198.51.100.7)}{y}$

the end
"""

DOCUMENTS = {
    "lists": "1. one\n\n   more of one\n\n2. two\n   - a\n\n   - b\n\nafter\n\n- x\n\n- y\n",
    "code": "text\n\n```python\ndef f():\n\n    return 1\n\n# end\n```\n\nafter\n\n~~~\na\n\n```\nb\n~~~\nlast",
    "code in a list": "- item\n\n  ```sh\n  ls\n\n  pwd\n  ```\n\n- next\n\nlast",
    "quote and table": "> a\n>\n> b\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n# Title\n\ntext  \nbroken",
    "formulas": "before $a^2$\n\n$$\nx = 1\n\n$$\n\nafter\n\n\\[\ny = 2\n\\]\n\nend",
    "a definition": "[see][1] this\n\nand that\n\n[1]: https://example.org\n",
}


@pytest.mark.parametrize("step", [0, 7])
def test_parts_look_like_the_whole(page: Any, step: int) -> None:
    for name, text in DOCUMENTS.items():
        shown, tags = page.evaluate(RENDER, [text, step])
        whole, wanted = page.evaluate(WHOLE, text)
        assert shown.split() == whole.split(), name
        assert tags == wanted, name


def test_nothing_that_a_model_writes_runs_or_fetches(page: Any, site: Site) -> None:
    requests: list[str] = []
    page.context.on("request", lambda request: requests.append(request.url))
    page.evaluate("window.violations = []; addEventListener('securitypolicyviolation', (e) => violations.push(e.blockedURI))")
    site.script.add(*[HOSTILE[index : index + 9] for index in range(0, len(HOSTILE), 9)])
    ask(page, "Be evil.")
    body = answers(page)
    expect(body).to_contain_text("the end")
    expect(body.locator(".md").last).not_to_have_class("md plain")
    assert page.evaluate("[window.hacked ?? null, window.violations]") == [None, []]
    assert [url for url in requests if not url.startswith(site.up.url + "/")] == []
    assert body.locator("script, img, iframe, svg, object, embed, style, [style], [onerror], [onload], [src]").count() == 0
    links = body.locator("a").evaluate_all("(all) => all.map((one) => [one.protocol, one.rel])")
    assert links
    assert {protocol for protocol, _ in links} <= {"http:", "https:"}
    assert all("noopener" in rel for _, rel in links)


def test_html_of_the_server_is_read_with_suspicion(page: Any) -> None:
    evil = '<p id="message" name="x"><img src="http://198.51.100.7/"><a href="javascript:x()">a</a><script>window.hacked = 1</script><b>kept</b></p>'
    page.route("**/api/render", lambda route: route.fulfill(json={"html": [[evil]]}))
    shown, tags = page.evaluate(RENDER, ["anything", 0])
    assert "kept" in shown
    assert tags == ["p", "a", "b"]
    assert page.locator("#messages [id], #messages [name], #messages [href]").count() == 0
    assert page.evaluate("window.hacked ?? null") is None


LONG = {
    "paragraphs": "\n\n".join(f"Paragraph {index} with **bold** and `code` and some words to fill a line." for index in range(6000)),
    "one paragraph": "word " * 100_000 + "LAST",
    "a table": "| a | b |\n|---|---|\n" + "\n".join(f"| {index} | x |" for index in range(10_000)) + "\n\nLAST",
    "code": "```python\n" + "\n".join(f"x{index} = {index}  # a comment" for index in range(10_000)) + "\n# LAST\n```",
}


@pytest.mark.parametrize("name", LONG)
def test_a_hundred_thousand_tokens_leave_frames_short(page: Any, name: str) -> None:
    found = page.evaluate(FRAMES, LONG[name])
    for _ in range(2):  # others at work on this machine make frames late too: the best of three counts
        found = found if found["late"] < 50 else page.evaluate(FRAMES, LONG[name])
    assert found["count"] > 5
    assert found["late"] < 50, f"19 of 20 frames take up to {found['late']:.0f} ms"
    last = "Paragraph 5999" if name == "paragraphs" else "LAST"
    assert last in found["text"]
    if name == "one paragraph":
        assert found["text"].count("word") == 100_000


def test_finished_blocks_stay_while_the_last_one_grows(page: Any) -> None:
    kept = page.evaluate("""async () => {
        const {renderInto, settled} = await import("/static/render.js");
        const element = document.createElement("div");
        document.getElementById("messages").append(element);
        renderInto(element, "# One\\n\\nfirst *paragraph*\\n\\nsec", {streaming: true});
        await settled(element);
        const heading = element.querySelector("h1");
        renderInto(element, "# One\\n\\nfirst *paragraph*\\n\\nsecond **one**");
        await settled(element);
        return [element.querySelector("h1") === heading, element.querySelector("strong").textContent];
    }""")
    assert kept == [True, "one"]


def test_plain_text_stands_where_rendering_fails(page: Any, site: Site) -> None:
    page.route("**/api/render", lambda route: route.abort())
    site.script.add("some **bold", " text**")
    ask(page, "Hello.")
    expect(answers(page)).to_have_text("some **bold text**")


def test_a_text_that_is_refused_spoils_no_other(page: Any) -> None:
    def route(route: Any) -> None:
        texts = route.request.post_data_json["texts"]
        if any("bad" in text for text in texts):
            route.fulfill(status=400, json={"error": {"message": "no"}})
        else:
            route.fulfill(json={"html": [[f"<p><em>{text}</em></p>"] for text in texts]})

    page.route("**/api/render", route)
    shown = page.evaluate("""async () => {
        const {renderInto, settled} = await import("/static/render.js");
        const all = ["good", "bad", "fine"].map((text) => {
            const element = document.createElement("div");
            document.getElementById("messages").append(element);
            renderInto(element, text);
            return element;
        });
        await Promise.all(all.map(settled));
        return all.map((element) => [element.textContent, Boolean(element.querySelector("em"))]);
    }""")
    assert shown == [["good", True], ["bad", False], ["fine", True]]


def test_code_is_coloured_and_copied_whole(new_page: Any, site: Site) -> None:
    page = new_page(permissions=["clipboard-read", "clipboard-write"])
    source = "def f(x):\n    return x  # <b>\n"
    site.script.add(f"Look:\n\n```python\n{source}```\n")
    ask(page, "Code, please.")
    keyword = answers(page).locator("pre .k").first
    expect(keyword).to_have_text("def")
    colours = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        colours.append(keyword.evaluate("(one) => getComputedStyle(one).color"))
        assert colours[-1] != keyword.evaluate("(one) => getComputedStyle(one.closest('pre')).color")
    assert colours[0] != colours[1]
    answers(page).locator(".code-frame .copy").click()
    expect(answers(page).locator(".code-frame .copy")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == source.rstrip("\n")


def test_formulas_become_mathml(page: Any, site: Site) -> None:
    site.script.add("Then $x^2$ and\n\n$$\\frac{a}{b}$$\n")
    ask(page, "A formula, please.")
    expect(answers(page).locator("math msup")).to_have_count(1)
    expect(answers(page).locator("math[display=block] mfrac")).to_have_count(1)


def test_a_saved_conversation_is_rendered_again(new_page: Any, site: Site) -> None:
    id = site.saved([("Hello", "An **old** answer")])
    page = new_page(f"/#/c/{id}")
    expect(answers(page).locator("strong")).to_have_text("old")
    assert httpx.get(site.up.url).headers["content-security-policy"]
