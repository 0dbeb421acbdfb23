"""Scrolling, and long conversations."""

import threading
from collections.abc import Callable
from typing import Any

from playwright.sync_api import expect
from tests.serve.browser.conftest import Site, answers, ask, finishes

AWAY = "log => Math.round(log.scrollHeight - log.scrollTop - log.clientHeight)"
LINES = "A line of the answer that goes on for a while.\n\n"
SMOOTH_MS = 50.0
"""Longest that a frame may take. Asserted of what the page's thread computes for a frame, which others on the machine do not change;
the frames themselves are reported."""


def log(page: Any) -> Any:
    return page.locator("#conversation")


def at_end(page: Any) -> None:
    page.wait_for_function(f"() => ({AWAY})(document.getElementById('conversation')) <= 4")


def test_the_page_follows_an_answer_only_while_its_reader_does(page: Any, site: Site) -> None:
    gates = [threading.Event() for _ in range(2)]
    site.script.add(LINES * 40, LINES * 20, gate=gates[0])
    ask(page, "A long one.")
    expect(answers(page)).to_contain_text("goes on")
    at_end(page)
    log(page).hover()
    page.mouse.wheel(0, -60)
    page.wait_for_function(f"() => ({AWAY})(document.getElementById('conversation')) > 20")
    page.wait_for_timeout(200)  # the wheel's own smooth scrolling
    top = log(page).evaluate("log => log.scrollTop")
    gates[0].set()
    expect(page.locator(".message.assistant")).to_have_attribute("aria-busy", "false")
    assert abs(log(page).evaluate("log => log.scrollTop") - top) <= 2
    expect(page.get_by_role("button", name="Newest")).to_be_visible()
    page.get_by_role("button", name="Newest").click()
    at_end(page)
    expect(page.get_by_role("button", name="Newest")).to_be_hidden()
    site.script.add("One more.", LINES * 40, delay_s=0.05)
    ask(page, "And another one.")
    expect(answers(page).last).to_contain_text("goes on")
    at_end(page)


def test_a_reader_who_goes_back_down_is_followed_again(page: Any, site: Site) -> None:
    gate = threading.Event()
    site.script.add(LINES * 40, LINES * 30, gate=gate)
    ask(page, "A long one.")
    expect(answers(page)).to_contain_text("goes on")
    log(page).focus()
    page.keyboard.press("Home")
    page.wait_for_function("() => document.getElementById('conversation').scrollTop < 5")
    page.keyboard.press("End")
    at_end(page)
    gate.set()
    expect(page.locator(".message.assistant")).to_have_attribute("aria-busy", "false")
    at_end(page)


def thread_clock(page: Any) -> Callable[[], float]:
    """What the page's main thread has computed so far, in milliseconds of its own time."""
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    return lambda: 1000 * next(one["value"] for one in session.send("Performance.getMetrics")["metrics"] if one["name"] == "TaskDuration")


WATCH = """() => {
  window.frames_ = [];
  let last = performance.now();
  const tick = (now) => { window.frames_.push(now - last); last = now; window.watching_ = requestAnimationFrame(tick); };
  window.watching_ = requestAnimationFrame(tick);
}"""
SCROLL = """async () => {
  const log = document.getElementById("conversation");
  for (let step = 0; step < 90; step += 1) {
    log.scrollTop -= 700;
    await new Promise(requestAnimationFrame);
  }
}"""


def test_a_conversation_of_100k_tokens_stays_smooth(
    site: Site, new_page: Callable[..., Any], record_property: Callable[[str, object], None]
) -> None:
    answer = "Here is **some** text with `code` and a list:\n\n- one\n- two\n\n" + "The llamas of the herd walk over the hills. " * 20
    id = site.saved([(f"Question {index}: what then?", f"Answer {index}: {answer}") for index in range(450)], title="Long")
    page = new_page()
    opening_ms = page.evaluate(
        """async (id) => {
          const start = performance.now();
          location.hash = `#/c/${id}`;
          while (document.querySelectorAll(".message").length < 900) await new Promise(requestAnimationFrame);
          await new Promise(requestAnimationFrame);
          return performance.now() - start;
        }""",
        id,
    )
    characters = page.evaluate("async () => (await import('/static/state.js')).path().reduce((sum, one) => sum + one.content.length, 0)")
    assert characters > 400_000
    at_end(page)
    expect(answers(page).last).to_contain_text("Answer 449:")
    assert page.locator(".message-actions").count() < 120, "only what is near the screen is rendered"
    busy_ms = thread_clock(page)
    page.evaluate(WATCH)
    before = busy_ms()
    page.evaluate(SCROLL)
    scrolling = page.evaluate("() => window.frames_.splice(0)")
    scrolling_ms = busy_ms() - before
    page.get_by_role("button", name="Newest").click()
    at_end(page)
    site.script.add(*["The llamas walk. "] * 120, delay_s=0.01)
    page.evaluate("() => { window.frames_.length = 0; }")
    before = busy_ms()
    ask(page, "And now?")
    finishes(page)
    streaming = page.evaluate("() => window.frames_")
    streaming_ms = busy_ms() - before
    for name, frames, computed_ms in (("scrolling", scrolling, scrolling_ms), ("streaming", streaming, streaming_ms)):
        frames.sort()
        record_property(f"{name}, computed", f"{computed_ms / len(frames):.1f} ms a frame")
        late = sum(one > SMOOTH_MS for one in frames)
        said = f"median {frames[len(frames) // 2]:.0f}, 95% {frames[int(len(frames) * 0.95)]:.0f}, most {frames[-1]:.0f} ms, {late} of {len(frames)} late"
        record_property(name, said)
        print(name, said, f"computed {computed_ms / len(frames):.1f} ms a frame")
        assert computed_ms / len(frames) < SMOOTH_MS, said
    print("opened in", round(opening_ms), "ms;", characters, "characters")
    page.wait_for_function("() => document.getElementById('messages').textContent.includes('Question 0: what then?')")


def test_one_answer_of_100k_characters_can_still_be_read(page: Any, site: Site) -> None:
    site.script.add(*["word " * 2000 + "\n\n"] * 10)
    ask(page, "All of it.")
    finishes(page)
    expect(answers(page)).to_contain_text("word word")
    at_end(page)


TOKENS = """async (count) => {
  const {tokenView} = await import("/static/tokens.js");
  const list = Array.from({length: count}, () => [" token", -1, [["a", -1]]]);
  let frames = 0, going = true;
  requestAnimationFrame(function frame() { frames += 1; if (going) requestAnimationFrame(frame); });
  document.getElementById("messages").replaceChildren(tokenView(list));
  while (document.querySelectorAll(".token").length < count) await new Promise(requestAnimationFrame);
  going = false;
  return frames;
}"""


def test_the_tokens_of_a_long_answer_leave_frames_short(page: Any) -> None:
    busy_ms = thread_clock(page)
    costs_ms = []
    for count in (300, 1500, 6000):
        before = busy_ms()
        frames = page.evaluate(TOKENS, count)
        costs_ms.append((busy_ms() - before) / frames)
    print("a frame takes", costs_ms)
    assert max(costs_ms[1:]) < SMOOTH_MS, "the first one loads what is needed"
    assert costs_ms[2] < 3 * costs_ms[1], "what stands already costs nothing"
    expect(page.locator(".token")).to_have_count(6000)
