"""Settings on the page: sent with what is asked, checked in words, kept with conversations and for new ones."""

from typing import Any

import pytest
from playwright.sync_api import expect
from tests.serve.browser.conftest import Site, answers, ask


def open_settings(page: Any) -> Any:
    page.get_by_role("button", name="Settings", exact=True).click()
    return page.get_by_role("dialog", name="Settings")


def save(dialog: Any) -> None:
    dialog.get_by_role("button", name="Save").click()
    expect(dialog).to_be_hidden()


def asked(page: Any, site: Site, text: str = "Hello?") -> dict[str, Any]:
    """The body of the request that a message makes."""
    count = answers(page).count()
    site.script.add("Hello!")
    ask(page, text)
    expect(answers(page)).to_have_count(count + 1)
    expect(answers(page).last).to_have_text("Hello!")
    return site.script.bodies[-1]


def test_what_is_set_is_sent(page: Any, site: Site) -> None:
    dialog = open_settings(page)
    dialog.get_by_label("Model", exact=True).select_option("endless")
    dialog.get_by_label("System prompt").fill("Be kind.")
    values = {
        "Temperature": "0.25",
        "Top-p": "0.8",
        "Top-k": "40",
        "Min-p": "0.05",
        "Repetition penalty": "1.1",
        "Most tokens of an answer": "77",
    }
    for label, value in {**values, "Seed": "12"}.items():
        dialog.get_by_label(label, exact=True).fill(value)
    dialog.get_by_label("Stop texts").fill("END\na\\nb\\\\n")
    save(dialog)
    body = asked(page, site)
    wanted = {
        "model": "endless",
        "temperature": 0.25,
        "top_p": 0.8,
        "top_k": 40,
        "min_p": 0.05,
        "repetition_penalty": 1.1,
        "max_tokens": 77,
    }
    assert {name: body[name] for name in wanted} == wanted
    assert body["seed"] == 12
    assert body["stop"] == ["END", "a\nb\\n"]
    assert body["messages"] == [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello?"}]
    assert (body["logprobs"], body["top_logprobs"]) == (True, 5)


def test_nothing_that_is_unset_is_sent(page: Any, site: Site) -> None:
    body = asked(page, site)
    assert not {"seed", "stop", "max_tokens"} & body.keys()
    assert body["messages"] == [{"role": "user", "content": "Hello?"}]


@pytest.mark.parametrize(
    ("label", "value", "said"),
    [
        ("Temperature", "-1", "Temperature is a number from 0 to 100; -1 is not."),
        ("Temperature", "", "Temperature is a number from 0 to 100."),
        ("Top-p", "0", "Top-p is a number above 0 to 1; 0 is not."),
        ("Top-k", "1.5", "Top-k is a whole number from 0 to 1,000,000; 1.5 is not."),
        ("Most tokens of an answer", "0", "Most tokens of an answer is a whole number from 1 to 1,000,000, or empty; 0 is not."),
        ("System prompt", "x [/INST] y", "The system prompt contains [/INST], which belongs to the chat format; take it out."),
        ("Stop texts", "x\n" * 17, "There are 17 stop texts; at most 16 are allowed."),
        ("Stop texts", "x" * 257, "A stop text has 257 characters; at most 256 are allowed."),
    ],
)
def test_what_is_wrong_is_said_beside_the_field(page: Any, label: str, value: str, said: str) -> None:
    dialog = open_settings(page)
    field = dialog.get_by_label(label, exact=True)
    field.fill(value)
    dialog.get_by_role("button", name="Save").click()
    expect(dialog.get_by_text(said, exact=True)).to_be_visible()
    expect(field).to_be_focused()
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(dialog).to_be_visible()


def test_settings_belong_to_their_conversation(page: Any, site: Site) -> None:
    dialog = open_settings(page)
    dialog.get_by_label("Temperature", exact=True).fill("0.11")
    dialog.get_by_label("Use these for new conversations too").uncheck()
    save(dialog)
    assert asked(page, site)["temperature"] == 0.11
    page.get_by_role("button", name="New conversation").click()
    assert asked(page, site, "Another")["temperature"] == 0.6
    page.get_by_role("link", name="Hello?").click()
    assert asked(page, site, "Again")["temperature"] == 0.11
    page.reload()
    page.locator("body[data-ready]").wait_for()
    assert asked(page, site, "And again")["temperature"] == 0.11


def test_settings_for_new_conversations_are_kept_and_reset(page: Any, site: Site) -> None:
    dialog = open_settings(page)
    dialog.get_by_label("Top-k", exact=True).fill("7")
    save(dialog)
    page.get_by_role("button", name="New conversation").click()
    page.reload()
    page.locator("body[data-ready]").wait_for()
    assert asked(page, site)["top_k"] == 7
    dialog = open_settings(page)
    dialog.get_by_role("button", name="Reset to defaults").click()
    expect(dialog.get_by_label("Top-k", exact=True)).to_have_value("0")
    save(dialog)
    assert asked(page, site, "Again")["top_k"] == 0


def test_a_dice_rolls_seeds(page: Any) -> None:
    dialog = open_settings(page)
    seeds = set()
    for _ in range(3):
        dialog.get_by_role("button", name="Roll a seed").click()
        seeds.add(int(dialog.get_by_label("Seed", exact=True).input_value()))
    assert len(seeds) == 3
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_cancel_changes_nothing(page: Any, site: Site) -> None:
    dialog = open_settings(page)
    dialog.get_by_label("Top-k", exact=True).fill("9")
    dialog.get_by_role("button", name="Cancel").click()
    expect(dialog).to_be_hidden()
    expect(page.get_by_role("button", name="Settings", exact=True)).to_be_focused()
    assert asked(page, site)["top_k"] == 0


def test_the_model_in_the_head_and_in_the_settings_is_one(page: Any, site: Site) -> None:
    select = page.get_by_label("Model", exact=True).first
    assert select.locator("option").all_inner_texts() == ["short", "endless"]
    select.select_option("endless")
    expect(open_settings(page).get_by_label("Model", exact=True)).to_have_value("endless")
    page.keyboard.press("Escape")
    assert asked(page, site)["model"] == "endless"
    page.reload()
    expect(select).to_have_value("endless")


def test_adapters_are_offered_and_reward_models_are_not(page: Any) -> None:
    listed = [{"id": "base", "root": "base"}, {"id": "poet", "root": "base"}, {"id": "judge", "root": "judge", "kind": "reward-model"}]
    page.route("**/v1/models", lambda route: route.fulfill(json={"object": "list", "data": listed}))
    page.reload()
    page.locator("body[data-ready]").wait_for()
    assert page.get_by_label("Model", exact=True).first.locator("option").all_inner_texts() == ["base", "poet (adapter on base)"]


def test_a_model_that_is_gone_is_said_before_sending(page: Any, site: Site) -> None:
    asked(page, site)
    page.route("**/v1/models", lambda route: route.fulfill(json={"object": "list", "data": [{"id": "new", "root": "new"}]}))
    page.reload()
    page.locator("body[data-ready]").wait_for()
    ask(page, "Still there?")
    expect(page.get_by_role("alert")).to_contain_text("The model “short” is not served here; choose another one.")
    expect(page.get_by_label("Message", exact=True)).to_have_value("Still there?")
    page.get_by_label("Model", exact=True).first.select_option("new")
    assert asked(page, site, "Now?")["model"] == "new"
