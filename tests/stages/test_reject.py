from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from llamaherd.assistant.local import Assistant
from llamaherd.checkpoints.adapted import base_artifact
from llamaherd.core.artifacts import Artifact
from llamaherd.core.config import ConfigError, build
from llamaherd.core.errors import UserError
from llamaherd.core.files import read_rows, write_rows
from llamaherd.data.records import read_dialogues, read_prompts
from llamaherd.generate.config import SamplingConfig
from llamaherd.reward.combine import Combination
from llamaherd.reward.model import RewardModel
from llamaherd.stages import reject, sft


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


def test_several_temperatures_as_the_command_line_gives_them(tiny_folder: Path, tiny_inputs: Path, tmp_path: Path) -> None:
    def texts(done: Artifact) -> list[list[tuple[str, float]]]:
        return [[(one["text"], one["temperature"]) for one in row["candidates"]] for row in rows(done.path / "samples.jsonl")]

    one, listed = (run(tiny_folder, tiny_inputs, tmp_path / str(len(kind)), **kind) for kind in ({}, {"temperatures": 1.0}))
    assert texts(one) == texts(listed), "one temperature is one temperature, however it is given"
    assert "chosen_by_temperature" not in one.metrics
    mixed = run(tiny_folder, tiny_inputs, tmp_path / "mixed", temperatures="0.7,1.0,1.3")
    assert [at for _, at in texts(mixed)[0]] == [0.7, 1.0, 1.3] * 2
    chosen = mixed.metrics["chosen_by_temperature"]
    assert list(chosen) == ["0.7", "1", "1.3"]
    assert sum(figure["value"] for figure in chosen.values()) == pytest.approx(1)
    again = run(tiny_folder, tiny_inputs, tmp_path / "again", temperatures=[0.7, 1.0, 1.3])
    assert again.hash != mixed.hash, "the version is the folder's name"
    assert texts(again) == texts(mixed)
    for bad, message in (("0.8,warm", "expected numbers with commas"), ([-1.0], "greater than or equal to 0"), (True, "temperatures")):
        with pytest.raises(ConfigError, match=message):
            run(tiny_folder, tiny_inputs, tmp_path / "bad", temperatures=bad)


def test_top_k_of_one_leaves_one_answer(tiny_folder: Path, tiny_inputs: Path, tmp_path: Path) -> None:
    done = run(tiny_folder, tiny_inputs, tmp_path / "out", top_k=1)
    assert all(len({one["text"] for one in row["candidates"]}) == 1 for row in rows(done.path / "samples.jsonl"))


def test_one_reward_model_alone_may_choose(tiny_folder: Path, tiny_inputs: Path, tmp_path: Path) -> None:
    gate = run(tiny_folder, tiny_inputs, tmp_path / "gate", version="v1")
    scored = [one for row in rows(gate.path / "samples.jsonl") for one in row["candidates"] if one["logit"] is not None]
    for domain, other in (("helpfulness", "safety"), ("safety", "helpfulness")):
        done = run(tiny_folder, tiny_inputs, tmp_path / domain, version="v1", combination=domain, **{other: None})
        logits = [one for row in rows(done.path / "samples.jsonl") for one in row["candidates"] if one["logit"] is not None]
        assert [one["logit"] for one in logits] == pytest.approx([one[domain] for one in scored], abs=1e-4)
        assert all(one[other] is None for one in logits)
    with pytest.raises(ConfigError, match="combination gate needs --safety, the folder of a reward model, or .*--combination=helpfulness"):
        run(tiny_folder, tiny_inputs, tmp_path / "none", safety=None)
    with pytest.raises(ConfigError, match="combination gate needs --helpfulness and --safety, the folder of a reward model"):
        run(tiny_folder, tiny_inputs, tmp_path / "none", safety=None, helpfulness=None)


def test_the_gates_threshold(tiny_folder: Path, tiny_inputs: Path, tmp_path: Path) -> None:
    """At 0.5 it fires wherever the safety logit is negative."""
    done = run(tiny_folder, tiny_inputs, tmp_path / "out", gate=0.5)
    fired = 0
    for row in rows(done.path / "samples.jsonl"):
        for one in row["candidates"]:
            if one["logit"] is not None:
                fires = row["safety"] or one["safety"] < 0
                assert one["logit"] == one["safety" if fires else "helpfulness"]
                fired += fires and not row["safety"]
    assert fired


def test_the_lineage_of_each_sample(tiny_folder: Path, tiny_inputs: Path, tmp_path: Path) -> None:
    done = run(tiny_folder, tiny_inputs, tmp_path / "v1-samples", version="v1", temperatures="0.9,1.1")
    by_prompt = {row["messages"][-1]["content"]: row["candidates"] for row in rows(done.path / "samples.jsonl")}
    best, tuning = rows(done.path / "best.jsonl"), rows(done.path / "dialogues.jsonl")
    assert len(best) == len(tuning)
    for row, dialogue in zip(best, tuning, strict=True):
        about = row["lineage"]
        drawn = by_prompt[row["messages"][-1]["content"]][about["draw"]]
        assert drawn["text"] == row["answer"]
        assert {name: drawn[name] for name in ("temperature", "seed", "helpfulness", "safety")}.items() <= about.items()
        assert (about["model"], about["model_hash"], about["combined"]) == ("v0", base_artifact(tiny_folder / "v0").hash, drawn["logit"])
        assert about.items() <= dialogue["lineage"].items()
        assert dialogue["lineage"]["version"] == "v1"
        assert dialogue["lineage"]["judged"]["combined"] == pytest.approx(drawn["logit"], abs=1e-4)


def test_all_ranks_together_make_what_one_process_makes(tiny_folder: Path, tiny_inputs: Path, tmp_path: Path) -> None:
    """To the byte, with a pool and judged prompts; the rank may come from the environment."""
    first = run(tiny_folder, tiny_inputs, tmp_path / "v1-samples", version="v1")
    given = {
        "judged_prompts": str(tiny_inputs / "harmless.jsonl"),
        "judged_k": 4,
        "pool": str(first.path),
        "version": "v2",
        "chunk_prompts": 2,
    }
    whole = run(tiny_folder, tiny_inputs, tmp_path / "whole", **given)
    with pytest.MonkeyPatch.context() as patch:
        for rank in (2, 0, 1):
            patch.setenv("RANK", str(rank))
            patch.setenv("WORLD_SIZE", "3")
            part = run(tiny_folder, tiny_inputs, tmp_path / "joined", **given)
            assert reject.headline(part).startswith(f"rank {rank} of 3 sampled its ")
    assert not (tmp_path / "joined").exists()
    joined = run(tiny_folder, tiny_inputs, tmp_path / "joined", **given, join=True)
    assert (joined.hash, joined.metrics) == (whole.hash, whole.metrics)
    assert sorted(joined.manifest["files"]) == ["best.jsonl", "dialogues.jsonl", "judged.jsonl", "samples.jsonl"]


def test_a_stop_loses_one_chunk_and_each_prompt_is_done_once(
    tiny_folder: Path, tiny_inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(tiny_folder, tiny_inputs, tmp_path / "v1", chunk_prompts=2)
    (tmp_path / "again").mkdir()
    asked: list[str] = []
    answers = Assistant.answers

    def counted(self: Assistant, dialogues: Any, *rest: Any) -> Any:
        if len(asked) == 3 * 2 * 6 and stops:
            raise KeyboardInterrupt
        asked.extend(dialogue.last.content for dialogue in dialogues)
        return answers(self, dialogues, *rest)

    monkeypatch.setattr(Assistant, "answers", counted)
    stops = True
    with pytest.raises(KeyboardInterrupt):
        run(tiny_folder, tiny_inputs, tmp_path / "again" / "v1", chunk_prompts=2)
    assert len(list((tmp_path / "again" / "v1.partial" / "state" / "prompts").glob("chunk-*"))) == 3
    stops = False
    again = run(tiny_folder, tiny_inputs, tmp_path / "again" / "v1", chunk_prompts=2)
    assert Counter(asked) == {prompt.dialogue.last.content: 6 for prompt in read_prompts(tiny_inputs / "prompts.jsonl")}
    assert (again.hash, again.metrics) == (whole.hash, whole.metrics)


def test_a_policy_that_never_ends_its_answers(scripted: Any, tiny_folder: Path, tiny_inputs: Path, tmp_path: Path) -> None:
    endless = scripted(endless=True)
    with pytest.raises(UserError, match=r"none of 72 answers to 12 prompts may become data \(72 unfinished\); raise max_new_tokens \(12\)"):
        run(tiny_folder, tiny_inputs, tmp_path / "out", model=str(endless))
    assert not list(tmp_path.glob("out*")), "what leads nowhere is not kept"


def test_samples_of_a_larger_model_tune_a_smaller_one(tiny_folder: Path, tiny_inputs: Path, tmp_path: Path, scripted: Any) -> None:
    """Its tokenizer is another one; the text is what crosses."""
    pool = run(scripted().parent, tiny_inputs, tmp_path / "pool", model=str(scripted()), max_new_tokens=40, k=2,
               **{name: str(tiny_folder / name) for name in ("helpfulness", "safety")})  # fmt: skip
    small = tiny_folder / "v0"
    assert (small / "tokenizer.model").read_bytes() != (scripted() / "tokenizer.model").read_bytes()
    assert {row["messages"][-1]["content"] for row in rows(pool.path / "dialogues.jsonl")} == {"Ada lives in Lima."}
    settings = {"model": str(small), "data": str(pool.path), "epochs": 40, "batch_rows": 2, "optimizer": {"lr": 2e-2, "warmup_steps": 2}}
    tuned = sft.run(build(sft.SftConfig, settings), tmp_path / "small", 0)
    assert tuned.metrics["dialogues"] == 12
    before, after = (Assistant.load(folder) for folder in (small, tuned.path))
    greedy = SamplingConfig(temperature=0.0, max_new_tokens=20)
    question = [prompt.dialogue for prompt in read_prompts(tiny_inputs / "prompts.jsonl")[:3]]
    assert [answer.text for answer in after.answers(question, greedy, [0] * 3)] == ["Ada lives in Lima."] * 3
    assert "Ada lives in Lima." not in [answer.text for answer in before.answers(question, greedy, [0] * 3)]
