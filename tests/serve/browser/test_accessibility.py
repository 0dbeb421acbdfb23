"""axe-core finds nothing, in light and dark, on a desk and on a phone; everything goes by keyboard; text can grow."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect
from tests.serve.browser.conftest import Site, answers, ask

axe = pytest.importorskip("axe_playwright_python", reason="accessibility is checked with axe-playwright-python (the dev extra)")

SOURCE = (Path(axe.__file__).parent / "axe.min.js").read_text()
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"], "resultTypes": ["violations"]}
SIZES = {"desk": {"width": 1100, "height": 800}, "phone": {"width": 360, "height": 740}}
RICH = "# A title\n\nText with `code`, a [link](https://example.org) and $x^2$.\n\n```python\ndef f(x):\n    return x  # why\n```\n\n"
RICH += "| a | b |\n|---|--:|\n| 1 | 2 |\n\n> said\n\n- [x] done\n- one\n\n1. two\n"


def found(page: Any) -> list[str]:
    """What axe-core finds, of any weight: rule, where, and why."""
    session = page.context.new_cdp_session(page)
    world = session.send("Page.createIsolatedWorld", {"frameId": session.send("Page.getFrameTree")["frameTree"]["frame"]["id"]})

    def run(expression: str) -> Any:
        asked = {"expression": expression, "contextId": world["executionContextId"], "awaitPromise": True, "returnByValue": True}
        answer = session.send("Runtime.evaluate", asked)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    run(f"{SOURCE}; null")  # in a world of its own, so that the page's policy stays in force
    violations = run(f"axe.run(document, {json.dumps(RULES)}).then((result) => result.violations)")
    session.detach()
    return [f"{one['id']} ({one['impact']}): {node['target']} {node['failureSummary']}" for one in violations for node in one["nodes"]]


def rich(page: Any, site: Site) -> None:
    """An answer with everything that Markdown can hold, rendered."""
    site.script.add(RICH, logprobs=True)
    ask(page, "Show me everything.")
    expect(answers(page).last.locator("ol")).to_be_visible()
    expect(page.locator(".message.assistant").last).to_have_attribute("aria-busy", "false")
    expect(page.get_by_role("button", name="Tokens", exact=True).last).to_be_visible()


def messages(page: Any, site: Site) -> None:
    assert found(page) == []
    gate = threading.Event()
    site.script.add("Some ", "text.", gate=gate)
    ask(page, "Hello?")
    expect(answers(page)).to_have_text("Some")
    assert found(page) == []
    gate.set()
    expect(answers(page)).to_have_text("Some text.")
    rich(page, site)
    assert found(page) == []
    page.get_by_role("button", name="Tokens", exact=True).last.click()
    page.locator(".token").first.focus()
    expect(page.get_by_role("tooltip")).to_be_visible()
    assert found(page) == []
    page.keyboard.press("Escape")


def dialogs(page: Any) -> None:
    for name in ("Settings", "The exact prompt", "Keyboard shortcuts"):
        page.get_by_role("button", name=name, exact=True).click()
        dialog = page.get_by_role("dialog")
        expect(dialog).to_be_visible()
        if name == "Settings":
            dialog.get_by_label("Temperature", exact=True).fill("-1")
            expect(dialog.get_by_text("-1 is not.")).to_be_visible()
        if name == "The exact prompt":
            expect(dialog.locator(".prompt-token").first).to_be_visible()
        assert found(page) == [], name
        page.keyboard.press("Escape")
        expect(dialog).to_be_hidden()
        expect(page.get_by_role("button", name=name, exact=True)).to_be_focused()


def comparison(page: Any, site: Site) -> None:
    page.get_by_role("button", name="Compare two models").click()
    assert found(page) == []
    for _ in range(2):
        site.script.add(RICH, logprobs=True)
    page.get_by_label("Prompt for both models").fill("Hello?")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Keep this answer")).to_have_count(2)
    expect(page.locator(".compare-answer ol")).to_have_count(2)
    page.locator(".compare-column").first.get_by_role("button", name="Tokens").click()
    assert found(page) == []
    page.get_by_role("button", name="Back to the conversation").click()


def errors_edits_and_the_list(page: Any, site: Site) -> None:
    site.script.add(status=500, message="it broke")
    ask(page, "Hello?")
    expect(page.get_by_role("alert").filter(has_text="it broke")).to_be_visible()
    assert found(page) == []
    page.locator(".message.user").last.get_by_role("button", name="Edit").click()
    assert found(page) == []
    page.keyboard.press("Escape")
    if not page.locator("#sidebar").is_visible():
        page.get_by_role("button", name="Conversations", exact=True).click()
    page.get_by_role("button", name="More for An old one").click()
    assert found(page) == []


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_anywhere(site: Site, new_page: Callable[..., Any], scheme: str, size: str) -> None:
    site.saved([("One", "Two")], "An old one")
    page = new_page(viewport=SIZES[size], color_scheme=scheme, reduced_motion="reduce")
    messages(page, site)
    dialogs(page)
    comparison(page, site)
    errors_edits_and_the_list(page, site)


def test_a_whole_conversation_by_keyboard_alone(page: Any, site: Site) -> None:
    def tab_to(name: str, role: str = "button", most: int = 60) -> None:
        for _ in range(most):
            page.keyboard.press("Tab")
            there = page.evaluate(
                "[document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent, document.activeElement.localName]"
            )
            if there[0].strip() == name:
                assert page.evaluate("document.activeElement.matches(':focus-visible')")
                return
        raise AssertionError(f"no way by Tab to {role} {name!r}")

    site.script.add("First.", logprobs=True)
    page.keyboard.type("Hello?")
    page.keyboard.press("Enter")
    expect(answers(page)).to_have_text("First.")
    page.evaluate("document.activeElement.blur()")
    tab_to("Settings")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog", name="Settings")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog", name="Settings")).to_be_hidden()
    site.script.add("Second.", logprobs=True)
    tab_to("Regenerate")
    page.keyboard.press("Enter")
    expect(answers(page)).to_have_text("Second.")
    tab_to("Tokens")
    page.keyboard.press("Space")
    expect(page.locator(".token")).to_have_count(1)
    page.evaluate("document.querySelector('.token').focus()")
    expect(page.get_by_role("tooltip")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("tooltip")).to_have_count(0)
    page.evaluate("document.getElementById('title').scrollIntoView()")
    page.get_by_role("button", name="Compare two models").focus()
    page.keyboard.press("Enter")
    for text in ("One.", "Two."):
        site.script.add(text)
    page.keyboard.type("Both?")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Keep this answer")).to_have_count(2)
    tab_to("Keep this answer")
    page.keyboard.press("Enter")
    expect(page.get_by_label("Message", exact=True)).to_be_focused()
    expect(page.locator(".message.assistant .versions").last).to_contain_text("2/2")


@pytest.mark.parametrize("size", [{"width": 640, "height": 400}, {"width": 320, "height": 256}])
def test_at_twice_and_four_times_the_size_nothing_is_cut_off(new_page: Callable[..., Any], site: Site, size: dict[str, int]) -> None:
    """1280 x 800 at 200% is 640 x 400 to the page; 320 x 256 is WCAG's size for reflow (1.4.10)."""
    page = new_page(viewport=size)
    rich(page, site)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for name in ("Send", "Settings", "Compare two models"):
        box = page.get_by_role("button", name=name, exact=True).bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= size["width"]
        assert box["y"] + box["height"] <= size["height"]
    page.get_by_role("button", name="Settings", exact=True).click()
    dialog = page.get_by_role("dialog", name="Settings")
    box = dialog.bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= size["width"]
    dialog.get_by_role("button", name="Save").scroll_into_view_if_needed()
    expect(dialog.get_by_role("button", name="Save")).to_be_in_viewport()
