"""The form that asks for a key, in a real browser."""

import shutil
from pathlib import Path

import pytest

from llamaherd.serve.keys import Keys

CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (make test-system installs it)")
def test_a_person_signs_in_and_out(serve, talkers: Path, tmp_path: Path) -> None:
    sync_api = pytest.importorskip("playwright.sync_api")
    key = Keys(tmp_path).add("ann")
    with (
        serve(models=[str(talkers / "short")], access={"ask_keys": True}, state=str(tmp_path)) as up,
        sync_api.sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page()
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text) if "Content Security" in message.text else None)
        assert page.goto(up.url).status == 401
        page.get_by_label("Your key").fill("lh-wrong")
        page.get_by_role("button", name="Sign in").press("Enter")
        assert page.get_by_role("alert").inner_text() == "That is no key of this server."
        page.get_by_label("Your key").fill(key)
        page.get_by_label("Your key").press("Enter")
        page.wait_for_url(up.url + "/")
        fetched = "async (place) => (await fetch(place, {method: place === '/v1/models' ? 'GET' : 'POST', redirect: 'manual'})).status"
        assert page.evaluate(fetched, "/v1/models") == 200
        [cookie] = page.context.cookies()
        assert (cookie["httpOnly"], cookie["sameSite"], cookie["value"] != key) == (True, "Strict", True)
        page.evaluate(fetched, "/logout")
        assert page.evaluate(fetched, "/v1/models") == 401
        assert page.goto(f"{up.url}/login").status == 200
        assert complaints == []
        assert page.evaluate("getComputedStyle(document.body).display") == "grid"  # the policy lets its style in
        browser.close()
