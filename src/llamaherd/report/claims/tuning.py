"""Claims about how models are trained: PPO, the pool, examples, Ghost Attention, attention heads (sections 1, 3, 6 and 7)."""

from collections.abc import Sequence
from typing import Any

from ...measures.intervals import averaged, nothing
from .. import paper
from ..effects import GHOST_GAIN, ORACLE_LOSS_ALLOWED, Effect
from ..figures import Chart, line_chart, number, short
from ..folder import CONSTRAINTS, as_figure, per_prompt
from .parts import Arms, Claim, Row, SeedRun, compared, paired_row
from .safety import HELPFULNESS, HELPFULNESS_REWARD

ATTENTION_LOSS_ALLOWED = 0.02
"""Nats per token by which grouped queries may be worse and still count as no worse."""


def hot_ppo(seeds: Sequence[SeedRun]) -> Claim:
    """The reward is gamed, and what the guard publishes instead. Both start from the last version before PPO."""

    def after(arm: str) -> Arms:
        return lambda seed: (seed.run.rejection, arm)

    rows = [
        compared("hot PPO: helpfulness reward, minus before", "reward", seeds, after("hot-ppo"), *HELPFULNESS_REWARD),
        compared("hot PPO: helpfulness by the oracle, minus before: fallen", "the oracle's helpfulness, fallen", seeds, after("hot-ppo"),
                 *HELPFULNESS, direction="below"),
        _distance(seeds),
        compared("hot PPO with the recipe's guard: helpfulness by the oracle, minus before: not fallen",
                 "with the guard: the oracle's helpfulness, not fallen", seeds, after("guarded-ppo"), *HELPFULNESS,
                 threshold=-ORACLE_LOSS_ALLOWED),
        compared("hot PPO: helpfulness by the oracle, with the guard minus without", "the oracle's helpfulness, without guard to with", seeds,
                 lambda seed: ("hot-ppo", "guarded-ppo"), *HELPFULNESS),
    ]  # fmt: skip
    return Claim(
        "Hot PPO", "PPO with too high a rate and too little hold games the reward model; a KL budget stops it in time.",
        "no numbers; a more general reward model stood watch, and nothing diverged", rows, _ppo_charts(seeds),
    )  # fmt: skip


def _distance(seeds: Sequence[SeedRun]) -> Row:
    budget = next((float(found) for seed in seeds if (found := seed.metric("guarded-ppo", "kl_budget")) is not None), 0.0)
    by_seed = [as_figure(seed.metric("hot-ppo", "kl")) or nothing() for seed in seeds]
    here = averaged(by_seed)
    name = "hot PPO: nats per held-out answer from the start, over the recipe's budget"
    brief, said = f"KL over the budget of {budget:g} nats", f"{short(here)} nats"
    return Row(Effect(name, None, here if here["n"] else None, threshold=budget, brief=brief, said=said, measure=""), by_seed)


def _ppo_charts(seeds: Sequence[SeedRun]) -> list[Chart]:
    """Reward, oracle and distance over the iterations of the first seed."""
    logs = {}
    for label, name in (("without guard", "hot-ppo"), ("with guard", "guarded-ppo"), ("the recipe's", seeds[0].run.last)):
        folder = seeds[0].holder(name)
        logs[label] = folder.training(name) if name in folder.artifacts else []
    charts = []
    for title, key, unit in (
        ("Hot PPO: reward", "ppo/reward", "reward, logits"),
        ("Hot PPO: the oracle's score, which is never trained on", "ppo/oracle", "oracle, 0 to 1"),
        ("Hot PPO: distance from the start", "ppo/kl_k3", "nats"),
    ):
        curves = {
            label: [(float(row["ppo/iteration"]), float(row[key])) for row in log if row.get(key) is not None]
            for label, log in logs.items()
        }
        if any(curves.values()):
            drawn = {label: points for label, points in curves.items() if points}
            charts.append(line_chart(title, drawn, "iteration", unit, note=f"Seed {seeds[0].run.seed}."))
    return charts


def pool(seeds: Sequence[SeedRun]) -> Claim:
    """Best answers of all versions against the newest ones alone."""
    name = "helpfulness, tuned on the best answers of all versions minus the newest alone"
    return Claim(
        "Pool of all versions", "Rejection sampling from the pool of all versions is better than from the newest samples alone.",
        "no numbers; versions tuned on the newest samples alone lost earlier skills",
        [compared(name, "helpfulness, newest alone to all versions", seeds, lambda seed: ("newest-only", seed.run.rejection), *HELPFULNESS)],
    )  # fmt: skip


def few_good_examples(seeds: Sequence[SeedRun]) -> Claim:
    """Equally many steps of supervised fine-tuning."""
    few, many = (number(seeds[0].metric(name, "dialogues")) for name in ("few-good", "many-mixed"))
    name = "helpfulness, few dialogues of good answers minus many of mixed ones"
    rows = [
        compared(name, "helpfulness, many to few", seeds, lambda seed: ("many-mixed", "few-good"), *HELPFULNESS,
                 note=f"{few} dialogues against {many}"),
    ]  # fmt: skip
    return Claim(
        "Few good examples", "Few good examples of supervised fine-tuning are better than many poor ones.",
        "no numbers; 27,540 good annotations took the place of millions of others", rows,
    )  # fmt: skip


def ghost_attention(seeds: Sequence[SeedRun]) -> Claim:
    """The same version, tuned with the same draws, with and without Ghost Attention rows."""
    turn = max((row["turn"] for seed in seeds for row in seed.rows("ghostless-evaluation") if row["task"] == "ghost"), default=None)
    without, with_rows = paper.GHOST_TURNS.get(turn or max(paper.GHOST_TURNS), (None, None))
    gain = with_rows - without if with_rows is not None and without is not None else None

    def obeyed(row: Any) -> float:
        return float(row["obeyed"])

    rows = [
        compared(f"obedience at {f'turn {turn}' if turn else 'the last turn'}, {label}, with Ghost Attention rows minus without", label, seeds,
                 lambda seed: ("ghostless", seed.run.with_ghost), obeyed, {"task": "ghost", "set": key, "turn": turn},
                 paper=gain, threshold=GHOST_GAIN)
        for key, label in CONSTRAINTS.items()
    ]  # fmt: skip
    sentence = "Ghost Attention makes an instruction of the first turn last to the end of the dialogue."
    return Claim("Ghost Attention", sentence, "0% to 100% at turn 20 (section 7)", rows)


def grouped_queries(seeds: Sequence[SeedRun]) -> Claim:
    """Base models of equal size after equally many tokens."""
    found = [
        tuple(per_prompt(seed.rows(f"{name}-likelihood"), lambda row: row["nats_per_token"]) for name in ("multi-head", "grouped"))
        for seed in seeds
    ]
    sizes, caches = ([number(seeds[0].metric(f"{name}-likelihood", key)) for name in ("grouped", "multi-head")]
                     for key in ("parameters", "cache_bytes_per_token"))  # fmt: skip
    note = f"{sizes[0]} against {sizes[1]} parameters; {caches[0]} against {caches[1]} bytes of cache per token"
    name = "nats per token of unseen documents, grouped queries minus multi-head: no worse"
    rows = [
        paired_row(name, "nats per token, multi-head to grouped", found, direction="below",  # type: ignore[arg-type]
                   threshold=ATTENTION_LOSS_ALLOWED, note=note),
    ]  # fmt: skip
    return Claim(
        "Grouped queries", "Grouped-query attention is as good as multi-head attention in as many parameters, with a smaller cache.",
        "44.2 to 44.3, mean of 11 benchmarks (30B, 150B tokens)", rows,
    )  # fmt: skip
