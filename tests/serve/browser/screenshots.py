"""Pictures of the chat page for the README: `python -m tests.serve.browser.screenshots docs RUN:v5 RUN:v0` with a finished run."""

import sys
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import expect, sync_playwright
from tests.serve.browser.conftest import OPTIONS, Site, answers, ask, scripted_site

from llamaherd.core.artifacts import model_path

MOST_BYTES = 150_000
SIZE = {"width": 1200, "height": 780}
PHONE = {"width": 390, "height": 780}
QUESTIONS = ("How do I bake bread?", "Name three colors.", "How do I sort a list of names?")
PHONE_QUESTIONS = ("Where does Ada live?", "Tell me a story.", "Name three colors.")
RICH = """A list sorts in place with `sort`; `sorted` makes a new one:

```python
names = ["Ida", "ada", "Ben"]
names.sort(key=str.casefold)  # ada, Ben, Ida
```

| way | changes the list | steps |
|---|---|---:|
| `names.sort()` | yes | $O(n \\log n)$ |
| `sorted(names)` | no | $O(n \\log n)$ |

No sort by comparison can do with fewer, since it tells $n!$ orders apart:

$$\\log_2 n! = \\sum_{k=1}^{n} \\log_2 k \\approx n \\log_2 n - \\frac{n}{\\ln 2}$$
"""
"""A miniature knows no Markdown, so this one answer is written by hand; all others in the pictures are the model's own."""


def talk(page: Any, question: str) -> None:
    """Asks, and waits until the answer stands rendered."""
    count = answers(page).count()
    ask(page, question)
    expect(answers(page)).to_have_count(count + 1)
    expect(page.locator(".message.assistant").last).to_have_attribute("aria-busy", "false", timeout=60_000)
    expect(page.locator(".md:not(.plain)")).to_have_count(count + 1)


def save(page: Any, folder: Path, name: str) -> None:
    path = folder / f"serve-{name}.png"
    page.mouse.move(0, 0) if name != "tokens" else None
    page.screenshot(path=path)
    size = path.stat().st_size
    assert size < MOST_BYTES, f"{path}: {size} bytes; a picture for the README has fewer than {MOST_BYTES}"
    print(f"{path}: {size} bytes")


def conversation(page: Any, site: Site, folder: Path) -> None:
    for question in QUESTIONS[:2]:
        talk(page, question)
    site.script.add(RICH)
    talk(page, QUESTIONS[2])
    page.locator(".message.user").last.evaluate("(one) => one.scrollIntoView({block: 'start'})")
    save(page, folder, "chat")


def tokens(page: Any, folder: Path, question: str) -> None:
    page.get_by_role("button", name="+ New conversation").click()
    talk(page, question)
    page.get_by_role("button", name="Tokens", exact=True).click()
    least = page.locator(".token").evaluate_all(
        "(all) => all.map((one) => parseInt(one.style.getPropertyValue('--unlikely'))).reduce((best, value, at, of) => value > of[best] ? at : best, 0)"
    )
    page.locator(".token").nth(least).hover()
    expect(page.get_by_role("tooltip")).to_be_visible()
    save(page, folder, "tokens")


def compare(page: Any, folder: Path, question: str) -> None:
    page.get_by_role("button", name="+ New conversation").click()
    page.get_by_role("button", name="Compare two models").click()
    page.get_by_label("Prompt for both models").fill(question)
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Keep this answer")).to_have_count(2, timeout=60_000)
    expect(page.locator(".md.plain")).to_have_count(0)
    save(page, folder, "compare")


def main(folder: str, newest: str, other: str) -> None:
    """Serves a version of a run, and another one to compare it with."""
    models = [model_path(newest), model_path(other)]
    with tempfile.TemporaryDirectory() as state, scripted_site(models, Path(state)) as site, sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=list(OPTIONS))
        page = chromium.new_page(viewport=SIZE, color_scheme="light", reduced_motion="reduce")
        page.goto(site.up.url)
        page.locator("body[data-ready]").wait_for()
        conversation(page, site, Path(folder))
        tokens(page, Path(folder), "Tell me a story.")
        compare(page, Path(folder), "How do I bake bread?")
        phone = chromium.new_page(
            viewport=PHONE, color_scheme="dark", reduced_motion="reduce", has_touch=True, is_mobile=True, device_scale_factor=1
        )
        phone.goto(f"{site.up.url}")
        phone.locator("body[data-ready]").wait_for()
        for one in PHONE_QUESTIONS:
            talk(phone, one)
        save(phone, Path(folder), "phone")
        chromium.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
