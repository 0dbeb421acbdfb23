"""The report of a run on real text: who judged, what cannot be measured there, benchmarks and win rates."""

import html
import json
import re
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from tests.report.reading import change, one_of, value
from tests.report.real import build_real_run

from llamaherd.measures.intervals import rate
from llamaherd.report import figures, pictures
from llamaherd.report.build import build_report
from llamaherd.report.effects import measure_effects
from llamaherd.report.folder import RunFolder, pipeline_order

NEW = ("Win rates between versions", "Benchmarks", "Who judged")
JUDGE = "the judge: accuracy on people's held-out comparisons, which it never saw"


@pytest.fixture(autouse=True)
def _without_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (figures, pictures):
        monkeypatch.setattr(module, "svg", lambda drawn, title: "")  # drawing is tested elsewhere, and slow


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For tests that only read it."""
    return build_real_run(tmp_path_factory.mktemp("real") / "toy")


@pytest.fixture
def real(whole: Path, tmp_path: Path) -> Path:
    """For tests that change it."""
    return Path(shutil.copytree(whole, tmp_path / "toy"))


def page_of(run: Path, out: Path | None = None) -> str:
    return build_report(run, out).html.read_text(encoding="utf-8")


def text_of(page: str) -> str:
    bare = re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", bare)))


def test_names_of_a_real_run_stand_in_the_order_of_its_pipeline() -> None:
    names = [
        "texts", "comparisons", "prompts", "corpus", "tokenizer", "shards", "base", "base-benchmarks", "v0", "v0-evaluation", "v0-rewards",
        "v0-benchmarks", "judge", "v1-helpfulness", "v1-safety", "v1-samples", "v1-best-of", "v1", "v1-evaluation", "v1-rewards", "v1-wins", "distilled",
        "ghost", "v2-samples", "v2-rejection", "v2-rejection-evaluation", "v2-rejection-rewards", "v2-rejection-wins", "v2", "v2-benchmarks", "v2-wins",
    ]  # fmt: skip
    assert sorted(set(names), key=lambda name: pipeline_order(name, 1)) == names


def test_the_folder_knows_who_judged(whole: Path, run: Path) -> None:
    folder = RunFolder(whole)
    assert (folder.real, folder.judge, folder.last, folder.rejection, folder.with_ghost) == (
        True,
        "judge",
        "v2",
        "v2-rejection",
        "v2-rejection",
    )
    assert folder.judge_accuracy == rate(192, 300)
    assert list(folder.constraints) == ["seen", "held_out"]
    assert list(folder.wins) == ["v1", "v2-rejection", "v2"]
    miniature = RunFolder(run)
    assert (miniature.real, miniature.judge, miniature.last, miniature.judge_accuracy) == (False, "oracle", "v5", None)
    assert list(miniature.constraints) == ["seen", "demonstrated", "held_out"]


def test_effects_by_hand(whole: Path) -> None:
    # 62 of 100 by source, WebGPT's and PandaLM's grades in turn: of the significant ones 0, 4 .. 60 agree, of the negligible 3 .. 59.
    assert value(one_of(whole, "helpfulness reward model: ")) == pytest.approx(16 / 25 - 15 / 25)
    assert value(one_of(whole, "safety pairs")) == pytest.approx(0.62 - 0.52)
    assert value(one_of(whole, "v2 over v0", "by the judge, sampled")) == pytest.approx(0.18)
    # 38 won and 6 tied of 60.
    assert value(one_of(whole, "v2 against v0: win rate")) == pytest.approx((38 + 3) / 60)
    assert value(one_of(whole, "safe by text heuristics")) == pytest.approx(0.2)
    assert value(one_of(whole, "turn 4, constraints never")) == pytest.approx(35 / 40 - 3 / 40)
    assert value(one_of(whole, JUDGE)) == pytest.approx(0.64)
    assert not [one.name for one in measure_effects(RunFolder(whole)) if "oracle" in f"{one.name} {one.brief} {one.said} {one.note}"]


def test_what_the_data_cannot_say_is_not_measured_with_the_reason_and_does_not_decide(real: Path) -> None:
    attacks, grades = one_of(real, "held-out attacks"), one_of(real, "safety reward model: ")
    assert (attacks.here, attacks.shown, attacks.why) == (None, "undecided", "the public sets do not say which attack a prompt makes")
    assert grades.here is None
    assert grades.why == "no held-out safety comparison says how much better the chosen answer is"
    change(real / "v1-safety" / "manifest.json", "metrics", "accuracy", "own", "better", to=rate(9, 20))
    assert "say the same" in one_of(real, "safety reward model: ").why
    text = text_of(page_of(real))
    assert "not measured: the public sets do not say which attack a prompt makes" in text
    assert "these appear on real data at this size: reward models that are better on their own domain (2)" in text
    assert "These do not: a last version that is far safer without refusing what is harmless (5)." in text
    # Without a violation left the effect shows, though no attack is named.
    rows = [json.loads(line) for line in (real / "v2-evaluation" / "rows.jsonl").read_text().splitlines()]
    (real / "v2-evaluation" / "rows.jsonl").write_text(
        "".join(json.dumps(row | ({"safe": True} if "safe" in row else {})) + "\n" for row in rows)
    )
    assert "far safer without refusing what is harmless (5). These do not" not in text_of(page_of(real))
    assert "None" not in text_of(page_of(real)).split("Pipeline")[0]
    summary = json.loads((real / "summary.json").read_text())
    assert {row["name"]: row.get("not_measurable", "") for row in summary["effects"]}[attacks.name] == attacks.why


def test_a_judge_no_better_than_chance_shows_nothing(real: Path) -> None:
    assert one_of(real, "v2 over v0", "sampled").shown == "shown"
    change(real / "judge" / "manifest.json", "metrics", "accuracy", "own", "all", to=rate(110, 300))
    for parts in (("v2 over v0", "sampled"), ("best of 4",), ("v2 against v0",), ("not below v2-rejection",)):
        assert one_of(real, *parts).shown == "not shown", parts
    assert one_of(real, "PPO: reward").shown == "shown", "that is the reward models' word"
    change(real / "judge" / "manifest.json", "metrics", "accuracy", "own", "all", to=rate(155, 300))
    assert one_of(real, "v2 over v0", "sampled").shown == "undecided"
    assert "no more than chance might" in text_of(page_of(real))
    shutil.rmtree(real / "judge")
    assert one_of(real, "v2 over v0", "sampled").shown == "undecided"
    assert "has not been held against people" in text_of(page_of(real))


def test_page(whole: Path, tmp_path: Path) -> None:
    page = page_of(whole, tmp_path)
    root = ET.fromstring(page.removeprefix("<!DOCTYPE html>"))
    headings = [element.text for element in root.iter("h2")]
    assert set(NEW) <= set(headings)
    assert "Not measured in this run." not in page
    text = text_of(page)
    assert "oracle" not in text.lower()
    assert "miniature" not in text.lower()
    for part in (
        "A model of 9,876 parameters read 4,000 tokens of real text", "agrees with people on 0.640 (0.584 to 0.692) of 300 held-out comparisons",
        "Prompts of red-team sets and what models answered; they may offend", "0.50, most frequent answer 0.62", "above chance",
        "section \u201cHeuristics for real answers\u201d", "base: above chance on boolq; undecided on lambada, arc-easy.",
        "novels 60 8 58 300 75.0%", "webgpt 30 0 0 20 better, 10 slightly 9 tie, 1 empty", "500 demonstrations are tuned on; left out: 7 too long.",
        "the one that people preferred in these, 0.533", "v2 no PPO helpfulness prompts 0.583", "comparisons: 200 comparisons (helpfulness 100, safety 100)",
    ):  # fmt: skip
        assert part in text, part


def test_summary_and_cards(whole: Path, tmp_path: Path) -> None:
    report = build_report(whole, tmp_path)
    summary = json.loads(report.summary_file.read_text(encoding="utf-8"))
    assert summary["judge"]["accuracy"] == rate(192, 300)
    assert summary["judge"]["by_source"]["webgpt"] == rate(64, 100)
    assert summary["benchmarks"]["v2"]["boolq"]["accuracy"] == rate(268, 400)
    assert summary["wins"]["v2"]["by_criterion"]["helpfulness"]["win_rate"] == rate(41, 60)
    assert summary["versions"][-1]["compared"][0]["judge"].keys() == {"helpfulness", "safety"}
    card = (tmp_path / "cards" / "v2.md").read_text(encoding="utf-8")
    for part in (
        "| helpfulness by the judge, sampled |", "| won against v0, helpfulness prompts | 0.683", "| boolq, accuracy | 0.670 (0.622 to 0.714), n 400, above chance (0.50) |",
        "| bits per byte of held-out documents | 1.600", "The category of harm that it withstands least is fraud", "agrees with people on 0.640",
    ):  # fmt: skip
        assert part in card, part
    assert "oracle" not in card
    assert "held-out attacks" not in card


@pytest.mark.parametrize(
    "gone",
    [
        "texts",
        "comparisons",
        "prompts",
        "judge",
        "base-benchmarks",
        "v2-wins",
        "v1-helpfulness",
        "v0-evaluation",
        "v2-rejection",
        "v2",
        "shards",
    ],
)
def test_each_artifact_may_be_missing_alone(real: Path, gone: str) -> None:
    shutil.rmtree(real / gone)
    ET.fromstring(page_of(real).removeprefix("<!DOCTYPE html>"))


def test_a_run_that_has_only_begun(tmp_path: Path, whole: Path) -> None:
    """Own texts in the public ones' place, and nothing judged yet: everything new is said to be not measured."""
    run = tmp_path / "begun"
    for name in ("corpus", "base"):
        shutil.copytree(whole / name, run / name)
    shutil.copy(whole / "recipe.json", run / "recipe.json")
    page = page_of(run)
    root = ET.fromstring(page.removeprefix("<!DOCTYPE html>"))
    missing = {
        section.find("h2").text for section in root.iter("section") if "Not measured in this run." in ET.tostring(section, "unicode")
    }  # type: ignore[union-attr]
    assert set(NEW) <= missing
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["judge"]["accuracy"], summary["benchmarks"], summary["wins"]) == (None, {}, {})
    assert all(row["shown"] == "undecided" for row in summary["effects"])
