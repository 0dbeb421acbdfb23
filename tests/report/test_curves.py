"""Curves beside a run's own artifacts reach its report."""

import json
from pathlib import Path

from llamaherd.measures.intervals import figure
from llamaherd.report.build import build_report
from llamaherd.report.curves import curve_charts, curve_sentences
from llamaherd.report.folder import RunFolder


def measured(run: Path, name: str, best: float) -> None:
    def at(value: float) -> dict[str, dict[str, object]]:
        rise = {n: dict(figure(value * part, value * part - 0.1, value * part + 0.1, 9)) for n, part in (("1", 0.5), ("4", 1.0))}
        return {"max": rise, "median": {n: dict(figure(0.25, 0.2, 0.3, 9)) for n in rise}}

    by_temperature = {"0.8": at(0.6), "1": at(0.7), "1.2": at(0.8)}
    metrics = {
        "best_temperature": figure(best, 0.8, 1.2, 9), "max_score": by_temperature["1.2"]["max"], "median_score": by_temperature["1.2"]["median"],
        "by_temperature": by_temperature,
    }  # fmt: skip
    manifest = {
        "kind": "samples",
        "stage": "curves",
        "config": {},
        "seed": 0,
        "parents": {},
        "hash": name,
        "metrics": metrics,
        "seconds": 1.0,
    }
    manifest |= {
        "started": "2023-07-18T12:00:00+00:00",
        "finished": "2023-07-18T12:00:01+00:00",
        "device": "an abacus",
        "energy_wh_estimate": 0.1,
    }
    (run / name).mkdir()
    (run / name / "manifest.json").write_text(json.dumps(manifest))


def test_curves_of_versions_are_drawn_and_told(run: Path) -> None:
    assert curve_charts(RunFolder(run)) == []
    assert curve_sentences(RunFolder(run)) == []
    measured(run, "v1-curves", 0.8)
    measured(run, "v5-curves", 1.2)
    told = curve_sentences(RunFolder(run))
    assert [line.partition(":")[0] for line in told] == ["v1-curves", "v5-curves"]
    assert told[1].startswith("v5-curves: the best of 4 answers scores highest at temperature 1.2")
    over_n, over_temperature = curve_charts(RunFolder(run))
    assert over_n.title.startswith("Score of the best and of the median of N")
    page = build_report(run).html.read_text("utf-8")
    for text in (over_n.title, over_temperature.title, "v5-curves best", "v1-curves median"):
        assert text in page
