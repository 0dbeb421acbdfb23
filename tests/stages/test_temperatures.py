"""Answers over temperatures: alike when cold, diverse when hot; the best of more is no worse."""

from pathlib import Path
from typing import Any

import pytest

from llamaherd.core.artifacts import Artifact
from llamaherd.core.config import ConfigError, build
from llamaherd.core.files import read_rows
from llamaherd.measures.diversity import self_bleu
from llamaherd.stages import temperatures


def run(folder: Path, out: Path, seed: int = 0, **values: Any) -> Artifact:
    given = {
        "model": str(folder / "v0"), "helpfulness": str(folder / "helpfulness"), "safety": str(folder / "safety"),
        "prompts": 3, "samples": 5, "temperatures": [0.01, 1.0], "max_new_tokens": 8,
    }  # fmt: skip
    return temperatures.run(build(temperatures.TemperatureConfig, given | values), out, seed)


def rows(done: Artifact) -> list[dict[str, Any]]:
    return [row for _, row in read_rows(done.path / "rows.jsonl")]


def test_every_prompt_at_every_temperature(tiny_folder: Path, tmp_path: Path) -> None:
    done = run(tiny_folder, tmp_path / "out")
    found = rows(done)
    assert [(row["temperature"], row["sort"]) for row in found] == [
        (at, sort) for at in (0.01, 1.0) for sort in ("factual", "creative") for _ in range(3)
    ]
    cold, hot = found[:6], found[6:]
    assert [row["id"] for row in cold] == [row["id"] for row in hot], "the same prompts"
    assert len({row["id"] for row in cold}) == 6
    assert all("story" in row["prompt"] for row in cold[3:])
    assert all("story" not in row["prompt"] for row in cold[:3])
    assert all(row["self_bleu"] == pytest.approx(1) for row in cold), "nearly greedy: equal answers"
    assert sum(row["self_bleu"] for row in hot) / 6 < 0.7
    for row in found:
        assert list(row["best_of"]) == ["1", "2", "4", "5"]
        values = list(row["best_of"].values())
        assert values == sorted(values)
        assert 0 <= values[0] <= values[-1] < 1
    for place, sort in enumerate(("factual", "creative")):
        own = hot[3 * place : 3 * place + 3]
        assert done.metrics[sort]["1.0"]["value"] == pytest.approx(sum(row["self_bleu"] for row in own) / 3)
    assert temperatures.headline(done).startswith("Self-BLEU by temperature: factual 1.00 at 0.01 to ")


def test_answers_are_drawn_by_prompt_and_seed(tiny_folder: Path, tmp_path: Path) -> None:
    whole, again, other = (run(tiny_folder, tmp_path / name, seed) for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    assert rows(whole) == rows(again) != rows(other)
    alone = run(tiny_folder, tmp_path / "alone", temperatures=[1.0])
    assert rows(alone) == rows(whole)[6:], "temperatures do not touch each other"


def test_one_answer_cannot_be_compared() -> None:
    with pytest.raises(ConfigError, match="samples: given 1, expected greater than or equal to 2"):
        build(temperatures.TemperatureSettings, {"samples": 1})
    with pytest.raises(AssertionError, match="at least two"):
        self_bleu(["alone"])
