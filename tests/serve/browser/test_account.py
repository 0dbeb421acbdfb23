"""The page on a server that asks for keys: who is signed in, out again, and nothing of one person shown to the next."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import expect
from tests.serve.browser.conftest import MOST_WAIT_MS, Site, answers, ask, finishes, message_box, scripted_site

from llamaherd.serve.keys import Keys


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, str]:
    return {name: Keys(tmp_path).add(name) for name in ("ann", "ben")}


@pytest.fixture
def keyed(talkers: Path, keys: dict[str, str], tmp_path: Path) -> Iterator[Site]:
    with scripted_site([talkers / "short"], tmp_path, access={"ask_keys": True}) as site:
        yield site


def sign_in(page: Any, key: str) -> None:
    page.get_by_label("Your key").fill(key)
    page.keyboard.press("Enter")
    page.locator("body[data-ready]").wait_for()


def contents(site: Site, key: str) -> list[str]:
    headers = {"Authorization": f"Bearer {key}"}
    heads = httpx.get(f"{site.api}/conversations", headers=headers).json()["data"]
    found = [httpx.get(f"{site.api}/conversations/{head['id']}", headers=headers).json() for head in heads]
    return [node["content"] for one in found for node in one["nodes"]]


def test_two_people_at_one_browser(browser: Any, keyed: Site, keys: dict[str, str]) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(MOST_WAIT_MS)
    page.goto(keyed.up.url)
    sign_in(page, keys["ann"])
    account = page.locator("#account")
    expect(account).to_contain_text("Signed in as ann")
    keyed.script.add("In Lima.")
    ask(page, "Where does Ada live?")
    expect(answers(page)).to_have_text("In Lima.")
    finishes(page)
    address = page.url

    context.clear_cookies()  # as when the session has run out
    ask(page, "And Ben?")
    expect(page.locator("#notice")).to_contain_text("You are not signed in any more.")
    page.get_by_role("button", name="Sign in").click()
    sign_in(page, keys["ann"])
    assert page.url == address
    expect(page.locator(".message.user .message-body")).to_have_text(["Where does Ada live?", "And Ben?"])
    finishes(page)
    assert contents(keyed, keys["ann"]) == ["Where does Ada live?", "In Lima.", "And Ben?"]

    message_box(page).fill("A secret draft")
    context.clear_cookies()
    page.goto(keyed.up.url)
    sign_in(page, keys["ben"])
    expect(account).to_contain_text("Signed in as ben")
    expect(message_box(page)).to_have_value("")
    assert "secret" not in str(page.evaluate("() => ({...localStorage})"))
    expect(page.locator("#conversations li")).to_have_count(0)

    keyed.script.add("Half an answer", hangs_after=True)
    ask(page, "Tell me all.")
    expect(answers(page)).to_have_text("Half an answer")
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Your key")).to_be_visible()
    assert contents(keyed, keys["ben"]) == ["Tell me all.", "Half an answer"]
    assert [key for key in page.evaluate("() => Object.keys(localStorage)") if key not in ("llamaherd.who", "llamaherd.theme")] == []
    assert page.goto(keyed.up.url).status == 401
    context.close()


def test_what_one_could_not_save_is_not_saved_by_another(browser: Any, keyed: Site, keys: dict[str, str]) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(MOST_WAIT_MS)
    page.goto(keyed.up.url)
    sign_in(page, keys["ann"])
    context.clear_cookies()
    ask(page, "Only mine.")
    expect(page.locator("#notice")).to_contain_text("You are not signed in any more.")
    for name, wanted in (("ben", []), ("ann", ["Only mine."])):
        context.clear_cookies()
        page.goto(f"{keyed.up.url}/login")
        sign_in(page, keys[name])
        page.evaluate("async () => (await import('/static/outbox.js')).adopt()")
        assert contents(keyed, keys[name]) == wanted
    assert contents(keyed, keys["ben"]) == []
    context.close()


def test_without_keys_there_is_nobody_to_sign_out(page: Any) -> None:
    expect(page.locator("#account")).to_be_hidden()


def test_a_person_signs_in_and_out(browser: Any, keyed: Site, keys: dict[str, str]) -> None:
    context = browser.new_context()
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if "Content Security" in message.text else None)
    assert page.goto(keyed.up.url).status == 401
    page.get_by_label("Your key").fill("lh-wrong")
    page.get_by_role("button", name="Sign in").press("Enter")
    assert page.get_by_role("alert").inner_text() == "That is no key of this server."
    page.get_by_label("Your key").fill(keys["ann"])
    page.get_by_label("Your key").press("Enter")
    page.wait_for_url(keyed.up.url + "/")
    fetched = "async (place) => (await fetch(place, {method: place === '/v1/models' ? 'GET' : 'POST', redirect: 'manual'})).status"
    assert page.evaluate(fetched, "/v1/models") == 200
    [cookie] = page.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["value"] != keys["ann"]) == (True, "Strict", True)
    page.evaluate(fetched, "/logout")
    assert page.evaluate(fetched, "/v1/models") == 401
    assert page.goto(f"{keyed.up.url}/login").status == 200
    assert complaints == []
    assert page.evaluate("getComputedStyle(document.body).display") == "grid"  # the policy lets its style in
    context.close()
