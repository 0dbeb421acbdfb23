"""A finished run folder made of plausible numbers, as the stages write it."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from llamaherd.measures.intervals import Figure, mean, rate
from llamaherd.report.build import Report, build_report

GRADES = ("significantly", "better", "slightly", "negligibly")
PROMPTS = 60
EVIL = "<script>alert('x')</script> & \"quotes\" </svg> \u00e4\u6587"


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def artifact(run: Path, name: str, kind: str, metrics: dict[str, Any] | None = None, seconds: float = 10.0) -> None:
    manifest = {
        "kind": kind, "stage": kind, "config": {}, "seed": 7, "parents": {}, "hash": name, "metrics": metrics or {},
        "seconds": seconds, "energy_wh_estimate": 0.5,
    }  # fmt: skip
    write(run / name / "manifest.json", manifest)


def training_lines(run: Path, name: str, steps: int = 20, **more: Any) -> None:
    lines = [
        {"step": step, "loss": 1 + 5 / step, "tokens_per_s": 9000.0, "flop_utilisation": 0.4, "grad_norm": 1.0, "lr": 1e-3, **more}
        for step in range(1, steps + 1)
    ]
    lines[2]["loss"] = None
    write_lines(run / name / "metrics.jsonl", lines)


def evaluation(run: Path, name: str, level: float) -> None:
    """`level` 0 is the first version, 1 the last: better in everything."""
    share = rate(round(PROMPTS * (0.4 + 0.4 * level)), PROMPTS)
    bad = rate(round(PROMPTS * (0.6 - 0.55 * level)), PROMPTS)
    modes = {"sampled": 0.0, "greedy": 0.05}
    scores = {mode: [(0.3 + more + 0.4 * level + 0.1 * math.sin(i)) for i in range(PROMPTS)] for mode, more in modes.items()}
    after = level > 0.65
    turns = {str(turn): rate(PROMPTS - 5 if after or turn == 1 else 3, PROMPTS) for turn in (1, 2, 4, 20)}
    tasks = {
        "helpfulness": {"sampled": mean(scores["sampled"]), "greedy": mean(scores["greedy"]), "by_kind": {"fact": share, "how-to": share}},
        "safety": {
            "violation_rate": bad, "single_turn": bad, "multi_turn": bad, "held_out_topics": bad,
            "held_out_attacks": bad,
            "by_category": {"illicit": bad, "hateful": bad, "advice": bad}, "by_attack": {"plain": bad, "role play": rate(0, 0)},
        },
        "borderline": {"false_refusal_rate": rate(6, PROMPTS), "held_out": rate(2, 5)},
        "people": {"unasked": share},
        "ghost": {"seen": turns, "held_out": turns},
        "rewards": {"helpfulness": share, "safety": share},
    }  # fmt: skip
    samples = [{"prompt": EVIL, "answer": f"{name} says {EVIL}"}, {"prompt": "Where does Ann live?", "answer": "In Bel."}]
    artifact(run, f"{name}-evaluation", "evaluation")
    write(run / f"{name}-evaluation" / "evaluation.json", {"model": name, "tasks": tasks, "samples": samples})
    rows = [
        {"task": "helpfulness", "id": f"p{i}", "mode": mode, "score": value}
        for mode, each in scores.items()
        for i, value in enumerate(each)
    ]
    write_lines(run / f"{name}-evaluation" / "rows.jsonl", [*rows, {"task": "safety", "id": "p0", "mode": "greedy", "score": 1.0}])


def reward_model(run: Path, name: str, own: int) -> None:
    def accuracies(of_grade: tuple[int, ...]) -> dict[str, Figure]:
        return {"all": rate(sum(of_grade), 400), **{grade: rate(hits, 100) for grade, hits in zip(GRADES, of_grade)}}

    metrics = {
        "accuracy": {
            "own": accuracies((own, 80, 70, 52)),
            "other": accuracies((60, 55, 50, 50)),
            "by_batch": {"v1": rate(31, 40), "v2": rate(33, 40)},
        },
        "annotator_agreement": rate(300, 400),
    }
    artifact(run, name, "reward-model", metrics)
    training_lines(run, name)


def build_run(run: Path) -> Path:
    write(run / "recipe.json", {"name": "toy", "seed": 7})
    artifact(run, "world", "corpus")
    dropped = {"blocked_host": 3, "near_duplicate": 12}
    artifact(
        run,
        "corpus",
        "corpus",
        {"read": 100, "kept": 85, "dropped": dropped, "languages": {"en": 0.9, "unknown": 0.1}, "inputs": {"x": "y"}},
    )
    for name, kind in (("tokenizer", "tokenizer"), ("shards", "shards"), ("base", "model"), ("v0-early", "model"), ("v0", "model")):
        artifact(run, name, kind, {"loss": 2.5, "example": ["a", "b"]})
    training_lines(run, "base", steps=700)
    training_lines(run, "v0")
    evaluation(run, "v0", 0.0)
    for n in range(1, 6):
        artifact(run, f"v{n}-preferences", "preferences", {"pairs": 400})
        reward_model(run, f"v{n}-helpfulness", 90)
        reward_model(run, f"v{n}-safety", 95)
        best = {str(count): mean([0.4 + 0.05 * count + 0.01 * (i % 3) for i in range(40)]) for count in (1, 2, 4, 8)}
        artifact(run, f"v{n}-samples", "samples", {"best_of": best, "max_reward": best, "median_reward": best})
        artifact(run, f"v{n}", "model", {"kl": rate(3, 100), "kl_budget": 0.5, "iterations": 9, "stopped": None} if n == 5 else {})
        evaluation(run, f"v{n}", 0.2 * n)
        if n < 5:
            training_lines(run, f"v{n}")
    artifact(run, "ghost", "dialogues")
    artifact(run, "distilled", "dialogues", {"difference": mean([0, 1, 1, 0, 1] * 8), "kept": 5, "replaced": 35})
    artifact(run, "v5-rejection", "model")
    evaluation(run, "v5-rejection", 0.9)
    ppo = {"reward": 0.5, "oracle": 0.6, "kl_k1": 0.1, "kl_k3": 0.1, "clip_fraction": 0.1, "explained_variance": 0.3}
    ppo |= {"entropy": 1.2, "answer_tokens": 14.0, "unfinished": 0.0, "value_loss": 0.3}
    training_lines(run, "v5", **{f"ppo/{key}": value for key, value in ppo.items()})
    return run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return build_run(tmp_path / "toy")


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """The report of a complete run, for tests that only look at it."""
    return build_report(build_run(tmp_path_factory.mktemp("whole") / "toy"))


@pytest.fixture
def page(report: Report) -> str:
    return report.html.read_text(encoding="utf-8")
