from pathlib import Path
from typing import Any

import pytest

from llamaherd.core.artifacts import Artifact
from llamaherd.core.config import build
from llamaherd.core.errors import UserError
from llamaherd.core.files import read_rows, write_rows
from llamaherd.data.records import read_dialogues, read_prompts
from llamaherd.reward.combine import Combination
from llamaherd.reward.model import RewardModel
from llamaherd.stages import reject


def run(folder: Path, inputs: Path, out: Path, seed: int = 0, **values: Any) -> Artifact:
    given = {
        "model": str(folder / "v0"), "helpfulness": str(folder / "helpfulness"), "safety": str(folder / "safety"),
        "prompts": str(inputs / "prompts.jsonl"), "k": 6, "max_new_tokens": 12, "chunk_prompts": 5,
    }  # fmt: skip
    return reject.run(build(reject.RejectConfig, given | values), out, seed)


def rows(file: Path) -> list[dict[str, Any]]:
    return [row for _, row in read_rows(file)]


def test_the_best_usable_candidate_is_kept(tiny_folder: Path, tiny_inputs: Path, tmp_path: Path) -> None:
    done = run(tiny_folder, tiny_inputs, tmp_path / "v1-samples", version="v1")
    samples, best, dialogues = (rows(done.path / name) for name in ("samples.jsonl", "best.jsonl", "dialogues.jsonl"))
    prompts = read_prompts(tiny_inputs / "prompts.jsonl")
    assert [len(row["candidates"]) for row in samples] == [6] * 12
    rewards = Combination(RewardModel.load(tiny_folder / "helpfulness"), RewardModel.load(tiny_folder / "safety"))
    kept = {row["messages"][-1]["content"]: row["answer"] for row in best}
    for prompt, row in zip(prompts, samples, strict=True):
        usable = [candidate["text"] for candidate in row["candidates"] if candidate["logit"] is not None]
        logits = rewards.logits([prompt] * len(usable), usable)
        scored = [candidate["logit"] for candidate in row["candidates"] if candidate["logit"] is not None]
        assert scored == pytest.approx(logits, abs=1e-4)
        assert kept.get(prompt.dialogue.last.content) == (usable[scored.index(max(scored))] if usable else None)
    assert {row["version"] for row in best} == {"v1"}
    assert [(row["messages"][-1]["content"], row["trained"]) for row in dialogues] == [(row["answer"], "last") for row in best]
    assert read_dialogues(done.path / "dialogues.jsonl")
    assert [row["safety"] for row in dialogues] == [row["safety"] for row in best]
    assert {row["safety"] for row in best} == {True, False}
    unusable = [candidate["unusable"] for row in samples for candidate in row["candidates"] if candidate["unusable"]]
    assert done.metrics["unusable"] == {reason: unusable.count(reason) for reason in sorted(set(unusable))}
    assert "unfinished" in done.metrics["unusable"]
    assert done.metrics["without_answer"] == 12 - len(best)
    assert done.metrics["pool"] == {"v1": len(best)}
    assert reject.headline(done).endswith(f" unfinished) to 12 prompts, pool of {len(best)}")


def test_chunks_do_not_matter(tiny_folder: Path, tiny_inputs: Path, tmp_path: Path) -> None:
    def texts(done: Artifact) -> list[list[str]]:
        return [[candidate["text"] for candidate in row["candidates"]] for row in rows(done.path / "samples.jsonl")]

    five, two = (run(tiny_folder, tiny_inputs, tmp_path / str(size), chunk_prompts=size) for size in (5, 2))
    assert texts(five) == texts(two) != texts(run(tiny_folder, tiny_inputs, tmp_path / "other", seed=1))


def test_the_pool_of_all_versions(tiny_folder: Path, tiny_inputs: Path, tmp_path: Path) -> None:
    first = run(tiny_folder, tiny_inputs, tmp_path / "v1-samples", version="v1")
    more = {"model": str(tiny_folder / "v0-early"), "pool": str(first.path), "version": "v2"}
    second = run(tiny_folder, tiny_inputs, tmp_path / "v2-samples", **more)
    pool = rows(second.path / "dialogues.jsonl")
    assert set(second.metrics["pool"]) == {"v1", "v2"}, "either version has the better answer to some prompt"
    assert sum(second.metrics["pool"].values()) == len(pool) == len({row["messages"][-2]["content"] for row in pool})
    best = {
        version: {row["messages"][-1]["content"]: row["answer"] for row in rows(done.path / "best.jsonl")}
        for version, done in (("v1", first), ("v2", second))
    }
    assert set(best["v1"]) | set(best["v2"]) == {row["messages"][-2]["content"] for row in pool}
    for row in pool:
        user, answer = (message["content"] for message in row["messages"][-2:])
        assert answer in (best["v1"].get(user), best["v2"].get(user))


def test_the_curve_of_best_of_n(tiny_folder: Path, tiny_inputs: Path, tmp_path: Path) -> None:
    done = run(tiny_folder, tiny_inputs, tmp_path / "out", judged_prompts=str(tiny_inputs / "harmless.jsonl"), judged_k=6)
    assert [list(done.metrics[name]) for name in ("best_of", "max_reward", "median_reward")] == [["1", "2", "4", "6"]] * 3
    curves = [done.metrics[name] for name in ("best_of", "max_reward", "median_reward")]
    assert {figure["n"] for curve in curves for figure in curve.values()} == {6}, "every N is judged on the same prompts"
    by_prompt = rows(done.path / "judged.jsonl")
    mean_of_six = sum(row["best_of"]["6"] for row in by_prompt) / len(by_prompt)
    assert done.metrics["best_of"]["6"]["value"] == pytest.approx(mean_of_six)
    highest = [figure["value"] for figure in done.metrics["max_reward"].values()]
    assert highest == sorted(highest)
    assert {row["messages"][-1]["content"] for row in rows(done.path / "samples.jsonl")} == {
        prompt.dialogue.last.content for prompt in read_prompts(tiny_inputs / "prompts.jsonl")
    }, "the judged prompts are not data"
    assert "; oracle of best of 1: " in reject.headline(done)


def test_best_of_n_alone(tiny_folder: Path, tiny_inputs: Path, tmp_path: Path) -> None:
    both = run(tiny_folder, tiny_inputs, tmp_path / "both", judged_prompts=str(tiny_inputs / "harmless.jsonl"), judged_k=4)
    alone = run(tiny_folder, tiny_inputs, tmp_path / "alone", judged_prompts=str(tiny_inputs / "harmless.jsonl"), judged_k=4, prompts=[])
    assert alone.metrics["best_of"] == both.metrics["best_of"]
    assert rows(alone.path / "samples.jsonl") == rows(alone.path / "dialogues.jsonl") == []
    assert reject.headline(alone).startswith("oracle of best of 1: ")
    with pytest.raises(UserError, match="neither prompts nor judged_prompts given"):
        run(tiny_folder, tiny_inputs, tmp_path / "none", prompts=[])


def test_what_cannot_be_sampled(tiny_folder: Path, tiny_inputs: Path, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    write_rows(file, [{"messages": [{"role": "user", "content": "Hi"}], "answer": "Hello"}])
    with pytest.raises(UserError, match=r"rows.jsonl line 1: 'version' is None; expected text"):
        run(tiny_folder, tiny_inputs, tmp_path / "out", pool=str(file))
    with pytest.raises(UserError, match="inputs.*: holds no best.jsonl; give a file or a folder that holds one"):
        run(tiny_folder, tiny_inputs, tmp_path / "out", pool=str(tiny_inputs))
    write_rows(file, [])
    with pytest.raises(UserError, match="no prompt in"):
        run(tiny_folder, tiny_inputs, tmp_path / "out", prompts=str(file))
    write_rows(file, [{"messages": [{"role": "user", "content": "long " * 200}]}])
    with pytest.raises(UserError, match=r"prompt 1 has \d+ tokens, and the model's context is 128"):
        run(tiny_folder, tiny_inputs, tmp_path / "out", prompts=str(file))
