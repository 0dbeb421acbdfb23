import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llamaherd.core.artifacts import Artifact, hash_of
from llamaherd.core.files import write_rows
from llamaherd.data.records import GRADES
from llamaherd.doctor.examine import examine
from llamaherd.doctor.finding import Finding
from llamaherd.measures.intervals import rate

from .conftest import absent, asked, comparison, findings, said


def test_test_prompts_that_were_trained_on_are_seen(train_reward: Callable[..., Artifact], tmp_path: Path) -> None:
    """Other comparisons of the same prompts, spelled another way."""
    rows = [comparison(number, said(number, "Lima"), said(number, "Oslo")) for number in range(40)]
    spelled = [
        {**row, "messages": [{"role": "user", "content": f" {row['messages'][0]['content'].upper()}"}], "rejected": "No."}
        for row in rows[:10]
    ]
    fresh = [comparison(number, said(number, "Lima"), said(number, "Oslo")) for number in range(100, 110)]
    write_rows(tmp_path / "leak.jsonl", [*spelled, *fresh])
    write_rows(tmp_path / "fresh.jsonl", fresh)
    leaky, sound = (
        train_reward(tmp_path / "model" / name, rows, test=str(tmp_path / f"{name}.jsonl"), epochs=1) for name in ("leak", "fresh")
    )
    [leak] = findings(leaky.path)["leak"]
    assert (leak.numbers["both"]["value"], leak.numbers["both"]["n"]) == (0.5, 20)
    assert "leak" not in findings(sound.path)
    assert "leak" not in absent(sound.path)


def test_an_evaluation_on_what_was_tuned_on_is_seen(tune: Callable[..., Artifact], tiny_inputs: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    tune(run / "v0", tiny_inputs / "dialogues.jsonl", epochs=1)
    known = json.loads((tiny_inputs / "dialogues.jsonl").read_text("utf-8").splitlines()[0])["messages"][:1]
    others = [[{"role": "user", "content": asked(number)}] for number in range(19)]
    folder = run / "v0-evaluation"
    folder.mkdir()
    manifest = {"kind": "evaluation", "stage": "evaluate", "hash": "x", "config": {"model": "elsewhere/v0"}, "metrics": {}, "parents": {}}
    (folder / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    rows = [
        {"task": "helpfulness", "mode": "sampled", "id": hash_of(messages)[:16], "finished": True, "answer": f"{number}"}
        for number, messages in enumerate([known, *others])
    ]
    write_rows(folder / "rows.jsonl", rows)
    [leak] = findings(run)["leak"]
    assert (leak.artifact, leak.numbers["both"]["value"]) == ("v0-evaluation", 0.05)
    write_rows(folder / "rows.jsonl", rows[1:])
    assert findings(run) == {}


def batch(folder: Path, grades: dict[str, int], **fields: Any) -> Path:
    """Preferences that people brought along: rows and no manifest."""
    counted = [grade for grade, count in grades.items() for _ in range(count)]
    rows = [comparison(number, said(number, "Lima"), said(number, "Oslo"), grade=grade, **fields) for number, grade in enumerate(counted)]
    folder.mkdir(parents=True)
    write_rows(folder / "preferences.jsonl", rows)
    return folder


def test_a_batch_graded_unlike_the_one_before_is_seen(tmp_path: Path) -> None:
    """30 of 100 move from the first grade to the last: chi-square by hand, 2 * 15^2 / 45 + 2 * 15^2 / 35."""
    batch(tmp_path / "a", dict(zip(GRADES, (60, 20, 0, 20), strict=True)))
    batch(tmp_path / "b", dict(zip(GRADES, (30, 20, 0, 50), strict=True)), batch="v2")
    [drift] = findings(tmp_path)["grades"]
    assert drift.artifact == "b (v2, helpfulness)"
    assert drift.numbers["moved"] == pytest.approx(0.3)
    assert drift.numbers["chi2"] == pytest.approx(2 * 225 / 45 + 2 * 225 / 35)
    assert "significantly 0.60 to 0.30" in drift.said
    batch(tmp_path / "c", dict(zip(GRADES, (5, 3, 0, 3), strict=True)), batch="v3")
    assert len(findings(tmp_path)["grades"]) == 1, "few comparisons are no batch to judge by, and a like one is healthy"


def test_batches_within_one_folder_are_held_against_each_other(tmp_path: Path) -> None:
    first = [comparison(number, said(number, "Lima"), said(number, "Oslo"), grade="significantly", batch="may") for number in range(40)]
    then = [comparison(number, said(number, "Lima"), said(number, "Oslo"), grade="negligibly", batch="june") for number in range(40, 80)]
    (tmp_path / "people").mkdir()
    write_rows(tmp_path / "people" / "preferences.jsonl", [*first, *then])
    [drift] = findings(tmp_path / "people")["grades"]
    assert (drift.artifact, drift.numbers["moved"]) == ("people (june, helpfulness)", 1.0)


def judged(folder: Path, seed: int, share: float) -> Finding:
    """Sixty pairs, each judged by two people who agree on a share of them."""
    rng, rows = random.Random(seed), []
    for number in range(60):
        rows.append(comparison(number, said(number, "Lima"), said(number, "Oslo"), annotator="ann"))
        again = (said(number, "Lima"), said(number, "Oslo")) if rng.random() < share else (said(number, "Oslo"), said(number, "Lima"))
        rows.append(comparison(number, *again, annotator="bob"))
    folder.mkdir()
    write_rows(folder / "preferences.jsonl", rows)
    [found] = [one for one in examine(folder)[1] if one.check == "annotators"]
    assert found.numbers["agreement"]["n"] == 60
    return found


def test_annotators_that_guess_are_seen(tmp_path: Path) -> None:
    assert judged(tmp_path / "guess", 0, 0.5).state == "wrong"
    assert judged(tmp_path / "agree", 0, 0.8).state == "healthy"


def test_the_miniatures_annotators_at_chance_are_seen(tmp_path: Path) -> None:
    folder = batch(tmp_path / "v1-preferences", {"better": 20})
    for hits, state in ((55, "wrong"), (80, "healthy")):
        metrics = {"agreement": {"helpfulness": {"all": rate(hits, 100)}, "safety": {"all": rate(0, 0)}}}
        manifest = {"kind": "preferences", "stage": "collect", "hash": "x", "config": {}, "metrics": metrics, "parents": {}}
        (folder / "manifest.json").write_text(json.dumps(manifest), "utf-8")
        by_domain = {one.artifact: one.state for one in examine(folder)[1] if one.check == "annotators"}
        assert by_domain == {"v1-preferences (helpfulness)": state, "v1-preferences (safety)": "not measured"}
