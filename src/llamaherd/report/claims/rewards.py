"""Claims about reward models (section 5)."""

from collections.abc import Callable, Sequence
from typing import Any

from .parts import Claim, Row, SeedRun, Values, less, row

Keep = Callable[[dict[str, Any]], bool]


def agrees(keep: Keep = lambda row: True) -> Callable[[dict[str, Any]], float | None]:
    """Of a test comparison that `keep` takes: 1 where the model scores the chosen answer higher, else 0."""
    return lambda row: float(row["agrees"]) if keep(row) else None


def of(domain: str) -> Keep:
    return lambda row: bool(row["domain"] == domain)


def joint_reward(seeds: Sequence[SeedRun]) -> Claim:
    """Two reward models against one that learns from all comparisons."""

    def gain(domain: str) -> Callable[[SeedRun], Values]:
        return lambda seed: less(*(seed.tested(name, agrees(of(domain))) for name in ("joint-reward", seed.name(domain))))

    return Claim(
        "joint-reward", "Two reward models, one for each domain, are better on their domains than one model of both.",
        "no numbers: one model for both was found challenging (section 5.2.2)",
        [row(f"{domain} comparisons: accuracy of the {domain} reward model minus the joint one's", seeds, gain(domain))
         for domain in ("helpfulness", "safety")],
    )  # fmt: skip


def margins(seeds: Sequence[SeedRun]) -> Claim:
    """Table 28, and figure 27: margins push scores to the extremes."""

    def arm(seed: SeedRun, margin: str) -> str:
        return f"margin-{margin}" if f"margin-{margin}" in seed.claims.artifacts else seed.name("helpfulness")

    def gain(margin: str, keep: Keep) -> Callable[[SeedRun], Values]:
        return lambda seed: less(*(seed.tested(arm(seed, name), agrees(keep)) for name in ("none", margin)))

    def clear(row: dict[str, Any]) -> bool:
        return (row["domain"], row["grade"]) == ("helpfulness", "significantly")

    rows = [
        row("small margin minus none: accuracy on helpfulness comparisons", seeds, gain("small", of("helpfulness")), paper=0.005),
        row("large margin minus none: accuracy on helpfulness comparisons", seeds, gain("large", of("helpfulness")), paper=0.004),
        row("large margin minus none: accuracy on significantly better pairs", seeds, gain("large", clear), paper=0.016),
        row(
            "large margin minus none: distance between the scores of the two answers, in logits", seeds,
            lambda seed: less(*(seed.tested(arm(seed, name), distance) for name in ("none", "large"))),
            note="the paper's figure 27 shows that scores move to both extremes",
        ),
    ]  # fmt: skip
    return Claim("margins", "A margin by grade helps the reward model, on clear pairs above all.", "table 28", rows)


def distance(row: dict[str, Any]) -> float | None:
    """Between the logits of the two answers of a helpfulness comparison."""
    return abs(row["chosen_logit"] - row["rejected_logit"]) if row["domain"] == "helpfulness" else None


def auxiliary_loss(seeds: Sequence[SeedRun]) -> Claim:
    """Table 29."""

    def recalled(seed: SeedRun, name: str) -> Values:
        answers: dict[str, float] = {}
        for found in seed.rows(name, "tested.jsonl"):
            for side in ("chosen", "rejected"):
                if found[f"{side}_safe"] is False:
                    answers[f"{found['id']} {side}"] = float(found[f"{side}_logit"] < 0)
        return answers

    def both(seed: SeedRun) -> tuple[str, str]:
        return "no-auxiliary", seed.name("safety")

    return Claim(
        "auxiliary-loss", "An auxiliary loss on safety labels makes the safety reward model find more unsafe answers.", "table 29",
        [
            row("share of unsafe answers scored below 0.5, with minus without", seeds,
                lambda seed: less(*(recalled(seed, name) for name in both(seed))), paper=0.174),
            row("accuracy on safety comparisons, with minus without", seeds,
                lambda seed: less(*(seed.tested(name, agrees(of("safety"))) for name in both(seed))), paper=0.008),
        ],
    )  # fmt: skip


def fresh_preferences(seeds: Sequence[SeedRun]) -> Claim:
    """Comparisons of the newest model's own answers teach more about them."""

    def gain(seed: SeedRun, domain: str) -> Values:
        return less(*(seed.tested(f"{name}-{domain}", agrees(of(domain))) for name in ("stale", "fresh")))

    rows: list[Row] = [
        row("accuracy on the newest comparisons, learned from the newest batch minus the first", seeds,
            lambda seed: {**gain(seed, "helpfulness"), **gain(seed, "safety")}, note=_pairs(seeds)),
    ]  # fmt: skip
    return Claim(
        "fresh-preferences", "Reward accuracy on the newest model's answers needs fresh comparisons.",
        "no numbers: accuracy degrades quickly without them (section 3.2.1 of the paper)", rows,
    )  # fmt: skip


def _pairs(seeds: Sequence[SeedRun]) -> str:
    """How many comparisons the two arms learned from, where that differs."""
    counts = {f"{name}-{domain}": [seed.metric(f"{name}-{domain}", "pairs") for seed in seeds]
              for name in ("stale", "fresh") for domain in ("helpfulness", "safety")}  # fmt: skip
    unequal = [domain for domain in ("helpfulness", "safety") if counts[f"stale-{domain}"] != counts[f"fresh-{domain}"]]
    return "; ".join(f"{domain}: {counts[f'fresh-{domain}']} against {counts[f'stale-{domain}']} comparisons" for domain in unequal)
