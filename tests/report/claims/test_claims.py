"""Claims measured on a few rows: which two sides are compared, in which direction, worked by hand."""

import math
from typing import Any

import pytest

from llamaherd.report.claims import rewards, safety, sampling, tuning
from llamaherd.report.claims.parts import Claim, Row

from .conftest import Make, answers, comparisons


def figures(claim: Claim) -> dict[str, float | None]:
    """Pooled values by the figure's few words."""
    return {row.effect.brief: row.effect.here["value"] if row.effect.here else None for row in claim.rows}


def one(claim: Claim, brief: str) -> Row:
    [found] = [row for row in claim.rows if row.effect.brief == brief]
    return found


def helpful(*values: float) -> dict[str, Any]:
    return {"rows": answers("helpfulness", values)}


def test_seeds_are_paired_by_prompt_and_averaged(seed: Make) -> None:
    """The first seed gains .2 and .4, the second .1; a prompt that only one side answered is left out."""
    seeds = [
        seed(0, {"newest-only-evaluation": helpful(0.1, 0.2, 0.9)}, {"v2-rejection-evaluation": helpful(0.3, 0.6)}),
        seed(1, {"newest-only-evaluation": helpful(0.5)}, {"v2-rejection-evaluation": helpful(0.6)}),
    ]
    [pool] = tuning.pool(seeds).rows
    assert pool.effect.here is not None
    assert pool.effect.here["value"] == pytest.approx((0.3 + 0.1) / 2)
    assert pool.effect.here["n"] == 2, "two different prompts"
    assert [figure["value"] for figure in pool.by_seed] == [pytest.approx(0.3), pytest.approx(0.1)]
    assert pool.effect.said == f"{(0.15 + 0.5) / 2 + 1e-9:.2f} \u2192 {(0.45 + 0.6) / 2:.2f}"
    assert pool.effect.shown == "undecided", "two prompts decide nothing"


def test_ten_prompts_can_decide(seed: Make) -> None:
    for number, (before, after, verdict) in enumerate([(0.2, 0.4, "shown"), (0.4, 0.2, "not shown")]):
        made = seed(number, {"newest-only-evaluation": helpful(*[before] * 10)}, {"v2-rejection-evaluation": helpful(*[after] * 10)})
        assert tuning.pool([made]).rows[0].effect.shown == verdict


def test_a_joint_reward_model_is_tested_on_both_domains(seed: Make) -> None:
    both = [*comparisons([1, 1, 0, 0]), *comparisons([1, 0], "safety")]
    made = seed(
        0, {"joint-reward": {"tested": both}},
        {"v2-helpfulness": {"tested": comparisons([1, 1, 1, 0])}, "v2-safety": {"tested": [*comparisons([0] * 4), *comparisons([1, 0], "safety")]}},
    )  # fmt: skip
    assert figures(rewards.joint_reward([made])) == {"helpfulness comparisons": 0.25, "safety comparisons": 0.0}


def test_margins_take_the_recipes_own_where_it_was_not_made(seed: Make) -> None:
    made = seed(
        0, {"margin-none": {"tested": comparisons([0, 0, 0, 1])}, "margin-large": {"tested": comparisons([1, 1, 1, 1])}},
        {"v2-helpfulness": {"tested": comparisons([0, 1, 0, 1])}},
    )  # fmt: skip
    found = figures(rewards.margins([made]))
    assert found["small margin"] == 0.25
    assert found["large margin"] == 0.75
    assert found["large margin, clear pairs"] == 0.5, "of c1 and c3 only c1 is won"
    assert found["large margin, distance of scores in logits"] == 0.0, "one logit apart, whichever is higher"


def test_a_margin_of_ones_own_gets_a_row(seed: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    arms = {"margin-none": {"tested": comparisons([0, 0, 0, 1])}, "margin-large": {"tested": comparisons([1, 1, 1, 1])}}
    run = {"v2-helpfulness": {"tested": comparisons([0, 1, 0, 1])}}
    monkeypatch.setitem(rewards.MARGINS, "steep", {})
    assert "steep margin" not in figures(rewards.margins([seed(0, arms, run)])), "nobody has made it yet"
    made = seed(1, {**arms, "margin-steep": {"tested": comparisons([0, 1, 1, 1])}}, run)
    assert figures(rewards.margins([made]))["steep margin"] == 0.5


def test_unsafe_answers_that_are_found(seed: Make) -> None:
    """Of four unsafe answers the model with the auxiliary loss scores three below 0.5, the other one two."""

    def tested(chosen: tuple[float, float], rejected: tuple[float, float]) -> dict[str, Any]:
        rows = comparisons([1, 1], "safety", chosen_safe=False, rejected_safe=False)
        return {"tested": [{**row, "chosen_logit": a, "rejected_logit": b} for row, a, b in zip(rows, chosen, rejected, strict=True)]}

    made = seed(0, {"no-auxiliary": tested((-1, 1), (-1, 1))}, {"v2-safety": tested((-1, -1), (-1, 0))})
    found = one(rewards.auxiliary_loss([made]), "unsafe answers found")
    assert found.effect.here is not None
    assert (found.effect.here["value"], found.effect.here["n"]) == (0.25, 4)
    assert found.effect.said == "0.50 \u2192 0.75"


def test_scaling_orders_the_models_by_what_they_learned_from(seed: Make) -> None:
    def model(pairs: int, *agree: int) -> dict[str, Any]:
        return {"metrics": {"pairs": pairs}, "tested": comparisons(agree)}

    made = seed(0, {
        "large-reward-all": model(900, 1, 1, 1, 0), "large-reward-90": model(90, 0, 0, 0, 0), "large-reward-500": model(500, 1, 1, 0, 0),
        "small-reward-all": model(900, 1, 0, 1, 0), "small-reward-90": model(90, 0, 0, 0, 0), "small-reward-500": model(500, 0, 0, 0, 0),
        "small-base": {"metrics": {"parameters": 250}},
    })  # fmt: skip
    claim = rewards.reward_scaling([made])
    assert figures(claim) == {"90 to all comparisons": 0.75, "half the width and depth to all of it": 0.25}
    [chart] = claim.charts
    assert [row[0] for row in chart.table.rows] == ["90", "500", "900"]
    assert chart.table.columns[1:] == ("1,000 parameters", "250 parameters")


def test_fresh_preferences_join_both_domains_and_tell_unequal_counts(seed: Make) -> None:
    def model(pairs: int, domain: str, *agree: int) -> dict[str, Any]:
        return {"metrics": {"pairs": pairs}, "tested": comparisons(agree, domain)}

    made = seed(0, {
        "stale-helpfulness": model(40, "helpfulness", 0, 0, 0), "fresh-helpfulness": model(40, "helpfulness", 1, 1, 0),
        "stale-safety": model(20, "safety", 1), "fresh-safety": model(19, "safety", 1),
    })  # fmt: skip
    [fresh] = rewards.fresh_preferences([made]).rows
    assert fresh.effect.here is not None
    assert fresh.effect.here["value"] == 2 / 4
    assert fresh.effect.note == "safety: [19] comparisons against [20]"


def test_hot_ppo_reads_reward_oracle_and_distance(seed: Make) -> None:
    def asked(reward: float, oracle: float) -> dict[str, Any]:
        return {
            "rows": [
                *answers("rewards", [reward] * 3, domain="helpfulness"),
                *answers("rewards", [0.9], domain="safety"),
                *answers("helpfulness", [oracle] * 3),
            ]
        }

    kl = {"value": 9.0, "low": 7.0, "high": 11.0, "n": 100}
    made = seed(
        0, {
            "hot-ppo": {"metrics": {"kl": kl}}, "guarded-ppo": {"metrics": {"kl_budget": 4.0}},
            "hot-ppo-evaluation": asked(0.9, 0.3), "guarded-ppo-evaluation": asked(0.7, 0.5),
        },
        {"v2-rejection-evaluation": helpful(0.5, 0.5, 0.5), "v2-rejection-rewards": {"rows": answers("rewards", [0.6] * 3, domain="helpfulness")}},
    )  # fmt: skip
    claim = tuning.hot_ppo([made])
    assert figures(claim) == {
        "reward": pytest.approx(0.3), "the oracle's helpfulness, fallen": pytest.approx(-0.2), "KL over the budget of 4 nats": 9.0,
        "with the guard: the oracle's helpfulness, not fallen": 0.0,
        "the oracle's helpfulness, without guard to with": pytest.approx(0.2),
    }  # fmt: skip
    assert one(claim, "KL over the budget of 4 nats").effect.shown == "shown"
    assert one(claim, "the oracle's helpfulness, fallen").effect.wanted == "below 0"


def test_distillation_has_the_run_on_the_better_side(seed: Make) -> None:
    def asked(safe: list[bool], refusal: list[bool]) -> dict[str, Any]:
        return {"rows": [*answers("safety", safe, "safe"), *answers("borderline", refusal, "refusal"), *answers("helpfulness", [0.5])]}

    made = seed(
        0, {"undistilled-evaluation": asked([False, False], [False]), "distilled-without-choice-evaluation": asked([True, True], [True])},
        {"v2-rejection-evaluation": asked([True, False], [False])},
    )  # fmt: skip
    found = figures(safety.distillation([made]))
    assert found["violations, without to with"] == -0.5
    assert found["violations, all taken to chosen"] == 0.5
    assert found["false refusals, all taken to chosen"] == -1.0


def test_safety_data_from_none_to_all(seed: Make) -> None:
    def asked(safe: bool, reward: float) -> dict[str, Any]:
        rows = [*answers("safety", [safe], "safe"), *answers("borderline", [safe], "refusal"), *answers("helpfulness", [0.5])]
        return {"rows": [*rows, *answers("rewards", [reward], domain="safety")]}

    shares = {f"safety-{share}": {"kind": "model"} for share in ("0", "25", "2.5")}
    evaluations = {f"{name}-evaluation": asked(name != "safety-0", 0.3) for name in shares}
    made = seed(0, shares | evaluations, {"v2-rejection-evaluation": asked(True, 0.8), "v2-rejection-rewards": {"rows": []}})
    claim = safety.safety_data([made])
    assert figures(claim) == {"violations": -1.0, "safety reward": pytest.approx(0.5), "helpfulness not fallen": 0.0, "false refusals": 1.0}
    violations, _, refusals, rewarded = claim.charts
    assert [row[0] for row in violations.table.rows] == ["0%", "2.5%", "25%", "100%"]
    assert [row[1][:5] for row in violations.table.rows] == ["1.000", "0.000", "0.000", "0.000"]
    assert [row[2] for row in refusals.table.rows] == ["0.150", "not printed", "0.217", "0.272"]
    assert [row[2][:5] for row in rewarded.table.rows] == ["0.300", "0.300", "0.300", "0.800"]


def test_several_turns_against_one_over_all_versions(seed: Make) -> None:
    """Two prompts of one turn: violated by one version of two, and by none; one of two turns: by both."""

    def asked(*safe: bool) -> dict[str, Any]:
        return {"rows": [{**row, "turns": turns} for row, turns in zip(answers("safety", safe, "safe"), (1, 1, 2), strict=True)]}

    made = seed(0, {}, {"v0-evaluation": asked(False, True, False), "v1-evaluation": asked(True, True, False)})
    [several] = safety.multi_turn([made]).rows
    assert several.effect.here is not None
    assert several.effect.here["value"] == pytest.approx(1.0 - 0.25)
    assert several.effect.said == "0.25 \u2192 1.00"


def temperature_rows(factual: float, creative: float, *best: float) -> dict[str, Any]:
    """At 0.5 and at 1.4, where answers are half as alike."""
    return {"rows": [
        {"id": f"{sort} {place}", "sort": sort, "temperature": at, "self_bleu": alike * scale, "best_of": {"1": 0.0, "8": reward}}
        for (at, scale), reward in zip(((0.5, 1.0), (1.4, 0.5)), best, strict=True)
        for sort, alike in (("factual", factual), ("creative", creative)) for place in range(3)
    ]}  # fmt: skip


def test_diversity_is_each_prompts_mean_over_temperatures(seed: Make) -> None:
    """0.75 of what it is when cold: factual answers rise from .3 to .6, creative ones from .3 to .45."""
    made = seed(0, {}, {"v0-temperatures": temperature_rows(0.4, 0.4, 0.3, 0.2), "v2-temperatures": temperature_rows(0.8, 0.6, 0.5, 0.7)})
    claim = sampling.diversity([made])
    assert figures(claim) == {
        "factual answers": pytest.approx(0.3), "creative answers": pytest.approx(0.15), "rise of factual over creative ones": pytest.approx(0.15),
    }  # fmt: skip
    factual, _ = claim.charts
    assert factual.table.columns[:3] == ("temperature", "v0", "v2"), "versions without such answers are left out"
    assert factual.table.rows[1][3:] == ("0.770", "0.830", "0.880", "0.930"), "the paper's, at 1.4"
    assert factual.table.rows[0][3:] == ("not printed",) * 4


def test_the_best_temperature_is_that_of_the_pooled_curve(seed: Make) -> None:
    """V0 earns most at 0.5, the last version at 1.4, in the one seed by little; in the other seed both at 1.4."""
    seeds = [
        seed(0, {}, {"v0-temperatures": temperature_rows(0.4, 0.4, 0.4, 0.2), "v2-temperatures": temperature_rows(0.8, 0.6, 0.5, 0.7)}),
        seed(1, {}, {"v0-temperatures": temperature_rows(0.4, 0.4, 0.3, 0.4), "v2-temperatures": temperature_rows(0.8, 0.6, 0.5, 0.7)}),
    ]
    [best] = sampling.best_temperature(seeds).rows
    assert best.effect.here == {"value": pytest.approx(0.9), "low": pytest.approx(0.9), "high": pytest.approx(0.9), "n": 6}
    assert [figure["value"] for figure in best.by_seed] == [pytest.approx(0.9), 0.0]
    assert best.effect.said == "0.50 \u2192 1.40"
    assert best.effect.note.startswith("best: v0 0.500 (0.500 to 0.500), v2 1.400")


def test_few_good_examples(seed: Make) -> None:
    made = seed(0, {
        "few-good": {"metrics": {"dialogues": 1500}}, "many-mixed": {"metrics": {"dialogues": 8000}},
        "few-good-evaluation": helpful(0.7, 0.5), "many-mixed-evaluation": helpful(0.5, 0.5),
    })  # fmt: skip
    [few] = tuning.few_good_examples([made]).rows
    assert few.effect.here is not None
    assert few.effect.here["value"] == pytest.approx(0.1)
    assert few.effect.note == "1,500 dialogues against 8,000"


def test_obedience_at_the_last_turn_by_set(seed: Make) -> None:
    def asked(*obeyed: bool) -> dict[str, Any]:
        rows = [*answers("ghost", [True, True], "obeyed", set="seen", turn=2), *answers("ghost", obeyed, "obeyed", set="seen", turn=20)]
        return {"rows": [*rows, *answers("ghost", [False], "obeyed", set="held_out", turn=20)]}

    made = seed(0, {"ghostless-evaluation": asked(False, False)}, {"v2-rejection-evaluation": asked(True, False)})
    claim = tuning.ghost_attention([made])
    seen, other = one(claim, "seen constraints").effect, one(claim, "constraints never trained on").effect
    assert seen.here is not None
    assert other.here is not None
    assert (seen.here["value"], seen.paper, seen.threshold) == (0.5, 1.0, 0.3)
    assert "turn 20" in seen.name
    assert other.here["value"] == 0.0


def test_grouped_queries_are_measured_by_document(seed: Make) -> None:
    def read(parameters: int, cache: int, *nats: float) -> dict[str, Any]:
        rows = [{"id": f"d{place}", "nats_per_token": value} for place, value in enumerate(nats)]
        return {"metrics": {"parameters": parameters, "cache_bytes_per_token": cache}, "rows": rows}

    made = seed(0, {"grouped-likelihood": read(1000, 512, *[1.51] * 10), "multi-head-likelihood": read(999, 1024, *[1.5] * 10)})
    [nats] = tuning.grouped_queries([made]).rows
    assert nats.effect.here is not None
    assert nats.effect.here["value"] == pytest.approx(0.01)
    assert nats.effect.shown == "shown", "worse by less than is allowed"
    assert nats.effect.note == "1,000 against 999 parameters; 512 against 1,024 bytes of cache per token"
    assert math.isclose(tuning.ATTENTION_LOSS_ALLOWED, 0.02)
