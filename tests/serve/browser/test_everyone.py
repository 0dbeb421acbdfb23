"""For everyone: phones, keyboards, screen readers, light and dark, less motion."""

import threading
from collections.abc import Callable
from typing import Any

from playwright.sync_api import expect
from tests.serve.browser.conftest import Site, answers, ask, message_box

PHONE = {"viewport": {"width": 360, "height": 640}, "has_touch": True, "is_mobile": True}
LEAST_TARGET_PX = 44


def test_the_phone_layout(site: Site, new_page: Callable[..., Any]) -> None:
    code = "```python\n" + "print('a very long line of code') " * 10 + "\n```"
    id = site.saved(
        [("Where does Ada live? " + "x" * 300, f"In Lima.\n\n{code}\n\n| a | b |\n|---|---|\n| {'y' * 80} | z |")], title="Cities"
    )
    page = new_page(f"/#/c/{id}", **PHONE)
    expect(answers(page)).to_contain_text("In Lima.")
    drawer = page.get_by_role("navigation", name="Conversations")
    expect(drawer).to_be_hidden()
    wide = "() => [document.documentElement, document.getElementById('conversation')].map((one) => one.scrollWidth - one.clientWidth)"
    assert page.evaluate(wide) == [0, 0]

    def small() -> list[str]:
        return page.evaluate(
            """(least) => [...document.querySelectorAll("button, select, textarea, #sidebar a, #sidebar input")]
              .filter((one) => one.checkVisibility() && one.getClientRects().length && !one.closest(".md"))
              .map((one) => [one.outerHTML.slice(0, 90), one.getBoundingClientRect()])
              .filter(([, box]) => Math.min(box.width, box.height) < least - 0.5).map(([html]) => html)""",
            LEAST_TARGET_PX,
        )

    assert small() == []
    page.get_by_role("button", name="Conversations").tap()
    expect(drawer).to_be_visible()
    assert small() == []
    assert page.evaluate(wide)[0] == 0
    page.keyboard.press("Escape")
    expect(drawer).to_be_hidden()
    expect(page.get_by_role("button", name="Conversations")).to_be_focused()
    site.script.add("In Oslo.")
    message_box(page).fill("And Ben?")
    page.get_by_role("button", name="Send").tap()
    expect(answers(page).last).to_have_text("In Oslo.")


def test_landmarks_and_the_skip_link(page: Any) -> None:
    for role, name in (
        ("banner", None),
        ("navigation", "Conversations"),
        ("main", None),
        ("log", "Conversation"),
        ("form", "Write a message"),
    ):
        expect(page.get_by_role(role, name=name, exact=True) if name else page.get_by_role(role)).to_be_visible()
    page.evaluate("() => { document.body.tabIndex = -1; document.body.focus(); }")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the message box")).to_be_focused()
    page.keyboard.press("Enter")
    expect(message_box(page)).to_be_focused()
    assert page.url.count("#message") == 0


def test_finished_answers_are_announced_and_tokens_are_not(page: Any, site: Site) -> None:
    page.evaluate(
        """() => {
          window.said = [];
          const box = document.getElementById("announcer");
          new MutationObserver(() => { if (box.textContent) window.said.push(box.textContent); }).observe(box, { childList: true, characterData: true, subtree: true });
        }"""
    )
    site.script.add(*["Ada", "lives", "in", "Lima", "."], delay_s=0.03)
    ask(page, "Where?")
    expect(page.locator("#announcer")).to_have_text("Answer: AdalivesinLima.")
    assert page.evaluate("() => window.said") == ["Answering", "Answer: AdalivesinLima."]
    expect(page.get_by_role("log")).to_have_attribute("aria-live", "off")


def test_everything_by_keyboard(page: Any, site: Site) -> None:
    site.script.add("One.")
    site.script.add("Two.")
    page.keyboard.type("First?")
    page.keyboard.press("Enter")
    expect(answers(page)).to_have_text("One.")
    page.keyboard.type("Second?")
    page.keyboard.press("Enter")
    expect(answers(page)).to_have_count(2)
    page.keyboard.press("Alt+ArrowUp")
    expect(page.locator(".message").nth(3)).to_be_focused()
    page.keyboard.press("Alt+ArrowUp")
    expect(page.locator(".message").nth(2)).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.locator(".message").nth(2).get_by_role("button", name="Copy")).to_be_focused()
    page.keyboard.press("Control+/")
    dialog = page.get_by_role("dialog", name="Keyboard shortcuts")
    expect(dialog).to_contain_text("Regenerate the last answer")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(page.locator(".message").nth(2).get_by_role("button", name="Copy")).to_be_focused()
    page.keyboard.press("Control+Shift+S")
    expect(page.get_by_role("navigation", name="Conversations")).to_be_hidden()
    page.keyboard.press("Control+k")
    expect(page.get_by_label("Search conversations")).to_be_focused()


def test_stopping_by_button_gives_the_focus_back(page: Any, site: Site) -> None:
    site.script.add("One", " two", gate=threading.Event())
    ask(page, "Count.")
    expect(answers(page)).to_have_text("One")
    page.get_by_role("button", name="Stop").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Stop")).to_be_hidden()
    expect(message_box(page)).to_be_focused()


def test_the_theme_follows_the_system_or_the_choice(new_page: Callable[..., Any]) -> None:
    page = new_page(color_scheme="dark")
    background = "() => getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(background)
    page.emulate_media(color_scheme="light")
    light = page.evaluate(background)
    assert dark != light
    page.get_by_role("button", name="Theme: as the system").click()
    page.get_by_role("button", name="Theme: light").click()
    expect(page.get_by_role("button", name="Theme: dark")).to_be_visible()
    assert page.evaluate(background) == dark
    page.reload()
    assert page.evaluate(background) == dark
    page.get_by_role("button", name="Theme: dark").click()
    assert page.evaluate(background) == light


def test_less_motion_where_it_is_asked_for(new_page: Callable[..., Any], site: Site) -> None:
    page = new_page(reduced_motion="reduce")
    site.script.add(hangs=True)
    ask(page, "Hello?")
    waiting = page.locator(".message.assistant .message-body")
    expect(waiting).to_have_class("message-body waiting")
    assert waiting.evaluate("one => getComputedStyle(one, '::after').animationName") == "none"
