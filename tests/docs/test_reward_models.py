"""The commands and the Python of docs/reward-models.md, as they stand there, on small files of the names that they use."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.docs.pages import DOCS, blocks, commands

from llamaherd.cli import main
from llamaherd.core.files import read_rows, write_rows
from llamaherd.recipe.claims.steps import CLAIMS
from llamaherd.reward.model import RewardModel

PAGE = (DOCS / "reward-models.md").read_text("utf-8")


def test_the_python_example(tiny_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_folder / "helpfulness", tmp_path / "helpfulness")
    [example] = [block for kind, block in blocks(PAGE) if kind == "python"]
    (tmp_path / "example.py").write_text(example, "utf-8")
    done = subprocess.run([sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True, check=True)
    scores, logits = map(json.loads, done.stdout.splitlines())
    dialogues = [
        [{"role": "user", "content": "Where does Ada live?"}, {"role": "assistant", "content": answer}]
        for answer in ("Ada lives in Lima.", "No.")
    ]
    model = RewardModel.load(tiny_folder / "helpfulness")
    assert logits == pytest.approx(model.logits(dialogues), abs=1e-5)
    assert scores == pytest.approx(model.scores(dialogues), abs=1e-6)


def test_the_claims_that_it_names_are_claims() -> None:
    named = re.findall(r"^llamaherd claims --only (\S+)$", PAGE, re.MULTILINE)
    assert named == ["margins", "auxiliary-loss", "joint-reward-model", "fresh-preferences", "reward-scaling"]
    assert set(named) <= CLAIMS.keys()


@pytest.mark.slow
def test_every_command(
    tiny_folder: Path, tiny_inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_folder / "v0", "chat")
    shutil.copy(tiny_inputs / "dialogues.jsonl", "dialogues.jsonl")
    rows = [row for _, row in read_rows(tiny_inputs / "preferences.jsonl")]
    sources = ("ours", "webgpt", "ours", "hh")
    rows = [{**row, "source": sources[number % 4]} for number, row in enumerate(rows)]
    write_rows(Path("preferences.jsonl"), rows)
    for name, some in (("test", rows[:6]), ("batch-1", rows[6:15]), ("batch-2", rows[15:])):
        write_rows(Path(f"{name}.jsonl"), some)
    write_rows(Path("rated.jsonl"), [{**row, "rating": number % 7} for number, (_, row) in enumerate(read_rows(Path("dialogues.jsonl")))])
    for program, verb, *rest in commands(PAGE):
        assert program == "llamaherd"
        main([verb, *rest, *(["--epochs=0.5", "--test_share=0.4"] if verb == "reward" else [])])
        said = capsys.readouterr()
        assert said.out.strip(), (verb, rest)
    assert (tmp_path / "margins" / "report.html").is_file()
    assert json.loads((tmp_path / "drift" / "report.json").read_text())["agreement"].keys() == {"guard"}
