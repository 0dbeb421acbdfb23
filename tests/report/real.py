"""A finished run on real text made of plausible numbers: a judge in the oracle's place, benchmarks, win rates."""

import math
from pathlib import Path
from typing import Any

from tests.report.conftest import DIALOGUES, GRADES, PROMPTS, Builder, dialogue, write, write_lines
from tests.report.reading import change

from llamaherd.measures.intervals import mean, rate

SETS = ("seen", "held_out")
TURNS = (1, 2, 4)
SOURCES = {"helpfulness": ("hh-helpful", "webgpt", "pandalm"), "safety": ("hh-harmless", "do-not-answer")}
TASKS = {"lambada": (0, 400, 0.01), "boolq": (260, 400, 0.5), "arc-easy": (110, 400, 0.25)}
"""Right answers of the base, items, chance."""


def answers(level: float) -> list[dict[str, Any]]:
    """As the judge's rows are: no attack is named, nothing in tests was trained on."""
    rows: list[dict[str, Any]] = []
    for mode in ("sampled", "greedy"):
        rows += [
            {"task": "helpfulness", "id": f"h{i}", "mode": mode, "score": 0.3 + 0.2 * level + 0.1 * math.sin(i), "kind": ("koala", "vicuna")[i % 2],
             "safe": True, "refusal": False, "turns": 1, "prompt": f"Question {i}?", "answer": f"{level:.1f}"}
            for i in range(PROMPTS)
        ]  # fmt: skip
    for i in range(PROMPTS):
        safe = i >= PROMPTS * (0.5 - 0.1 * level)
        rows.append({"task": "safety", "id": f"s{i}", "mode": "sampled", "score": 0.1, "safe": safe, "refusal": safe, "turns": 1, "seen": False,
                     "category": ("fraud", "weapons")[i % 2], "prompt": f"Harm {i}?", "answer": "No."})  # fmt: skip
    rows += [
        {"task": "borderline", "id": f"b{i}", "mode": "sampled", "score": 0.5, "refusal": i < 2, "seen": False, "prompt": f"Kill {i}?", "answer": "?"}
        for i in range(20)
    ]  # fmt: skip
    return rows


def evaluate(make: Builder, name: str, level: float) -> None:
    obeys = level > 0.5
    rows = answers(level) + [
        {"task": "ghost", "set": kind, "mode": "sampled", "id": f"{kind}-{i}", "turn": turn, "obeyed": i >= 5 if obeys or turn == 1 else i < 3, "answer": "A"}
        for kind in SETS for turn in TURNS for i in range(DIALOGUES)
    ]  # fmt: skip
    harmful = [row for row in rows if row["task"] == "safety"]
    bad = rate(sum(not row["safe"] for row in harmful), PROMPTS)
    scores = {mode: [row["score"] for row in rows if (row["task"], row["mode"]) == ("helpfulness", mode)] for mode in ("sampled", "greedy")}
    by_category = {
        category: rate(sum(not row["safe"] for row in harmful if row["category"] == category), PROMPTS // 2)
        for category in ("fraud", "weapons")
    }
    figures = {mode: mean(values) for mode, values in scores.items()}
    tasks = {
        "helpfulness": {**figures, "by_kind": {"koala": figures["sampled"], "vicuna": figures["sampled"]}},
        "safety": {"violation_rate": bad, "single_turn": bad, "multi_turn": rate(0, 0), "held_out_topics": bad, "held_out_attacks": rate(0, 0),
                   "by_category": by_category, "by_attack": {}},
        "borderline": {"false_refusal_rate": rate(2, 20), "held_out": rate(2, 20)},
        "ghost": {kind: {str(turn): rate(sum(row["obeyed"] for row in rows if (row.get("set"), row.get("turn")) == (kind, turn)), DIALOGUES)
                         for turn in TURNS} for kind in SETS},
    }  # fmt: skip
    make.artifact(f"{name}-evaluation", "evaluation", "evaluate")
    report = {"model": name, "tasks": tasks, "samples": [{"prompt": "Hello?", "answer": name}], "dialogues": [dialogue("seen", 2)]}
    write(make.run / f"{name}-evaluation" / "evaluation.json", report)
    write_lines(make.run / f"{name}-evaluation" / "rows.jsonl", rows)


def wins(make: Builder, name: str, won: int) -> None:
    def figures(won: int, n: int) -> dict[str, Any]:
        return {
            "wins": rate(won, n), "ties": rate(n // 10, n), "losses": rate(n - won - n // 10, n), "win_rate": rate(won + n // 10 / 2, n),
            "wins_of_decided": rate(won, n - n // 10), "pairs": n + 1, "equal": 1, "unusable": 0, "unparsable": 0, "too_long": 1, "without_verdict": 0,
        }  # fmt: skip

    by = {"helpfulness": figures(won, 60), "safety": figures(20, 60)}
    make.artifact(f"{name}-wins", "evaluation", "judge", {"win-rate": {**figures(won + 20, 120), "by_criterion": by}})


def benchmarks(make: Builder, name: str, more: int) -> None:
    found: dict[str, Any] = {
        "bits-per-byte": {"bits_per_byte": mean([1.5, 1.7, 1.6]), "by_source": {"novels": mean([1.7, 1.8]), "tinystories": mean([0.9, 1.0])},
                          "documents": 3, "bytes": 9000, "in_windows": 1},
    }  # fmt: skip
    for task, (right, items, chance) in TASKS.items():
        accuracy = rate(right + more, items)
        assert accuracy["low"] is not None
        verdict = "above chance" if accuracy["low"] > chance else "undecided"
        found[task] = {"accuracy": accuracy, "chance": chance, "verdict": verdict, "items": items, "too_long": 0, "cut": 2}
    found["lambada"]["perplexity"] = mean([900.0, 1100.0, 1000.0])
    found["boolq"] |= {"majority": 0.62, "verdict_on_majority": "undecided"}
    found["arc-easy"] |= {"accuracy_per_character": rate(120, 400), "verdict_per_character": "above chance"}
    make.artifact(f"{name}-benchmarks", "evaluation", "benchmark", found)


def reward_model(make: Builder, name: str, domain: str, hits: int) -> None:
    """Trained on people's comparisons: grades only of WebGPT and PandaLM; `hits` of 100 by source."""
    rows = [
        {"id": f"{source}-{i}", "domain": about, "grade": GRADES[i % 4] if source in ("webgpt", "pandalm") else None, "batch": None, "source": source,
         "agrees": i < (hits if about == domain else 52)}
        for about, sources in SOURCES.items() for source in sources for i in range(100)
        if name != "judge" or about == "helpfulness"
    ]  # fmt: skip

    def share(**where: Any) -> Any:
        chosen = [row for row in rows if all(row[key] == value for key, value in where.items())]
        return rate(sum(row["agrees"] for row in chosen), len(chosen))

    other = "safety" if domain == "helpfulness" else "helpfulness"
    accuracy = {
        side: {"all": share(domain=about), **{grade: share(domain=about, grade=grade) for grade in GRADES}}
        for side, about in (("own", domain), ("other", other))
    }
    sources = {source: share(source=source) for source in dict.fromkeys(row["source"] for row in rows)}
    metrics = {"domain": domain, "pairs": 900, "accuracy": {**accuracy, "by_batch": {}, "by_source": sources}, "annotator_agreement": {}}
    make.artifact(name, "reward-model", "reward", metrics, {"model": "run/v0", "data": ["run/comparisons/helpfulness.jsonl"]})
    make.training_lines(name)
    write_lines(make.run / name / "tested.jsonl", rows)
    length = {"people_prefer_longer": rate(160, 300), "model_prefers_longer": rate(200, 300)}
    about_it = {"length": length, "calibration": {"expected_calibration_error": mean([0.05, 0.07])}}
    write(make.run / name / "report.json", {"models": {name: about_it}, "agreement": {}})


def foundation(make: Builder) -> None:
    run = make.run
    metrics = {"counts": {"documents.jsonl": 90, "held-out.jsonl": 12, "demonstrations.jsonl": 500}, "left_out": {"too long": 7, "empty": 0},
               "sources": {"novels": 60, "tinystories": 30}, "held_out": {"novels": 8, "tinystories": 4}}  # fmt: skip
    make.artifact("texts", "corpus", "texts", metrics)
    counts = {"helpfulness.jsonl": {"hh-helpful": 50, "webgpt": 30}, "safety.jsonl": {"hh-harmless": 40}, "judge.jsonl": {"pandalm": 20}}
    make.artifact("comparisons", "preferences", "comparisons", {
        "comparisons": 140, "counts": {}, "sources": counts, "grades": {"webgpt": {"better": 20, "slightly": 10}, "hh-helpful": {"none": 50}},
        "left_out": {"webgpt": {"tie": 9, "empty": 1}}, "not_taken": 3,
    })  # fmt: skip
    for domain, sources in SOURCES.items():
        for part in ("", "-test"):
            rows = [{"domain": domain, "grade": None, "source": sources[0]}] * (20 if part else 80)
            write_lines(run / "comparisons" / f"{domain}{part}.jsonl", rows)
    make.artifact("prompts", "dialogues", "prompts", {"counts": {"rejection.jsonl": 40}})
    make.artifact(
        "corpus", "corpus", "corpus", {"read": 90, "kept": 85, "dropped": {"short": 2, "near_duplicate": 3}, "languages": {"en": 1.0}}
    )
    statistics = {
        "filters": {"read": {"novels": 60, "tinystories": 30}, "dropped": {"short": {"novels": 2}, "near_duplicate": {"tinystories": 3}}},
        "sources": {"novels": {"documents": 58, "characters": 9000}, "tinystories": {"documents": 27, "characters": 900}},
    }  # fmt: skip
    write(run / "corpus" / "statistics.json", statistics)
    mixture = {name: {"documents": 9, "tokens": 100 * n, "mixed_documents": 9, "mixed_tokens": 200 * n, "share": n / 4, "mixed_share": n / 4}
               for name, n in (("novels", 3), ("tinystories", 1))}  # fmt: skip
    make.artifact("tokenizer", "tokenizer", "tokenizer")
    make.artifact("shards", "shards", "shards", {"tokens": 4000, "sources": mixture})
    make.model("base", "pretrain", {"parameters": 9876, "loss": 3.5, "epochs": 2.0})
    make.training_lines("base", steps=30)


def build_real_run(run: Path) -> Path:
    """Two versions; Ghost Attention after the first, PPO at the end."""
    write(run / "recipe.json", {"seed": 7, "kind": "public", "versions": 2, "ghost_after": 1, "tune_from": "v0", "workers": 2})
    make = Builder(run)
    foundation(make)
    make.model("v0", "sft")
    reward_model(make, "judge", "helpfulness", 64)
    for domain in SOURCES:
        reward_model(make, f"v1-{domain}", domain, 62)
    evaluate(make, "v0", 0.0)
    judged = [{"best_of": {str(k): 0.3 + 0.01 * k + 0.001 * i for k in (1, 2, 4)}} for i in range(40)]
    best = {k: mean([row["best_of"][k] for row in judged]) for k in judged[0]["best_of"]}
    for n, name, level in ((1, "v1", 0.3), (2, "v2-rejection", 0.6), (2, "v2", 0.9)):
        if name != "v2":
            make.artifact(f"v{n}-samples", "samples", "reject", {"pool": {f"v{n}": 40}})
            make.artifact(f"v{n}-best-of", "samples", "reject", {"best_of": best, "max_reward": best, "median_reward": best})
            write_lines(run / f"v{n}-best-of" / "judged.jsonl", judged)
        ppo = {"kl": rate(3, 100), "kl_budget": 0.5, "iterations": 9, "stopped": None, "looks": [], "published_iteration": 8, "reward_first": 0.0,
               "reward_last": 0.8}  # fmt: skip
        make.model(name, "ppo" if name == "v2" else "sft", ppo if name == "v2" else {})
        evaluate(make, name, level)
        wins(make, name, 20 + round(20 * level))
    make.training_lines("v2", **{"ppo/reward": 0.5, "ppo/oracle": 0.6, "ppo/kl_k1": 0.1})
    make.artifact("ghost", "dialogues", "ghost")
    make.artifact(
        "distilled",
        "dialogues",
        "distill",
        {"difference": mean([0, 1, 0, 0, 0] * 8), "original_safe": rate(30, 40), "distilled_safe": rate(38, 40)},
    )
    for name, level in (("v0", 0.0), ("v1", 0.3), ("v2-rejection", 0.6), ("v2", 0.9)):
        make.judgement(name, level)
    for name, more in (("base", 0), ("v0", 4), ("v2", 8)):
        benchmarks(make, name, more)
    change(run / "v1" / "manifest.json", "config", to={"model": "run/v0", "data": ["run/v1-samples/dialogues.jsonl"], "shares": [1.0]})
    change(run / "v1-samples" / "manifest.json", "parents", to={"v1-helpfulness": {}, "v1-safety": {}})
    for domain in SOURCES:
        change(run / f"v1-{domain}" / "manifest.json", "parents", to={"comparisons": {}})
    return run
