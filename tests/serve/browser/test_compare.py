"""Two models side by side on one prompt."""

import threading
from collections.abc import Callable
from typing import Any

from playwright.sync_api import expect
from tests.serve.browser.conftest import Site, answers, ask


def open_compare(page: Any) -> tuple[Any, Any]:
    """The two columns."""
    page.get_by_role("button", name="Compare two models").click()
    return page.get_by_role("region", name="First model", exact=True), page.get_by_role("region", name="Second model", exact=True)


def ask_both(page: Any, text: str) -> None:
    page.get_by_label("Prompt for both models").fill(text)
    page.keyboard.press("Enter")


def test_two_models_answer_one_prompt_and_one_answer_is_kept(page: Any, site: Site) -> None:
    first, second = open_compare(page)
    expect(first.get_by_label("First model", exact=True).first).to_have_value("short")
    expect(second.get_by_label("Second model", exact=True).first).to_have_value("endless")
    for text in ("In **Lima**.", "In **Oslo**."):
        site.script.add(text, logprobs=True)
    ask_both(page, "Where does Ada live?")
    texts = {}
    for column in (first, second):
        expect(column.locator("strong")).to_be_visible()
        expect(column.get_by_role("button", name="Keep this answer")).to_be_visible()
        texts[column.locator("select").input_value()] = column.locator("strong").inner_text()
    assert {body["model"] for body in site.script.bodies} == {"short", "endless"}
    assert all(body["messages"] == [{"role": "user", "content": "Where does Ada live?"}] for body in site.script.bodies)
    second.get_by_role("button", name="Keep this answer").click()
    expect(page.locator("#compare-view")).to_be_hidden()
    expect(answers(page)).to_have_text(f"In {texts['endless']}.")
    expect(page.locator(".message.assistant .versions")).to_contain_text("2/2")
    expect(page.locator(".message.assistant h2")).to_have_text("endless")
    expect(page.get_by_role("button", name="Tokens", exact=True)).to_be_visible()
    page.get_by_role("button", name="Previous version").click()
    expect(answers(page)).to_have_text(f"In {texts['short']}.")
    page.get_by_role("button", name="Next version").click()
    site.script.add("Yes.")
    ask(page, "Sure?")
    expect(answers(page).last).to_have_text("Yes.")
    assert [one["content"] for one in site.script.bodies[-1]["messages"]] == [
        "Where does Ada live?",
        f"In **{texts['endless']}**.",
        "Sure?",
    ]


def test_both_go_on_from_the_conversation(page: Any, site: Site) -> None:
    site.script.add("Hello!")
    ask(page, "Hello?")
    expect(answers(page)).to_have_text("Hello!")
    page.get_by_label("Message", exact=True).fill("And now?")
    first, second = open_compare(page)
    expect(page.get_by_label("Prompt for both models")).to_have_value("And now?")
    expect(page.locator("#compare-view")).to_contain_text("2 messages")
    site.script.add("One.")
    site.script.add("Two.")
    page.get_by_role("button", name="Ask both").click()
    expect(first.get_by_role("button", name="Keep this answer")).to_be_visible()
    assert [one["content"] for one in site.script.bodies[-1]["messages"]] == ["Hello?", "Hello!", "And now?"]
    second.get_by_role("button", name="Keep this answer").click()
    expect(answers(page)).to_have_count(2)
    expect(page.get_by_label("Message", exact=True)).to_have_value("")


def test_each_column_stops_and_asks_again_by_itself(page: Any, site: Site) -> None:
    first, second = open_compare(page)
    gate = threading.Event()
    site.script.add("One", " more", gate=gate)
    site.script.add("One", " more", gate=gate)
    ask_both(page, "Count.")
    for column in (first, second):
        expect(column.locator(".compare-answer")).to_have_text("One")
    first.get_by_role("button", name="Stop").click()
    expect(first.get_by_text("Stopped: this is what had come.")).to_be_visible()
    expect(second).to_have_attribute("aria-busy", "true")
    gate.set()
    expect(second.locator(".compare-answer")).to_have_text("One more")
    site.script.add("Again.", logprobs=True)
    first.get_by_role("button", name="Regenerate").click()
    expect(first.locator(".compare-answer")).to_have_text("Again.")
    expect(second.locator(".compare-answer")).to_have_text("One more")
    first.get_by_role("button", name="Tokens").click()
    expect(first.locator(".token")).to_have_count(1)
    first.get_by_role("button", name="Tokens").click()
    expect(first.locator(".compare-answer")).to_have_text("Again.")


def test_a_column_has_settings_of_its_own(page: Any, site: Site) -> None:
    _, second = open_compare(page)
    second.get_by_text("Settings of its own").click()
    second.get_by_label("Temperature of the second model").fill("0")
    second.get_by_label("Second model", exact=True).first.select_option("short")
    site.script.add("One.")
    site.script.add("Two.")
    ask_both(page, "Hello?")
    expect(second.get_by_role("button", name="Keep this answer")).to_be_visible()
    expect(page.get_by_role("button", name="Keep this answer")).to_have_count(2)
    assert sorted((body["model"], body["temperature"]) for body in site.script.bodies) == [("short", 0), ("short", 0.6)]
    second.get_by_label("Temperature of the second model").fill("-2")
    ask_both(page, "Hello?")
    expect(page.get_by_role("alert").filter(has_text="Second model: Temperature is a number from 0 to 100")).to_be_visible()
    assert len(site.script.bodies) == 2


def test_a_failure_of_one_column_is_said_there(page: Any, site: Site) -> None:
    first, second = open_compare(page)
    site.script.add("Fine.")
    site.script.add(status=429, message="the server is busy", code="busy")
    ask_both(page, "Hello?")
    expect(page.get_by_text("The server is busy.")).to_be_visible()
    expect(page.get_by_role("button", name="Keep this answer")).to_have_count(1)
    expect(page.locator(".compare-answer").filter(has_text="Fine.")).to_have_count(1)
    assert first.count() == second.count() == 1


def test_escape_stops_and_then_leaves(page: Any, site: Site) -> None:
    first, _ = open_compare(page)
    expect(page.get_by_label("Prompt for both models")).to_be_focused()
    page.get_by_role("button", name="Ask both").click()
    expect(page.get_by_role("alert").filter(has_text="Write a prompt first.")).to_be_visible()
    for _ in range(2):
        site.script.add("One", " more", gate=threading.Event())
    ask_both(page, "Count.")
    expect(first.locator(".compare-answer")).to_have_text("One")
    page.keyboard.press("Escape")
    expect(first.get_by_text("Stopped")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#compare-view")).to_be_hidden()
    expect(page.get_by_role("button", name="Compare two models")).to_be_focused()
    assert site.conversations() == []


def test_columns_stand_below_each_other_on_a_phone(new_page: Callable[..., Any], site: Site) -> None:
    page = new_page(viewport={"width": 360, "height": 740})
    first, second = open_compare(page)
    above, below = first.bounding_box(), second.bounding_box()
    assert above["x"] == below["x"]
    assert below["y"] >= above["y"] + above["height"]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_while_the_model_is_loading_both_wait_for_it(page: Any, site: Site) -> None:
    first, second = open_compare(page)
    site.up.service.state = "loading"
    try:
        for _ in range(2):
            site.script.add(status=503, message="the model is being loaded", code="loading")
        for text in ("One.", "One."):
            site.script.add(text)
        ask_both(page, "Hello?")
        for column in (first, second):
            expect(column.locator(".message-note")).to_contain_text("The model is still being loaded.")
        second.get_by_role("button", name="Stop").click()
        expect(second.locator(".message-note")).to_have_text("Stopped: this is what had come.")
    finally:
        site.up.service.state = "ready"
    expect(first.locator(".compare-answer")).to_have_text("One.")
    expect(second.locator(".compare-answer")).to_have_text("")
