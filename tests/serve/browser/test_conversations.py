"""Saved conversations: the list, search, names, files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import expect
from tests.serve.browser.conftest import Site, answers, ask, finishes, message_box


def links(page: Any) -> Any:
    return page.locator("#conversations a > span:first-child")


def test_the_list_opens_what_was_saved(site: Site, new_page: Callable[..., Any]) -> None:
    site.saved([("Where does Ada live?", "In Lima."), ("And Ben?", "In Oslo.")], title="Cities")
    site.saved([("What is a llama?", "An animal.")], title="Animals")
    page = new_page()
    expect(links(page)).to_have_text(["Animals", "Cities"])
    page.get_by_role("link", name="Cities").click()
    expect(answers(page)).to_have_text(["In Lima.", "In Oslo."])
    expect(page.get_by_role("link", name="Cities")).to_have_attribute("aria-current", "page")
    expect(page.get_by_role("heading", name="Cities", level=1)).to_be_visible()
    page.get_by_role("link", name="Animals").click()
    expect(answers(page)).to_have_text(["An animal."])
    page.go_back()
    expect(answers(page)).to_have_text(["In Lima.", "In Oslo."])
    page.keyboard.press("Control+Shift+O")
    expect(page.locator(".message")).to_have_count(0)
    expect(message_box(page)).to_be_focused()
    page.go_back()
    expect(answers(page)).to_have_text(["In Lima.", "In Oslo."])


def test_search_reads_titles_and_messages(site: Site, new_page: Callable[..., Any]) -> None:
    site.saved([("Where does Ada live?", "In Lima, by the sea.")], title="Cities")
    site.saved([("What is a llama?", "An animal.")], title="Animals")
    page = new_page()
    page.keyboard.press("Control+k")
    search = page.get_by_label("Search conversations")
    expect(search).to_be_focused()
    search.press_sequentially("the sea")
    expect(links(page)).to_have_text(["Cities"])
    expect(page.locator("#conversations .snippet")).to_contain_text("by the sea")
    search.fill("anim")
    expect(links(page)).to_have_text(["Animals"])
    search.fill("nowhere to be found")
    expect(page.locator("#found")).to_have_text("Nothing found")
    search.fill("")
    expect(links(page)).to_have_count(2)


def test_rename(site: Site, new_page: Callable[..., Any]) -> None:
    id = site.saved([("Where does Ada live?", "In Lima.")], title="Cities")
    page = new_page(f"/#/c/{id}")
    page.get_by_role("button", name="More for Cities").click()
    page.get_by_role("button", name="Rename").click()
    page.get_by_role("textbox", name="New title").fill("Where people live")
    page.keyboard.press("Enter")
    expect(links(page)).to_have_text(["Where people live"])
    expect(page).to_have_title("Where people live · llamaherd")
    finishes(page)
    assert [one["title"] for one in site.conversations()] == ["Where people live"]


def test_deleting_asks_first(site: Site, new_page: Callable[..., Any]) -> None:
    id = site.saved([("Where does Ada live?", "In Lima.")], title="Cities")
    site.saved([("What is a llama?", "An animal.")], title="Animals")
    page = new_page(f"/#/c/{id}")
    for choice, left in (("Cancel", 2), ("Delete", 1)):
        page.get_by_role("button", name="More for Cities").click()
        page.locator("#conversations").get_by_role("button", name="Delete").click()
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("Delete “Cities” with all its messages?")
        dialog.get_by_role("button", name=choice).click()
        expect(links(page)).to_have_count(left)
        page.get_by_role("button", name="More for Cities").click() if left == 2 else None
    expect(page.locator(".message")).to_have_count(0)
    expect(page.get_by_role("link", name="Animals")).to_be_focused()
    assert [one["title"] for one in site.conversations()] == ["Animals"]


def test_export_and_import(site: Site, new_page: Callable[..., Any], tmp_path: Path) -> None:
    site.saved([("Where does Ada live?", "In Lima.")], title="Cities")
    site.saved([("What is a llama?", "An animal.")], title="Animals")
    page = new_page()
    with page.expect_download() as download:
        page.get_by_role("button", name="Export all").click()
    everything = tmp_path / "all.json"
    download.value.save_as(everything)
    page.get_by_role("button", name="More for Cities").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Export", exact=True).click()
    assert download.value.suggested_filename == "Cities.json"
    assert len(json.loads(download.value.path().read_text())["conversations"]) == 1

    site.clear()
    page.locator("#import-file").set_input_files(everything)
    expect(page.locator("#found")).to_have_text("Imported 2 conversations.")
    expect(links(page)).to_have_count(2)
    page.get_by_role("link", name="Cities").click()
    expect(answers(page)).to_have_text(["In Lima."])
    broken = tmp_path / "broken.json"
    broken.write_text("no conversations at all")
    page.locator("#import-file").set_input_files(broken)
    expect(page.locator("#notice")).not_to_be_empty()


def test_a_long_list_comes_in_pages(site: Site, new_page: Callable[..., Any], tmp_path: Path) -> None:
    rows = [
        {"messages": [{"role": "user", "content": f"Question {index}"}, {"role": "assistant", "content": "Yes."}]} for index in range(60)
    ]
    many = tmp_path / "many.jsonl"
    many.write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = new_page()
    page.locator("#import-file").set_input_files(many)
    expect(page.locator("#found")).to_have_text("Imported 60 conversations.")
    expect(links(page)).to_have_count(50)
    page.get_by_role("button", name="Older ones").click()
    expect(links(page)).to_have_count(60)
    expect(page.get_by_role("button", name="Older ones")).to_be_hidden()


def test_an_address_that_leads_nowhere_is_said(new_page: Callable[..., Any]) -> None:
    page = new_page("/#/c/00000000-0000-4000-8000-000000000000")
    expect(page.locator("#notice")).to_contain_text("There is no such conversation")
    expect(page.locator("#welcome")).to_be_visible()


def test_a_conversation_keeps_its_settings(page: Any, site: Site) -> None:
    page.locator("#model-slot select").select_option("endless")
    site.script.add("Yes.")
    ask(page, "Is that so?")
    expect(answers(page)).to_have_text("Yes.")
    finishes(page)
    [saved] = site.conversations()
    assert saved["settings"]["model"] == "endless"
    assert saved["nodes"][1]["model"] == "endless"
