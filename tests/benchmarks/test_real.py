from pathlib import Path

from benchmarks.pages import RESULTS
from tests.report.real import TASKS, build_real_run

from benchmarks import real, results
from llamaherd.report.effects import TITLES
from llamaherd.report.folder import RunFolder


def test_every_table_has_the_run_s_own_figures(tmp_path: Path) -> None:
    folder = build_real_run(tmp_path / "toy")
    run = RunFolder(folder)
    versions = real.versions_table(run).splitlines()
    assert [row.split(" | ")[0] for row in versions[2:]] == ["| v0", "| v1", "| v2 no PPO", "| v2"]
    assert versions[2].endswith("| not measured |")
    assert versions[-1].endswith("| 0.683 (0.558 to 0.787) |")
    judge = real.rewards_table(run).splitlines()[-1]
    assert judge.startswith("| judge | 0.640 (0.584 to 0.692), n 300 | not measured | not measured | 0.640 (0.542 to 0.727), n 100 |")
    benchmarks = real.benchmarks_table(run).splitlines()
    assert benchmarks[0] == "| task | chance | base | v0 | v2 |"
    assert [row.split(" | ")[0] for row in benchmarks[2 : 2 + len(TASKS)]] == [f"| {task}" for task in TASKS]
    assert [row.split(" | ")[0] for row in benchmarks[-3:]] == [f"| bits per byte, {source}" for source in ("all", "novels", "tinystories")]
    effects = real.effects_table(run)
    assert all(title in effects for title in TITLES)
    page = tmp_path / "results.md"
    page.write_text(RESULTS.read_text(encoding="utf-8"), encoding="utf-8")
    results.main(["--real", str(folder), "--page", str(page)])
    assert real.real_tables(run) in page.read_text(encoding="utf-8")
