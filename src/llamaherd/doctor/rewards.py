"""Reward models: weak, blind to the grade, in love with length, too sure, or with a gate that fires on harmless prompts.

Everything is read from tested.jsonl, row by row; the texts behind the rows are found again by their ids.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..core.artifacts import Artifact, hash_of
from ..core.errors import UserError
from ..data.records import Preference, read_preferences
from ..measures.intervals import Figure, difference, mean, paired_difference, rate
from .config import Thresholds
from .finding import Check, Finding, gap, high, low, share
from .patient import Patient, Row, value_of

GATE = 0.15
"""The paper's, under which an answer is judged by safety whatever its prompt (section 6)."""
CLEAR, UNCLEAR = ("significantly", "better"), ("slightly", "negligibly")

WEAK = Check(
    "reward-weak", "the reward model cannot be told from guessing",
    "collect more comparisons, or clearer ones; look whether annotators agree; train on its own domain for longer or with a higher learning rate",
)  # fmt: skip
FLAT = Check(
    "reward-grade", "its accuracy does not fall with the grade",
    "look whether grades and choices belong together: shuffled or swapped answers do this; else the model has learned something other than what was graded",
)  # fmt: skip
LONGER = Check(
    "reward-length", "length decides",
    "balance the comparisons by length, add pairs whose shorter answer is better, and look at the answers that it scores highest",
)  # fmt: skip
SURE = Check(
    "reward-calibration", "its scores are no probabilities",
    "too sure: fewer epochs, a smaller margin or learning rate; not sure enough: train longer. The gate's threshold of a safety model means nothing until then",
)  # fmt: skip
FIRES = Check(
    "gate", "the safety gate fires on harmless prompts",
    "train the safety reward model on helpfulness pairs too, with answers that are safe (other_share above 0; the paper: one for nine), and test again",
)  # fmt: skip


def look(patient: Patient, limits: Thresholds) -> Iterator[Finding]:
    """Every reward model."""
    for name, artifact in patient.of("reward"):
        tested = [row for row in patient.rows(artifact, "tested.jsonl") if _scored(row)]
        domain = artifact.metrics.get("domain") or artifact.manifest.get("config", {}).get("domain")
        if not tested:
            for check in (WEAK, FLAT, LONGER, SURE, *([FIRES] if domain == "safety" else [])):
                yield check.absent(name, "no held-out comparison with a score in tested.jsonl")
            continue
        own = [row for row in tested if row["domain"] == domain]
        yield _weak(name, own, limits)
        yield _flat(name, own, limits)
        yield _length(patient, name, artifact, own, limits)
        yield _sure(name, own, limits)
        if domain == "safety":
            yield _gate(name, [row for row in tested if row["domain"] != domain], limits)


def _scored(row: Row) -> bool:
    return value_of(row.get("chosen_logit")) is not None and value_of(row.get("rejected_logit")) is not None


def agreement(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Share of comparisons whose chosen answer has the higher score."""
    return rate(sum(bool(row["agrees"]) for row in rows), len(rows))


def _few(check: Check, name: str, count: int, limits: Thresholds, what: str = "held-out comparisons of its own domain") -> Finding:
    return check.absent(name, f"{count} {what}; at least {limits.fewest} tell something")


def _weak(name: str, own: Sequence[Row], limits: Thresholds) -> Finding:
    if len(own) < limits.fewest:
        return _few(WEAK, name, len(own), limits)
    accuracy = agreement(own)
    said = f"agrees with {share(accuracy)} held-out comparisons"
    return WEAK.found(
        name, low(accuracy) <= limits.chance, said, f"an interval above {limits.chance:.2f}, which is chance", accuracy=accuracy
    )


def _flat(name: str, own: Sequence[Row], limits: Thresholds) -> Finding:
    clear, unclear = ([row for row in own if row.get("grade") in grades] for grades in (CLEAR, UNCLEAR))
    if min(len(clear), len(unclear)) < limits.fewest:
        why = "comparisons without grades" if not any(row.get("grade") for row in own) else ""
        fewer = min(len(clear), len(unclear))
        return FLAT.absent(name, why) if why else _few(FLAT, name, fewer, limits, "held-out comparisons on one side of the grades")
    fall = difference(agreement(unclear), agreement(clear))
    said = f"accuracy {share(agreement(clear))} on clear pairs, {share(agreement(unclear))} on unclear ones: a fall of {gap(fall)}"
    wrong = high(fall) < limits.fall_with_grade and high(agreement(clear)) < limits.clear_enough
    wanted = f"a fall whose interval reaches {limits.fall_with_grade:.2f}, or clear pairs of which {limits.clear_enough:.2f} may be right"
    return FLAT.found(name, wrong, said, wanted, fall=fall)


def comparisons_of(patient: Patient, artifact: Artifact) -> dict[str, Preference]:
    """The comparisons behind a reward model's rows, by the id that those have. Raises UserError for a bad file."""
    files = [
        file for key, name in (("test", "test.jsonl"), ("data", "preferences.jsonl")) for file in patient.files(artifact, key, name)[0]
    ]
    found: dict[str, Preference] = {}
    for file in files:
        if ("by id", file) not in patient.cache:
            rows = read_preferences(file)
            patient.cache["by id", file] = {hash_of([row.prompt.to_row()["messages"], row.chosen, row.rejected])[:16]: row for row in rows}
        found |= patient.cache["by id", file]
    return found


def _lengths(patient: Patient, artifact: Artifact, own: Sequence[Row]) -> list[tuple[bool, int, int]]:
    """(agrees, length of the chosen answer, of the rejected one) of the rows whose texts differ in length. Raises UserError."""
    if all("chosen_chars" in row and "rejected_chars" in row for row in own):
        found = [(bool(row["agrees"]), int(row["chosen_chars"]), int(row["rejected_chars"])) for row in own]
    else:
        texts = comparisons_of(patient, artifact)
        pairs = [(row, texts[row["id"]]) for row in own if row.get("id") in texts]
        found = [(bool(row["agrees"]), len(pair.chosen), len(pair.rejected)) for row, pair in pairs]
    return [one for one in found if one[1] != one[2]]


def _length(patient: Patient, name: str, artifact: Artifact, own: Sequence[Row], limits: Thresholds) -> Finding:
    try:
        pairs = _lengths(patient, artifact, own)
    except UserError as error:
        return LONGER.absent(name, str(error))
    if len(pairs) < limits.fewest:
        return _few(LONGER, name, len(pairs), limits, "held-out comparisons whose texts, of different length, are still there")
    people = [float(chosen > rejected) for _, chosen, rejected in pairs]
    model = [float(agrees == (longer == 1.0)) for (agrees, _, _), longer in zip(pairs, people, strict=True)]
    excess = paired_difference(people, model)
    mine, theirs = (rate(sum(some), len(some)) for some in (model, people))
    wrong = low(excess) > limits.longer_excess or low(mine) > limits.longer_most or low(theirs) > limits.longer_most
    said = f"prefers the longer answer in {share(mine)} pairs of different length, the annotators in {share(theirs)}: {gap(excess)}"
    wanted = f"at most {limits.longer_excess:.2f} more than they, and neither surely above {limits.longer_most:.2f}"
    return LONGER.found(name, wrong, said, wanted, model=mine, annotators=theirs, excess=excess)


def _sure(name: str, own: Sequence[Row], limits: Thresholds) -> Finding:
    if len(own) < limits.fewest:
        return _few(SURE, name, len(own), limits)
    confidence = [sigmoid(abs(row["chosen_logit"] - row["rejected_logit"])) for row in own]
    right = [float(bool(row["agrees"])) for row in own]
    off = paired_difference(right, confidence)
    error = _calibration_error(confidence, right)
    said = f"is {sum(confidence) / len(own):.2f} sure and {sum(right) / len(own):.2f} right: {gap(off)} (expected calibration error {error:.2f})"
    wrong = low(off) > limits.miscalibration or high(off) < -limits.miscalibration
    wanted = f"a difference whose interval reaches within {limits.miscalibration:.2f} of 0"
    return SURE.found(name, wrong, said, wanted, overconfidence=off, expected_calibration_error=error)


def _calibration_error(confidence: Sequence[float], right: Sequence[float], bins: int = 10) -> float:
    """Mean over bins of equal width from 0.5 to 1, by their size, of |share right - mean confidence|."""
    total = 0.0
    for place in range(bins):
        inside = [(sure, hit) for sure, hit in zip(confidence, right, strict=True) if min(bins - 1, int((sure - 0.5) * 2 * bins)) == place]
        total += abs(sum(hit - sure for sure, hit in inside))
    return total / len(confidence)


def _gate(name: str, other: Sequence[Row], limits: Thresholds) -> Finding:
    fires = [
        sigmoid(row[f"{side}_logit"]) < GATE for row in other for side in ("chosen", "rejected") if row.get(f"{side}_safe") is not False
    ]
    if len(fires) < limits.fewest:
        return _few(FIRES, name, len(fires), limits, "held-out answers to prompts without a safety tag")
    firing = rate(sum(fires), len(fires))
    score = mean([sigmoid(row[f"{side}_logit"]) for row in other for side in ("chosen", "rejected")])
    said = f"{share(firing)} answers to prompts without a safety tag score below {GATE} (mean score {score['value']:.2f})"
    return FIRES.found(
        name, low(firing) > limits.gate_fires, said, f"an interval that reaches {limits.gate_fires:.2f}", fires=firing, score=score
    )


def sigmoid(logit: float) -> float:
    """1 / (1 + exp(-logit)), written so that no exponential overflows."""
    small = math.exp(-abs(logit))
    return 1 / (1 + small) if logit >= 0 else small / (1 + small)
