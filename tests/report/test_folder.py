from pathlib import Path

import pytest

from llamaherd.core.errors import UserError
from llamaherd.report.folder import RunFolder, as_figure, per_prompt, pipeline_order


def test_pipeline_order() -> None:
    names = [
        "world", "corpus", "tokenizer", "shards", "base", "v0-early", "v0", "v0-evaluation", "v1-preferences", "v1-helpfulness",
        "v1-safety", "v1-samples", "v1", "v1-evaluation", "v3-samples", "v3", "v3-evaluation", "distilled", "ghost", "v4-preferences",
        "v5-rejection", "v5-rejection-evaluation", "v5", "v5-evaluation", "v10", "mine", "v1-mine",
    ]  # fmt: skip
    backwards = names[::-1]
    assert sorted(backwards, key=pipeline_order) == names


def test_reads_what_is_there(run: Path) -> None:
    folder = RunFolder(run)
    assert list(folder.artifacts)[:5] == ["world", "corpus", "tokenizer", "shards", "base"]
    assert folder.versions == ["v0", "v1", "v2", "v3", "v4", "v5-rejection", "v5"]
    assert folder.newest("helpfulness") == "v5-helpfulness"
    assert folder.newest("rejection-evaluation") == "v5-rejection-evaluation"
    assert folder.seed == 7
    assert folder.total("seconds") == 10.0 * len(folder.artifacts)
    assert folder.metric("corpus", "dropped", "near_duplicate") == 12
    assert folder.metric("corpus", "dropped", "elsewhere") is folder.metric("nowhere") is None
    assert folder.figure("v0", "safety", "by_attack", "role play") is None
    assert folder.carbon_g == pytest.approx(folder.total("energy_wh_estimate") * 0.4)
    assert {row["task"] for row in folder.answers["v0"]} == {"helpfulness", "safety", "borderline", "ghost", "rewards"}
    assert folder.rows("v0-evaluation", "nothing.jsonl") == folder.rows("nowhere") == []
    assert [folder.label(version) for version in ("v4", "v5-rejection", "v5")] == ["v4", "v5 no PPO", "v5"]


def test_values_by_prompt() -> None:
    """Several answers to a prompt are averaged, what is not measured is left out, other rows are not looked at."""
    rows = [{"task": "t", "id": "a", "score": score} for score in (0.0, 1.0, None)]
    rows += [{"task": "t", "id": "b", "score": None}, {"task": "other", "id": "c", "score": 1.0}, {"task": "t", "id": "d", "score": True}]
    assert per_prompt(rows, lambda row: row["score"], task="t") == {"a": 0.5, "d": 1.0}


def test_as_figure() -> None:
    assert as_figure({"value": 1, "low": 0, "high": 2, "n": 3}) == {"value": 1.0, "low": 0.0, "high": 2.0, "n": 3}
    assert as_figure({"value": None, "low": None, "high": None, "n": 0}) is as_figure(None) is as_figure(0.5) is as_figure({}) is None


def test_seed_of_a_folder_without_recipe(run: Path) -> None:
    (run / "recipe.json").unlink()
    assert RunFolder(run).seed == 7


def test_refuses_a_folder_without_a_run(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match="nothing finished there"):
            RunFolder(path)


def test_damaged_files_are_named(run: Path) -> None:
    (run / "v2-evaluation" / "evaluation.json").write_text("{")
    with pytest.raises(UserError, match=r"v2-evaluation.*evaluation\.json.*not JSON"):
        _ = RunFolder(run).evaluations
