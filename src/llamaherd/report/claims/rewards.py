"""Claims about reward models (section 5)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...measures.intervals import Figure
from ..figures import Chart, number, point_chart
from .parts import Claim, Number, SeedRun, Values, less, pooled, row

DOMAINS = ("helpfulness", "safety")


def agrees(**about: str) -> Number:
    """Of test comparisons with these fields: 1 where the model scores the chosen answer higher, else 0."""
    return lambda row: float(row["agrees"]) if all(row[name] == value for name, value in about.items()) else None


def accuracy_gain(a: Callable[[SeedRun], str], b: Callable[[SeedRun], str], **about: str) -> Callable[[SeedRun], Values]:
    """Accuracy of the second reward model minus the first one's, by comparison."""
    return lambda seed: less(*(seed.tested(name(seed), agrees(**about)) for name in (a, b)))


def joint_reward(seeds: Sequence[SeedRun]) -> Claim:
    """Two reward models against one that learns from all comparisons."""
    rows = [
        row(
            f"{domain} comparisons: accuracy of the {domain} reward model minus the joint one's", seeds,
            accuracy_gain(lambda seed: "joint-reward", lambda seed, domain=domain: seed.last(domain), domain=domain),  # type: ignore[misc]
        )
        for domain in DOMAINS
    ]  # fmt: skip
    return Claim(
        "joint-reward", "Two reward models, one for each domain, are better on their domains than one model of both.",
        "no numbers; one model for both aims was found challenging (section 5)", rows,
    )  # fmt: skip


def margins(seeds: Sequence[SeedRun]) -> Claim:
    """Table 28, and figure 27: margins push scores to the extremes."""

    def arm(margin: str) -> Callable[[SeedRun], str]:
        return lambda seed: name if (name := f"margin-{margin}") in seed.claims.artifacts else seed.last("helpfulness")

    def gain(margin: str, **about: str) -> Callable[[SeedRun], Values]:
        return accuracy_gain(arm("none"), arm(margin), domain="helpfulness", **about)

    rows = [
        row("small margin minus none: accuracy on helpfulness comparisons", seeds, gain("small"), paper=0.005),
        row("large margin minus none: accuracy on helpfulness comparisons", seeds, gain("large"), paper=0.004),
        row("large margin minus none: accuracy on significantly better pairs", seeds, gain("large", grade="significantly"), paper=0.016),
        row(
            "large margin minus none: distance between the scores of a pair, in logits", seeds,
            lambda seed: less(*(seed.tested(arm(margin)(seed), _distance) for margin in ("none", "large"))),
            note="the paper's figure 27 shows scores moving to both extremes",
        ),
    ]  # fmt: skip
    return Claim("margins", "A margin by grade helps the reward model, on clear pairs above all.", "table 28", rows)


def _distance(row: Mapping[str, Any]) -> float | None:
    return float(abs(row["chosen_logit"] - row["rejected_logit"])) if row["domain"] == "helpfulness" else None


def auxiliary_loss(seeds: Sequence[SeedRun]) -> Claim:
    """Table 29."""

    def recalled(seed: SeedRun, name: str) -> Values:
        """1 for each unsafe answer of a safety comparison that is scored below 0.5."""
        return {
            f"{row['id']} {side}": float(row[f"{side}_logit"] < 0)
            for row in seed.rows(name, "tested.jsonl")
            for side in ("chosen", "rejected")
            if row[f"{side}_safe"] is False
        }

    rows = [
        row(
            "share of unsafe answers scored below 0.5, with minus without", seeds,
            lambda seed: less(*(recalled(seed, name) for name in ("no-auxiliary", seed.last("safety")))), paper=0.174,
        ),
        row(
            "accuracy on safety comparisons, with minus without", seeds,
            accuracy_gain(lambda seed: "no-auxiliary", lambda seed: seed.last("safety"), domain="safety"), paper=0.008,
        ),
    ]  # fmt: skip
    sentence = "An auxiliary loss on safety labels makes the safety reward model find more unsafe answers."
    return Claim("auxiliary-loss", sentence, "table 29", rows)


def reward_scaling(seeds: Sequence[SeedRun]) -> Claim:
    """Figure 6."""
    arms = {size: sorted((name for name in seeds[0].claims.artifacts if name.startswith(f"{size}-reward-")), key=lambda name: _learned(seeds, name))
            for size in ("small", "large")}  # fmt: skip

    def gain(a: str, b: str) -> Callable[[SeedRun], Values]:
        return accuracy_gain(lambda seed: a, lambda seed: b, domain="helpfulness")

    rows = []
    if all(arms.values()):
        fewest = number(round(_learned(seeds, arms["large"][0])))
        rows = [
            row(f"all comparisons minus {fewest}: accuracy of the larger model", seeds, gain(arms["large"][0], "large-reward-all"), paper=0.10,
                note="paper: read off, first batch to last"),
            row("larger minus smaller model: accuracy, all comparisons", seeds, gain("small-reward-all", "large-reward-all"), paper=0.024,
                note="paper: read off, 70B minus 7B"),
        ]  # fmt: skip
    return Claim(
        "reward-scaling", "Reward accuracy grows with comparisons and with the model's size.",
        "figure 6, read off: 0.51 to 0.61 (7B), 0.614 (13B), 0.634 (70B)", rows, [_scaling_chart(seeds, arms)] if rows else [],
    )  # fmt: skip


def _learned(seeds: Sequence[SeedRun], name: str) -> float:
    """Comparisons that a reward model learned from, mean over seeds."""
    counts = [seed.metric(name, "pairs") or 0 for seed in seeds]
    return sum(counts) / len(counts)


def _scaling_chart(seeds: Sequence[SeedRun], arms: Mapping[str, Sequence[str]]) -> Chart:
    labels = [number(round(_learned(seeds, name))) for name in arms["large"]]
    series: dict[str, list[Figure | None]] = {}
    for size, model in (("large", "base"), ("small", "small-base")):
        parameters = number(seeds[0].metric(model, "parameters"))
        series[f"{parameters} parameters"] = [
            pooled(seeds, lambda seed, name=name: seed.tested(name, agrees(domain="helpfulness"))) for name in arms[size]  # type: ignore[misc]
        ]  # fmt: skip
    return point_chart(
        "Reward accuracy over comparisons and model size", labels, series, "comparisons learned from", "accuracy, helpfulness", connect=True
    )


def fresh_preferences(seeds: Sequence[SeedRun]) -> Claim:
    """Comparisons of the newest model's own answers teach more about them."""

    def gain(seed: SeedRun) -> Values:
        arms = ([seed.tested(f"{name}-{domain}", agrees(domain=domain)) for domain in DOMAINS] for name in ("stale", "fresh"))
        return less(*({**helpful, **safe} for helpful, safe in arms))

    name = "accuracy on the newest comparisons, learned from the newest batch minus the first"
    return Claim(
        "fresh-preferences", "Reward models need fresh comparisons to judge the newest model's answers.",
        "no numbers; accuracy is said to degrade quickly without them", [row(name, seeds, gain, note=_unequal(seeds))],
    )  # fmt: skip


def _unequal(seeds: Sequence[SeedRun]) -> str:
    """What the two arms learned from, where they could not learn from equally many comparisons."""
    told = []
    for domain in DOMAINS:
        fresh, stale = ([seed.metric(f"{name}-{domain}", "pairs") for seed in seeds] for name in ("fresh", "stale"))
        if fresh != stale:
            told.append(f"{domain}: {fresh} comparisons against {stale}")
    return "; ".join(told)
