"""What the page says and keeps when the server is loading, busy, full or gone, and when a tab is closed too early."""

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import httpx
from playwright.sync_api import expect
from tests.serve.browser.conftest import Site, answers, ask, finishes, message_box


def notice(page: Any) -> Any:
    return page.locator("#notice")


def health_says(state: str, route: Any) -> None:
    route.fulfill(status=200, content_type="application/json", body=f'{{"status": "{state}"}}')


def test_while_the_model_is_loading_messages_wait(site: Site, new_page: Callable[..., Any]) -> None:
    service = site.up.service
    service.state = "loading"
    try:
        page = new_page()
        expect(notice(page)).to_contain_text("The model is being loaded.")
        site.script.add(status=503, message="the model is being loaded", code="loading", headers={"Retry-After": "5"})
        site.script.add("At last.")
        ask(page, "Are you there?")
        expect(page.locator(".message.user")).to_be_visible()
        expect(page.get_by_role("button", name="Stop")).to_be_visible()
        expect(notice(page)).to_contain_text("The model is being loaded.")
    finally:
        service.state = "ready"
    expect(answers(page)).to_have_text("At last.")
    expect(notice(page)).to_be_hidden()


def test_a_model_that_cannot_be_loaded_and_a_server_that_ends_are_said(page: Any, site: Site) -> None:
    for state, words in (("failed", "could not be loaded"), ("draining", "shut down or restarted"), ("ready", "")):
        page.context.unroute("**/health")
        page.context.route("**/health", partial(health_says, state))
        if state != "ready":
            page.evaluate("async () => { (await import('/static/health.js')).untilReady(); }")
            expect(notice(page)).to_contain_text(words)
        else:
            expect(notice(page)).to_be_hidden()


def test_a_busy_server_is_asked_again_when_it_says(page: Any, site: Site) -> None:
    site.script.add(status=429, message="the queue is full", code="busy", headers={"Retry-After": "1"})
    site.script.add("Here I am.")
    ask(page, "Hello?")
    expect(notice(page)).to_contain_text("The server is busy. Your message is kept and sent again in 1 s")
    expect(answers(page)).to_have_text("Here I am.")
    expect(notice(page)).to_be_hidden()


def test_waiting_for_a_busy_server_can_be_given_up(page: Any, site: Site) -> None:
    site.script.add(status=429, message="the queue is full", code="busy", headers={"Retry-After": "60"})
    ask(page, "Hello?")
    expect(notice(page)).to_contain_text("sent again in 60 s")
    page.keyboard.press("Escape")
    expect(notice(page)).to_be_hidden()
    expect(page.get_by_text("This message has no answer yet.")).to_be_visible()


def test_a_full_context_is_said_with_its_numbers(page: Any, site: Site) -> None:
    words = "the prompt has 2100 tokens, and the model's context is 2048"
    site.script.add(status=400, message=words, code="context_length_exceeded")
    ask(page, "A long story.")
    expect(notice(page)).to_contain_text(f"The context is full: {words}")
    expect(page.get_by_text("This message has no answer yet.")).to_be_visible()
    site.script.add("A short one.")
    ask(page, "A short story.")
    expect(answers(page)).to_have_text("A short one.")
    expect(notice(page)).to_be_hidden()
    assert site.script.bodies[-1]["messages"] == [{"role": "user", "content": "A short story."}]
    expect(page.locator(".message.user .versions")).to_contain_text("2/2")


def test_what_the_server_refuses_is_said(page: Any, site: Site) -> None:
    site.script.add(status=400, message="message 1 (user): contains the template tag [INST]")
    ask(page, "[INST]")
    expect(notice(page)).to_contain_text("contains the template tag [INST]")
    page.get_by_role("button", name="Dismiss").click()
    expect(notice(page)).to_be_hidden()
    expect(message_box(page)).to_be_focused()


def test_while_the_server_is_gone_nothing_is_lost(page: Any, site: Site) -> None:
    page.context.set_offline(True)
    site.script.add("Welcome back.")
    ask(page, "Is anybody there?")
    expect(notice(page)).to_contain_text("The server cannot be reached. What you write is kept")
    expect(page.locator(".message.user .message-body")).to_have_text("Is anybody there?")
    page.context.set_offline(False)
    expect(answers(page)).to_have_text("Welcome back.")
    expect(notice(page)).to_be_hidden()
    finishes(page)
    [saved] = site.conversations()
    assert [one["content"] for one in saved["nodes"]] == ["Is anybody there?", "Welcome back."]


def test_what_could_not_be_saved_is_saved_by_the_next_tab(page: Any, site: Site, new_page: Callable[..., Any]) -> None:
    page.context.set_offline(True)
    ask(page, "Remember me.")
    expect(notice(page)).to_contain_text("cannot be reached")
    page.close(run_before_unload=False)
    page.context.set_offline(False)
    another = new_page(context=page.context)
    expect(another.get_by_role("link", name="Remember me.")).to_be_visible()
    [saved] = site.conversations()
    assert [one["content"] for one in saved["nodes"]] == ["Remember me."]


def test_a_connection_that_breaks_keeps_what_came(page: Any, site: Site) -> None:
    site.script.add("Half an ", "answer", breaks=True, delay_s=0.3)
    ask(page, "Tell me.")
    expect(page.locator(".message-note", has_text="Interrupted")).to_be_visible()
    expect(answers(page)).to_have_text("Half an answer")
    site.script.add(" and the rest.")
    page.get_by_role("button", name="Continue").click()
    expect(answers(page)).to_have_text("Half an answer and the rest.")
    expect(notice(page)).to_be_hidden()


def test_a_tab_closed_in_mid_answer_loses_nothing(page: Any, site: Site, new_page: Callable[..., Any]) -> None:
    site.script.add("The first half, ", "the second, ", "the third", gate=threading.Event())
    ask(page, "A long answer, please.")
    expect(answers(page)).to_have_text("The first half,")
    page.goto("about:blank")
    again = new_page(context=page.context)
    again.get_by_role("link", name="A long answer, please.").click()
    expect(answers(again)).to_have_text("The first half,")
    expect(again.locator(".message-note", has_text="Interrupted")).to_be_visible()
    expect(again.get_by_role("button", name="Continue")).to_be_visible()


def test_what_is_not_yet_sent_is_still_there_after_a_reload(page: Any, site: Site) -> None:
    message_box(page).fill("Half a thought")
    page.reload()
    expect(message_box(page)).to_have_value("Half a thought")
    site.script.add("Go on.")
    message_box(page).press("Enter")
    expect(answers(page)).to_have_text("Go on.")
    page.get_by_role("button", name="+ New conversation").click()
    expect(message_box(page)).to_have_value("")


def test_tabs_follow_each_other(page: Any, site: Site, new_page: Callable[..., Any]) -> None:
    site.script.add("In Lima.")
    ask(page, "Where does Ada live?")
    expect(answers(page)).to_have_text("In Lima.")
    finishes(page)
    other = new_page(page.url.removeprefix(site.up.url), context=page.context)
    expect(answers(other)).to_have_text("In Lima.")
    message_box(other).fill("My own draft")
    site.script.add("In Oslo.")
    ask(page, "And Ben?")
    expect(answers(other)).to_have_text(["In Lima.", "In Oslo."])
    expect(message_box(other)).to_have_value("My own draft")
    page.get_by_role("button", name="More for Where does Ada live?").click()
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(notice(other)).to_contain_text("deleted in another tab")


def test_a_model_that_is_gone_after_a_restart_is_said_until_another_is_chosen(page: Any, site: Site) -> None:
    left = httpx.get(f"{site.up.v1}/models").json()
    left["data"] = [one for one in left["data"] if one["id"] == "endless"]
    page.route("**/v1/models", lambda route: route.fulfill(json=left))
    site.script.add(status=404, message="no model 'short'; there are endless", code="model_not_found")
    ask(page, "Hello?")
    expect(notice(page)).to_contain_text("no model 'short'; there are endless. Choose another one")
    select = page.locator("#model-slot select")
    expect(select.locator("option:checked")).to_have_text("short (not served)")
    ask(page, "And now?")
    expect(notice(page)).to_contain_text("The model “short” is not served here; choose another one.")
    expect(message_box(page)).to_have_value("And now?")
    select.select_option("endless")
    site.script.add("Here.")
    message_box(page).press("Enter")
    expect(answers(page)).to_have_text("Here.")
    expect(notice(page)).to_be_hidden()
    assert site.script.bodies[-1]["model"] == "endless"


def test_another_tab_says_that_an_answer_is_being_written(page: Any, site: Site, new_page: Callable[..., Any]) -> None:
    gate = threading.Event()
    site.script.add("One, ", "two.", gate=gate)
    ask(page, "Count.")
    expect(answers(page)).to_have_text("One,")
    page.wait_for_function("() => !Object.keys(localStorage).some((key) => key.startsWith('llamaherd.outbox.'))")
    other = new_page(page.url.removeprefix(site.up.url), context=page.context)
    expect(other.locator(".message-note:visible")).to_have_text("Being written in another tab.")
    expect(other.get_by_role("button", name="Continue")).to_have_count(0)
    gate.set()
    expect(answers(other)).to_have_text("One, two.")
    expect(other.locator(".message-note:visible")).to_have_count(0)
    site.script.add("Three, ", "four.", gate=threading.Event())
    ask(page, "Go on.")
    expect(other.locator(".message-note:visible")).to_have_text("Being written in another tab.")
    page.close(run_before_unload=False)
    expect(other.locator(".message-note:visible")).to_have_text("Interrupted: this is what had come.")
    expect(other.get_by_role("button", name="Continue")).to_be_visible()
