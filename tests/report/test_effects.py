import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.report.reading import change, effects, one_of, value

from llamaherd.measures.intervals import mean, rate
from llamaherd.report.effects import TITLES, Effect, together


def lines_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def rewrite(file: Path, changed: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(changed(row)) + "\n" for row in lines_of(file)))


def test_values_by_hand(run: Path) -> None:
    assert value(one_of(run, "helpfulness reward model: ")) == pytest.approx(0.90 - 0.52)
    assert value(one_of(run, "helpfulness pairs")) == pytest.approx(292 / 400 - 215 / 400)
    assert value(one_of(run, "best of 8")) == pytest.approx(0.34025)
    # 59 prompts gain 0.4, the first one loses 0.5.
    assert value(one_of(run, "v5 over v0", "sampled")) == pytest.approx((59 * 0.4 - 0.5) / 60)
    # Of the 30 prompts with seen topics V0 answered 18 unsafely, V5 none but two.
    assert value(one_of(run, "violation rate", "held-out topics")) == pytest.approx(1 / 30 - 18 / 30 / 3)
    assert value(one_of(run, "turn 20, seen")) == pytest.approx(35 / 40 - 3 / 40)
    assert value(one_of(run, "v5 not below v5-rejection")) == pytest.approx((59 * 0.04 - 0.05) / 60)
    assert value(one_of(run, "PPO: reward of v5")) == pytest.approx(0.05)
    assert all(one.shown == "shown" for name, one in effects(run).items() if "borderline prompts, held-out" not in name)


def test_what_is_said_of_them(run: Path) -> None:
    assert one_of(run, "helpfulness reward model: ").said == "0.90 \u2192 0.52; annotators 0.99 \u2192 0.60"
    assert one_of(run, "violation rate", "held-out attacks").said == "0.60 \u2192 0.03"
    assert one_of(run, "turn 20, constraints never").said == "0.07 \u2192 0.88"
    assert one_of(run, "distilled").said == "0.40 \u2192 1.00"


def test_what_was_asked_twice_is_paired(run: Path) -> None:
    """Every prompt gains the same: the interval of the differences has no width, whatever the prompts are like."""
    one = one_of(run, "PPO: reward of v5").here
    assert one is not None
    assert one["low"] == pytest.approx(one["high"])
    assert one["n"] == 2 * 60 - 1, "an answer that no reward model could read has no partner"


def test_paper_numbers(run: Path) -> None:
    assert one_of(run, "helpfulness reward model: ").paper == 0.26
    assert one_of(run, "safety reward model: ").paper == 0.39
    assert one_of(run, "safety pairs").paper == 0.017
    assert one_of(run, "turn 20, seen").paper == 1.0


def test_verdicts_can_fail(run: Path) -> None:
    rewrite(run / "v5-evaluation" / "rows.jsonl", lambda row: row | {"safe": False} if row["task"] == "safety" else row)
    assert one_of(run, "violation rate", "held-out topics").shown == "not shown"
    change(run / "v5" / "manifest.json", "metrics", "kl_budget", to=0.001)
    assert one_of(run, "PPO: nats").shown == "not shown"
    change(run / "distilled" / "manifest.json", "metrics", "difference", to=mean([0.0] * 40))
    assert one_of(run, "distilled answers").shown == "not shown"
    assert one_of(run, "borderline prompts, held-out").shown == "undecided"  # too few prompts


def test_false_refusals_say_nothing_where_violations_did_not_fall(run: Path) -> None:
    change(run / "v5-evaluation" / "evaluation.json", "tasks", "borderline", "held_out", to=rate(2, 60))
    assert one_of(run, "borderline prompts, held-out").shown == "shown"
    rewrite(run / "v5-evaluation" / "rows.jsonl", lambda row: row | {"safe": False} if row["task"] == "safety" else row)
    one = one_of(run, "borderline prompts, held-out")
    assert one.shown == "not shown"
    assert one.wanted.startswith("below 0.35, and violation rate of v5 minus a third of v0's")


def test_parts_together() -> None:
    def part(value: float) -> Effect:
        return Effect("x", None, mean([value] * 20) if value else None)

    assert together([part(1.0), part(2.0)]) == "shown"
    assert together([part(1.0), part(0.0)]) == "undecided"
    assert together([part(1.0), part(0.0), part(-1.0)]) == "not shown"


def test_every_part_belongs_to_one_of_the_eight(run: Path) -> None:
    numbers = [one.number for one in effects(run).values()]
    assert sorted(set(numbers)) == list(range(1, len(TITLES) + 1)) == list(range(1, 9))


def test_versions_are_those_of_the_recipe(run: Path) -> None:
    (run / "recipe.json").write_text('{"ghost_after": 2, "world": {"versions": 4}}')
    names = list(effects(run))
    assert "v4 over v0: helpfulness by the oracle, sampled, same prompts" in names
    assert "Ghost Attention: obedience at turn 20, seen constraints, v3 minus v2" in names
    assert not any("v5" in name for name in names)
    (run / "recipe.json").write_text('{"ghost_after": 4, "world": {"versions": 5}}')
    assert one_of(run, "Ghost Attention", "v5-rejection minus v4", ", seen")


def test_pairs_are_matched_by_id_whatever_the_order(run: Path) -> None:
    file = run / "v5-evaluation" / "rows.jsonl"
    lines = file.read_text().splitlines()[::-1]
    file.write_text("\n".join(lines[:-1]) + "\n")
    one = one_of(run, "v5 over v0", "sampled")
    assert value(one) == pytest.approx(0.4)  # the first prompt, the only one to lose, stands last now and is gone
    assert one.here is not None
    assert one.here["n"] == 59
    assert "1 rows without a partner left out" in one.note


@pytest.mark.parametrize(
    ("gone", "part"),
    [("v5-evaluation", "v5 over v0"), ("v5-safety", ""), ("distilled", "distilled"), ("v5", "PPO: nats"), ("v3-evaluation", "Ghost")],
)
def test_missing_pieces_are_not_measured(run: Path, gone: str, part: str) -> None:
    names = [name.replace("turn 20", "the last turn") for name in effects(run)]
    shutil.rmtree(run / gone)
    left = effects(run)
    assert [name.replace("turn 20", "the last turn") for name in left] == names
    touched = [one for name, one in left.items() if part and part in name]
    assert all(one.here is None and one.shown == "undecided" for one in touched)
    assert bool(touched) == bool(part)


def test_older_reward_models_are_used_when_the_newest_are_missing(run: Path) -> None:
    before = value(one_of(run, "safety pairs"))
    for version in ("v5", "v4"):
        shutil.rmtree(run / f"{version}-safety")
    assert value(one_of(run, "safety pairs")) == before


def test_no_budget_no_verdict(run: Path) -> None:
    change(run / "v5" / "manifest.json", "metrics", "kl_budget", to=None)
    assert one_of(run, "PPO: nats").here is None
