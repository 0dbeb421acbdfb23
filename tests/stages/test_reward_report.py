"""What a reward model is worth, as a command says it: figures that can be counted, pages that load nothing, inputs that are refused."""

import re
from pathlib import Path
from typing import Any

import pytest

from llamaherd.core.artifacts import Artifact
from llamaherd.core.config import build
from llamaherd.core.errors import UserError
from llamaherd.core.files import read_json, read_rows, write_rows
from llamaherd.reward.model import RewardModel
from llamaherd.stages import reward, reward_report


@pytest.fixture(scope="module")
def made(tiny_folder: Path, tiny_inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Helpfulness models under two margins, and one of safety."""
    folder = tmp_path_factory.mktemp("rewards")
    for name, domain, margin in (("none", "helpfulness", "none"), ("large", "helpfulness", "large"), ("safe", "safety", "small")):
        given = {
            "model": str(tiny_folder / "v0"), "data": str(tiny_inputs / "preferences.jsonl"), "domain": domain, "margin": margin, "epochs": 5,
            "batch_pairs": 4, "test_share": 0.4, "optimizer": {"lr": 1e-2},
        }  # fmt: skip
        reward.run(build(reward.RewardConfig, given), folder / name, 0)
    return folder


def run(made: Path, out: Path, model: str = "none", **values: Any) -> Artifact:
    return reward_report.run(build(reward_report.RewardReportConfig, {"model": str(made / model), **values}), out, 0)


def figures(value: Any) -> list[dict[str, Any]]:
    """All figures in a report."""
    if isinstance(value, dict) and "value" in value:
        return [value]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return [one for item in items for one in figures(item)]


def test_training_writes_a_report(made: Path) -> None:
    found = read_json(made / "safe" / "report.json")["models"]["safe"]
    tested = [row for _, row in read_rows(made / "safe" / "tested.jsonl")]
    own = [row for row in tested if row["domain"] == "safety"]
    assert (found["pairs"], found["own_pairs"]) == (len(tested), len(own))
    assert found["accuracy"]["own"]["all"]["value"] == pytest.approx(sum(row["agrees"] for row in own) / len(own))
    assert found["unsafe"].keys() == {"0.15", "0.5"}
    unsafe = [row[f"{side}_logit"] for row in tested for side in ("chosen", "rejected") if row[f"{side}_safe"] is False]
    assert found["unsafe"]["0.5"]["recall"] == {**found["unsafe"]["0.5"]["recall"], "n": len(unsafe)}
    assert found["unsafe"]["0.5"]["recall"]["value"] == pytest.approx(sum(logit < 0 for logit in unsafe) / len(unsafe))
    assert all(one.keys() == {"value", "low", "high", "n"} for one in figures(found))
    assert len(figures(found)) >= 36
    page = (made / "safe" / "report.html").read_text("utf-8")
    assert not re.search(r'(src|href)="(?!#)', page), "it loads nothing"
    for heading in ("Accuracy", "Calibration", "Score and length", "Unsafe answers", "Scores"):
        assert f">{heading}</h2>" in page, heading


def test_several_models_on_any_files(made: Path, tiny_inputs: Path, tmp_path: Path) -> None:
    rows = [row for _, row in read_rows(tiny_inputs / "preferences.jsonl")]
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    write_rows(first, [{**rows[1], "chosen_rating": 6, "rejected_rating": 2}, *rows[2:10]])
    write_rows(second, [*rows[10:], {**rows[0], "chosen_safe": False, "rejected_safe": True}, {**rows[1], "chosen": "word " * 200}])
    done = run(made, tmp_path / "out", against=[str(made / "large"), str(made / "safe")], data=[str(first), str(second)])
    report = read_json(done.path / "report.json")
    assert list(report["models"]) == ["none", "large", "safe"]
    assert report["left_out"] == {"unsafe_chosen_over_safe": 1, "too_long": {"none": 1, "large": 1, "safe": 1}}
    kept = [row for _, row in read_rows(done.path / "rows.jsonl")]
    assert len(kept) == 3 * 23
    model = RewardModel.load(made / "large")
    [pair] = [row for row in kept if row["model"] == "large" and row["file"] == "first.jsonl"][:1]
    dialogue = [*rows[1]["messages"], {"role": "assistant", "content": rows[1]["chosen"]}]
    assert pair["chosen_logit"] == pytest.approx(model.logits([dialogue])[0], abs=1e-4)
    by_file = report["models"]["none"]["accuracy"]["by_file"]
    assert {name: one["n"] for name, one in by_file.items()} == {"first.jsonl": 9, "second.jsonl": 14}
    assert {name: one["n"] for name, one in report["models"]["none"]["ratings"]["by_rating"].items()} == {"2": 1, "6": 1}
    agreement = report["agreement"]["large"]
    mine, theirs = ([row["chosen_logit"] > row["rejected_logit"] for row in kept if row["model"] == name] for name in ("none", "large"))
    assert agreement["pairs"] == 23
    assert agreement["same_choice"]["value"] == pytest.approx(sum(a == b for a, b in zip(mine, theirs, strict=True)) / 23)
    page = (done.path / "report.html").read_text("utf-8")
    assert "Agreement with other models" in page
    assert "Accuracy by file" in page
    told = reward_report.headline(done)
    assert told.startswith("23 comparisons, accuracy ")
    assert ", 1 unsafe chosen over safe, 1 too long" in told


def test_without_files_those_that_all_were_tested_on_in_training(made: Path, tmp_path: Path) -> None:
    done = run(made, tmp_path / "out", against=str(made / "large"))
    report = read_json(done.path / "report.json")
    tested = [row for _, row in read_rows(made / "none" / "tested.jsonl")]
    assert report["models"]["none"]["pairs"] == report["models"]["large"]["pairs"] == report["agreement"]["large"]["pairs"] == len(tested)
    trained = read_json(made / "none" / "report.json")["models"]["none"]
    assert {**report["models"]["none"], "accuracy": 0} == {**trained, "accuracy": 0}


def test_margins_move_scores_apart(made: Path, tmp_path: Path) -> None:
    """What the histograms under each margin show (figure 27)."""
    report = read_json(run(made, tmp_path / "out", against=str(made / "large")).path / "report.json")

    def spread(name: str) -> float:
        counts = [sum(both) for both in zip(*report["models"][name]["scores"].values(), strict=True)]
        return sum(count * abs((place + 0.5) / 20 - 0.5) for place, count in enumerate(counts)) / sum(counts)

    assert spread("large") > spread("none")


def test_ratings_of_dialogues(made: Path, tmp_path: Path) -> None:
    def rated(answer: str, rating: Any) -> dict[str, Any]:
        return {
            "messages": [{"role": "user", "content": "Where does Ada live?"}, {"role": "assistant", "content": answer}],
            "rating": rating,
        }

    file = tmp_path / "rated.jsonl"
    write_rows(
        file, [rated("Ada lives in Lima.", 7), rated("Ada lives in Oslo.", 1), rated("Ada lives in Lima!", 6.5), rated("word " * 200, 1)]
    )
    done = run(made, tmp_path / "out", rated=str(file))
    report = read_json(done.path / "report.json")
    found = report["models"]["none"]["ratings"]
    assert (
        reward_report.headline(done)
        == f"rank correlation with {found['correlation']['n']} ratings {found['correlation']['value']:.2f}, 1 too long"
    )
    assert list(found["by_rating"]) == ["1", "6.5", "7"]
    assert found["by_rating"]["7"]["value"] > found["by_rating"]["1"]["value"]
    assert report["left_out"]["too_long"] == {"none": 1}
    assert report["models"]["none"]["pairs"] == 0
    for bad in ("7", None, True):
        write_rows(file, [rated("Lima", 1), rated("Lima", bad)])
        with pytest.raises(UserError, match=r"rated.jsonl line 2: 'rating' is .*; expected people's rating"):
            run(made, tmp_path / "none", rated=str(file))


def test_what_is_refused_in_one_line(made: Path, tiny_folder: Path, tiny_inputs: Path, tmp_path: Path) -> None:
    data, empty = str(tiny_inputs / "preferences.jsonl"), tmp_path / "empty.jsonl"
    empty.write_text("")
    for values, expected in (
        ({"domain": "safety"}, r"none: is a helpfulness reward model, as its manifest says; leave out --domain=safety"),
        ({"against": str(made / "none")}, "one model is given twice"),
        ({"data": str(empty)}, r"no comparison in .*empty.jsonl"),
        ({"data": str(tmp_path / "missing.jsonl")}, "missing.jsonl: no such file"),
        ({"against": str(tiny_folder / "v0"), "data": data}, "architecture LlamaForCausalLM, expected LlamaForSequenceClassification"),
        ({"against": str(tiny_folder / "safety")}, r"safety: holds no tested.jsonl, .*give comparisons with --data FILE"),
    ):
        with pytest.raises(UserError, match=expected) as error:
            run(made, tmp_path / "out", **values)
        assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["empty.jsonl"]


def test_a_model_that_nobody_trained_here_is_taken_as_it_is(tiny_folder: Path, tiny_inputs: Path, tmp_path: Path) -> None:
    done = run(tiny_folder, tmp_path / "out", "safety", data=str(tiny_inputs / "preferences.jsonl"), domain="safety")
    assert done.metrics["models"]["safety"]["own_pairs"] == 8


def test_scores_that_are_no_numbers_are_named_with_their_comparison(tiny_folder: Path, tiny_inputs: Path, tmp_path: Path) -> None:
    from llamaherd.checkpoints.huggingface import load_scorer, save_model

    scorer, tokenizer = load_scorer(tiny_folder / "safety")
    scorer.score.weight.data.fill_(3e38)
    save_model(scorer, tokenizer, tmp_path / "loud")
    with pytest.raises(UserError, match=r"comparison 1 \('Where does Ada live\?'\): .*loud scores it"):
        run(tmp_path, tmp_path / "out", "loud", data=str(tiny_inputs / "preferences.jsonl"))
