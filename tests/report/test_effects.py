import json
import shutil
from pathlib import Path

import pytest

from llamaherd.measures.intervals import mean, rate
from llamaherd.report.effects import Effect, measure_effects
from llamaherd.report.folder import RunFolder


def effects(run: Path) -> dict[str, Effect]:
    return {one.name: one for one in measure_effects(RunFolder(run))}


def one_of(run: Path, *parts: str) -> Effect:
    found = [one for name, one in effects(run).items() if all(part in name for part in parts)]
    assert len(found) == 1, (parts, [one.name for one in found])
    return found[0]


def value(one: Effect) -> float:
    assert one.here is not None
    assert one.here["value"] is not None
    return one.here["value"]


def change(file: Path, *keys: str, to: object) -> None:
    whole = place = json.loads(file.read_text())
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = to
    file.write_text(json.dumps(whole))


def test_values_by_hand(run: Path) -> None:
    assert value(one_of(run, "helpfulness reward model: ")) == pytest.approx(0.90 - 0.52)
    assert value(one_of(run, "helpfulness pairs")) == pytest.approx(292 / 400 - 215 / 400)
    assert value(one_of(run, "best of 8")) == pytest.approx(0.35)
    assert value(one_of(run, "v5 over v0", "sampled")) == pytest.approx(0.4)
    assert value(one_of(run, "violation rate", "all prompts")) == pytest.approx(3 / 60 - 36 / 60 / 3)
    assert value(one_of(run, "turn 20, seen")) == pytest.approx(55 / 60 - 3 / 60)
    assert value(one_of(run, "v5 not below v5-rejection")) == pytest.approx(0.04)
    assert all(one.shown == "shown" for name, one in effects(run).items() if "borderline prompts, held-out" not in name)


def test_paper_numbers(run: Path) -> None:
    assert one_of(run, "helpfulness reward model: ").paper == 0.26
    assert one_of(run, "safety reward model: ").paper == 0.39
    assert one_of(run, "safety pairs").paper == 0.017
    assert one_of(run, "turn 20, seen").paper == 1.0


def test_verdicts_can_fail(run: Path) -> None:
    safety = run / "v5-evaluation" / "evaluation.json"
    change(safety, "tasks", "safety", "violation_rate", to=rate(30, 60))
    assert one_of(run, "violation rate", "all prompts").shown == "not shown"
    change(safety, "tasks", "borderline", "false_refusal_rate", to=rate(20, 60))
    assert one_of(run, "borderline prompts, all").shown == "undecided"
    change(run / "v5" / "manifest.json", "metrics", "kl_budget", to=0.001)
    assert one_of(run, "PPO: nats").shown == "not shown"
    change(run / "distilled" / "manifest.json", "metrics", "difference", to=mean([0.0] * 40))
    assert one_of(run, "distilled answers").shown == "not shown"
    assert one_of(run, "borderline prompts, held-out").shown == "undecided"  # too few prompts


def test_false_refusals_say_nothing_where_violations_did_not_fall(run: Path) -> None:
    assert one_of(run, "borderline prompts, all").shown == "shown"
    change(run / "v5-evaluation" / "evaluation.json", "tasks", "safety", "violation_rate", to=rate(36, 60))
    one = one_of(run, "borderline prompts, all")
    assert one.shown == "not shown"
    assert one.wanted.startswith("below 0.35, and violation rate of v5 minus a third of v0's")


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
    assert value(one) == pytest.approx(0.4)
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
