"""Stages that judge real text: a reward model and heuristics in the oracle's place, a folder of prompts in the world's."""

import json
from pathlib import Path
from typing import Any

import pytest

from llamaherd.core.artifacts import Artifact, building
from llamaherd.core.config import Config, ConfigError, build
from llamaherd.core.errors import UserError
from llamaherd.core.files import read_rows, write_rows
from llamaherd.core.metrics import read_metrics
from llamaherd.data.records import parse_prompt, read_prompts
from llamaherd.evaluation.heuristics import refuses, violates
from llamaherd.evaluation.real import TextJudge
from llamaherd.measures.calibration import sigmoid
from llamaherd.reward.model import RewardModel
from llamaherd.stages import distill, evaluate, judge, ppo, reject, reward
from llamaherd.stages.common import about_judge, trained_on

SAMPLING = {"temperature": 1.0, "max_new_tokens": 12}
PEOPLE = ("Ada", "Ben", "Eva", "Max")


def prompt(text: str, **about: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **about}


def script(name: str, person: str, turns: int) -> dict[str, Any]:
    check = {"kind": "mentions", "any": ["Lima", "Oslo", "Rome"]} if name == "seen" else {"kind": "language", "code": "fr"}
    return {"set": name, "instruction": f"Be {person}.", "users": [f"Where does {person} live?"] * turns, "check": check}


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own") / "test"
    where = [f"Where does {person} live{mark}" for mark in ("?", " now?") for person in PEOPLE]
    write_rows(folder / "helpfulness.jsonl", [prompt(text, kind=f"set {index % 2}", id=index) for index, text in enumerate(where)])
    rows = [prompt(f"{text} Then", category="doxing", seen=False) for text in where]
    write_rows(folder / "safety.jsonl", [*rows, rows[0]])
    write_rows(folder / "borderline.jsonl", [prompt(f"{text} So", seen=False) for text in where[:3]])
    write_rows(
        folder / "ghost.jsonl",
        [*(script("seen", person, 1) for person in PEOPLE), script("held_out", "Ada", 3), script("held_out", "Ben", 2)],
    )
    write_rows(folder / "samples.jsonl", [prompt(where[0]), prompt(where[1], safety=True)])
    return folder


@pytest.fixture(scope="module")
def trained(tiny_folder: Path, tiny_inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A judge with a manifest."""
    data = str(tiny_inputs / "preferences.jsonl")
    given = {"model": str(tiny_folder / "v0"), "data": data, "test": data, "domain": "helpfulness", "epochs": 0.2}
    return reward.run(build(reward.RewardConfig, given), tmp_path_factory.mktemp("judges") / "judge", 0).path


def measured(tiny_folder: Path, asked: Path | None, out: Path, **values: Any) -> Artifact:
    sizes = {
        "helpfulness_prompts": 5,
        "safety_prompts": 20,
        "ghost_dialogues": 3,
        "ghost_turns": [1, 3, 6],
        "sampling": SAMPLING,
        "ghost_sampling": SAMPLING,
    }
    given = {"model": str(tiny_folder / "v0"), "asked": asked and str(asked), "judge": str(tiny_folder / "safety")}
    return evaluate.run(build(evaluate.EvaluateConfig, sizes | given | values), out, 0)


def rows_of(done: Artifact, name: str = "rows.jsonl") -> list[dict[str, Any]]:
    return [row for _, row in read_rows(done.path / name)]


def test_all_tasks_of_a_folder(tiny_folder: Path, asked: Path, trained: Path, tmp_path: Path) -> None:
    rewards = {"helpfulness": str(tiny_folder / "helpfulness"), "safety": str(tiny_folder / "safety")}
    done = measured(tiny_folder, asked, tmp_path / "out", judge=str(trained), **rewards)
    report = json.loads((done.path / "evaluation.json").read_text())
    tasks = report["tasks"]
    assert list(tasks) == ["helpfulness", "safety", "borderline", "ghost", "rewards"]
    assert report["left_out"] == ["people"]
    assert report["asked"] == {
        "helpfulness": {"rows": 8, "equal": 0, "asked": 5}, "safety": {"rows": 9, "equal": 1, "asked": 8},
        "borderline": {"rows": 3, "equal": 0, "asked": 3}, "ghost": {"rows": 6, "equal": 0, "asked": 5}, "samples": {"rows": 2, "equal": 0, "asked": 2},
    }  # fmt: skip
    assert {kind: figure["n"] for kind, figure in tasks["helpfulness"]["by_kind"].items()} == {"set 0": 3, "set 1": 2}
    assert {name: figure["n"] for name, figure in tasks["ghost"]["seen"].items()} == {"1": 3}
    assert list(tasks["ghost"]["held_out"]) == ["1", "3"]
    assert tasks["ghost"]["held_out"]["3"]["n"] <= 1
    assert tasks["safety"]["by_category"]["doxing"]["n"] == tasks["safety"]["held_out_topics"]["n"] == 8
    assert tasks["rewards"]["helpfulness"]["n"] <= 5
    assert (report["judge"]["name"], report["judge"]["domain"]) == ("judge", "helpfulness")
    assert report["judge"]["accuracy"]["n"] > 0
    # Eight questions of the comparisons are asked again, as are both samples; safety's and borderline's end otherwise.
    assert (report["judge"]["asked_prompts"], report["judge"]["trained_on"]) == (5 + 8 + 3 + 2, 5 + 2)
    assert evaluate.headline(done).endswith("judged by judge, which was trained on 7 of the 18 prompts")
    assert done.metrics["judge"] == report["judge"]
    assert len(report["samples"]) == 2


def test_rows_are_what_the_judge_says(tiny_folder: Path, asked: Path, tmp_path: Path) -> None:
    done = measured(tiny_folder, asked, tmp_path / "out", tasks="helpfulness,safety,borderline")
    model = RewardModel.load(tiny_folder / "safety")
    files = {
        task: {row.dialogue.asked: row for row in read_prompts(asked / f"{task}.jsonl")} for task in ("helpfulness", "safety", "borderline")
    }
    unscored = 0
    for row in rows_of(done):
        dialogue = files[row["task"]][row["prompt"]].dialogue
        assert row["refusal"] == refuses(row["answer"])
        assert row["safe"] == (row["task"] != "safety" or not violates(row["prompt"], row["answer"]))
        assert row["correct"] is None
        if row["score"]:
            assert row["score"] == pytest.approx(sigmoid(model.logits([dialogue.followed_by("assistant", row["answer"])])[0]), abs=1e-5)
        unscored += not row["score"]
    report = json.loads((done.path / "evaluation.json").read_text())
    assert sum(report["judge"]["without_score"].values()) == unscored
    assert (report["judge"]["accuracy"], report["judge"]["trained_on"]) == (None, None), "no manifest says where this judge comes from"
    assert "an unknown number" in evaluate.headline(done)
    said = [row for row in rows_of(done) if row["task"] == "safety"]
    assert report["tasks"]["safety"]["violation_rate"]["value"] == sum(not row["safe"] for row in said) / 8


def test_rewards_of_earlier_answers_need_no_judge(tiny_folder: Path, asked: Path, tmp_path: Path) -> None:
    first = measured(tiny_folder, asked, tmp_path / "first", tasks="helpfulness,safety")
    rewards = {"helpfulness": str(tiny_folder / "helpfulness"), "safety": str(tiny_folder / "safety"), "answers": str(first.path)}
    done = measured(tiny_folder, asked, tmp_path / "second", tasks="rewards", judge=None, **rewards)
    assert {row["id"] for row in rows_of(done)} == {row["id"] for row in rows_of(first)}
    assert list(done.metrics) == ["rewards"]
    with pytest.raises(UserError, match="second: holds no sampled answers of the task helpfulness; add --judge to sample them"):
        measured(tiny_folder, asked, tmp_path / "third", tasks="rewards", judge=None, **rewards | {"answers": str(done.path)})
    with pytest.raises(ConfigError, match="asked is given without judge"):
        measured(tiny_folder, asked, tmp_path / "third", tasks="rewards", judge=None, **rewards | {"answers": None})


def test_prompts_that_an_artifact_wrote(tiny_folder: Path, asked: Path, tmp_path: Path) -> None:
    with building(tmp_path / "prompts", kind="dialogues", stage="prompts", config=Config(), parents={}, seed=0) as place:
        for file in asked.iterdir():
            write_rows(place.folder / "test" / file.name, (row for _, row in read_rows(file)))
    own = measured(tiny_folder, tmp_path / "prompts" / "test", tmp_path / "own", tasks="borderline")
    plain = measured(tiny_folder, asked, tmp_path / "plain", tasks="borderline")
    assert {Path(parent["path"]).name for parent in own.manifest["parents"].values()} == {"config.json", "prompts"}
    assert str(asked / "borderline.jsonl") in {parent["path"] for parent in plain.manifest["parents"].values()}
    assert own.hash == plain.hash


def test_what_is_refused(tiny_folder: Path, asked: Path, tmp_path: Path) -> None:
    def refused(message: str, error: type[UserError] = UserError, **values: Any) -> None:
        with pytest.raises(error, match=message) as found:
            measured(tiny_folder, values.pop("folder", asked), tmp_path / "out", **values)
        assert "\n" not in str(found.value)

    refused("judge is given without asked", ConfigError, folder=None)
    refused("asked is given without judge", ConfigError, judge=None)
    refused("task people: only a world has such prompts", ConfigError, tasks="people")
    refused("expected LlamaForSequenceClassification", judge=str(tiny_folder / "v0"))
    some = tmp_path / "some"
    write_rows(some / "helpfulness.jsonl", [prompt("Hi"), prompt("long " * 200)])
    refused("holds no safety.jsonl and no borderline.jsonl and no ghost.jsonl and no samples.jsonl; .* --tasks helpfulness$", folder=some)
    refused(r"helpfulness.jsonl line 2 has \d+ tokens, and the model's context is 128", folder=some, tasks="helpfulness")
    write_rows(some / "ghost.jsonl", [script("seen", "Ada", 2)])
    refused(
        "no script of the set seen has the 4 turns at which obedience is measured first", folder=some, tasks="ghost", ghost_turns=[6, 4]
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["some"]


def test_who_was_trained_on_what(trained: Path, tiny_folder: Path, tiny_inputs: Path) -> None:
    asked = [parse_prompt(prompt("Where  does Ada\nlive?")), parse_prompt(prompt("Where does Zoe live?"))]
    assert trained_on(trained, asked) == 1
    assert trained_on(tiny_folder / "safety", asked) is None
    known = about_judge(trained)
    assert (known["name"], known["domain"], known["accuracy"]["n"] > 0) == ("judge", "helpfulness", True)
    assert about_judge(tiny_folder / "safety") == {"name": "safety", "domain": None, "accuracy": None}


def test_best_of_n_by_a_judge(tiny_folder: Path, tiny_inputs: Path, trained: Path, tmp_path: Path) -> None:
    given = {
        "model": str(tiny_folder / "v0"), "helpfulness": str(tiny_folder / "helpfulness"), "combination": "helpfulness", "judged_k": 4,
        "judged_prompts": str(tiny_inputs / "prompts.jsonl"), "max_new_tokens": 12,
    }  # fmt: skip
    done = reject.run(build(reject.RejectConfig, given | {"judge": str(trained)}), tmp_path / "out", 0)
    rows = rows_of(done, "judged.jsonl")
    assert [list(row["best_of"]) for row in rows] == [["1", "2", "4"]] * 12
    tagged = [row["best_of"]["4"] for row, asked in zip(rows, read_prompts(tiny_inputs / "prompts.jsonl"), strict=True) if asked.safety]
    assert set(tagged) <= {0.0, 1.0}
    assert len({row["best_of"]["1"] for row in rows}) > 3
    assert done.metrics["judge"]["name"] == "judge"
    assert reject.headline(done).startswith("judge of best of 1: ")
    itself = build(reject.RejectConfig, given | {"judge": given["helpfulness"]})
    with pytest.raises(UserError, match="helpfulness: judges what it chose or trained itself; give a judge that is none of the other"):
        reject.run(itself, tmp_path / "itself", 0)


def test_distilled_answers_by_a_judge(tiny_folder: Path, tiny_inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[bool, str]] = []
    judged = TextJudge.judge_all

    def watched(self: TextJudge, prompts: Any, answers: Any) -> Any:
        seen.extend((asked.safety, answer) for asked, answer in zip(prompts, answers, strict=True))
        return judged(self, prompts, answers)

    monkeypatch.setattr(TextJudge, "judge_all", watched)
    given = {
        "model": str(tiny_folder / "v0"), "safety": str(tiny_folder / "safety"), "judge": str(tiny_folder / "helpfulness"),
        "prompts": str(tiny_inputs / "distil.jsonl"), "test": str(tiny_inputs / "distil.jsonl"), "sampling": {**SAMPLING, "max_new_tokens": 24},
    }  # fmt: skip
    done = distill.run(build(distill.DistillConfig, given), tmp_path / "out", 0)
    n = done.metrics["original_safe"]["n"]
    assert 0 < n == done.metrics["distilled_safe"]["n"] == done.metrics["difference"]["n"]
    assert len(seen) == 2 * n
    assert {safety for safety, _ in seen} == {True}, "as adversarial prompts they can be answered unsafely"


def test_ppo_logs_a_judge(tiny_folder: Path, tiny_inputs: Path, trained: Path, tmp_path: Path) -> None:
    given = {
        "model": str(tiny_folder / "v0"), "helpfulness": str(tiny_folder / "helpfulness"), "safety": str(tiny_folder / "safety"),
        "prompts": str(tiny_inputs / "prompts.jsonl"), "ppo": {"iterations": 1, "batch": 4, "mini_batch": 4, "micro_batch": 4, "max_new_tokens": 8},
    }  # fmt: skip
    config = build(ppo.PpoStageConfig, given | {"judge": str(trained)})
    done = ppo.run(config, tmp_path / "out", 0)
    [row] = read_metrics(done.path / "metrics.jsonl")
    assert 0 < row["ppo/oracle"] < 1
    assert any("judge" in line for line in ppo.announced(config, 0))
    assert not any("judge " in line for line in ppo.announced(build(ppo.PpoStageConfig, given), 0))
    for path in (given["helpfulness"], given["safety"]):
        with pytest.raises(UserError, match="judges what it chose or trained itself"):
            ppo.run(build(ppo.PpoStageConfig, given | {"judge": path}), tmp_path / "itself", 0)
    with pytest.raises(ConfigError, match="oracle and judge are both given"):
        build(ppo.PpoStageConfig, given | {"judge": str(trained), "oracle": {}})


def test_win_rates_by_one_reward_model_on_two_files(tiny_folder: Path, asked: Path, trained: Path, tmp_path: Path) -> None:
    for file in ("helpfulness", "safety"):
        tagged = [{**row, "safety": file == "safety"} for _, row in read_rows(asked / f"{file}.jsonl")]
        write_rows(tmp_path / f"{file}.jsonl", tagged)
    given = {
        "model": str(tiny_folder / "v0"), "opponent": str(tiny_folder / "v0-early"), "judge": str(trained), "tasks": "win-rate",
        "prompts": f"{tmp_path / 'helpfulness.jsonl'},{tmp_path / 'safety.jsonl'}", "sampling": SAMPLING,
    }  # fmt: skip
    done = judge.run(build(judge.JudgeConfig, given), tmp_path / "out", 0)
    report = json.loads((done.path / "evaluation.json").read_text())
    assert {name: one["pairs"] for name, one in report["tasks"]["win-rate"]["by_criterion"].items()} == {"helpfulness": 8, "safety": 9}
    assert report["judged_by"] == done.metrics["judged_by"] == [about_judge(trained)]
    assert "of 17 pairs, judge is right on " in judge.headline(done)
    assert judge.headline(done).endswith(" of its own test comparisons")


def test_files_with_a_comma_between_or_in_their_name(tmp_path: Path) -> None:
    def prompts(text: str) -> tuple[Path, ...]:
        return build(judge.JudgeConfig, {"model": "m", "tasks": "win-rate", "prompts": text}).prompts

    assert prompts("a.jsonl,b.jsonl") == (Path("a.jsonl"), Path("b.jsonl"))
    odd = tmp_path / "a,b.jsonl"
    odd.touch()
    assert prompts(str(odd)) == (odd,)
