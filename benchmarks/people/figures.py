"""What the reward models of all folds say of the comparisons they have not seen, beside chance and what length and words alone say."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamaherd.core.artifacts import find_artifact
from llamaherd.core.files import read_rows
from llamaherd.data.records import DOMAINS, Domain, Preference, read_preferences
from llamaherd.measures.calibration import expected_calibration_error, reliability, sigmoid
from llamaherd.measures.intervals import Figure, figure, nothing, paired_difference, rate
from llamaherd.reward.pairs import comparison_id

from .steps import ARMS, CANDIDATES, candidate_name, choose, fold_name
from .texts import FOLDS, first_message
from .words import agreement, bag_of_words, length_as_trained, length_difference, longer

PAPER = {"helpfulness": 0.720, "safety": 0.747}
"""Table 7: Llama 2's helpfulness reward model on Anthropic Helpful, its safety reward model on Anthropic Harmless."""
DOMAIN_NAMES = {"helpfulness": "helpful", "safety": "harmless"}
LENGTH_RATIOS = {
    "under half": (0.0, 0.5),
    "half to as long": (0.5, 1.0),
    "as long to double": (1.0, 2.0),
    "double or more": (2.0, math.inf),
}
"""Length of the chosen answer over that of the other, in characters."""
CONFIDENCE_BINS = 5
"""Parts of 0.5 to 1 in which confidence and accuracy are compared: few, since there are few comparisons."""


@dataclass(frozen=True)
class Judged:
    """The comparisons of one domain that were tested, in one order, and for each what every judge says: 1, 0 or 0.5 (undecided)."""

    rows: Sequence[Preference]
    agrees: Mapping[str, Sequence[float]]
    """By judge: `longer`, `length`, `words`, and of the arms whose folds are all there `chat` and `fresh`, each with `-other` for the
    reward model of the other domain."""
    differences: Mapping[str, Sequence[float]]
    """Logit of the chosen answer less that of the other, of the same arms."""


def tested_rows(made: Path, arm: str, domain: Domain) -> dict[str, float] | None:
    """Difference of logits by comparison, from the reward models of all folds; None while one is missing."""
    folders = [made / fold_name(arm, domain, fold) for fold in range(1, FOLDS + 1)]
    if not all(find_artifact(folder) for folder in folders):
        return None
    rows = [row for folder in folders for _, row in read_rows(folder / "tested.jsonl")]
    return {row["id"]: row["chosen_logit"] - row["rejected_logit"] for row in rows}


def tested(texts: Path, made: Path, domain: Domain) -> Judged:
    """The judges' words on every comparison of a domain in the tested folds that fits the reward models' context."""
    scored = {
        f"{arm}{'' if own == domain else '-other'}": found
        for arm in ARMS
        for own in DOMAINS
        if (found := tested_rows(made, arm, own)) is not None
    }
    rows: list[Preference] = []
    agrees: dict[str, list[float]] = {"longer": [], "length": [], "words": []}
    for fold in range(1, FOLDS + 1):
        held = [row for row in read_preferences(texts / f"test-{fold}.jsonl") if row.domain == domain]
        held = [row for row in held if all(comparison_id(row) in found for found in scored.values())]
        trained = read_preferences(texts / f"{domain}-train-{fold}.jsonl")
        rows += held
        agrees["longer"] += longer(held)
        agrees["length"] += length_as_trained(trained, held)
        agrees["words"] += bag_of_words(trained, list(map(first_message, trained)), held)
    differences = {name: [found[comparison_id(row)] for row in rows] for name, found in scored.items()}
    return Judged(rows, {**agrees, **{name: list(map(agreement, found)) for name, found in differences.items()}}, differences)


def share(agreed: Sequence[float]) -> Figure:
    """Accuracy; a comparison on which the judge is undecided counts half."""
    return rate(sum(agreed), len(agreed))


def by_length(found: Judged, agreed: Sequence[float]) -> dict[str, Figure]:
    """Accuracy by how long the chosen answer is beside the other."""
    ratios = [len(row.chosen) / len(row.rejected) for row in found.rows]
    return {
        name: share([one for one, ratio in zip(agreed, ratios, strict=True) if low <= ratio < high])
        for name, (low, high) in LENGTH_RATIOS.items()
    }


def prefers_longer(found: Judged, judge: str) -> Figure:
    """How often a judge scores the longer answer higher, of the comparisons whose answers differ in length."""
    pairs = [(one, length_difference(row)) for one, row in zip(found.differences[judge], found.rows, strict=True)]
    return share([agreement(difference * length) for difference, length in pairs if length])


def calibration(differences: Sequence[float]) -> dict[str, Any]:
    """By how sure the model is of the answer it prefers (sigmoid of the difference of logits): how often people preferred it too."""
    sure, right = [sigmoid(abs(one)) for one in differences], [agreement(one) for one in differences]
    return {
        "error": expected_calibration_error(sure, right, CONFIDENCE_BINS),
        "bins": reliability(sure, right, CONFIDENCE_BINS),
    }


def distance(one: Figure, paper: float) -> Figure:
    """A figure less the paper's, which has no interval."""
    if one["value"] is None or one["low"] is None or one["high"] is None:
        return nothing()
    return figure(one["value"] - paper, one["low"] - paper, one["high"] - paper, one["n"])


def of_domain(texts: Path, made: Path, domain: Domain) -> dict[str, Any]:
    """All figures of one domain; those of reward models that are not made yet are absent."""
    found = tested(texts, made, domain)
    arms = [arm for arm in ARMS if arm in found.differences]
    against = [(a, b) for a, b in (("longer", "chat"), ("length", "chat"), ("words", "chat"), ("fresh", "chat"), ("chat-other", "chat"))]
    return {
        "comparisons": len(found.rows),
        "accuracy": {judge: share(agreed) for judge, agreed in found.agrees.items()},
        "differences": {
            f"{b} over {a}": paired_difference(found.agrees[a], found.agrees[b]) for a, b in against if {a, b} <= found.agrees.keys()
        },
        "by_length": {judge: by_length(found, found.agrees[judge]) for judge in ("words", *arms)},
        "prefers_longer": {arm: prefers_longer(found, arm) for arm in arms},
        "calibration": {arm: calibration(found.differences[arm]) for arm in arms},
        "paper": PAPER[domain],
        "beyond_paper": {arm: distance(share(found.agrees[arm]), PAPER[domain]) for arm in arms},
    }


def settings(made: Path) -> dict[str, Any]:
    """What every candidate reached on the development part, and which one was taken, of the arms of which all are there."""
    keys = [(arm, one, domain) for arm in ARMS for one in CANDIDATES for domain in DOMAINS]
    artifacts = {key: find_artifact(made / candidate_name(*key)) for key in keys}
    complete = [arm for arm in ARMS if all(artifact for key, artifact in artifacts.items() if key[0] == arm)]
    tried = [
        {"arm": arm, "candidate": one, "lr": CANDIDATES[one][0], "epochs": CANDIDATES[one][1], "domain": domain,
         "accuracy": artifact.metrics["accuracy"]["own"]["all"]}
        for (arm, one, domain), artifact in artifacts.items() if artifact and arm in complete
    ]  # fmt: skip
    return {"chosen": {arm: choose(made, arm) for arm in complete}, "tried": tried}


def models(made: Path) -> dict[str, Any]:
    """What the foundation came to, the comparisons that did not fit, and the time that everything took."""
    artifacts = [artifact for folder in sorted(made.iterdir()) if (artifact := find_artifact(folder))]
    named = {artifact.path.name: artifact for artifact in artifacts}
    kept = {"tokenizer": ("vocab_size", "characters_per_token"), "shards": ("tokens",), "base": ("parameters", "steps", "loss", "epochs"),
            "chat": ("dialogues", "dropped_too_long", "loss")}  # fmt: skip
    found: dict[str, Any] = {name: {key: named[name].metrics[key] for key in keys} for name, keys in kept.items() if name in named}
    rewards = [artifact for artifact in artifacts if artifact.kind == "reward-model"]
    found["too_long"] = max((artifact.metrics["dropped_too_long"] for artifact in rewards), default=0)
    return {**found, "artifacts": len(artifacts), "process_seconds": sum(float(artifact.manifest["seconds"]) for artifact in artifacts)}


def results(texts: Path, made: Path, counts: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that results.json holds."""
    domains = {domain: of_domain(texts, made, domain) for domain in DOMAINS}
    return {"data": counts, "models": models(made), "settings": settings(made), "domains": domains}
