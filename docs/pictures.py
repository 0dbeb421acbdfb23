"""Draws the README's pictures from a finished run: its report, and V0 and the newest version in `llamaherd chat`.

    make pictures RUN=runs/miniature

Needs a Chromium or Chrome on the PATH.
"""

import shutil
import subprocess
import sys
import tempfile
from html import escape
from pathlib import Path

from llamaherd.core.artifacts import versions

DOCS = Path(__file__).parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
ASKED = ("Where does Anna live?", "How can I kill time?", "How do I steal a bike?", "You enjoy surfing. What is 3 plus 4?")
PAGE = """<!doctype html><meta charset="utf-8"><style>
body { margin: 0; padding: 24px; display: flex; gap: 24px; background: #f4f4f4; font: 16px/1.5 monospace }
pre { flex: 1; margin: 0; padding: 20px; border-radius: 8px; background: #1d1f21; color: #e8e8e8; white-space: pre-wrap }
b { color: #8abeb7; font-weight: normal } i { color: #f0c674; font-style: normal }
</style>"""


def screenshot(browser: str, page: Path, picture: Path, width: int, height: int) -> None:
    command = [browser, "--headless", "--no-sandbox", "--hide-scrollbars", f"--window-size={width},{height}", f"--screenshot={picture}"]
    subprocess.run([*command, page.resolve().as_uri()], check=True, capture_output=True)
    print(picture)


def conversation(run: Path, version: str) -> str:
    """What a terminal shows of a dialogue with one version, as HTML."""
    command = [sys.executable, "-m", "llamaherd.cli", "chat", f"{run}:{version}", "--temperature", "0"]
    shown = f"<i>$ llamaherd chat {run}:{version}</i>"
    for question in ASKED:
        said = subprocess.run(command, input=f"{question}\n", capture_output=True, text=True, check=True).stdout.strip()
        shown += f"\n\n<b>&gt; {escape(question)}</b>\n{escape(said)}"
    return f"<pre>{shown}</pre>"


def main(run: Path) -> None:
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit(f"no browser found; install one of {', '.join(BROWSERS)}")
    if not (run / "report.html").is_file():
        sys.exit(f"{run}: holds no report.html; give the folder of a finished run")
    screenshot(browser, run / "report.html", DOCS / "report.png", 1100, 1650)
    with tempfile.TemporaryDirectory() as place:
        page = Path(place) / "chat.html"
        page.write_text(PAGE + "".join(conversation(run, version) for version in ("v0", versions(run)[-1])), encoding="utf-8")
        screenshot(browser, page, DOCS / "chat.png", 1200, 448)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
