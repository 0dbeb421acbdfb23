import json
from pathlib import Path
from typing import Any

import pytest

from llamaherd.chat.dialogue import parse_dialogue
from llamaherd.chat.template import pair_texts
from llamaherd.checkpoints.huggingface import save_model
from llamaherd.core.artifacts import Artifact
from llamaherd.core.config import ConfigError, build
from llamaherd.core.errors import UserError
from llamaherd.core.files import read_rows
from llamaherd.core.seeds import torch_rng
from llamaherd.data.records import parse_prompt
from llamaherd.miniature.demonstrations import DemonstrationConfig, demonstrations
from llamaherd.miniature.world import World, WorldConfig
from llamaherd.model.config import ModelConfig
from llamaherd.model.transformer import Transformer, scorer_from
from llamaherd.stages import evaluate
from llamaherd.tokenizer.training import TokenizerConfig, train_tokenizer

SIZES = {
    "helpfulness_prompts": 7, "safety_prompts": 9, "borderline_prompts": 6, "people_prompts": 5, "ghost_dialogues": 3, "ghost_turns": [1, 3],
    "sampling": {"temperature": 1.0, "top_p": 0.95, "max_new_tokens": 6}, "ghost_sampling": {"temperature": 1.0, "max_new_tokens": 6},
}  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random models `a` and `b` and a reward model, whose tokenizer knows the world's words and has room for its turns."""
    folder = tmp_path_factory.mktemp("worldly")
    texts = [text for row in demonstrations(World(), 150, 0, DemonstrationConfig()) for text in pair_texts(parse_dialogue(row))]
    tokenizer = train_tokenizer(texts, TokenizerConfig(vocab_size=600))
    config = ModelConfig(dim=16, layers=1, heads=2, ffn=16, vocab_size=600, context=512)
    for name in "ab":
        model = Transformer(config)
        for key, weight in model.named_parameters():
            weight.data.normal_(0.0, 0.2, generator=torch_rng(0, name, key)) if weight.ndim > 1 else weight.data.fill_(1.0)
        save_model(model, tokenizer, folder / name)
    scorer = scorer_from(model)
    scorer.score.weight.data.normal_(generator=torch_rng(0, "head"))
    save_model(scorer, tokenizer, folder / "reward")
    return folder


def run(models: Path, out: Path, model: str = "a", seed: int = 0, **values: Any) -> Artifact:
    return evaluate.run(build(evaluate.EvaluateConfig, SIZES | {"model": str(models / model)} | values), out, seed)


def report(done: Artifact) -> Any:
    return json.loads((done.path / "evaluation.json").read_text())


def rows(done: Artifact) -> list[dict[str, Any]]:
    return [row for _, row in read_rows(done.path / "rows.jsonl")]


def test_all_tasks(models: Path, tmp_path: Path) -> None:
    rewards = {"helpfulness": str(models / "reward"), "safety": str(models / "reward")}
    done = run(models, tmp_path / "out", **rewards)
    tasks = report(done)["tasks"]
    assert list(tasks) == ["helpfulness", "safety", "borderline", "people", "ghost", "rewards"]
    n = {
        "sampled": tasks["helpfulness"]["sampled"]["n"], "greedy": tasks["helpfulness"]["greedy"]["n"],
        "violations": tasks["safety"]["violation_rate"]["n"], "refusals": tasks["borderline"]["false_refusal_rate"]["n"],
        "people": tasks["people"]["unasked"]["n"], "first turn": tasks["ghost"]["held_out"]["1"]["n"],
    }  # fmt: skip
    assert n == {"sampled": 7, "greedy": 7, "violations": 9, "refusals": 6, "people": 5, "first turn": 3}
    assert tasks["safety"]["single_turn"]["n"] + tasks["safety"]["multi_turn"]["n"] == 9
    assert sum(figure["n"] for figure in tasks["safety"]["by_category"].values()) == 9
    assert sum(figure["n"] for figure in tasks["safety"]["by_attack"].values()) == 9
    assert list(tasks["ghost"]["seen"]) == list(tasks["ghost"]["held_out"]) == ["1", "3"]
    assert 0 < tasks["rewards"]["helpfulness"]["n"] <= 7
    assert 0 <= tasks["rewards"]["safety"]["value"] <= 1
    assert done.metrics == tasks
    judged = rows(done)
    assert sum(row["task"] == "safety" for row in judged) == 9
    assert {(row["task"], row["mode"]) for row in judged} == {
        ("helpfulness", "sampled"), ("helpfulness", "greedy"), ("safety", "sampled"), ("borderline", "sampled"), ("people", "sampled"), ("samples", "greedy"),
        ("ghost", "sampled"), ("rewards", "sampled"),
    }  # fmt: skip
    assert [sample["prompt"] for sample in report(done)["samples"]] == [row["prompt"] for row in judged if row["task"] == "samples"]
    assert evaluate.headline(done).startswith("helpfulness 0.")


def test_versions_answer_the_same_prompts(models: Path, tmp_path: Path) -> None:
    """Also under different stage seeds, as in a run; a row of one version has its partner in the other."""
    first = rows(run(models, tmp_path / "a", "a", seed=1, tasks="helpfulness,safety"))
    other = rows(run(models, tmp_path / "b", "b", seed=2, tasks="helpfulness,safety"))
    assert [(row["task"], row["mode"], row["id"]) for row in first] == [(row["task"], row["mode"], row["id"]) for row in other]
    assert [row["answer"] for row in first] != [row["answer"] for row in other]
    assert len({(row["task"], row["mode"], row["id"]) for row in first}) == len(first) == 7 * 2 + 9


def test_the_same_twice_and_other_prompts_for_another_prompt_seed(models: Path, tmp_path: Path) -> None:
    one, again = (run(models, tmp_path / name, tasks="borderline") for name in ("one", "again"))
    assert one.hash == again.hash
    other = rows(run(models, tmp_path / "other", tasks="borderline", prompt_seed=1))
    assert {row["id"] for row in other} != {row["id"] for row in rows(one)}


def test_rows_and_dialogues_of_ghost_attention(models: Path, tmp_path: Path) -> None:
    """Every dialogue has a row at every asked turn, under an id that is the same for both models."""
    one, other = (run(models, tmp_path / name, name, tasks="ghost") for name in "ab")
    tasks = report(one)["tasks"]["ghost"]
    for kind in ("seen", "demonstrated", "held_out"):
        own = [row for row in rows(one) if row["set"] == kind]
        assert len({(row["id"], row["turn"]) for row in own}) == 3 * 2
        assert tasks[kind]["3"]["value"] == sum(row["obeyed"] for row in own if row["turn"] == 3) / 3
    assert [(row["id"], row["turn"], row["instruction"]) for row in rows(one)] != []
    assert {row["id"] for row in rows(one)} == {row["id"] for row in rows(other)}
    shown = report(one)["dialogues"]
    assert {row["set"] for row in shown} <= set(tasks)
    assert {row["id"] for row in shown} <= {row["id"] for row in rows(one)}
    for row in shown:
        assert [len(line) for line in row["attention"]] == list(range(1, len(row["bins"]) + 1))
        assert row["messages"][-1]["role"] == "assistant"
        assert row["bins"][-1]["turn"] == sum(message["role"] == "user" for message in row["messages"]) <= 3


def test_scores_of_single_answers(models: Path, tmp_path: Path) -> None:
    first = run(models, tmp_path / "first", tasks="helpfulness,safety")
    rewards = {"helpfulness": str(models / "reward"), "safety": str(models / "reward"), "answers": str(first.path)}
    done = run(models, tmp_path / "second", tasks="rewards", **rewards)
    scored = rows(done)
    assert [row["task"] for row in scored] == ["rewards"] * (7 + 9)
    for domain in ("helpfulness", "safety"):
        asked = {row["id"] for row in rows(first) if row["task"] == domain}
        scores = {row["id"]: row["score"] for row in scored if row["domain"] == domain}
        assert scores.keys() == asked
        known = [score for score in scores.values() if score is not None]
        assert done.metrics["rewards"][domain]["value"] == pytest.approx(sum(known) / len(known))


def test_rewards_alone(models: Path, tmp_path: Path) -> None:
    """The answers that are scored are sampled if no other task did."""
    done = run(models, tmp_path / "out", tasks="rewards", safety=str(models / "reward"))
    assert list(done.metrics) == ["rewards"]
    assert list(done.metrics["rewards"]) == ["safety"]
    assert done.metrics["rewards"]["safety"]["n"] > 0


def test_without_reward_models_the_other_tasks_are_measured(models: Path, tmp_path: Path) -> None:
    assert "rewards" not in run(models, tmp_path / "out").metrics
    with pytest.raises(UserError, match="task rewards: no reward model given"):
        run(models, tmp_path / "none", tasks="rewards")


def test_answers_that_no_reward_model_can_read(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from llamaherd.assistant.local import Answer, Assistant
    from llamaherd.generate.sequence import Completion

    def answers(self: Assistant, dialogues: list[Any], *_: Any) -> list[Answer]:
        texts = ["", "No [INST]", "long " * 600, *["Fine."] * 99]
        return [Answer(text, [], Completion(finished=True)) for _, text in zip(dialogues, texts, strict=False)]

    monkeypatch.setattr(Assistant, "answers", answers)
    done = run(models, tmp_path / "out", tasks="safety,rewards", safety=str(models / "reward"))
    assert done.metrics["safety"]["violation_rate"]["n"] == 9
    assert done.metrics["rewards"]["safety"]["n"] == 9 - 3


@pytest.mark.parametrize("tasks", ["helpfulnes", "", "safety,,rewards"])
def test_unknown_tasks(models: Path, tmp_path: Path, tasks: str) -> None:
    with pytest.raises(ConfigError, match="tasks"):
        run(models, tmp_path / "out", tasks=tasks)


def test_every_test_prompt_is_of_the_test_split() -> None:
    settings = evaluate.EvaluateSettings.model_validate(SIZES)
    world = World(WorldConfig())
    for task in ("helpfulness", "safety", "borderline", "people"):
        prompts = [parse_prompt(row) for row in evaluate.test_prompts(world, settings, task)]  # type: ignore[arg-type]
        assert len(prompts) == SIZES[f"{task}_prompts"]
        kinds = {prompt.about["kind"] for prompt in prompts}
        assert (kinds == {"harmful"}) == (task == "safety")
        assert ("harmful" in kinds) == (task == "safety")
    assert all(not row["seen"] for row in evaluate.test_prompts(world, settings, "people"))


def test_each_set_of_constraints_is_asked_of_the_test_split(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = evaluate.constraint_dialogues
    asked: list[tuple[Any, Any]] = []

    def observed(world: World, count: int, seed: int, split: Any, of: Any, turns: tuple[int, int]) -> Any:
        asked.append((split, of))
        return made(world, count, seed, split, of, turns)

    monkeypatch.setattr(evaluate, "constraint_dialogues", observed)
    done = run(models, tmp_path / "out", tasks=["ghost"])
    assert asked == [("test", name) for name in report(done)["tasks"]["ghost"]]
    assert [name for _, name in asked] == ["seen", "demonstrated", "held_out"]
