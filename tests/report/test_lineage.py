"""A run of two rounds, as its stages write it, in which the second version lost."""

import json
from pathlib import Path
from typing import Any

import pytest

from llamaherd.core.files import write_json, write_rows
from llamaherd.measures.intervals import rate
from llamaherd.report.build import build_report
from llamaherd.report.folder import RunFolder
from llamaherd.report.lineage import lineage
from llamaherd.report.told import lineage_table, regression_lines


def artifact(
    run: Path, name: str, kind: str, stage: str, config: dict[str, Any], metrics: dict[str, Any] | None = None, *parents: str
) -> None:
    """The paths in its settings are those of the machine that made it."""
    manifest = {
        "kind": kind, "stage": stage, "config": config, "seed": 7, "parents": {parent: {"path": f"/far/{parent}", "hash": parent} for parent in parents},
        "hash": name, "metrics": metrics or {}, "seconds": 1.0,
    }  # fmt: skip
    (run / name).mkdir(parents=True)
    write_json(run / name / "manifest.json", manifest)


def compared(run: Path, name: str, newest: str, previous: str, wins: dict[str, tuple[int, int]]) -> None:
    """`wins`: of the newest, by domain, of how many; each fifth comparison is for testing."""
    rows = []
    for domain, (won, count) in wins.items():
        for index in range(count):
            sides = (newest, previous) if index < won else (previous, newest)
            rows.append({
                "messages": [{"role": "user", "content": f"{domain} {index}?"}], "chosen": "a", "rejected": "b", "grade": "better", "domain": domain,
                "chosen_model": sides[0], "rejected_model": sides[1], "chosen_temperature": 0.8, "rejected_temperature": 1.1, "batch": name[:2],
            })  # fmt: skip
    config = {"newest": f"/far/{newest}", "previous": f"/far/{previous}", "batch": name[:2]}
    artifact(run, name, "preferences", "collect", config, {"dropped": {"equal": 3, "empty": 0}, "newest_won": rate(1, 2)}, newest, previous)
    write_rows(run / name / "preferences.jsonl", [row for index, row in enumerate(rows) if index % 5])
    write_rows(run / name / "test.jsonl", rows[::5])


@pytest.fixture
def run(tmp_path: Path) -> Path:
    run = tmp_path / "toy"
    artifact(run, "world", "corpus", "world", {})
    write_rows(run / "world" / "demonstrations.jsonl", [{"messages": []}] * 200)
    artifact(run, "base", "model", "pretrain", {})
    sft = {"data": ["/far/world/demonstrations.jsonl"], "shares": [], "model": "/far/base"}
    for name in ("v0-early", "v0"):
        artifact(run, name, "model", "sft", sft, {"dialogues": 200, "trained_tokens": 4000, "steps": 9}, "base", "world")
    newest = {"v1": ("v0", "v0-early"), "v2": ("v1", "v0"), "v3": ("v2", "v1")}
    wins = {
        "v1": {"helpfulness": (30, 40)},
        "v2": {"helpfulness": (30, 40), "safety": (12, 20)},
        "v3": {"helpfulness": (10, 40), "safety": (15, 20)},
    }
    for n, (name, (now, before)) in enumerate(newest.items(), 1):
        batches = [f"v{earlier}-preferences" for earlier in range(1, n + 1)]
        compared(run, batches[-1], now, before, wins[name])
        if name == "v3":  # the run stands here
            break
        for domain in ("helpfulness", "safety"):
            metrics = {"domain": domain, "pairs": 10 * n, "accuracy": {"own": {"all": rate(3, 4)}}}
            artifact(run, f"{name}-{domain}", "reward-model", "reward", {"model": f"/far/{now}", "domain": domain}, metrics, now, *batches)
        pool = {f"v{earlier}": 5 for earlier in range(1, n + 1)}
        judges = (f"{name}-helpfulness", f"{name}-safety")
        artifact(run, f"{name}-samples", "samples", "reject", {"model": f"/far/{now}"}, {"pool": pool}, now, *judges)
        write_rows(run / f"{name}-samples" / "dialogues.jsonl", [{"messages": []}] * 5 * n)
        data = ["/far/world/demonstrations.jsonl", f"/far/{name}-samples/dialogues.jsonl"]
        tuned = {"data": data, "shares": [0.1, 1.0], "model": "/far/base"}
        artifact(run, name, "model", "sft", tuned, {"dialogues": 20 + 5 * n, "steps": 4}, "base", "world", f"{name}-samples")
    return run


def test_what_a_version_is_made_of(run: Path) -> None:
    first, second, third = lineage(RunFolder(run))
    assert [one["name"] for one in (first, second, third)] == ["v0", "v1", "v2"]
    assert first["judged_by"] == first["collected"] == []
    assert first["trained"] == [{
        "name": "v0", "stage": "sft", "from": "base", "dialogues": 200, "trained_tokens": 4000, "steps": 9,
        "data": [{"artifact": "world", "file": "demonstrations.jsonl", "rows": 200, "share": 1.0}],
    }]  # fmt: skip
    [training] = third["trained"]
    assert training["data"] == [
        {"artifact": "world", "file": "demonstrations.jsonl", "rows": 200, "share": 0.1},
        {"artifact": "v2-samples", "file": "dialogues.jsonl", "rows": 10, "share": 1.0, "pool": {"v1": 5, "v2": 5}},
    ]
    assert third["judged_by"][0] == {
        "name": "v2-helpfulness", "domain": "helpfulness", "from": "v1", "pairs": 20, "batches": ["v1-preferences", "v2-preferences"],
        "accuracy": rate(3, 4),
    }  # fmt: skip
    assert [one["name"] for one in third["collected"]] == ["v2-preferences"], "v1's batch was collected for v1"
    [batch] = third["collected"]
    assert (batch["comparisons"], batch["test"], batch["domains"]) == (60, 12, {"helpfulness": 40, "safety": 20})
    assert (batch["grades"]["better"], batch["dropped"]) == (60, {"equal": 3, "empty": 0})
    assert batch["answered"] == [
        {"model": "v0", "temperature": 0.8, "answers": 18, "won": 18}, {"model": "v0", "temperature": 1.1, "answers": 42, "won": 0},
        {"model": "v1", "temperature": 0.8, "answers": 42, "won": 42}, {"model": "v1", "temperature": 1.1, "answers": 18, "won": 0},
    ]  # fmt: skip


def test_how_each_compares_with_the_one_before_and_a_regression_is_marked(run: Path) -> None:
    first, second, third = lineage(RunFolder(run))
    assert first["compared"] == [{"with": "v0-early", "comparisons": {"all": rate(30, 40), "helpfulness": rate(30, 40)}, "lost": []}]
    assert second["compared"][0]["comparisons"] == {"all": rate(42, 60), "helpfulness": rate(30, 40), "safety": rate(12, 20)}
    assert third["compared"] == [
        {
            "with": "v1",
            "comparisons": {"all": rate(25, 60), "helpfulness": rate(10, 40), "safety": rate(15, 20)},
            "lost": ["comparisons, helpfulness"],
        }
    ]
    assert [one["regressions"] for one in (first, second, third)] == [[], [], ["v1: comparisons, helpfulness"]]


def test_it_stands_in_the_summary_in_the_report_and_in_the_table(run: Path) -> None:
    report, versions = build_report(run), lineage(RunFolder(run))
    summary = json.loads((run / "summary.json").read_text("utf-8"))
    assert [{key: one[key] for key in versions[0]} for one in summary["versions"]] == json.loads(json.dumps(versions))
    page = report.html.read_text("utf-8")
    assert "<strong>regression: comparisons, helpfulness</strong>" in page
    assert "v2-samples/dialogues.jsonl, 10 rows (v1 5, v2 5)" in page
    told = lineage_table(versions)
    assert "v2  ** regression: lost against v1: comparisons, helpfulness **" in told.splitlines()
    assert "world/demonstrations.jsonl, 20 of 200 rows" in told
    assert told.count("regression") == 1
    assert regression_lines(versions) == ["regression: v2 lost against v1: comparisons, helpfulness"]


def test_where_files_are_gone_it_says_so(run: Path) -> None:
    (run / "v2-samples" / "dialogues.jsonl").unlink()
    for file in ("preferences.jsonl", "test.jsonl"):
        (run / "v3-preferences" / file).unlink()
    third = lineage(RunFolder(run))[2]
    assert third["trained"][0]["data"][1]["rows"] is None
    assert third["compared"][0]["comparisons"]["all"]["n"] == 0
    assert "v2-samples/dialogues.jsonl, rows not there any more" in lineage_table([third])
    assert "won all not measured" in lineage_table([third])
