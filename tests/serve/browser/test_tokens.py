"""The token view: probabilities and alternatives of an answer, by pointer, keyboard and finger; and the exact prompt."""

import base64
import json
import math
import threading
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from playwright.sync_api import expect
from tests.serve.browser.conftest import Site, answers, ask, finishes

TOKENS = [("Ada", 0.95, [("Ada", 0.95), ("Ben", 0.03)]), (" lives", 0.6, [("lives", 0.6), (" is", 0.3)]), ("\n", 0.2, []), ("é", 0.05, [])]
PERPLEXITY = math.exp(-sum(math.log(probability) for _, probability, _ in TOKENS) / len(TOKENS))
"""exp(-(ln 0.95 + ln 0.6 + ln 0.2 + ln 0.05) / 4) = 3.64"""


def entry(text: str, probability: float, others: list[tuple[str, float]] | None = None) -> dict[str, Any]:
    found = {"token": text, "logprob": math.log(probability), "bytes": list(text.encode())}
    return found if others is None else {**found, "top_logprobs": [entry(*other) for other in others]}


def says_tokens(page: Any) -> None:
    """The next answers are TOKENS."""
    chunks = [
        {"choices": [{"index": 0, "delta": {"content": one[0]}, "finish_reason": None, "logprobs": {"content": [entry(*one)]}}]}
        for one in TOKENS
    ]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    body = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
    page.route("**/v1/chat/completions", lambda route: route.fulfill(body=body, content_type="text/event-stream"))


def open_tokens(page: Any) -> Any:
    says_tokens(page)
    ask(page, "Where?")
    page.get_by_role("button", name="Tokens", exact=True).click()
    return page.locator(".tokens .token")


def test_the_worked_number() -> None:
    assert round(PERPLEXITY, 2) == 3.64


def test_tokens_are_shaded_and_pointing_shows_alternatives(page: Any) -> None:
    tokens = open_tokens(page)
    expect(tokens).to_have_text(["Ada", " lives", "⏎", "é"])
    expect(page.locator(".token-figures")).to_have_text("4 tokens · perplexity 3.64 · 1 below 10%")
    assert tokens.evaluate_all("(all) => all.map((one) => one.style.getPropertyValue('--unlikely'))") == ["5%", "40%", "80%", "95%"]
    assert tokens.evaluate_all("(all) => all.map((one) => one.className)") == [f"token level-{level}" for level in range(4)]
    tokens.first.hover()
    tip = page.get_by_role("tooltip")
    expect(tip.locator("caption")).to_have_text("“Ada” 95.0%")
    expect(tip.locator("tr")).to_have_text(["✓Ada95.0%", "Ben3.0%"])
    tip.hover()
    expect(tip).to_be_visible()
    tokens.nth(1).hover()
    expect(tip.locator("tr")).to_have_count(3)  # the sampled one is not among the likeliest, and is put before them
    page.get_by_label("Message", exact=True).hover()
    expect(tip).to_have_count(0)


def test_tokens_are_reached_by_keyboard(page: Any) -> None:
    tokens = open_tokens(page)
    toggle = page.get_by_role("button", name="Tokens", exact=True)
    expect(toggle).to_have_attribute("aria-pressed", "true")
    tokens.first.focus()
    expect(page.get_by_role("tooltip")).to_contain_text("95.0%")
    assert tokens.first.get_attribute("aria-describedby") == page.get_by_role("tooltip").get_attribute("id")
    assert tokens.first.get_attribute("aria-label") == "Ada, 95.0%"
    page.keyboard.press("End")
    expect(tokens.last).to_be_focused()
    page.keyboard.press("ArrowLeft")
    expect(tokens.nth(2)).to_be_focused()
    assert tokens.nth(2).get_attribute("aria-label") == "line end, 20.0%"
    assert tokens.evaluate_all("(all) => all.filter((one) => one.tabIndex === 0).length") == 1
    page.keyboard.press("Escape")
    expect(page.get_by_role("tooltip")).to_have_count(0)
    expect(tokens.nth(2)).to_be_focused()


def test_a_finger_shows_a_token(new_page: Callable[..., Any]) -> None:
    page = new_page(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    tokens = open_tokens(page)
    tokens.nth(1).tap()
    tip = page.get_by_role("tooltip")
    expect(tip).to_contain_text("60.0%")
    box = tip.bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 360


def test_a_reloaded_conversation_still_has_its_tokens(page: Any, site: Site) -> None:
    open_tokens(page)
    expect(page.locator(".tokens .token")).to_have_count(4)
    page.wait_for_function("() => !Object.keys(localStorage).some((key) => key.startsWith('llamaherd.outbox'))")
    page.reload()
    page.get_by_role("button", name="Tokens", exact=True).click()
    expect(page.locator(".token-figures")).to_contain_text("perplexity 3.64")
    page.get_by_role("button", name="Tokens", exact=True).click()
    expect(answers(page)).to_contain_text("Ada lives")
    expect(page.locator(".tokens")).to_have_count(0)
    [kept] = [one["meta"]["tokens"] for one in site.conversations()[0]["nodes"] if one["role"] == "assistant"]
    assert kept[0] == [
        "Ada",
        pytest.approx(math.log(0.95), abs=1e-4),
        [["Ada", pytest.approx(-0.0513, abs=1e-4)], ["Ben", pytest.approx(-3.5066, abs=1e-4)]],
    ]


def test_bytes_that_are_no_text_are_shown_as_bytes(page: Any) -> None:
    kept = page.evaluate("""async () => {
        const {collect} = await import("/static/tokens.js");
        const list = [];
        collect(list, [{token: "?", logprob: -Infinity, bytes: [0xe2, 0x82], top_logprobs: []}, {token: "a", logprob: -0.123456, bytes: null}]);
        collect(list, null);
        return list;
    }""")
    assert kept == [["\\xE2\\x82", -100, []], ["a", -0.1235, []]]


def test_tokens_of_a_real_answer(page: Any) -> None:
    tokens = page.get_by_role("button", name="Tokens", exact=True)
    for _ in range(8):  # one answer of random weights may be empty, and then has no tokens
        ask(page, "Where does Ada live?")
        finishes(page)
        if tokens.count():
            break
        page.get_by_role("button", name="New conversation").click()
    tokens.last.click()
    expect(page.locator(".token-figures")).to_contain_text("perplexity")
    page.locator(".tokens .token").first.focus()
    assert page.get_by_role("tooltip").locator("tr").count() >= 5


# --- the exact prompt ------------------------------------------------------------------------------------------------------------


def test_the_exact_prompt_with_its_tokens(page: Any, site: Site) -> None:
    site.script.add("In Lima.")
    ask(page, "Where does Ada live?")
    expect(answers(page)).to_have_text("In Lima.")
    page.get_by_label("Message", exact=True).fill("And <s> Ben?")
    page.get_by_role("button", name="The exact prompt").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("of 2,048 tokens; room for")
    control = dialog.locator(".prompt-token.control")
    assert control.evaluate_all("(all) => all.map((one) => one.firstChild.data)") == ["<s>", "</s>", "<s>"]
    count = dialog.locator(".prompt-token").count()
    expect(dialog.locator(".prompt-count")).to_contain_text(f"{count} of 2,048 tokens")
    expect(dialog.locator(".prompt-id").first).to_be_hidden()
    dialog.get_by_label("Show the number of each token").check()
    expect(dialog.locator(".prompt-id").first).to_have_text("1")
    dialog.get_by_role("button", name="Close").click()
    expect(dialog).to_be_hidden()
    expect(page.get_by_role("button", name="The exact prompt")).to_be_focused()


def test_why_there_is_no_prompt_is_said(page: Any) -> None:
    page.get_by_label("Message", exact=True).fill("A forged [INST] tag")
    page.get_by_role("button", name="The exact prompt").click()
    expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("[INST]")


def test_the_meter_follows_the_draft_and_the_conversation(page: Any, site: Site) -> None:
    meter = page.locator("#meter")
    page.get_by_label("Message", exact=True).fill("one two three")
    expect(meter).to_contain_text("of 2,048 tokens")
    before = int(meter.locator(".meter-figure").inner_text().split()[0])
    page.get_by_label("Message", exact=True).fill("one two three " * 20)
    expect(meter.locator(".meter-figure")).not_to_have_text(f"{before} of 2,048 tokens")
    assert int(meter.locator(".meter-figure").inner_text().split()[0].replace(",", "")) > 2 * before
    assert page.locator("#meter meter").evaluate("(one) => one.value") > before / 2048
    site.script.add("Yes.", gate=threading.Event(), hangs_after=True)
    page.get_by_label("Message", exact=True).press("Enter")
    expect(answers(page)).to_have_text("Yes.")
    page.get_by_role("button", name="+ New conversation").click()
    expect(meter.locator(".meter-figure")).to_have_text("")
    expect(meter.locator("meter")).to_be_hidden()


def test_a_full_context_is_said_and_the_oldest_turns_can_be_left_out(new_page: Callable[..., Any], site: Site) -> None:
    id = site.saved([(f"Question {index} " + "word " * 120, "answer " * 60) for index in range(12)])
    page = new_page(f"/#/c/{id}")
    meter = page.locator("#meter")
    page.get_by_label("Message", exact=True).fill("And now?")
    expect(meter.get_by_role("status")).to_contain_text("context")
    expect(meter.get_by_role("status")).to_contain_text("2048")
    choice = meter.get_by_label("Leave out the oldest turns")
    choice.check()
    expect(meter.get_by_role("status")).to_contain_text("left out of what the model reads")
    site.script.add("Yes.")
    page.get_by_label("Message", exact=True).press("Enter")
    expect(answers(page).last).to_have_text("Yes.")
    assert site.script.bodies[-1]["overflow"] == "drop-turns"


KEPT = """async ([count, others]) => {
    const {kept, leftOutWords} = await import("/static/tokens.js");
    const alternatives = Array.from({length: others}, () => ["\u4e00\u4e00", -1.2345]);
    const made = kept(Array.from({length: count}, () => ["\u4e00\u4e00", -0.1234, alternatives]));
    return [made.tokens?.length ?? null, made.tokens?.[0][2].length ?? null, leftOutWords(made)];
}"""


SENT = """async ([count, address]) => {
    const {kept} = await import("/static/tokens.js");
    const others = Array.from({length: 5}, () => ["abc", -1.2345]);
    const meta = {finish: "stop", ...kept(Array.from({length: count}, () => ["abc", -1.2345, others]))};
    const answer = await fetch(address, {method: "PATCH", headers: {"Content-Type": "application/json"}, body: JSON.stringify({meta})});
    return [answer.status, answer.ok ? "" : await answer.text()];
}"""


def test_tokens_of_long_answers_are_kept_as_far_as_the_server_keeps_them(page: Any, site: Site) -> None:
    assert page.evaluate(KEPT, [0, 5]) == [None, None, ""]
    assert page.evaluate(KEPT, [6000, 5]) == [6000, 5, ""]
    assert page.evaluate(KEPT, [20_000, 5]) == [20_000, 0, ""]
    assert page.evaluate(KEPT, [100_000, 5]) == [None, None, "Its 100,000 tokens are too many to be kept for the token view."]
    id = site.saved([("Hello?", "Hello!")])
    node = httpx.get(f"{site.api}/conversations/{id}").json()["nodes"][-1]["id"]
    for count in (6000, 20_000):  # what the page keeps, the server takes
        said = page.evaluate(SENT, [count, f"/api/conversations/{id}/nodes/{node}"])
        assert said == [200, ""], said
    httpx.patch(f"{site.api}/conversations/{id}/nodes/{node}", json={"meta": {"tokens_left_out": 100_000}})
    page.goto(f"{site.up.url}/#/c/{id}")
    expect(page.locator(".message-note:visible")).to_have_text("Its 100,000 tokens are too many to be kept for the token view.")


def test_tokens_that_do_not_cover_the_answer_are_not_shown(page: Any, site: Site) -> None:
    site.script.add("In Lima.", logprobs=True)
    ask(page, "Where?")
    page.locator(".message.assistant").get_by_role("button", name="Edit").click()
    page.get_by_label("Edit the message").fill("In Rome, since")
    page.get_by_role("button", name="Keep").click()
    site.script.add(" May.", logprobs=True)
    page.get_by_role("button", name="Continue").click()
    expect(answers(page)).to_have_text("In Rome, since May.")
    expect(page.get_by_role("button", name="Tokens", exact=True)).to_have_count(0)


def test_tokens_that_are_none_break_nothing(page: Any, site: Site) -> None:
    id = site.saved([("Hello?", "Hello!")])
    node = httpx.get(f"{site.api}/conversations/{id}").json()["nodes"][-1]["id"]
    for tokens in ("abc", {"length": 3}, [["a", -1]], [["a", "b", []]], [None]):
        httpx.patch(f"{site.api}/conversations/{id}/nodes/{node}", json={"meta": {"finish": "constructor", "tokens": tokens}})
        page.goto(f"{site.up.url}/#/c/{id}")
        expect(answers(page)).to_have_text("Hello!")
        expect(page.get_by_role("button", name="Copy")).to_have_count(2)
        expect(page.get_by_role("button", name="Tokens", exact=True)).to_have_count(0)
        expect(page.locator(".message-note:visible")).to_have_count(0)
        page.goto(f"{site.up.url}/#/")


def test_meters_are_filled_over_their_whole_height(page: Any) -> None:
    tokens = open_tokens(page)
    tokens.first.hover()
    meter = page.get_by_role("tooltip").locator("meter").first
    picture = base64.b64encode(meter.screenshot()).decode()
    column = page.evaluate(
        """async (picture) => {
          const image = new Image();
          image.src = `data:image/png;base64,${picture}`;
          await image.decode();
          const canvas = Object.assign(document.createElement("canvas"), {width: image.width, height: image.height});
          const context = canvas.getContext("2d");
          context.drawImage(image, 0, 0);
          const at = (share) => context.getImageData(image.width / 2, Math.floor(share * image.height), 1, 1).data.slice(0, 3).join();
          return [at(0.25), at(0.5), at(0.8)];
        }""",
        picture,
    )
    assert len(set(column)) == 1, column
