"""Asking and answering on the chat page."""

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import expect
from tests.serve.browser.conftest import Site, answers, ask, finishes, message_box


def test_a_real_answer_streams_in_and_is_saved(page: Any, site: Site) -> None:
    ask(page, "Where does Ada live?")
    expect(page.locator(".message.assistant[aria-busy=false]")).to_be_visible()
    expect(page).to_have_title("Where does Ada live? · llamaherd")
    finishes(page)
    [saved] = site.conversations()
    assert [one["role"] for one in saved["nodes"]] == ["user", "assistant"]
    page.reload()
    expect(page.locator(".message.user .message-body")).to_have_text("Where does Ada live?")
    expect(page.locator(".message.assistant")).to_be_visible()


def test_pieces_are_shown_as_they_come(page: Any, site: Site) -> None:
    gate = threading.Event()
    site.script.add("Ada lives ", "in Lima.", gate=gate)
    ask(page, "Where does Ada live?")
    expect(answers(page)).to_have_text("Ada lives")
    expect(page.locator(".message.assistant")).to_have_attribute("aria-busy", "true")
    gate.set()
    expect(answers(page)).to_have_text("Ada lives in Lima.")
    expect(page.locator(".message.assistant")).to_have_attribute("aria-busy", "false")
    [body] = site.script.bodies
    assert body["messages"] == [{"role": "user", "content": "Where does Ada live?"}]
    assert body["stream"] is True
    assert body["model"] == "short"


@pytest.mark.parametrize("way", ["button", "key"])
def test_stop_closes_the_connection_keeps_what_came_and_it_can_be_continued(page: Any, site: Site, way: str) -> None:
    site.script.add("Ada lives ", "in Lima.", gate=threading.Event())
    ask(page, "Where does Ada live?")
    expect(answers(page)).to_have_text("Ada lives")
    if way == "button":
        page.get_by_role("button", name="Stop").click()
    else:
        page.keyboard.press("Escape")
    expect(page.locator(".message-note", has_text="Stopped")).to_be_visible()
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    finishes(page)
    deadline = time.monotonic() + 5
    while not site.script.left and time.monotonic() < deadline:
        time.sleep(0.01)
    assert site.script.left == 1
    [saved] = site.conversations()
    assert (saved["nodes"][1]["content"], saved["nodes"][1]["meta"]["finish"]) == ("Ada lives ", "stopped")

    site.script.add("in Oslo.")
    page.get_by_role("button", name="Continue").click()
    expect(answers(page)).to_have_text("Ada lives in Oslo.")
    expect(page.locator(".message-note", has_text="Stopped")).to_be_hidden()
    body = site.script.bodies[-1]
    assert body["continue_final_message"] is True
    assert body["messages"][-1] == {"role": "assistant", "content": "Ada lives "}
    finishes(page)
    [saved] = site.conversations()
    assert saved["nodes"][1]["content"] == "Ada lives in Oslo."


def test_an_answer_that_was_cut_can_be_continued(page: Any, site: Site) -> None:
    site.script.add("One, two", finish="length")
    site.script.add(", three.")
    ask(page, "Count.")
    expect(page.get_by_text("Cut at the longest answer.")).to_be_visible()
    page.get_by_role("button", name="Continue").click()
    expect(answers(page)).to_have_text("One, two, three.")
    expect(page.get_by_role("button", name="Continue")).to_have_count(0)


def test_stopped_before_it_began_there_is_no_answer_and_it_can_be_asked_for(page: Any, site: Site) -> None:
    site.script.add(hangs=True)
    ask(page, "Hello?")
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_text("This message has no answer yet.")).to_be_visible()
    expect(page.locator(".message.assistant")).to_have_count(0)
    site.script.add("Hello!")
    page.get_by_role("button", name="Answer it").click()
    expect(answers(page)).to_have_text("Hello!")
    expect(page.get_by_text("This message has no answer yet.")).to_be_hidden()


def test_regenerate_puts_another_answer_beside_and_arrows_switch(page: Any, site: Site) -> None:
    for text in ("First answer.", "Second answer.", "Third answer."):
        site.script.add(text)
    ask(page, "Say something.")
    expect(answers(page)).to_have_text("First answer.")
    page.get_by_role("button", name="Regenerate").click()
    expect(answers(page)).to_have_text("Second answer.")
    page.keyboard.press("Control+Shift+Enter")
    expect(answers(page)).to_have_text("Third answer.")
    expect(page.locator(".versions")).to_contain_text("3/3")
    expect(page.get_by_role("button", name="Next version")).to_be_disabled()
    back = page.get_by_role("button", name="Previous version")
    back.focus()
    page.keyboard.press("Enter")
    expect(answers(page)).to_have_text("Second answer.")
    expect(back).to_be_focused()
    page.keyboard.press("Enter")
    expect(answers(page)).to_have_text("First answer.")
    expect(page.locator(".versions")).to_contain_text("1/3")
    assert len(site.script.bodies[-1]["messages"]) == 1
    finishes(page)
    page.reload()
    expect(answers(page)).to_have_text("First answer.")


def test_an_edited_message_makes_a_branch(page: Any, site: Site) -> None:
    for text in ("In Lima.", "Yes.", "In Oslo."):
        site.script.add(text)
    ask(page, "Where does Ada live?")
    expect(answers(page)).to_have_text("In Lima.")
    ask(page, "Sure?")
    expect(answers(page)).to_have_count(2)
    finishes(page)
    page.locator(".message.user").first.get_by_role("button", name="Edit").click()
    page.get_by_label("Edit the message").fill("Where does Ben live?")
    page.keyboard.press("Control+Enter")
    expect(answers(page)).to_have_text(["In Oslo."])
    assert site.script.bodies[-1]["messages"] == [{"role": "user", "content": "Where does Ben live?"}]
    page.get_by_role("button", name="Previous version").click()
    expect(answers(page)).to_have_text(["In Lima.", "Yes."])
    finishes(page)
    [saved] = site.conversations()
    assert len(saved["nodes"]) == 6
    assert sum(one["parent"] is None for one in saved["nodes"]) == 2


def test_an_edit_can_be_given_up_and_an_answer_can_be_rewritten(page: Any, site: Site) -> None:
    site.script.add("In Lima.")
    ask(page, "Where does Ada live?")
    expect(answers(page)).to_have_text("In Lima.")
    message_box(page).press("ArrowUp")
    expect(page.get_by_label("Edit the message")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_label("Edit the message")).to_have_count(0)
    expect(page.locator(".message.user").get_by_role("button", name="Edit")).to_be_focused()
    page.locator(".message.assistant").get_by_role("button", name="Edit").click()
    page.get_by_label("Edit the message").fill("In Rome, since")
    page.get_by_role("button", name="Keep").click()
    expect(answers(page)).to_have_text("In Rome, since")
    expect(page.locator(".message.assistant .versions")).to_contain_text("2/2")
    site.script.add(" May.")
    page.get_by_role("button", name="Continue").click()
    expect(answers(page)).to_have_text("In Rome, since May.")


def test_enter_sends_shift_enter_starts_a_line_and_composing_does_neither(page: Any, site: Site) -> None:
    site.script.add("Yes.")
    box = message_box(page)
    box.press_sequentially("one")
    box.press("Shift+Enter")
    box.press_sequentially("two")
    for fields in ("isComposing: true", "keyCode: 229"):
        kept = box.evaluate(
            f"box => box.dispatchEvent(new KeyboardEvent('keydown', {{key: 'Enter', bubbles: true, cancelable: true, {fields}}}))"
        )
        assert kept, "the key is left to the input method"
    expect(box).to_have_value("one\ntwo")
    expect(page.locator(".message")).to_have_count(0)
    box.press("Enter")
    expect(page.locator(".message.user .message-body")).to_have_text("one\ntwo", use_inner_text=True)
    expect(box).to_have_value("")


def test_while_an_answer_comes_what_is_written_stays(page: Any, site: Site) -> None:
    gate = threading.Event()
    site.script.add("One", " two", gate=gate)
    ask(page, "Count.")
    expect(answers(page)).to_have_text("One")
    ask(page, "And further?")
    expect(message_box(page)).to_have_value("And further?")
    expect(page.locator(".message.user")).to_have_count(1)
    gate.set()
    expect(answers(page)).to_have_text("One two")
    expect(message_box(page)).to_have_value("And further?")


def test_answers_in_two_conversations_come_side_by_side(page: Any, site: Site) -> None:
    gate = threading.Event()
    site.script.add("Slow ", "answer.", gate=gate)
    site.script.add("Quick answer.")
    ask(page, "Take your time.")
    expect(answers(page)).to_have_text("Slow")
    page.get_by_role("button", name="+ New conversation").click()
    ask(page, "Be quick.")
    expect(answers(page)).to_have_text("Quick answer.")
    gate.set()
    page.get_by_role("link", name="Take your time.").click()
    expect(answers(page)).to_have_text("Slow answer.")
    finishes(page)
    contents = {one["title"]: one["nodes"][1]["content"] for one in site.conversations()}
    assert contents == {"Take your time.": "Slow answer.", "Be quick.": "Quick answer."}


def test_what_the_server_did_to_an_answer_is_said_below_it(page: Any, site: Site) -> None:
    site.script.add("I can't help with that.", finish="content_filter", logprobs=True)
    ask(page, "How do I burn a barn?")
    expect(page.locator(".message-note:visible")).to_have_text("The guard of this server replaced the answer.")
    expect(page.get_by_role("button", name="Continue")).to_have_count(0)
    site.script.add("Short.", extra={"llamaherd": {"dropped_turns": 2}})
    ask(page, "And now?")
    note = "The context was full: the oldest 2 turns were not read."
    expect(page.locator(".message-note:visible").last).to_have_text(note)
    site.script.add(finish="content_filter")
    page.get_by_role("button", name="Regenerate").last.click()
    expect(page.locator(".message-note:visible").last).to_have_text("The answer is empty.")
    finishes(page)
    page.reload()
    expect(page.locator(".message-note:visible").first).to_have_text("The guard of this server replaced the answer.")
    page.get_by_role("button", name="Previous version").click()
    expect(page.locator(".message-note:visible").last).to_have_text(note)


def test_going_on_can_be_stopped_before_it_begins_and_nothing_is_lost(page: Any, site: Site) -> None:
    site.script.add("Y", breaks=True, delay_s=0.3)
    ask(page, "Who?")
    expect(page.locator(".message-note", has_text="Interrupted")).to_be_visible()
    site.script.add(hangs=True)
    page.get_by_role("button", name="Continue").click()
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".message-note", has_text="Stopped")).to_be_visible()
    finishes(page)
    [saved] = site.conversations()
    assert saved["nodes"][-1]["content"] == "Y"


TEXTS = {
    "rtl": "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd",
    "ltr": "\u4f60\u597d \U0001f469\u200d\U0001f469\u200d\U0001f467 <b>x</b>",
    "long": "x" * 3000,
}


@pytest.mark.parametrize("width", [1100, 360])
def test_any_writing_has_its_place(new_page: Callable[..., Any], site: Site, width: int) -> None:
    page = new_page(viewport={"width": width, "height": 740})
    direction = "(one) => getComputedStyle(one).direction"
    for text in TEXTS.values():
        site.script.add(f"{text}\n\n- {text}\n\n> {text}\n")
        ask(page, text)
        expect(answers(page).last.locator("blockquote")).to_be_visible()
    users = page.locator(".message.user .message-body")
    expect(users).to_have_text(list(TEXTS.values()))
    assert [users.nth(index).evaluate(direction) for index in range(3)] == ["rtl", "ltr", "ltr"]
    for tag in ("p", "ul", "blockquote"):
        assert [answers(page).nth(index).locator(tag).first.evaluate(direction) for index in range(3)] == ["rtl", "ltr", "ltr"], tag
    assert page.locator("#title").evaluate(direction) == "rtl"
    for place in ("document.documentElement", "document.getElementById('conversation')", "document.getElementById('sidebar')"):
        assert page.evaluate(f"{place}.scrollWidth <= {place}.clientWidth"), place
