"""Claims about how models are trained: PPO, the pool, examples, Ghost Attention, attention heads (sections 1, 3, 6 and 7)."""

from collections.abc import Callable, Sequence

from ...measures.intervals import averaged, nothing
from .. import paper
from ..effects import GHOST_GAIN, ORACLE_LOSS_ALLOWED, Effect
from ..figures import Chart, line_chart, number
from ..folder import CONSTRAINTS, as_figure
from .parts import Claim, Row, SeedRun, Values, by_id, compared, less, of_domain, row, score

ATTENTION_LOSS_ALLOWED = 0.02
"""Nats per token by which grouped queries may be worse and still count as no worse."""


def hot_ppo(seeds: Sequence[SeedRun]) -> Claim:
    """The reward is gamed, and what the guard publishes instead. Both start from the last version before PPO."""

    def after(arm: str) -> Callable[[SeedRun], tuple[str, str]]:
        return lambda seed: (seed.run.rejection, arm)

    reward = of_domain("helpfulness")
    budget = next((found for seed in seeds if (found := seed.metric("guarded-ppo", "kl_budget")) is not None), None)
    rows = [
        compared("hot PPO: helpfulness reward, minus before", seeds, "rewards", reward, after("hot-ppo")),
        compared("hot PPO: helpfulness by the oracle, minus before: fallen", seeds, "helpfulness", score, after("hot-ppo"), direction="below"),
        _distance(seeds, float(budget or 0)),
        compared("hot PPO with the recipe's KL budget and patience: helpfulness by the oracle, minus before: not fallen", seeds,
                 "helpfulness", score, after("guarded-ppo"), threshold=-ORACLE_LOSS_ALLOWED),
        compared("hot PPO: helpfulness by the oracle, with the guard minus without", seeds, "helpfulness", score,
                 lambda seed: ("hot-ppo", "guarded-ppo")),
    ]  # fmt: skip
    return Claim(
        "hot-ppo", "PPO with too high a rate and too little hold games the reward model; a KL budget stops it in time.",
        "no numbers; reward hacking is named as a risk, and a more general reward model watched for it (section 8)", rows, _ppo_charts(seeds),
    )  # fmt: skip


def _distance(seeds: Sequence[SeedRun], budget: float) -> Row:
    by_seed = [as_figure(seed.metric("hot-ppo", "kl")) or nothing() for seed in seeds]
    here = averaged(by_seed)
    name = "hot PPO: nats per held-out answer from the start, over the recipe's budget"
    return Row(Effect(name, None, here if here["n"] else None, threshold=budget), by_seed)


def _ppo_charts(seeds: Sequence[SeedRun]) -> list[Chart]:
    """Reward and oracle over the iterations of the first seed."""
    charts = []
    for title, key, unit in (
        ("Hot PPO: reward", "ppo/reward", "reward, logits"),
        ("Hot PPO: the oracle's score, which is never trained on", "ppo/oracle", "oracle, 0 to 1"),
        ("Hot PPO: distance from the start", "ppo/kl_k3", "nats"),
    ):
        series = {}
        for label, name in (("without guard", "hot-ppo"), ("with guard", "guarded-ppo"), ("the recipe's", seeds[0].run.last)):
            rows = seeds[0].holder(name).training(name) if name in seeds[0].holder(name).artifacts else []
            points = [(float(found["ppo/iteration"]), float(found[key])) for found in rows if found.get(key) is not None]
            if points:
                series[label] = points
        if series:
            charts.append(line_chart(title, series, "iteration", unit, note=f"Seed {seeds[0].run.seed}."))
    return charts


def pool(seeds: Sequence[SeedRun]) -> Claim:
    """Best answers of all versions against the newest ones alone."""
    rows = [
        compared("helpfulness, tuned on the best answers of all versions minus the newest alone", seeds, "helpfulness", score,
                 lambda seed: ("newest-only", seed.run.rejection)),
    ]  # fmt: skip
    return Claim(
        "pool", "Rejection sampling from the pool of all versions is better than from the newest samples alone.",
        "no numbers; versions tuned on the newest samples alone lost earlier skills (section 6)", rows,
    )  # fmt: skip


def few_good_examples(seeds: Sequence[SeedRun]) -> Claim:
    """Equally many steps of supervised fine-tuning."""
    counts = [seeds[0].metric(name, "dialogues") for name in ("few-good", "many-mixed")]
    note = "{} dialogues against {}".format(*map(number, counts))
    rows = [
        compared("helpfulness, few dialogues of good answers minus many of mixed ones", seeds, "helpfulness", score,
                 lambda seed: ("many-mixed", "few-good"), note=note),
    ]  # fmt: skip
    return Claim(
        "few-good-examples", "Few good examples of supervised fine-tuning are better than many poor ones.",
        "no numbers; 27,540 good annotations in place of millions of others (section 3)", rows,
    )  # fmt: skip


def ghost_attention(seeds: Sequence[SeedRun]) -> Claim:
    """The same version, tuned with the same draws, with and without Ghost Attention rows."""
    turns = sorted({found["turn"] for seed in seeds for found in seed.rows("ghostless-evaluation")})
    rows = []
    for constraints, label in CONSTRAINTS.items():
        for turn in turns[-1:]:

            def obeyed(seed: SeedRun, name: str, turn: int = turn, constraints: str = constraints) -> Values:
                found = seed.rows(f"{name}-evaluation")
                return by_id(
                    (row["id"], float(row["obeyed"]))
                    for row in found
                    if (row["task"], row.get("set"), row.get("turn")) == ("ghost", constraints, turn)
                )

            without, with_rows = paper.GHOST_TURNS.get(turn, (None, None))
            gain = with_rows - without if with_rows is not None and without is not None else None
            name = f"obedience at turn {turn}, {label}, with Ghost Attention rows minus without"
            rows.append(
                row(name, seeds, lambda seed, obeyed=obeyed: less(*(obeyed(seed, arm) for arm in ("ghostless", seed.run.with_ghost))),  # type: ignore[misc]
                    paper=gain, threshold=GHOST_GAIN)
            )  # fmt: skip
    sentence = "Ghost Attention makes an instruction of the first turn last for twenty."
    return Claim("ghost-attention", sentence, "section 7: 100% against 0% at turn 20", rows)


def attention(seeds: Sequence[SeedRun]) -> Claim:
    """Base models of equal size after equally many tokens."""

    def nats(seed: SeedRun, name: str) -> Values:
        return by_id((found["id"], found["nats_per_token"]) for found in seed.rows(f"{name}-likelihood"))

    sizes, caches = ([seeds[0].metric(f"{name}-likelihood", key) for name in ("grouped", "multi-head")]
                     for key in ("parameters", "cache_bytes_per_token"))  # fmt: skip
    note = "{} against {} parameters; {} against {} bytes of cache per token".format(*map(number, (*sizes, *caches)))
    rows = [
        row("nats per token of unseen documents, grouped queries minus multi-head: no worse", seeds,
            lambda seed: less(*(nats(seed, name) for name in ("multi-head", "grouped"))), direction="below",
            threshold=ATTENTION_LOSS_ALLOWED, note=note),
    ]  # fmt: skip
    return Claim(
        "grouped-queries", "Grouped-query attention is as good as multi-head attention in as many parameters, with a smaller cache.",
        "section 1: mean of 11 benchmarks 44.3 against 44.2 at 30B, 150B tokens", rows,
    )  # fmt: skip
