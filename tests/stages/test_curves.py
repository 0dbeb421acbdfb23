"""Best and median of N over N and temperature, on any model, prompts and reward models."""

import statistics
from pathlib import Path
from typing import Any

import pytest

from llamaherd.core.artifacts import Artifact
from llamaherd.core.config import ConfigError, build
from llamaherd.core.errors import UserError
from llamaherd.core.files import read_rows, write_rows
from llamaherd.measures.calibration import sigmoid
from llamaherd.stages import curves, reject


def run(folder: Path, inputs: Path, out: Path, seed: int = 0, **values: Any) -> Artifact:
    given = {
        "model": str(folder / "v0"), "helpfulness": str(folder / "helpfulness"), "safety": str(folder / "safety"),
        "prompts": str(inputs / "prompts.jsonl"), "samples": 5, "temperatures": "0.01,1", "max_new_tokens": 12, "chunk_prompts": 5,
    }  # fmt: skip
    return curves.run(build(curves.CurvesConfig, given | values), out, seed)


def rows(done: Artifact) -> list[dict[str, Any]]:
    return [row for _, row in read_rows(done.path / "rows.jsonl")]


def test_the_figures_are_those_of_the_rows(tiny_folder: Path, tiny_inputs: Path, tmp_path: Path) -> None:
    done = run(tiny_folder, tiny_inputs, tmp_path / "out")
    found, metrics = rows(done), done.metrics
    assert [(row["temperature"], row["index"]) for row in found] == [(at, index) for at in (0.01, 1.0) for index in range(12)]
    for at, own in (("0.01", found[:12]), ("1", found[12:])):
        for what in ("max", "median"):
            assert list(metrics["by_temperature"][at][what]) == ["1", "2", "4", "5"]
            for n, figure in metrics["by_temperature"][at][what].items():
                assert figure["value"] == pytest.approx(statistics.mean(row[what][n] for row in own))
                assert (figure["low"] <= figure["value"] <= figure["high"], figure["n"]) == (True, 12)
        assert metrics["by_temperature"][at]["unusable"]["value"] == pytest.approx(sum(row["unusable"] for row in own) / 60)
    for n, figure in metrics["best_temperature_by_n"].items():
        cold, hot = (metrics["by_temperature"][at]["max"][n]["value"] for at in ("0.01", "1"))
        assert figure["value"] == (1.0 if hot > cold else 0.01)
    best = metrics["best_temperature"]
    assert best == metrics["best_temperature_by_n"]["5"]
    assert metrics["max_score"] == metrics["by_temperature"][f"{best['value']:g}"]["max"]
    assert [row["max"]["1"] for row in found] == [row["median"]["1"] for row in found], "of one answer"
    assert metrics["max_score"]["5"]["value"] > metrics["max_score"]["1"]["value"]
    assert curves.headline(done).startswith(f"best temperature {best['value']:g} (")


def test_scores_are_those_of_rejection_sampling(tiny_folder: Path, tiny_inputs: Path, tmp_path: Path) -> None:
    """Worked again from candidates of the same draws."""
    from llamaherd.core.seeds import seed_for

    done = run(tiny_folder, tiny_inputs, tmp_path / "out", temperatures=1.0)
    given = {name: str(tiny_folder / folder) for name, folder in (("model", "v0"), ("helpfulness", "helpfulness"), ("safety", "safety"))}
    config = build(reject.RejectConfig, {**given, "prompts": str(tiny_inputs / "prompts.jsonl"), "k": 5, "max_new_tokens": 12})
    samples = reject.run(config, tmp_path / "samples", seed_for(0, "curves"))
    for row, (_, sampled) in zip(rows(done), read_rows(samples.path / "samples.jsonl"), strict=True):
        scores = [0.0 if one["logit"] is None else sigmoid(one["logit"]) for one in sampled["candidates"]]
        assert row["max"]["4"] == pytest.approx(max(scores[:4]), abs=1e-5)
        assert row["median"]["5"] == pytest.approx(sorted(scores)[2], abs=1e-5)
        assert row["median"]["4"] == pytest.approx(sum(sorted(scores[:4])[1:3]) / 2, abs=1e-5)


def test_temperatures_and_ranks_do_not_touch_each_other(tiny_folder: Path, tiny_inputs: Path, tmp_path: Path) -> None:
    whole, alone = run(tiny_folder, tiny_inputs, tmp_path / "whole"), run(tiny_folder, tiny_inputs, tmp_path / "alone", temperatures=[1])
    assert rows(alone) == rows(whole)[12:]
    for rank in (1, 0):
        run(tiny_folder, tiny_inputs, tmp_path / "joined", rank=rank, world_size=2)
    joined = run(tiny_folder, tiny_inputs, tmp_path / "joined", join=True)
    assert (joined.hash, joined.metrics) == (whole.hash, whole.metrics)


def test_answers_that_may_not_become_data_earn_nothing(scripted: Any, tiny_folder: Path, tiny_inputs: Path, tmp_path: Path) -> None:
    done = run(tiny_folder, tiny_inputs, tmp_path / "out", model=str(scripted(endless=True)))
    assert done.metrics["by_temperature"]["1"]["unusable"]["value"] == 1
    assert done.metrics["max_score"]["5"]["value"] == 0
    assert done.metrics["best_temperature"]["value"] == 0.01, "the lowest of equals"


def test_what_cannot_be_measured(tiny_folder: Path, tiny_inputs: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="one stands twice"):
        run(tiny_folder, tiny_inputs, tmp_path / "out", temperatures="1,1.0")
    with pytest.raises(ConfigError, match="combination gate needs --safety"):
        run(tiny_folder, tiny_inputs, tmp_path / "out", safety=None)
    write_rows(tmp_path / "none.jsonl", [])
    with pytest.raises(UserError, match="no prompt in"):
        run(tiny_folder, tiny_inputs, tmp_path / "out", prompts=str(tmp_path / "none.jsonl"))
