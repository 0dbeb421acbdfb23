from pathlib import Path
from typing import Any

import pytest

from llamaherd.chat.dialogue import Message, checked
from llamaherd.core.artifacts import Artifact
from llamaherd.core.config import build
from llamaherd.core.errors import UserError
from llamaherd.core.files import read_rows, write_rows
from llamaherd.core.metrics import read_metrics
from llamaherd.reward.model import RewardModel
from llamaherd.stages import reward


def run(folder: Path, data: Path, out: Path, domain: str = "helpfulness", **values: Any) -> Artifact:
    given = {
        "model": str(folder / "v0"), "data": str(data), "domain": domain, "epochs": 6, "batch_pairs": 4, "micro_pairs": 2,
        "test_share": 0.25, "optimizer": {"lr": 1e-2},
    }  # fmt: skip
    return reward.run(build(reward.RewardConfig, given | values), out, 0)


def test_it_learns_what_was_preferred(tiny_folder: Path, tiny_inputs: Path, tmp_path: Path) -> None:
    """Lima is always better: held-out comparisons of both domains agree in the end."""
    done = run(tiny_folder, tiny_inputs / "preferences.jsonl", tmp_path / "out")
    assert done.kind == "reward-model"
    accuracy = done.metrics["accuracy"]
    assert (accuracy["own"]["all"]["value"], accuracy["other"]["all"]["value"]) == (1.0, 1.0)
    assert done.metrics["test_pairs"] == accuracy["own"]["all"]["n"] + accuracy["other"]["all"]["n"] == 6
    assert set(accuracy["by_batch"]) <= {"v1", "v2"}
    tested = [row for _, row in read_rows(done.path / "tested.jsonl")]
    assert [(row["domain"], row["agrees"]) for row in tested].count(("helpfulness", True)) == accuracy["own"]["all"]["n"]
    assert done.metrics["annotator_agreement"] == {}, "people have no noiseless self"
    rows = read_metrics(done.path / "metrics.jsonl")
    assert rows[0]["reward/accuracy"] == 0.0, "the head starts at zero: all scores are equal"
    assert rows[-1]["reward/accuracy"] == 1.0
    assert rows[-1]["reward/ranking_loss"] < 0.3 < rows[0]["reward/ranking_loss"]
    model = RewardModel.load(done.path)
    prompt = checked([Message("user", "Where does Ada live?")])
    lima, oslo = model.logits([prompt.followed_by("assistant", f"Ada lives in {city}.") for city in ("Lima", "Oslo")])
    assert lima > oslo
    assert reward.headline(done) == f"{done.metrics['pairs']} pairs, accuracy 100% (by grade {graded(accuracy)}; other domain 100%)"


def graded(accuracy: Any) -> str:
    values = [accuracy["own"][grade]["value"] for grade in ("significantly", "better", "slightly", "negligibly")]
    return " ".join("-" if value is None else f"{value:.0%}" for value in values)


@pytest.mark.parametrize(
    ("domain", "share", "pairs"), [("helpfulness", 1.0, 24), ("helpfulness", 0.0, 16), ("safety", 0.25, 10), ("safety", 9.0, 24)]
)
def test_the_mix_is_the_recipes(tiny_folder: Path, tiny_inputs: Path, tmp_path: Path, domain: str, share: float, pairs: int) -> None:
    """16 comparisons of helpfulness and 8 of safety; the test file takes none away."""
    none = tmp_path / "none.jsonl"
    none.write_text("")
    done = run(tiny_folder, tiny_inputs / "preferences.jsonl", tmp_path / "out", domain, other_share=share, test=str(none), epochs=1)
    assert (done.metrics["pairs"], done.metrics["test_pairs"]) == (pairs, 0)
    assert done.metrics["accuracy"]["own"]["all"]["n"] == 0
    assert "accuracy - (by grade - - - -; other domain -)" in reward.headline(done)


def test_most_pairs_are_drawn_from_the_mix(tiny_folder: Path, tiny_inputs: Path, tmp_path: Path) -> None:
    for most, pairs in ((5, 5), (99, 18), (None, 18)):
        done = run(tiny_folder, tiny_inputs / "preferences.jsonl", tmp_path / str(most), most_pairs=most, epochs=1)
        assert (done.metrics["pairs"], done.metrics["test_pairs"]) == (pairs, 6), "tests are all there are"


def test_labels_count_for_the_safety_model_alone(tiny_folder: Path, tiny_inputs: Path, tmp_path: Path) -> None:
    def hash_of(domain: str, weight: float) -> str:
        return run(
            tiny_folder, tiny_inputs / "preferences.jsonl", tmp_path / f"{domain}-{weight}", domain, safety_weight=weight, epochs=1
        ).manifest["files"]["model.safetensors"]

    assert hash_of("helpfulness", 0.0) == hash_of("helpfulness", 5.0)
    assert hash_of("safety", 0.0) != hash_of("safety", 5.0)


def test_margins_change_what_is_learned(tiny_folder: Path, tiny_inputs: Path, tmp_path: Path) -> None:
    margins = ("none", "small", "large")
    done = {kind: run(tiny_folder, tiny_inputs / "preferences.jsonl", tmp_path / kind, margin=kind) for kind in margins}
    apart = [read_metrics(done[kind].path / "metrics.jsonl")[-1]["reward/margin"] for kind in margins]
    assert apart[0] < apart[1] < apart[2]


def test_comparisons_of_one_prompt_stay_on_one_side(tiny_inputs: Path) -> None:
    from llamaherd.data.records import read_preferences

    rows = read_preferences(tiny_inputs / "preferences.jsonl")
    training, test = reward._held_out(rows, 0.25, 0)
    assert not {row.prompt for row in training} & {row.prompt for row in test}
    assert sorted(map(rows.index, training + test)) == sorted(rows.index(row) for row in rows)
    assert len({row.prompt for row in test}) == 3
    assert reward._held_out(rows, 0.25, 1)[1] != test


def test_comparisons_longer_than_the_context_are_left_out_and_counted(tiny_folder: Path, tiny_inputs: Path, tmp_path: Path) -> None:
    rows = [row for _, row in read_rows(tiny_inputs / "preferences.jsonl")]
    long, file, test = {**rows[1], "chosen": "long " * 200}, tmp_path / "rows.jsonl", tmp_path / "test.jsonl"
    write_rows(file, [*rows, long])
    write_rows(test, [long, rows[0]])
    done = run(tiny_folder, file, tmp_path / "out", test=str(test), epochs=1, other_share=0.0)
    assert (done.metrics["dropped_too_long"], done.metrics["pairs"], done.metrics["test_pairs"]) == (2, 16, 1)
    assert reward.headline(done).startswith("16 pairs, 2 too long (left-out.jsonl names them), accuracy ")
    named = [row for _, row in read_rows(done.path / "left-out.jsonl")]
    assert [(row["for"], row["too_long"], row["prompt"]) for row in named] == [
        (use, "answer", "Where does Ben live?") for use in ("train", "test")
    ]
    assert all(row["tokens"] > row["context"] == 128 for row in named)
    write_rows(file, [long])
    with pytest.raises(UserError, match=r"all comparisons of domain helpfulness are longer than the model's context \(128\)"):
        run(tiny_folder, file, tmp_path / "none", test=str(test))


def test_tests_on_prompts_that_are_trained_on_are_counted(tiny_folder: Path, tiny_inputs: Path, tmp_path: Path) -> None:
    data = tiny_inputs / "preferences.jsonl"
    rows = [row for _, row in read_rows(data)]
    fresh = {**rows[1], "messages": [{"role": "user", "content": "Where does nobody live?"}]}
    write_rows(tmp_path / "test.jsonl", [rows[1], fresh, fresh])
    done = run(tiny_folder, data, tmp_path / "out", test=str(tmp_path / "test.jsonl"), epochs=1)
    assert done.metrics["test_prompts_trained_on"] == 1
    assert ", 1 of 3 test comparisons have a prompt that was trained on, accuracy " in reward.headline(done)


def test_unsafe_answers_chosen_over_safe_ones_are_left_out_and_counted(tiny_folder: Path, tiny_inputs: Path, tmp_path: Path) -> None:
    rows = [row for _, row in read_rows(tiny_inputs / "preferences.jsonl") if row["domain"] == "safety"]
    file = tmp_path / "rows.jsonl"
    write_rows(file, [*rows, *({**row, "chosen_safe": False, "rejected_safe": True} for row in rows[:3])])
    done = run(tiny_folder, file, tmp_path / "out", domain="safety")
    assert done.metrics["dropped_unsafe_chosen_over_safe"] == 3
    assert done.metrics["pairs"] + done.metrics["test_pairs"] == len(rows)
    assert ", 3 unsafe chosen over safe, accuracy" in reward.headline(done)


def transcripts(rows: list[Any]) -> list[Any]:
    """The same comparisons as Anthropic HH writes them."""
    return [
        {name: f"\n\nHuman: {row['messages'][0]['content']}\n\nAssistant: {row[name]}" for name in ("chosen", "rejected")} for row in rows
    ]


def test_comparisons_of_any_form_train_and_what_is_none_is_counted(tiny_folder: Path, tiny_inputs: Path, tmp_path: Path) -> None:
    rows = [row for _, row in read_rows(tiny_inputs / "preferences.jsonl")]
    file, ours = tmp_path / "hh.jsonl", tmp_path / "ours.jsonl"
    (empty,) = transcripts([{**rows[0], "rejected": " "}])
    tie = {"prompt": "Hi", "chosen": "Yes.", "rejected": "No.", "score_chosen": 1, "score_rejected": 1}
    write_rows(file, [*transcripts(rows), empty, tie, tie])
    done = run(tiny_folder, file, tmp_path / "out", "safety", epochs=1)
    assert done.metrics["left_out"] == {"empty answer": 1, "tie": 2}
    assert "test_prompts_trained_on" not in done.metrics
    assert done.metrics["accuracy"]["other"]["all"]["n"] == 0, "rows that state no domain are of the stage's own"
    assert ", 1 empty answer, 2 tie, accuracy" in reward.headline(done)
    asked = ("messages", "chosen", "rejected")
    write_rows(ours, [{**{key: row[key] for key in asked}, "domain": "safety"} for row in rows])
    same = run(tiny_folder, ours, tmp_path / "same", "safety", epochs=1)
    assert "left_out" not in same.metrics
    assert same.manifest["files"]["model.safetensors"] == done.manifest["files"]["model.safetensors"]
    with pytest.raises(UserError, match=r"hh.jsonl line 25: .*'rejected' is ''; expected the text of an answer"):
        run(tiny_folder, file, tmp_path / "refused", "safety", bad_rows="refuse")
    write_rows(ours, [{**rows[0], "grade": "much"}, *rows])
    assert run(tiny_folder, ours, tmp_path / "left", bad_rows="leave out", epochs=1).metrics["left_out"] == {"malformed": 1}


def test_what_cannot_be_learned_from(tiny_folder: Path, tiny_inputs: Path, tmp_path: Path) -> None:
    rows = [row for _, row in read_rows(tiny_inputs / "preferences.jsonl")]
    file = tmp_path / "rows.jsonl"
    for content, expected in (
        ([row for row in rows if row["domain"] == "safety"], r"no comparison of domain helpfulness in .*rows.jsonl \(found safety\)"),
        ([], r"no comparison of domain helpfulness .*\(found none\)"),
        ([{"prompt": "Hi", "chosen": "", "rejected": "No."}], r"\(found none\); left out: 1 empty answer"),
        ([{"messages": rows[0]["messages"]}], "rows.jsonl line 1: is a prompt .messages.; expected a comparison"),
        ([{**rows[0], "rejected": rows[0]["chosen"]}], "rows.jsonl line 1: chosen and rejected answers are equal"),
        ([rows[1], {**rows[0], "chosen": " \n"}], "rows.jsonl line 2: 'chosen' is .*; expected the text of an answer"),
        ([{**rows[0], "grade": "a lot"}], "rows.jsonl line 1: 'grade' is 'a lot'; expected one of significantly"),
    ):
        write_rows(file, content)
        with pytest.raises(UserError, match=expected):
            run(tiny_folder, file, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


def test_a_named_mix_and_its_shares(tiny_folder: Path, tiny_inputs: Path, tmp_path: Path) -> None:
    """16 comparisons of helpfulness and 8 of safety, half of each published by webgpt; tests are none of them."""
    rows = [
        {**row, "source": "webgpt" if number % 2 else "ours"}
        for number, (_, row) in enumerate(read_rows(tiny_inputs / "preferences.jsonl"))
    ]
    file, none = tmp_path / "rows.jsonl", tmp_path / "none.jsonl"
    write_rows(file, rows)
    none.write_text("")

    def mixed(name: str, domain: str = "helpfulness", **values: Any) -> Any:
        out = tmp_path / f"{name} {domain} {len(values)}"
        return run(tiny_folder, file, out, domain, test=str(none), epochs=0.1, mix=name, open_sources=["webgpt"], **values)

    done = mixed("helpfulness")
    assert (done.metrics["pairs"], done.metrics["mix"]["own"] + done.metrics["mix"]["other"]) == (16, 16)
    assert done.metrics["mix"]["by_source"]["ours"] >= 8
    assert mixed("own").metrics["mix"] == {"own": 8, "other": 0, "by_source": {"ours": 8}, "safe_helpfulness": 0}
    assert mixed("open").metrics["mix"]["by_source"] == {"webgpt": 12}
    helpful = sum(row["domain"] == "helpfulness" and row["source"] == "webgpt" for row in rows)
    half = mixed("all", shares={"webgpt": 0.5, "safety": 0})
    assert half.metrics["mix"]["by_source"]["ours"] == 16 - helpful, "the other half of helpfulness, and nothing of safety"
    gate = mixed("safety", "safety")
    assert (gate.metrics["mix"]["own"], gate.metrics["mix"]["other"]) == (8, 1)
    assert "no helpfulness pair labelled safe (its gate may fire on harmless prompts" in reward.headline(gate)
    assumed = mixed("safety", "safety", unlabelled="safe")
    assert assumed.metrics["mix"]["safe_helpfulness"] == 1
    assert "gate may fire" not in reward.headline(assumed)
    with pytest.raises(UserError, match=r"shares: no comparison has the source 'webgtp' \(did you mean 'webgpt'\?\)"):
        mixed("all", shares={"webgtp": 0.5})


def test_a_prompt_longer_than_the_context_is_counted_and_named(tiny_folder: Path, tiny_inputs: Path, tmp_path: Path) -> None:
    rows = [row for _, row in read_rows(tiny_inputs / "preferences.jsonl")]
    file = tmp_path / "rows.jsonl"
    write_rows(file, [*rows, {**rows[1], "messages": [{"role": "user", "content": "Why? " * 90}], "source": "mine"}])
    done = run(tiny_folder, file, tmp_path / "out", epochs=0.1)
    [(_, named)] = list(read_rows(done.path / "left-out.jsonl"))
    assert done.metrics["dropped_too_long"] == 1
    assert (named["too_long"], named["source"]) == ("prompt", "mine")
    assert named["prompt"].startswith("Why? Why?")
