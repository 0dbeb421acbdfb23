"""Sampling, its curves and its judges, as a user types them."""

import json

import pytest

from llamaherd.core.artifacts import open_artifact
from llamaherd.core.files import read_rows

REJECT = (
    "reject",
    "--model=chat",
    "--helpfulness=help",
    "--safety=safe",
    "--prompts=prompts.jsonl",
    "--max-new-tokens=24",
    "--chunk-prompts=4",
)


@pytest.fixture(autouse=True)
def there(workshop, monkeypatch):
    monkeypatch.chdir(workshop.folder)
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


def test_a_pool_of_several_ranks_and_temperatures_tunes_a_model(command, tmp_path):
    how = ("--k", "3", "--temperatures", "0.8,1.0,1.2", "--version", "v1")
    for rank in range(2):
        outcome = command(*REJECT, *how, "--rank", str(rank), "--world-size", "2", "--out", tmp_path / "joined")
        assert outcome.out.startswith(f"{tmp_path / 'joined'}: rank {rank} of 2 sampled its 1"), outcome
    assert command(*REJECT, *how, "--join", "--out", tmp_path / "joined").code == 0
    assert command(*REJECT, *how, "--out", tmp_path / "whole").code == 0
    assert open_artifact(tmp_path / "joined").hash == open_artifact(tmp_path / "whole").hash
    pool = [row for _, row in read_rows(tmp_path / "joined" / "dialogues.jsonl")]
    assert {row["lineage"]["temperature"] for row in pool} <= {0.8, 1.0, 1.2}
    tuned = command(
        "sft", "--model", "base", "--data", tmp_path / "joined", "--out", tmp_path / "v1", "--row-tokens=128", "--steps=2", "--batch-rows=4"
    )
    assert (tuned.code, open_artifact(tmp_path / "v1", "model").metrics["dialogues"]) == (0, len(pool))


def test_curves_over_any_prompts(command, tmp_path):
    how = (
        "--helpfulness",
        "help",
        "--combination",
        "helpfulness",
        "--prompts",
        "prompts.jsonl",
        "--samples",
        "3",
        "--temperatures",
        "0.5,1",
    )
    outcome = command("curves", "--model", "chat", *how, "--max-new-tokens", "16", "--out", tmp_path / "curves")
    assert outcome.out.startswith(f"{tmp_path / 'curves'}: best temperature "), outcome
    assert open_artifact(tmp_path / "curves").metrics["max_score"]["3"]["n"] == 25


def test_a_win_rate_by_reward_models(command, refused, tmp_path):
    few = ("--sampling.max_new_tokens=16", "--prompts", "prompts.jsonl")
    outcome = command(
        "evaluate", "chat", "--tasks", "win-rate", "--opponent", "base", "--judge", "help,safe", *few, "--out", tmp_path / "out"
    )
    assert outcome.code == 0, outcome
    report = json.loads(outcome.out)
    assert report["tasks"]["win-rate"]["pairs"] == 25
    assert set(report["tasks"]["win-rate"]["wins"]) == {"value", "low", "high", "n"}
    assert len(list(read_rows(tmp_path / "out" / "rows.jsonl"))) == 25
    assert refused("evaluate", "chat", "--tasks=win-rate,people", "--judge=help").startswith(
        "tasks win-rate need a judge, and people the miniature"
    )
    assert refused("evaluate", "chat", "--tasks=win-rate", "--judge=help", *few) == "task win-rate: needs --opponent"
    accuracy = command("evaluate", "help", "--tasks=judge-accuracy", "--data=helpfulness.jsonl")
    assert json.loads(accuracy.out)["tasks"]["judge-accuracy"]["accuracy"]["n"] == 25


def test_the_settings_of_judges_are_listed(command):
    assert "--opponent=str" in command("evaluate", "--tasks", "win-rate", "--help").out
    assert "--ghost_turns" in command("evaluate", "--help").out


def test_what_cannot_be_sampled_is_one_line(refused, tmp_path):
    out = f"--out={tmp_path / 'out'}"
    assert refused(*REJECT, "--temperatures=hot", out).startswith("temperatures: given 'hot', expected numbers with commas between")
    assert refused(*REJECT, "--rank=2", "--world-size=2", out).startswith("rank 2 of 2: expected a rank from 0")
    assert refused(*REJECT, "--rank=2", out).startswith("rank is 2 and world_size None; give both, or neither")
    assert "no finished part is there" in refused(*REJECT, "--join", out)
    assert refused("reject", "--model=chat", "--prompts=prompts.jsonl", out).startswith(
        "settings: combination gate needs --helpfulness and --safety"
    )
    assert not list(tmp_path.glob("out*"))
