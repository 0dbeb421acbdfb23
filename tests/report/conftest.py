"""A finished run folder made of plausible numbers, as the stages write it."""

import json
import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from llamaherd.measures.intervals import Figure, mean, rate
from llamaherd.report.build import Report, build_report

GRADES = ("significantly", "better", "slightly", "negligibly")
PROMPTS = 60
DIALOGUES = 40
TURNS = (1, 2, 4, 20)
SETS = ("seen", "demonstrated", "held_out")
EVIL = "<script>alert('x')</script> & \"quotes\" </svg> \u00e4\u6587"
BEGUN = datetime(2023, 7, 18, 12, tzinfo=UTC)


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


class Builder:
    """Writes artifacts one after the other, ten seconds each."""

    def __init__(self, run: Path):
        self.run = run
        self.clock: Iterator[int] = count()

    def artifact(
        self, name: str, kind: str, stage: str, metrics: dict[str, Any] | None = None, config: dict[str, Any] | None = None
    ) -> None:
        started = BEGUN + timedelta(seconds=10 * next(self.clock))
        manifest = {
            "kind": kind, "stage": stage, "config": config or {}, "seed": 7, "parents": {}, "hash": name, "metrics": metrics or {}, "seconds": 10.0,
            "energy_wh_estimate": 0.5, "peak_memory_bytes": 250_000_000, "device": "an abacus", "started": started.isoformat(), "finished": (started + timedelta(seconds=10)).isoformat(),
        }  # fmt: skip
        write(self.run / name / "manifest.json", manifest)

    def training_lines(self, name: str, steps: int = 20, **more: Any) -> None:
        lines = [
            {"step": step, "loss": 1 + 5 / step, "tokens_per_s": 9000.0, "flop_utilisation": 0.4, "grad_norm": 1.0, "lr": 1e-3, **more}
            for step in range(1, steps + 1)
        ]
        lines[2]["loss"] = None
        write_lines(self.run / name / "metrics.jsonl", lines)

    def model(self, name: str, stage: str, metrics: dict[str, Any] | None = None) -> None:
        self.artifact(name, "model", stage, metrics)
        (self.run / name / "README.md").write_text(f"# {name}: chat model\n\n## Limits\n\nMany.\n", encoding="utf-8")

    def evaluation(self, name: str, level: float) -> None:
        """`level` 0 is the first version, 1 the last: better in everything."""
        share = rate(round(PROMPTS * (0.4 + 0.4 * level)), PROMPTS)
        bad = rate(round(PROMPTS * (0.6 - 0.55 * level)), PROMPTS)
        rows = answer_rows(level) + ghost_rows(after=level > 0.65)
        obeyed = {
            kind: {str(turn): rate(sum(row["obeyed"] for row in rows if (row.get("set"), row.get("turn")) == (kind, turn)), DIALOGUES) for turn in TURNS}
            for kind in SETS
        }  # fmt: skip
        sampled, greedy = (
            [row["score"] for row in rows if (row["task"], row["mode"]) == ("helpfulness", mode)] for mode in ("sampled", "greedy")
        )
        tasks = {
            "helpfulness": {"sampled": mean(sampled), "greedy": mean(greedy), "by_kind": {"fact": share, "how-to": share}},
            "safety": {
                "violation_rate": bad, "single_turn": bad, "multi_turn": bad, "held_out_topics": bad, "held_out_attacks": bad,
                "by_category": {"illicit": bad, "hateful": bad, "advice": bad}, "by_attack": {"plain": bad, "role play": rate(0, 0)},
            },
            "borderline": {"false_refusal_rate": rate(6, PROMPTS), "held_out": rate(2, 5)},
            "people": {"unasked": share}, "ghost": obeyed,
        }  # fmt: skip
        samples = [
            {"prompt": EVIL, "answer": f"{name} says {EVIL}"},
            {"prompt": "Where does Ann live?", "answer": "In Bel."},
            {"prompt": "And?", "answer": " "},
        ]
        self.artifact(f"{name}-evaluation", "evaluation", "evaluate", config={"ghost_sampling": {"temperature": 0.6, "top_p": 0.9}})
        kept = [dialogue("seen", 2 if level < 0.3 else 3), dialogue("held_out", 2)]
        report = {"model": name, "tasks": tasks, "samples": samples, "dialogues": kept}
        write(self.run / f"{name}-evaluation" / "evaluation.json", report)
        write_lines(self.run / f"{name}-evaluation" / "rows.jsonl", rows)

    def judgement(self, name: str, level: float) -> None:
        self.artifact(f"{name}-rewards", "evaluation", "evaluate")
        rows = [
            {
                "task": "rewards",
                "domain": domain,
                "mode": "sampled",
                "id": f"{domain[0]}{i}",
                "score": 0.3 + 0.5 * level + 0.1 * math.cos(i),
            }
            for domain in ("helpfulness", "safety")
            for i in range(PROMPTS)
        ]
        rows[0]["score"] = None
        figures = {domain: mean([row["score"] for row in rows if row["domain"] == domain][1:]) for domain in ("helpfulness", "safety")}
        write(self.run / f"{name}-rewards" / "evaluation.json", {"model": name, "tasks": {"rewards": figures}})
        write_lines(self.run / f"{name}-rewards" / "rows.jsonl", rows)

    def reward_model(self, name: str, domain: str, own: int) -> None:
        def accuracies(of_grade: tuple[int, ...]) -> dict[str, Figure]:
            return {"all": rate(sum(of_grade), 400), **{grade: rate(hits, 100) for grade, hits in zip(GRADES, of_grade)}}

        metrics = {
            "accuracy": {
                "own": accuracies((own, 80, 70, 52)), "other": accuracies((60, 55, 50, 50)), "by_batch": {"v1": rate(31, 40), "v2": rate(33, 40)},
            },
            "annotator_agreement": accuracies((99, 93, 80, 60)),
        }  # fmt: skip
        self.artifact(name, "reward-model", "reward", metrics)
        self.training_lines(name)
        rows = []
        for about in ("helpfulness", "safety"):
            hits = (own, 80, 70, 52) if about == domain else (60, 55, 50, 50)
            rows += [
                {"id": f"{about}-{grade}-{i}", "domain": about, "grade": grade, "batch": "v1", "agrees": i < hit}
                for grade, hit in zip(GRADES, hits)
                for i in range(100)
            ]
        write_lines(self.run / name / "tested.jsonl", rows)


def answer_rows(level: float) -> list[dict[str, Any]]:
    """Helpfulness sampled and greedy, safety and borderline prompts; the first prompt gets worse, not better."""
    rows: list[dict[str, Any]] = []
    for mode, more in (("sampled", 0.0), ("greedy", 0.05)):
        for i in range(PROMPTS):
            score = 0.3 + more + 0.4 * level + 0.1 * math.sin(i) if i else 0.9 - 0.5 * level
            rows.append(
                {"task": "helpfulness", "id": f"h{i}", "mode": mode, "score": score, "prompt": f"Question {i}?", "answer": f"{level:.1f}"}
            )
    for i in range(PROMPTS):
        safe = i >= PROMPTS * (0.6 - 0.55 * level)
        about = {"safe": safe, "refusal": safe and i % 2 == 0, "turns": 1 + i % 3 // 2, "seen": i % 2 == 0, "attack_seen": i % 4 < 2}
        rows.append({"task": "safety", "id": f"s{i}", "mode": "sampled", "score": 0.1, "prompt": f"Harm {i}?", "answer": "No.", **about})
    for i in range(10):
        rows.append(
            {
                "task": "borderline",
                "id": f"b{i}",
                "mode": "sampled",
                "score": 0.5,
                "refusal": i < 3 * level,
                "prompt": f"Kill {i}?",
                "answer": "?",
            }
        )
    return rows


def ghost_rows(after: bool) -> list[dict[str, Any]]:
    """Obedience is near one at every turn with Ghost Attention's rows, and at the first turn without."""
    return [
        {"task": "ghost", "set": kind, "mode": "sampled", "id": f"{kind}-{i}", "turn": turn, "obeyed": i >= 5 if after or turn == 1 else i < 3, "answer": "A"}
        for kind in SETS for turn in TURNS for i in range(DIALOGUES)
    ]  # fmt: skip


def dialogue(kind: str, turns: int) -> dict[str, Any]:
    """A kept dialogue with its attention: one place for each message."""
    messages = [{"role": "system", "content": "Act as Ada."}]
    bins: list[dict[str, Any]] = [{"role": "system", "turn": 1}]
    for turn in range(1, turns + 1):
        for role in ("user", "assistant"):
            messages.append({"role": role, "content": f"{role} {turn}"})
            bins.append({"role": role, "turn": turn})
    attention = [[0.5 / (1 + row - column) for column in range(row + 1)] for row in range(len(bins))]
    return {"set": kind, "id": f"{kind}-0", "messages": messages, "bins": bins, "attention": attention}


def build_run(run: Path) -> Path:
    write(run / "recipe.json", {"name": "toy", "seed": 7, "co2_g_per_kwh": 400.0})
    make = Builder(run)
    make.artifact("world", "corpus", "world")
    metrics = {"read": 100, "kept": 85, "dropped": {"blocked_host": 3, "near_duplicate": 12}, "languages": {"en": 0.9, "unknown": 0.1}}
    make.artifact("corpus", "corpus", "corpus", metrics)
    statistics = {
        "filters": {"read": {"web": 90, "books": 10}, "dropped": {"blocked_host": {"web": 3}, "near_duplicate": {"web": 12}}},
        "sources": {"web": {"documents": 75, "characters": 900}, "books": {"documents": 10, "characters": 100}},
        "english_pronouns": {"gendered": {"any": 0.5, "she": 0.25, "he": 0.5, "unspecified": None}, "person": {"any": 0.9, "first": 0.3}},
        "toxicity": {"mean": 0.02, "share_toxic": 0.0125},
    }  # fmt: skip
    write(run / "corpus" / "statistics.json", statistics)
    for name in ("tokenizer", "shards"):
        make.artifact(name, name, name, {"tokens": 5000, "example": ["a", "b"]})
    make.model("base", "pretrain", {"parameters": 1234, "loss": 2.5, "epochs": 0.9})
    for name in ("v0-early", "v0"):
        make.model(name, "sft", {"loss": 2.5})
    make.training_lines("base", steps=700)
    make.training_lines("v0")
    make.evaluation("v0", 0.0)
    for n in range(1, 6):
        make.artifact(f"v{n}-preferences", "preferences", "collect", {"comparisons": 8, "newest_won": rate(5, 8)})
        write_lines(run / f"v{n}-preferences" / "preferences.jsonl", [{"grade": grade} for grade in (*GRADES, *GRADES[1:])])
        make.reward_model(f"v{n}-helpfulness", "helpfulness", 90)
        make.reward_model(f"v{n}-safety", "safety", 95)
        judged = [{"best_of": {str(k): min(0.4 + 0.05 * k + 0.01 * (i % 3), 1.2 - 0.05 * k) for k in (1, 2, 4, 8, 16)}} for i in range(40)]
        best = {k: mean([row["best_of"][k] for row in judged]) for k in judged[0]["best_of"]}
        make.artifact(f"v{n}-samples", "samples", "reject", {"pool": {f"v{n}": 40}})
        make.artifact(f"v{n}-best-of", "samples", "reject", {"best_of": best, "max_reward": best, "median_reward": best})
        write_lines(run / f"v{n}-best-of" / "judged.jsonl", judged)
        if n == 5:
            make.model("v5-rejection", "sft")
            make.evaluation("v5-rejection", 0.9)
        looks = [{"iteration": i, "reward": 0.1 * i, "kl": rate(i, 100)} for i in (0, 4, 8)]
        ppo = {"kl": rate(3, 100), "kl_budget": 0.5, "iterations": 9, "stopped": None, "looks": looks, "published_iteration": 8}
        ppo |= {"reward_first": 0.0, "reward_last": 0.8}
        make.model(f"v{n}", "ppo" if n == 5 else "sft", ppo if n == 5 else {})
        make.evaluation(f"v{n}", 0.2 * n)
        if n < 5:
            make.training_lines(f"v{n}")
    make.artifact("ghost", "dialogues", "ghost")
    shares = {"original_safe": rate(16, 40), "distilled_safe": rate(40, 40)}
    make.artifact("distilled", "dialogues", "distill", {"difference": mean([0, 1, 1, 0, 1] * 8), "kept": 5, "replaced": 35, **shares})
    for name, level in (("v0", 0.0), *((f"v{n}", 0.2 * n) for n in range(1, 6)), ("v5-rejection", 0.9)):
        make.judgement(name, level)
    measured = {"reward": 0.5, "oracle": 0.6, "kl_k1": 0.1, "kl_k3": 0.1, "clip_fraction": 0.1, "explained_variance": 0.3}
    measured |= {"entropy": 1.2, "answer_tokens": 14.0, "unfinished": 0.0, "value_loss": 0.3, "reward_safety": 0.7}
    make.training_lines("v5", **{f"ppo/{key}": value for key, value in measured.items()})
    return run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return build_run(tmp_path / "toy")


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """The report of a complete run, for tests that only look at it."""
    return build_report(build_run(tmp_path_factory.mktemp("whole") / "toy"), told={"v5": "told of v5"})


@pytest.fixture
def page(report: Report) -> str:
    return report.html.read_text(encoding="utf-8")
