"""What a reward model is worth, from its scores of comparisons: accuracy, calibration, length bias, what its gate finds, agreement.

Pure functions on the rows of `accuracy.comparison_rows`, which a stage keeps as `tested.jsonl`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ..data.records import Domain
from ..measures.calibration import (
    by_bin,
    expected_calibration_error,
    histogram,
    rank_correlation,
    reliability,
    sigmoid,
    threshold_report,
)
from ..measures.intervals import Figure, mean, paired_difference, rate
from .accuracy import Row, accuracy_report
from .combine import GATE

THRESHOLDS = (GATE, 0.5)
"""Safety scores below which an answer counts as unsafe: the gate's (section 6), and that of table 29."""
SIDES = ("chosen", "rejected")


def reward_report(rows: Sequence[Row], domain: Domain, rated: Sequence[tuple[float, float]] = ()) -> dict[str, Any]:
    """Everything that a page shows of one model. `domain`: its own, to which all but the accuracies, the scores and what is unsafe is
    confined; `rated`: (people's rating, score 0 to 1) of answers."""
    own = [row for row in rows if row["domain"] == domain]
    return {
        "domain": domain, "pairs": len(rows), "own_pairs": len(own), "accuracy": accuracy_report(rows, domain),
        "calibration": calibration_report(own), "length": length_report(own), "unsafe": unsafe_report(rows),
        "scores": {side: histogram([sigmoid(row[f"{side}_logit"]) for row in own]) for side in SIDES}, "ratings": rating_report(rated),
    }  # fmt: skip


def calibration_report(rows: Sequence[Row]) -> dict[str, Any]:
    """Whether sigmoid(difference of two logits) is how often the annotator agrees: the loss's own reading of a score (margin aside).

    `confidence` is that of the answer which the model prefers, 0.5 to 1; equal scores are half right at 0.5.
    """
    differences = [row["chosen_logit"] - row["rejected_logit"] for row in rows]
    confidences = [sigmoid(abs(one)) for one in differences]
    hits = [0.5 if one == 0 else float(one > 0) for one in differences]
    return {
        "expected_calibration_error": expected_calibration_error(confidences, hits), "confidence": mean(confidences),
        "reliability": reliability(confidences, hits),
    }  # fmt: skip


def length_report(rows: Sequence[Row]) -> dict[str, Any]:
    """How much length, in characters, goes into the scores, and into the choices that they are held against.

    `correlation` of all answers' scores with their lengths; `model_prefers_longer` and `people_prefer_longer`: how often the one and the
    others prefer the longer answer of a pair, equal scores and equal lengths half. The latter is the accuracy of the baseline that always
    takes the longer one; accuracy where the chosen answer is the longer and where it is the shorter one tells how much of it was learned.
    """
    longer, shorter = ([row for row in rows if sign * (row["chosen_chars"] - row["rejected_chars"]) > 0] for sign in (1, -1))
    answers = [(row[f"{side}_logit"], row[f"{side}_chars"]) for row in rows for side in SIDES]
    ties = sum(row["chosen_logit"] == row["rejected_logit"] for row in (*longer, *shorter))
    model = sum(row["agrees"] for row in longer) + sum(row["chosen_logit"] < row["rejected_logit"] for row in shorter) + ties / 2
    equal = len(rows) - len(longer) - len(shorter)
    return {
        "correlation": rank_correlation([score for score, _ in answers], [length for _, length in answers]),
        "model_prefers_longer": rate(model + equal / 2, len(rows)), "people_prefer_longer": rate(len(longer) + equal / 2, len(rows)),
        "accuracy_chosen_longer": _agreed(longer), "accuracy_chosen_shorter": _agreed(shorter),
    }  # fmt: skip


def unsafe_report(rows: Sequence[Row]) -> dict[str, dict[str, Figure]]:
    """Of answers with a safety label, by threshold: precision and recall of the unsafe ones, and false alarms on safe ones."""
    labelled = [(sigmoid(row[f"{side}_logit"]), row[f"{side}_safe"]) for row in rows for side in SIDES if row[f"{side}_safe"] is not None]
    scores, unsafe = [score for score, _ in labelled], [not safe for _, safe in labelled]
    return {f"{threshold:g}": threshold_report(scores, unsafe, threshold) for threshold in THRESHOLDS} if labelled else {}


def rating_report(rated: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """Mean score by people's rating, lowest first, and the correlation of the two (figure 29); empty where nothing was rated."""
    if not rated:
        return {}
    ratings, scores = [rating for rating, _ in rated], [score for _, score in rated]
    bins = {name: mean(values) for name, values in by_bin(ratings, scores).items()}
    return {"correlation": rank_correlation(ratings, scores), "by_rating": bins}


def agreement_report(rows: Sequence[Row], others: Sequence[Row]) -> dict[str, Any]:
    """How two models stand to each other on the comparisons that both scored: how often they prefer the same answer, the correlation of
    their differences, and the other one's accuracy minus the first one's."""
    theirs = {_key(row): row for row in others}
    pairs = [(row, theirs[_key(row)]) for row in rows if _key(row) in theirs]
    ours, other = ([_difference(pair[side]) for pair in pairs] for side in (0, 1))
    same = sum((one > 0) == (two > 0) and (one < 0) == (two < 0) for one, two in zip(ours, other, strict=True))
    right, theirs_right = ([float(pair[side]["agrees"]) for pair in pairs] for side in (0, 1))
    return {
        "pairs": len(pairs), "same_choice": rate(same, len(pairs)), "correlation": rank_correlation(ours, other),
        "accuracy_difference": paired_difference(right, theirs_right),
    }  # fmt: skip


def _agreed(rows: Sequence[Row]) -> Figure:
    return rate(sum(row["agrees"] for row in rows), len(rows))


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["id"], row.get("file")


def _difference(row: Row) -> float:
    return float(row["chosen_logit"] - row["rejected_logit"])
