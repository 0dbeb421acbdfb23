import html
import json
import re
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from llamaherd.report import figures
from llamaherd.report.build import Report, build_report
from llamaherd.report.text import effect_lines, version_table

SECTIONS = (
    "Versions", "Effects of the paper, measured here", "Sample answers", "By kind, category and attack", "Reward models", "Best of N",
    "Ghost Attention", "PPO health", "Training", "Corpus", "Pipeline",
)  # fmt: skip
NOT_MEASURED = "Not measured in this run."


def parsed(page: str) -> ET.Element:
    """The page is XHTML as well, which a strict parser can check."""
    return ET.fromstring(page.removeprefix("<!DOCTYPE html>"))


def test_page_is_well_formed_and_loads_nothing(page: str) -> None:
    root = parsed(page)
    tags = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert not tags & {"script", "link", "img", "iframe", "object", "embed", "video", "audio", "base", "form"}
    for element in root.iter():
        for key, value in element.attrib.items():
            name = key.rpartition("}")[2]
            assert not name.startswith("on"), key
            if name in ("href", "src", "action", "data", "poster", "srcset"):
                assert value.startswith("#"), value
    assert not re.search(r"@import|url\((?!#)", page)
    assert "://" not in re.sub(r' xmlns(:\w+)?="[^"]*"', "", page)


def test_ids_are_unique_and_links_lead_somewhere(page: str) -> None:
    root = parsed(page)
    ids = [element.attrib["id"] for element in root.iter() if "id" in element.attrib]
    assert len(ids) == len(set(ids))
    targets = [value[1:] for element in root.iter() for key, value in element.attrib.items() if key.endswith("href")]
    assert set(targets) <= set(ids)
    assert {name for element in root.iter() if (name := element.attrib.get("aria-labelledby"))} <= set(ids)


def test_every_section_is_there_and_measured(page: str) -> None:
    assert tuple(element.text for element in parsed(page).iter("h2")) == SECTIONS
    assert NOT_MEASURED not in page


def test_every_chart_has_words_and_a_table(page: str) -> None:
    figures = list(parsed(page).iter("figure"))
    assert len(figures) > 20
    for chart in figures:
        picture = chart.find("div[@role='img']")
        assert picture is not None
        assert picture.attrib["aria-label"]
        assert chart.find("details//table") is not None


def test_model_text_is_escaped(page: str) -> None:
    from_samples = [element.text for element in parsed(page).iter("dd")]
    assert "v5 says <script>alert('x')</script> & \"quotes\" </svg> \u00e4\u6587" in from_samples
    assert "<script" not in page


def test_what_is_said(page: str) -> None:
    text = html.unescape(page)
    for part in ("near_duplicate", "en</th><td>0.900", "seed 7", "PPO: value loss", "0.303 (0.2", "not metered"):
        assert part in text


def test_summary(report: Report) -> None:
    summary = json.loads(report.summary_file.read_text(encoding="utf-8"))
    assert summary == report.summary
    assert summary["seed"] == 7
    assert summary["seconds"] == 10.0 * len(summary["stages"])
    assert [row["name"] for row in summary["versions"]] == ["v0", "v1", "v2", "v3", "v4", "v5"]
    first = json.loads((report.html.parent / "v0-evaluation" / "evaluation.json").read_text(encoding="utf-8"))["tasks"]
    assert summary["versions"][0] == {
        "name": "v0", "helpfulness": first["helpfulness"]["sampled"], "violation_rate": first["safety"]["violation_rate"],
        "false_refusal_rate": first["borderline"]["false_refusal_rate"],
    }  # fmt: skip
    for row in summary["versions"]:
        assert all(row[name].keys() == {"value", "low", "high", "n"} for name in ("helpfulness", "violation_rate", "false_refusal_rate"))
    for row in summary["effects"]:
        assert row.keys() >= {"name", "paper", "here", "shown"}
        assert row["shown"] in ("shown", "not shown", "undecided")


def test_same_run_same_bytes_in_another_folder(report: Report, tmp_path: Path) -> None:
    again = build_report(report.html.parent, tmp_path / "elsewhere")
    assert again.html.parent == tmp_path / "elsewhere"
    assert again.html.read_bytes() == report.html.read_bytes()
    assert again.summary_file.read_bytes() == report.summary_file.read_bytes()


def test_missing_pieces_are_said_and_do_not_crash(run: Path) -> None:
    for folder in run.iterdir():
        if folder.is_dir() and folder.name not in ("tokenizer", "base", "v0"):
            shutil.rmtree(folder)
    (run / "base" / "metrics.jsonl").unlink()
    report = build_report(run)
    page = report.html.read_text(encoding="utf-8")
    missing = [section.find("h2").text for section in parsed(page).iter("section") if NOT_MEASURED in ET.tostring(section, "unicode")]  # type: ignore[union-attr]
    assert set(SECTIONS) - set(missing) == {"Effects of the paper, measured here", "Training", "Pipeline"}
    assert all(row["here"] is None and row["shown"] == "undecided" for row in report.summary["effects"])
    assert report.summary["versions"] == [{"name": "v0", "helpfulness": None, "violation_rate": None, "false_refusal_rate": None}]
    assert version_table(report.summary).splitlines()[1] == "v0       not measured  not measured    not measured"


def test_each_artifact_may_be_missing_alone(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "_svg", lambda canvas, prefix: "")  # drawing is tested elsewhere, and slow
    names = ("world", "corpus", "base", "v0", "v0-evaluation", "v3-evaluation", "v5-helpfulness", "v5-samples", "v5-rejection", "v5")
    for folder in (run / name for name in names):
        shutil.move(folder, tmp_path / "aside")
        parsed(build_report(run).html.read_text(encoding="utf-8"))
        shutil.move(tmp_path / "aside", folder)


def test_terminal_tables(report: Report) -> None:
    summary = report.summary
    lines = version_table(summary).splitlines()
    assert lines[0].split() == ["version", "helpfulness", "violation", "rate", "false", "refusal", "rate"]
    assert [line.split()[0] for line in lines[1:]] == ["v0", "v1", "v2", "v3", "v4", "v5"]
    assert "0.600 (0.474 to 0.714)" in lines[1]
    effects = effect_lines(summary).splitlines()
    assert len(effects) == len(summary["effects"])
    assert any(line.startswith("undecided  false refusals of v5 on borderline prompts, held-out topics: 0.400") for line in effects)
