"""Pairs of answers and a judge's verdicts: wins, ties and losses, and how far the judge looks at the order instead (section 8).

Each pair is asked in both orders, where different verdicts make a tie, or in one order that is drawn for it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ..chat.dialogue import Dialogue, tag_in
from ..core.seeds import python_rng, seed_for
from ..data.records import Domain
from ..measures.intervals import Figure, rate
from .judges import Case, PairJudge, Said

Orders = Literal["both", "random"]
Outcome = Literal["win", "tie", "loss"]
Row = dict[str, Any]

OF_OURS: Mapping[bool, Mapping[str, Outcome]] = {
    False: {"A": "win", "B": "loss", "tie": "tie"},
    True: {"A": "loss", "B": "win", "tie": "tie"},
}
"""What a verdict means for the first answer of a pair, by whether the pair was shown swapped."""

COUNTED = {"equal": "equal", "unusable": "unusable", "without_verdict": "unparsable", "too_long": "too long"}
"""Pairs that no verdict decides, by why: the first two have an outcome, the others none."""


@dataclass(frozen=True)
class Pair:
    """Two answers to one prompt; a win is the first one's."""

    id: str
    prompt: Dialogue
    ours: str
    theirs: str
    criterion: Domain
    about: Mapping[str, Any] = field(default_factory=dict)


def settled(pair: Pair) -> tuple[Outcome, str] | None:
    """The outcome that needs no judge, and why: equal answers tie, and one that is empty or forges a tag loses; else None."""
    if pair.ours.strip() == pair.theirs.strip():
        return "tie", "equal"
    ours, theirs = (bool(text.strip()) and tag_in(text) is None for text in (pair.ours, pair.theirs))
    if ours and theirs:
        return None
    return ("win" if ours else "loss" if theirs else "tie"), "unusable"


def judged_pairs(judge: PairJudge, pairs: Sequence[Pair], orders: Orders, seed: int) -> list[Row]:
    """One row per pair: the outcome (None without a usable verdict), why, and what the judge said in each order.

    What is drawn hangs on the pair's id, not on its place. Raises UserError for whatever a judge that is an endpoint does.
    """
    swaps = [_swaps(judge, pair, orders, seed) if settled(pair) is None else [] for pair in pairs]
    asked = [(pair, swapped) for pair, own in zip(pairs, swaps, strict=True) for swapped in own]
    cases = [_case(pair, swapped, seed) for pair, swapped in asked]
    said = iter(judge.verdicts(cases) if cases else [])
    return [_row(pair, [(swapped, next(said)) for swapped in own]) for pair, own in zip(pairs, swaps, strict=True)]


def _case(pair: Pair, swapped: bool, seed: int) -> Case:
    first, second = (pair.theirs, pair.ours) if swapped else (pair.ours, pair.theirs)
    return Case(pair.prompt, first, second, pair.criterion, seed_for(seed, pair.id, int(swapped)))


def _swaps(judge: PairJudge, pair: Pair, orders: Orders, seed: int) -> list[bool]:
    if not judge.sees_order:
        return [False]
    return [False, True] if orders == "both" else [python_rng(seed, "order", pair.id).random() < 0.5]


def _row(pair: Pair, said: Sequence[tuple[bool, Said]]) -> Row:
    known = settled(pair)
    outcomes = [OF_OURS[swapped][one.verdict] if one.verdict else None for swapped, one in said]
    problems = [one.problem for _, one in said if one.problem]
    agree = len(set(outcomes)) == 1
    return {
        "id": pair.id, "criterion": pair.criterion, "prompt": pair.prompt.asked, "ours": pair.ours, "theirs": pair.theirs, **pair.about,
        "outcome": known[0] if known else None if problems else outcomes[0] if agree else "tie",
        "why": known[1] if known else problems[0] if problems else "judged",
        "orders_disagree": None if known or problems or len(said) < 2 else not agree,
        "verdicts": [{"swapped": swapped, "verdict": one.verdict, "said": one.text} for swapped, one in said],
    }  # fmt: skip


def figures(rows: Sequence[Row], sees_order: bool) -> dict[str, Any]:
    """Wins, ties and losses among the pairs with an outcome, how the judge behaved, and counts of what it was not asked or did not say."""
    outcomes = [row["outcome"] for row in rows if row["outcome"]]
    wins, ties, losses = (outcomes.count(outcome) for outcome in ("win", "tie", "loss"))
    without = {name: sum(row["why"] == why for row in rows) for name, why in COUNTED.items()}
    return {
        "wins": rate(wins, len(outcomes)), "ties": rate(ties, len(outcomes)), "losses": rate(losses, len(outcomes)),
        "win_rate": rate(wins + ties / 2, len(outcomes)), "wins_of_decided": rate(wins, wins + losses), "pairs": len(rows), **without,
        **(behaviour(rows) if sees_order else {}),
    }  # fmt: skip


def behaviour(rows: Sequence[Row]) -> dict[str, Figure]:
    """Of a judge that sees the order: `position_bias`, the share of its verdicts for the answer shown first (0.5 without any); the
    share of pairs whose two orders disagree; the share of replies that hold no verdict."""
    verdicts = [one["verdict"] for row in rows if row["why"] != "too long" for one in row["verdicts"]]
    letters = [letter for letter in verdicts if letter]
    both = [row["orders_disagree"] for row in rows if row["orders_disagree"] is not None]
    return {
        "position_bias": rate(letters.count("A"), len(letters)), "order_disagreement": rate(sum(both), len(both)),
        "unparsable": rate(verdicts.count(None), len(verdicts)),
    }  # fmt: skip


def grouped(rows: Sequence[Row], key: str, figure: str = "win_rate") -> dict[str, Figure]:
    """One figure of each group of rows that share a value of `key`; rows without one are left out."""
    values = sorted({str(row[key]) for row in rows if row.get(key) is not None})
    return {value: figures([row for row in rows if str(row.get(key)) == value], False)[figure] for value in values}
