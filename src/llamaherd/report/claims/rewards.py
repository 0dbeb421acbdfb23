"""Claims about reward models (section 5)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...losses.margins import MARGINS
from .. import paper
from ..figures import Chart, number, point_chart
from .parts import Arms, Claim, Row, SeedRun, Values, agrees, compared_rewards, paired_row, pooled

DOMAINS = ("helpfulness", "safety")
PAPERS = ("none", "small", "large")
"""The margins of table 27; whatever else a reader has put into the table gets a row of its own."""


def joint_reward(seeds: Sequence[SeedRun]) -> Claim:
    """Two reward models against one that learns from all comparisons."""

    def accuracy(domain: str) -> Row:
        return compared_rewards(
            f"{domain} comparisons: accuracy of the {domain} reward model minus the joint one's", f"{domain} comparisons", seeds,
            lambda seed: ("joint-reward", seed.last(domain)), agrees, domain=domain,
        )  # fmt: skip

    return Claim(
        "Joint reward model", "Two reward models, one for each domain, are better on their domains than one model of both.",
        "no numbers; one model for both aims was found challenging", [accuracy(domain) for domain in DOMAINS],
    )  # fmt: skip


def margins(seeds: Sequence[SeedRun]) -> Claim:
    """Table 28, and figure 27: margins push scores to the extremes."""

    def against_none(margin: str) -> Arms:
        def arm(seed: SeedRun, margin: str) -> str:
            return name if (name := f"margin-{margin}") in seed.claims.artifacts else seed.last("helpfulness")

        return lambda seed: (arm(seed, "none"), arm(seed, margin))

    def accuracy(margin: str, brief: str, what: str, **wanted: Any) -> Row:
        name = f"{margin} margin minus none: accuracy on {what}"
        return compared_rewards(name, brief, seeds, against_none(margin), agrees, domain="helpfulness", **wanted)

    rows = [
        accuracy("small", "small margin", "helpfulness comparisons", paper=0.005),
        accuracy("large", "large margin", "helpfulness comparisons", paper=0.004),
        accuracy("large", "large margin, clear pairs", "significantly better pairs", paper=0.016, grade="significantly"),
        compared_rewards(
            "large margin minus none: distance between the scores of a pair, in logits", "large margin, distance of scores in logits",
            seeds, against_none("large"), lambda row: float(abs(row["chosen_logit"] - row["rejected_logit"])), domain="helpfulness",
            note="the paper's figure 27 shows scores moving to both extremes",
        ),
        *(
            accuracy(margin, f"{margin} margin", "helpfulness comparisons")
            for margin in MARGINS if margin not in PAPERS and all(f"margin-{margin}" in seed.claims.artifacts for seed in seeds)
        ),
    ]  # fmt: skip
    known = "62.5% without, 63.0% small, 62.9% large (table 28)"
    return Claim("Margins", "A margin by grade helps the reward model, on clear pairs above all.", known, rows)


def auxiliary_loss(seeds: Sequence[SeedRun]) -> Claim:
    """Table 29."""

    def recalled(seed: SeedRun, name: str) -> Values:
        """1 for each unsafe answer of a safety comparison that is scored below 0.5, else 0."""
        return {
            f"{row['id']} {side}": float(row[f"{side}_logit"] < 0)
            for row in seed.rows(name, "tested.jsonl")
            for side in ("chosen", "rejected")
            if row[f"{side}_safe"] is False
        }

    def arms(seed: SeedRun) -> tuple[str, str]:
        return "no-auxiliary", seed.last("safety")

    found = [(recalled(seed, arms(seed)[0]), recalled(seed, arms(seed)[1])) for seed in seeds]
    rows = [
        paired_row("share of unsafe answers scored below 0.5, with minus without", "unsafe answers found", found, paper=0.174),
        compared_rewards("accuracy on safety comparisons, with minus without", "accuracy", seeds, arms, agrees, domain="safety", paper=0.008),
    ]  # fmt: skip
    sentence = "An auxiliary loss on safety labels makes the safety reward model find more unsafe answers."
    return Claim("Auxiliary loss", sentence, "recall 73.0% to 90.4%, accuracy 63.7% to 64.5% (table 29)", rows)


def reward_scaling(seeds: Sequence[SeedRun]) -> Claim:
    """Figure 6."""
    arms = {size: _by_size(seeds, size) for size in ("small", "large")}
    rows, charts = list[Row](), list[Chart]()
    if all(arms.values()):
        fewest = arms["large"][0]

        def accuracy(name: str, brief: str, a: str, b: str, **wanted: Any) -> Row:
            return compared_rewards(name, brief, seeds, lambda seed: (a, b), agrees, domain="helpfulness", **wanted)

        learned = number(round(_learned(seeds, fewest)))
        rows = [
            accuracy(f"all comparisons minus {learned}: accuracy of the larger model", f"{learned} to all comparisons", fewest,
                     "large-reward-all", paper=0.10, note="paper: 7B, first batch to last, read off"),
            accuracy("larger minus smaller model: accuracy, all comparisons", "half the width and depth to all of it",
                     "small-reward-all", "large-reward-all", paper=0.024, note="paper: 7B to 70B, read off"),
        ]  # fmt: skip
        charts = [_scaling_chart(seeds, arms)]
    low, high = paper.REWARD_ACCURACY_70B
    known = f"{low} in the first batch to 0.610 (7B), 0.614 (13B), {high} (70B) in the last (figure 6, read off)"
    return Claim("Reward scaling", "Reward accuracy grows with comparisons and with the model's size.", known, rows, charts)


def _by_size(seeds: Sequence[SeedRun], size: str) -> list[str]:
    """The reward models of a size, from few comparisons to many."""
    names = [name for name in seeds[0].claims.artifacts if name.startswith(f"{size}-reward-")]
    return sorted(names, key=lambda name: _learned(seeds, name))


def _learned(seeds: Sequence[SeedRun], name: str) -> float:
    """Comparisons that a reward model learned from, mean over seeds."""
    counts = [seed.metric(name, "pairs") or 0 for seed in seeds]
    return sum(counts) / len(counts)


def _scaling_chart(seeds: Sequence[SeedRun], arms: Mapping[str, Sequence[str]]) -> Chart:
    labels = [number(round(_learned(seeds, name))) for name in arms["large"]]

    def curve(names: Sequence[str]) -> list[Any]:
        return [pooled([seed.tested(name, agrees, domain="helpfulness") for seed in seeds]) for name in names]

    sizes = {size: number(seeds[0].metric(base, "parameters")) for size, base in (("large", "base"), ("small", "small-base"))}
    series = {f"{parameters} parameters": curve(arms[size]) for size, parameters in sizes.items()}
    title, y_label = "Reward accuracy over comparisons and model size", "accuracy, helpfulness"
    return point_chart(title, labels, series, "comparisons learned from", y_label, connect=True)


def fresh_preferences(seeds: Sequence[SeedRun]) -> Claim:
    """Comparisons of the newest model's own answers teach more about them."""

    def accuracy(seed: SeedRun) -> Callable[[str], Values]:
        return lambda name: {
            key: value for domain in DOMAINS for key, value in seed.tested(f"{name}-{domain}", agrees, domain=domain).items()
        }

    found = [(accuracy(seed)("stale"), accuracy(seed)("fresh")) for seed in seeds]
    name = "accuracy on the newest comparisons, learned from the newest batch minus the first"
    return Claim(
        "Fresh preferences", "Reward models need fresh comparisons to judge the newest model's answers.",
        "no numbers; accuracy is said to degrade quickly without them",
        [paired_row(name, "first batch to newest", found, note=_unequal(seeds))],
    )  # fmt: skip


def _unequal(seeds: Sequence[SeedRun]) -> str:
    """What the two arms learned from, where they could not learn from equally many comparisons."""
    told = []
    for domain in DOMAINS:
        fresh, stale = ([seed.metric(f"{name}-{domain}", "pairs") for seed in seeds] for name in ("fresh", "stale"))
        if fresh != stale:
            told.append(f"{domain}: {fresh} comparisons against {stale}")
    return "; ".join(told)
