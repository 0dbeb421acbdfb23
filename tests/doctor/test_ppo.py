import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llamaherd.core.artifacts import Artifact
from llamaherd.core.files import write_rows
from llamaherd.core.metrics import read_metrics
from llamaherd.doctor.examine import examine

from .conftest import absent, findings, rewrite

RunPpo = Callable[..., Artifact]
Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def healthy(run_ppo: RunPpo, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return run_ppo(tmp_path_factory.mktemp("ppo") / "healthy")


def test_a_healthy_run_gives_no_finding(healthy: Artifact) -> None:
    assert findings(healthy.path) == {}


def test_a_huge_rate_without_kl_is_seen(run_ppo: RunPpo, tmp_path: Path) -> None:
    done = run_ppo(tmp_path / "hot", lr=0.1, beta=0.0)
    [hot] = findings(done.path)["kl-hot"]
    assert hot.numbers["budget_nats"] == 20.0
    assert done.metrics["stopped"].startswith("KL")
    assert f"stopped: {done.metrics['stopped']}" in hot.said


def test_a_rate_of_nothing_is_seen(run_ppo: RunPpo, tmp_path: Path) -> None:
    found = findings(run_ppo(tmp_path / "still", lr=1e-9).path)
    assert "nothing-learned" in found


def test_held_out_prompts_that_are_trained_on_are_seen(run_ppo: RunPpo, tiny_inputs: Path, tmp_path: Path) -> None:
    [leak] = findings(run_ppo(tmp_path / "leak", held=tiny_inputs / "harmless.jsonl", iterations=2).path)["leak"]
    assert leak.numbers["both"]["value"] == 1.0


def altered(healthy: Artifact, out: Path, change: Callable[[Rows], None]) -> Path:
    """The artifact of the stage with its log as the stage would have written it if something else had happened: 20 iterations of 4 updates."""
    shutil.copytree(healthy.path, out)
    first = read_metrics(healthy.path / "metrics.jsonl")[0]
    rows: Rows = []
    for iteration in range(20):
        share = iteration / 19
        figures = {
            "ppo/iteration": iteration + 1.0, "ppo/reward": 1 + 0.5 * share + 0.05 * math.sin(9 * iteration), "ppo/kl_k1": 0.8 * share + 0.02 * math.cos(iteration),
            "ppo/kl_k3": 0.8 * share, "ppo/answer_tokens": 16 + 4 * share, "ppo/unfinished": 0.01, "ppo/sampling_gap": 1e-5,
            "ppo/oracle": 0.4 + 0.1 * share + 0.03 * math.cos(7 * iteration),
        }  # fmt: skip
        for update in range(4):
            step = {
                "step": len(rows) + 1,
                "loss": 0.1,
                "ppo/clip_fraction": 0.01 * (update > 0),
                "ppo/entropy": 0.4 - 0.2 * share,
                "ppo/explained_variance": share,
            }
            rows.append(
                {key: value for key, value in first.items() if not key.startswith("ppo/")} | step | (figures if update == 0 else {})
            )
    change(rows)
    write_rows(out / "metrics.jsonl", rows)
    return out


def over_time(key: str, value: Callable[[float], float | None]) -> Callable[[Rows], None]:
    """Sets a figure wherever it stands, as a function of how far the run is, 0 to 1."""

    def change(rows: Rows) -> None:
        for number, row in enumerate(rows):
            if key in row or key.startswith("ppo/guard"):
                row[key] = value(number / (len(rows) - 1))

    return change


@pytest.mark.parametrize(
    ("check", "change"),
    [
        ("kl-hot", over_time("ppo/kl_k3", lambda share: 19.0 * share)),
        ("kl-hot", over_time("ppo/kl_k1", lambda share: 0.0 if share < 0.5 else 6.0)),
        ("kl-negative", over_time("ppo/kl_k1", lambda share: -0.5 * share)),
        ("kl-negative", over_time("ppo/kl_k3", lambda share: 0.5 * share - 0.2)),
        ("overoptimised", over_time("ppo/oracle", lambda share: 0.5 - 0.2 * share)),
        ("collapse-entropy", over_time("ppo/entropy", lambda share: 0.4 * (1 - share) ** 3)),
        ("collapse-length", over_time("ppo/answer_tokens", lambda share: 16 + 60 * share)),
        ("collapse-length", over_time("ppo/answer_tokens", lambda share: 16 - 15 * share)),
        ("ppo-unfinished", over_time("ppo/unfinished", lambda share: 0.5 * share)),
        ("critic", over_time("ppo/explained_variance", lambda share: -0.1)),
        ("clip-high", over_time("ppo/clip_fraction", lambda share: 0.5)),
        ("sampling-gap", over_time("ppo/sampling_gap", lambda share: 0.2 * share)),
        ("nan", over_time("ppo/reward", lambda share: None if share > 0.9 else share)),
    ],
)
def test_each_disease_has_one_finding(healthy: Artifact, tmp_path: Path, check: str, change: Callable[[Rows], None]) -> None:
    assert findings(altered(healthy, tmp_path / "well", lambda rows: None)) == {}
    found = findings(altered(healthy, tmp_path / "sick", change))
    assert set(found) == {check}, found


def test_a_log_in_which_nothing_moved(healthy: Artifact, tmp_path: Path) -> None:
    def still(rows: Rows) -> None:
        over_time("ppo/kl_k3", lambda share: 1e-6)(rows)
        over_time("ppo/clip_fraction", lambda share: 0.0)(rows)

    assert set(findings(altered(healthy, tmp_path / "still", still))) == {"nothing-learned"}


@pytest.mark.parametrize("figure", [False, True])
def test_a_guard_that_falls_at_the_looks(healthy: Artifact, tmp_path: Path, figure: bool) -> None:
    """As a number, or as a figure with its interval."""

    def looks(sign: int) -> Callable[[dict[str, Any]], None]:
        values = [1 + sign * 0.1 * index for index in range(6)]
        guards = [{"value": value, "low": value - 0.1, "high": value + 0.1, "n": 9} if figure else value for value in values]
        made = [{"iteration": 4 * index, "reward": 1.0 + index, "kl": {"value": 0.1 * index}, "guard": guards[index]} for index in range(6)]
        return lambda manifest: manifest["metrics"].update(looks=made, published_iteration=20)

    sick, well = (altered(healthy, tmp_path / name, lambda rows: None) for name in ("sick", "well"))
    rewrite(sick, looks(-1))
    rewrite(well, looks(1))
    [hacked] = findings(sick)["overoptimised"]
    assert hacked.numbers["judge"] == "guard at the looks"
    assert hacked.numbers["reward_trend"] == pytest.approx(14 / (6 * 5 * 17 / 18) ** 0.5)
    assert findings(well) == {}


def test_ppo_that_stopped_itself_for_its_guard(healthy: Artifact, tmp_path: Path) -> None:
    sick = altered(healthy, tmp_path / "sick", lambda rows: None)
    rewrite(sick, lambda manifest: manifest["metrics"].update(stopped="the guard fell from 1.00 to 0.50, by more than 0.2"))
    assert set(findings(sick)) == {"overoptimised"}


def test_a_policy_that_was_published_as_it_began(healthy: Artifact, tmp_path: Path) -> None:
    sick = altered(healthy, tmp_path / "sick", lambda rows: None)
    rewrite(sick, lambda manifest: manifest["metrics"].update(published_iteration=0))
    assert set(findings(sick)) == {"nothing-gained"}


def test_the_runs_own_limit_of_the_gap_is_used(healthy: Artifact, tmp_path: Path) -> None:
    sick = altered(healthy, tmp_path / "sick", over_time("ppo/sampling_gap", lambda share: 0.05))
    assert findings(sick) == {}
    rewrite(sick, lambda manifest: manifest["config"]["ppo"].update(sampling_gap_nats=0.01))
    assert set(findings(sick)) == {"sampling-gap"}


def test_kept_answers_that_become_one(healthy: Artifact, tmp_path: Path) -> None:
    sick, well = (altered(healthy, tmp_path / name, lambda rows: None) for name in ("sick", "well"))
    kept = [{"step": step, "answer": f"{step} is {draw}"} for step in range(1, 21) for draw in range(3)]
    write_rows(well / "sampled.jsonl", kept)
    write_rows(sick / "sampled.jsonl", [row | ({"answer": "I help."} if int(str(row["step"])) > 10 else {}) for row in kept])
    assert findings(well) == {}
    [shrunk] = findings(sick)["answers-shrunk"]
    assert (shrunk.numbers["before"], shrunk.numbers["after"]) == (1.0, pytest.approx(1 / 15))
    assert shrunk.numbers["self_bleu"] == pytest.approx(1.0)


def test_without_its_log_nothing_is_healthy(healthy: Artifact, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(healthy.path, bare)
    (bare / "metrics.jsonl").unlink()
    rewrite(bare, lambda manifest: manifest.update(metrics={}, config={}))
    assert {one.state for one in examine(bare)[1]} == {"not measured"}
    assert absent(bare) >= {
        "kl-hot",
        "kl-negative",
        "overoptimised",
        "collapse-entropy",
        "critic",
        "sampling-gap",
        "nothing-learned",
        "nan",
    }
    json.dumps([one.to_row() for one in examine(bare)[1]], allow_nan=False)


def test_a_policy_that_never_ends_an_answer(run_ppo: RunPpo, tmp_path: Path) -> None:
    done = run_ppo(tmp_path / "endless", max_new_tokens=1)
    [found] = findings(done.path)["nothing-judged"]
    assert "11 unfinished, 1 empty" in found.said
    assert "damaged" not in findings(done.path)  # nothing stands in its log
