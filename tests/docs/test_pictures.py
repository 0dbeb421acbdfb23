"""`make pictures`: the README's pictures show what a run's own commands print."""

import importlib.util
import shutil
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "docs" / "pictures.py"


@pytest.fixture
def pictures():
    spec = importlib.util.spec_from_file_location("pictures", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_conversation_is_what_the_command_prints(pictures, finished_run, monkeypatch):
    monkeypatch.setattr(pictures, "ASKED", ("Where <b> is it?",))
    shown = pictures.conversation(finished_run.folder, "v0")
    assert f"$ llamaherd chat {finished_run.folder}:v0</i>" in shown
    assert "<b>&gt; Where &lt;b&gt; is it?</b>" in shown


def test_what_is_missing_is_said(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(pictures.shutil, "which", lambda name: "browser")
    with pytest.raises(SystemExit, match=r"holds no report.html; give the folder of a finished run"):
        pictures.main(tmp_path)
    monkeypatch.setattr(pictures.shutil, "which", lambda name: None)
    with pytest.raises(SystemExit, match="no browser found; install one of chromium"):
        pictures.main(tmp_path)


def test_both_pictures(pictures, finished_run, tmp_path, monkeypatch):
    if not any(map(shutil.which, pictures.BROWSERS)):
        pytest.skip("no Chromium on this machine")
    monkeypatch.setattr(pictures, "DOCS", tmp_path)
    monkeypatch.setattr(pictures, "ASKED", ("Where does Anna live?",))
    pictures.main(finished_run.folder)
    for name in ("report.png", "chat.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
