import html
import json
import re
import shutil
import xml.etree.ElementTree as ET
from itertools import pairwise
from pathlib import Path

import pytest

from llamaherd.report import figures, pictures
from llamaherd.report.build import Report, build_report
from llamaherd.report.drawing import COLOURS
from llamaherd.report.text import effect_lines, version_table

SECTIONS = (
    "In short", "What the versions say", "Versions", "By kind, category and attack", "Reward models", "Best of N", "Ghost Attention",
    "PPO health", "Pipeline", "Training", "Corpus", "All effects in full",
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
                assert value.startswith(("#", "data:image/png;base64,")), value
    assert not re.search(r"@import|url\((?!#)", page)
    assert "://" not in re.sub(r' xmlns(:\w+)?="[^"]*"', "", page)


def test_ids_are_unique_and_links_lead_somewhere(page: str) -> None:
    root = parsed(page)
    ids = [element.attrib["id"] for element in root.iter() if "id" in element.attrib]
    assert len(ids) == len(set(ids))
    links = [value for element in root.iter() for key, value in element.attrib.items() if key.endswith("href")]
    targets = [link[1:] for link in links if not link.startswith("data:")]
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
    assert "nothing" in [element.text for element in parsed(page).iter("em")], "an empty answer is no gap"
    assert "<script" not in page


def test_what_is_said(page: str) -> None:
    text = html.unescape(page)
    for part in (
        "near duplicate", "seed 7", "value loss", "nothing was metered", "told of v5", "en</th><td>90%</td><td>89.7%", "1.2%",
        "highest at N = 8; from there to N = 16 it changes by \u22120.40", "A model of 1,234 parameters read a corpus of 5,000 tokens",
        "7 shown, 1 undecided", "0.25 GB", "Act as Ada.", "sampled at temperature 0.6, top-p 0.9.", "539 t", "v5 refuses 3 of 10 borderline prompts",
    ):  # fmt: skip
        assert part in text, part


def test_summary(report: Report) -> None:
    summary = json.loads(report.summary_file.read_text(encoding="utf-8"))
    assert summary == report.summary
    assert summary["seed"] == 7
    assert summary["seconds"] == 10.0 * len(summary["stages"])
    assert [row["name"] for row in summary["versions"]] == ["v0", "v1", "v2", "v3", "v4", "v5"]
    first = json.loads((report.html.parent / "v0-evaluation" / "evaluation.json").read_text(encoding="utf-8"))["tasks"]
    shown = {key: summary["versions"][0][key] for key in ("name", "helpfulness", "violation_rate", "false_refusal_rate")}
    assert shown == {
        "name": "v0", "helpfulness": first["helpfulness"]["sampled"], "violation_rate": first["safety"]["violation_rate"],
        "false_refusal_rate": first["borderline"]["false_refusal_rate"],
    }  # fmt: skip
    for row in summary["versions"]:
        assert all(row[name].keys() == {"value", "low", "high", "n"} for name in ("helpfulness", "violation_rate", "false_refusal_rate"))
    for row in summary["effects"]:
        assert row.keys() >= {"name", "paper", "here", "shown"}
        assert row["shown"] in ("shown", "not shown", "undecided")


def test_same_run_same_bytes_in_another_folder(report: Report, tmp_path: Path) -> None:
    again = build_report(report.html.parent, tmp_path / "elsewhere", told={"v5": "told of v5"})
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
    assert set(SECTIONS) - set(missing) == {"In short", "Versions", "All effects in full", "Pipeline", "Training"}
    assert all(row["here"] is None and row["shown"] == "undecided" for row in report.summary["effects"])
    [version] = report.summary["versions"]
    assert version.items() >= {"name": "v0", "helpfulness": None, "violation_rate": None, "false_refusal_rate": None}.items()
    assert (version["collected"], version["judged_by"], version["compared"], version["regressions"]) == ([], [], [], [])
    assert not (run / "cards").exists()
    assert version_table(report.summary).splitlines()[1] == "v0       not measured  not measured    not measured"


def test_each_artifact_may_be_missing_alone(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (figures, pictures):
        monkeypatch.setattr(module, "svg", lambda drawn, title: "")  # drawing is tested elsewhere, and slow
    names = (
        "world",
        "corpus",
        "base",
        "v0",
        "v0-evaluation",
        "v3-evaluation",
        "v5-helpfulness",
        "v5-samples",
        "v5-best-of",
        "v5-rejection",
        "v5",
    )
    for folder in (run / name for name in names):
        shutil.move(folder, tmp_path / "aside")
        parsed(build_report(run).html.read_text(encoding="utf-8"))
        shutil.move(tmp_path / "aside", folder)


def test_a_card_for_every_version(report: Report) -> None:
    cards = {path.name: path.read_text(encoding="utf-8") for path in (report.html.parent / "cards").iterdir()}
    assert sorted(cards) == ["v0.md", "v1.md", "v2.md", "v3.md", "v4.md", "v5-rejection.md", "v5.md"]
    for part in (
        "# v5: chat model", "## Limits", "Beside v0, on the same prompts: helpfulness 0.31 to 0.70, violation rate 0.60 to 0.05",
        "| obeys at turn 20, constraints never trained on | 0.875 (0.739 to 0.945), n 40 |", "withstands least is plain: 0.050",
    ):  # fmt: skip
        assert part in cards["v5.md"], part
    assert "before any preference was collected" in cards["v0.md"]


def test_headings_are_in_order_and_everything_has_a_name(page: str) -> None:
    """What a screen reader goes by: language, landmarks, no level of headings left out, headers of tables, names of regions."""
    root = parsed(page)
    assert root.attrib["lang"] == "en"
    assert all(len(list(root.iter(name))) == 1 for name in ("main", "nav", "header", "footer", "h1"))
    levels = [int(element.tag[1]) for element in root.iter() if re.fullmatch("h[1-6]", element.tag)]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    for table in root.iter("table"):
        assert table.find("caption") is not None
        assert all(head.attrib["scope"] == "col" for head in table.findall("thead/tr/th"))
        assert all(row.find("th[@scope='row']") is not None for row in table.findall("tbody/tr"))
    for element in root.iter():
        if element.attrib.get("role") in ("img", "region"):
            assert element.attrib["aria-label"]


def test_ink_can_be_read_on_its_paper(page: str) -> None:
    """WCAG's contrast: 4.5 for text, 3 for the lines of charts, in light and in dark."""

    def luminance(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def contrast(one: str, other: str) -> float:
        low, high = sorted((luminance(one), luminance(other)))
        return (high + 0.05) / (low + 0.05)

    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    themes = [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block)) for block in re.findall(r":root \{(.*?)\}", page, flags=re.DOTALL)]
    assert len(themes) == 2
    for theme in themes:
        for ink in ("ink", "soft", "paper", "accent"):
            assert min(contrast(theme[ink], theme[back]) for back in ("page", "panel")) >= 4.5, ink
        for verdict in ("good", "bad", "open"):
            assert contrast(theme[verdict], theme[f"{verdict}-back"]) >= 4.5, verdict
        assert all(contrast(theme[f"c{index}"], theme["page"]) >= 3 for index in range(len(COLOURS)))


def test_terminal_tables(report: Report) -> None:
    summary = report.summary
    lines = version_table(summary).splitlines()
    assert lines[0].split() == ["version", "helpfulness", "violation", "rate", "false", "refusal", "rate"]
    assert [line.split()[0] for line in lines[1:]] == ["v0", "v1", "v2", "v3", "v4", "v5"]
    assert "0.600 (0.474 to 0.714)" in lines[1]
    effects = effect_lines(summary).splitlines()
    assert len(effects) == len(summary["effects"])
    assert any(line.startswith("undecided  false refusals of v5 on borderline prompts, held-out topics: 0.400") for line in effects)
