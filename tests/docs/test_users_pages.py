"""The pages of the three kinds of users: every command as it stands there, in order, on a small run; only budgets are cut."""

import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import webbrowser
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.conftest import Command, FinishedRun
from tests.core.loopback import LoopbackHub
from tests.docs.pages import DOCS, ROOT, faster, lines, ready_to_run, serve_once, write_files

from llamaherd.core.files import read_json
from llamaherd.losses.margins import MARGINS

ALIGN, STUDY, RUN = ((DOCS / f"{name}.md").read_text("utf-8") for name in ("align-your-own", "study-a-stage", "run-a-checkpoint"))
HEAVY = ("run", "claims")
"""What takes half a minute and more, and is checked here and run by the slow test."""


@pytest.fixture
def desk(finished_run: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a user sits who has had a run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLAMAHERD_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(webbrowser, "open", lambda _: True)
    for name in ("miniature", "tiny"):
        shutil.copytree(finished_run.folder, Path("runs", name))
    return tmp_path


def follow(line: str, command: Command, monkeypatch: pytest.MonkeyPatch) -> str:
    """What one command of a page prints."""
    program, *words = shlex.split(line, comments=True)
    if program != "llamaherd":
        return subprocess.run(["bash", "-c", line], check=True, capture_output=True, text=True).stdout
    if words[0] == "serve":
        return " ".join(serve_once(words, monkeypatch))
    if words[0] in HEAVY:
        # `claims` may be asked without a recipe, `run` with settings
        ready_to_run(words[1], *(word for word in words[2:] if word.startswith("--")))
        return "checked"
    monkeypatch.setattr("sys.stdin", io.StringIO("Hello.\n"))
    # Three rows are soon learned; the small run's context is shorter than the rows of the page.
    words = words if "own.jsonl" in words else [word.replace("row_tokens=768", "row_tokens=512") for word in faster(words)]
    outcome = command(*words)
    # A model of seconds is not healthy, and the doctor says so.
    assert outcome.code in ((0, 1) if words[0] == "doctor" else (0,)), (words, outcome)
    assert outcome.out.strip(), words
    return outcome.out


def demand_files(text: str) -> None:
    """Every file of the package that a page names is there."""
    for name in re.findall(r"`((?:\w+/)+\w+\.py)`", text):
        assert any((ROOT / place / name).is_file() for place in ("", "src/llamaherd")), name


@pytest.mark.usefixtures("desk")
def test_aligning_a_model_of_ones_own(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    assert write_files(ALIGN, Path()) == ["ppo.yaml"]
    said = {line: follow(line, command, monkeypatch) for line in lines(ALIGN)}
    verbs = [shlex.split(line)[1] for line in said if line.startswith("llamaherd")]
    wanted = {"sft", "reward", "reward-report", "reject", "ppo", "versions", "doctor", "evaluate", "serve"}
    assert wanted <= set(verbs)
    assert read_json(Path("mine/v1/manifest.json"))["parents"].keys() >= {"v1-rejection", "v1-helpfulness", "v1-safety"}
    versions = said["llamaherd versions mine"]
    assert re.search(r"^v1\b", versions, re.MULTILINE)
    assert all(name in versions for name in ("demonstrations.jsonl", "v1-helpfulness", "v1-safety"))
    assert said["llamaherd serve mine:v1 mine:v0 --open"].split() in (["v1", "v0"], ["v0", "v1"])


@pytest.mark.usefixtures("desk")
def test_studying_a_stage(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    demand_files(STUDY)
    assert write_files(STUDY, Path()) == ["steep.diff"]
    shutil.copytree(ROOT / "src", "src", ignore=shutil.ignore_patterns("__pycache__"))
    before, patch, after = _around(lines(STUDY), "git apply steep.diff")
    for line in [*before, patch]:
        follow(line, command, monkeypatch)
    assert "steep" not in MARGINS, "the sources of the tests stay as they are"
    for line in after:
        if shlex.split(line, comments=True)[1] not in HEAVY:
            _patched(line)
    assert read_json(Path("study/steep/manifest.json"))["config"]["margin"] == "steep"
    assert read_json(Path("study/all-three/report.json"))["agreement"].keys() == {"large", "steep"}
    assert "steep" in Path("study/all-three/report.html").read_text("utf-8")


def _around(commands: Sequence[str], middle: str) -> tuple[list[str], str, list[str]]:
    place = list(commands).index(middle)
    return list(commands[:place]), middle, list(commands[place + 1 :])


def _patched(line: str) -> None:
    """Runs a command with the sources that were copied and changed."""
    words = faster(shlex.split(line, comments=True)[1:])
    environment = {**os.environ, "PYTHONPATH": "src", "LLAMAHERD_THREADS": "1"}
    subprocess.run([sys.executable, "-m", "llamaherd.cli", *words], env=environment, check=True, capture_output=True)


@pytest.mark.slow
def test_what_takes_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command) -> None:
    """The run and the claims of the student's page, on the small recipe."""
    monkeypatch.chdir(tmp_path)
    heavy = [words for line in lines(STUDY) if (words := shlex.split(line, comments=True)[1:]) and words[0] in HEAVY and words[1] == "tiny"]
    assert [words[0] for words in heavy] == ["run", "claims"]
    for words in heavy:
        assert command(*words).code == 0
    assert Path("runs/tiny/report.html").is_file()
    assert [claim["id"] for claim in read_json(Path("runs/tiny-margins/ledger.json"))["claims"]] == ["margins"]


def test_running_a_checkpoint(desk: Path, command: Command, monkeypatch: pytest.MonkeyPatch, hub: LoopbackHub) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_me")
    hub.add("models/you/miniature-chat", {path.name: path.read_bytes() for path in (desk / "runs/miniature/v5").iterdir()})
    assert write_files(RUN, Path()) == ["own.jsonl"]
    said = {line: follow(line, command, monkeypatch) for line in lines(RUN)}
    verbs = {shlex.split(line)[1] for line in said}
    assert {"download", "plan", "chat", "generate", "serve", "sft", "merge", "quantize", "convert", "upload"} <= verbs
    assert read_json(Path("own-adapter/adapter_config.json"))["r"] == 16
    assert Path("merged.gguf").is_file()
    assert "models/you/mine" in hub.repos
    # Each row of the page's table is a folder or file that is smaller than the merged model, but for that itself.
    sizes = {name: _size(Path(name)) for name in re.findall(r"^\| `([\w.-]+)` \|", RUN, re.MULTILINE)}
    assert sizes.keys() == {"merged", "merged-hf", "small", "merged.gguf", "own-adapter"}
    assert max(sizes, key=sizes.__getitem__) == "merged"


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else sum(file.stat().st_size for file in path.iterdir())


def test_every_page_can_be_reached() -> None:
    """From the README or the page on the house, by links."""
    seen: set[Path] = set()
    places = [ROOT / "README.md", DOCS / "architecture.md"]
    while places:
        page = places.pop().resolve()
        if page not in seen:
            seen.add(page)
            places += [page.parent / name for name in re.findall(r"\]\(([\w./-]+\.md)(?:#[\w-]+)?\)", page.read_text("utf-8"))]
    assert {page.name for page in DOCS.glob("*.md")} <= {page.name for page in seen}
