from pathlib import Path

import pytest
from tests.conftest import FinishedRun

from benchmarks import pages, results
from llamaherd.core.errors import UserError
from llamaherd.core.files import write_json
from llamaherd.measures.intervals import rate

PAGE = "# Results\n\n<!-- versions -->\nold\n<!-- end -->\n\n<!-- ablations -->\n<!-- end -->\nlast\n"


def test_a_table_replaces_what_stands_at_its_mark() -> None:
    page = pages.filled(PAGE, {"versions": "| new |\n"})
    assert page == PAGE.replace("old\n", "| new |\n")
    assert pages.filled(page, {"versions": "| new |\n"}) == page
    with pytest.raises(UserError, match="has no place <!-- people -->"):
        pages.filled(PAGE, {"people": ""})


def test_the_page_has_a_place_for_every_table() -> None:
    page = pages.RESULTS.read_text(encoding="utf-8")
    for name in ("versions", "steps", "grades", "ablations", "people", "real"):
        assert pages.filled(page, {name: "x"}) != page, name


def test_ablations_are_read_from_the_ledger(tmp_path: Path) -> None:
    row = {"name": "small margin minus none", "here": rate(1, 4), "shown": "undecided"}
    claims = [{"id": "margins", "claim": "Margins help.", "rows": [row]}, {"id": "other", "claim": "-", "rows": [row]}]
    write_json(tmp_path / "ledger.json", {"claims": claims})
    table = results.ablations_table(tmp_path).splitlines()
    assert table[2] == "| Margins help. | small margin minus none | 0.250 (0.046 to 0.699) | undecided |"
    assert table[3:] == [f"| {name} | not in this ledger | not measured | undecided |" for name in results.ABLATIONS[1:]]


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    for option in ("--claims", "--people"):
        with pytest.raises(SystemExit, match=r"seed-0|results.json: no such file"):
            results.main([option, str(tmp_path)])
    with pytest.raises(UserError, match="`llamaherd claims --out"):
        results.ablations_table(tmp_path)


def test_versions_of_a_run(finished_run: FinishedRun, tmp_path: Path) -> None:
    (tmp_path / "seed-0").symlink_to(finished_run.folder)
    seeds = results.runs_of(tmp_path)
    names = ["v0", "v1", "v2", "v3", "v4", "v5 no PPO", "v5"]
    rows = results.versions_table(seeds).splitlines()
    assert [row.split(" | ")[0].removeprefix("| ") for row in rows[2:]] == names
    steps = results.steps_table(seeds).splitlines()
    assert steps[-1].startswith("| v0 to v5 |")
    assert all(row.count("better") + row.count("worse") + row.count("undecided") == len(results.MEASURES) for row in steps[2:])
    assert len(results.grades_table(seeds).splitlines()) == 4
