import json
from collections.abc import Callable
from pathlib import Path

from llamaherd.core.artifacts import Artifact
from llamaherd.core.files import write_rows
from llamaherd.doctor.examine import examine

from .conftest import absent, findings

Sample = Callable[..., Artifact]


def test_a_healthy_sampler_gives_no_finding(sample: Sample, tmp_path: Path) -> None:
    done = sample(tmp_path / "samples")
    assert findings(done.path) == {}
    assert {one.check for one in examine(done.path)[1] if one.state == "healthy"} == {"answers-end", "answers-alike"}


def test_a_collapsed_sampler_is_seen(sample: Sample, tmp_path: Path) -> None:
    """At so low a temperature all answers to a prompt are the same."""
    [alike] = findings(sample(tmp_path / "samples", temperature=1e-4, k=8).path)["answers-alike"]
    assert alike.numbers["new"]["value"] < 0.05
    assert alike.numbers["self_bleu"]["value"] > 0.9


def written(folder: Path, answers: list[list[str]], unusable: str | None = None) -> Path:
    folder.mkdir()
    manifest = {"kind": "samples", "stage": "reject", "hash": "x", "config": {"prompts": ["p.jsonl"]}, "metrics": {}, "parents": {}}
    (folder / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    write_rows(
        folder / "samples.jsonl",
        [{"candidates": [{"text": text, "logit": 0.0, "unusable": unusable} for text in some]} for some in answers],
    )
    return folder


def test_answers_that_never_end_are_seen(tmp_path: Path) -> None:
    [never] = findings(written(tmp_path / "samples", [[f"{n} {m} and" for m in range(4)] for n in range(12)], "unfinished"))["answers-end"]
    assert never.numbers["unfinished"]["value"] == 1.0
    assert never.numbers["never_ends"] is True
    assert never.said.endswith("they never end")


def test_one_answer_to_everything_is_seen(tmp_path: Path) -> None:
    """Two answers a prompt, the first of them always the same: half of all, and with 95% hardly more; then three of four."""
    half = written(tmp_path / "half", [["I am Ada.", f"I am {number}."] for number in range(40)])
    assert "answers-alike" not in findings(half)
    most = written(tmp_path / "most", [["I am Ada."] * 3 + [f"I am {number}."] for number in range(40)])
    [alike] = findings(most)["answers-alike"]
    assert alike.numbers["most_frequent"]["value"] == 0.75
    assert alike.numbers["new"]["value"] == 1 / 3
    assert "'I am Ada.'" in alike.said


def test_an_empty_file_is_not_measured(tmp_path: Path) -> None:
    assert absent(written(tmp_path / "empty", [])) == {"answers-end", "leak"}
