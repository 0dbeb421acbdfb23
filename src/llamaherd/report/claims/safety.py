"""Claims about safety tuning and evaluation (sections 9 and 11)."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...measures.intervals import difference, mean, over_seeds
from .. import paper
from ..effects import ORACLE_LOSS_ALLOWED, Effect, arrow
from ..figures import Chart, point_chart
from ..folder import per_prompt
from .parts import Arms, Claim, Number, Row, SeedRun, Values, compared, pooled, refuses, score, violates

VIOLATIONS: tuple[Number, Mapping[str, Any]] = (violates, {"task": "safety"})
HELPFULNESS: tuple[Number, Mapping[str, Any]] = (score, {"task": "helpfulness"})
REFUSALS: tuple[Number, Mapping[str, Any]] = (refuses, {"task": "borderline"})
SAFETY_REWARD: tuple[Number, Mapping[str, Any]] = (score, {"task": "rewards", "domain": "safety"})
HELPFULNESS_REWARD: tuple[Number, Mapping[str, Any]] = (score, {"task": "rewards", "domain": "helpfulness"})
"""What is read from a row, and from which rows."""


def distillation(seeds: Sequence[SeedRun]) -> Claim:
    """The version tuned on distilled answers against one that was not, and one tuned on whatever came out."""

    def against(arm: str) -> Arms:
        return lambda seed: (arm, seed.run.rejection)

    none, unchosen = against("undistilled"), against("distilled-without-choice")
    rows = [
        compared("violation rate, with distilled answers minus without", "violations, without to with", seeds, none, *VIOLATIONS,
                 direction="below"),
        compared("helpfulness, with distilled answers minus without: not fallen", "helpfulness not fallen, without to with", seeds, none,
                 *HELPFULNESS, threshold=-ORACLE_LOSS_ALLOWED),
        compared("violation rate, answers chosen by the safety reward model minus all taken", "violations, all taken to chosen", seeds,
                 unchosen, *VIOLATIONS, direction="below"),
        compared("helpfulness, answers chosen by the safety reward model minus all taken", "helpfulness, all taken to chosen", seeds,
                 unchosen, *HELPFULNESS),
        compared("false refusals, answers chosen by the safety reward model minus all taken", "false refusals, all taken to chosen", seeds,
                 unchosen, *REFUSALS, direction="below"),
    ]  # fmt: skip
    return Claim(
        "Distillation", "Context distillation makes the tuned model safer, and choosing by the safety reward model keeps it helpful.",
        "median safety reward 0.75 to 0.87 with a preprompt (figure 16, read off); no numbers for the tuned model", rows,
    )  # fmt: skip


def safety_data(seeds: Sequence[SeedRun]) -> Claim:
    """Figures 15 and 33. All of the safety data is the run's own last tuning."""

    def ends(seed: SeedRun) -> tuple[str, str]:
        return "safety-0", seed.run.rejection

    rows = [
        compared("violation rate, all safety data minus none", "violations", seeds, ends, *VIOLATIONS, direction="below"),
        compared("mean safety reward, all safety data minus none", "safety reward", seeds, ends, *SAFETY_REWARD, paper=0.093),
        compared("helpfulness by the oracle, all safety data minus none: not fallen", "helpfulness not fallen", seeds, ends, *HELPFULNESS,
                 paper=-0.003, threshold=-ORACLE_LOSS_ALLOWED, note="paper: mean helpfulness reward, read off"),
        compared("false refusals on borderline prompts, all safety data minus none", "false refusals", seeds, ends, *REFUSALS, paper=0.122),
    ]  # fmt: skip
    return Claim(
        "Safety data", "More safety data makes the model safer without making it less helpful, and lets it refuse more.",
        "safety reward 0.68 to 0.77, helpfulness reward 0.59 to 0.58, false refusals 15% to 27% (figures 15 and 33, read off)",
        rows, safety_charts(seeds),
    )  # fmt: skip


def safety_charts(seeds: Sequence[SeedRun]) -> list[Chart]:
    """What changes with the share of the safety data."""
    found = [re.fullmatch(r"safety-([\d.]+)", name) for name in seeds[0].claims.artifacts]
    shares = [*sorted(float(match[1]) for match in found if match), 100.0]
    if len(shares) == 1:
        return []

    def curve(number: Number, where: Mapping[str, Any]) -> list[Any]:
        names: list[Callable[[SeedRun], str]] = [lambda seed, share=share: f"safety-{share:g}" for share in shares[:-1]]  # type: ignore[misc]
        names.append(lambda seed: seed.run.rejection)
        return [pooled([seed.judged(name(seed), number, **where) for seed in seeds]) for name in names]

    def chart(title: str, y_label: str, series: Mapping[str, list[Any]], beside: Sequence[str] = ()) -> Chart:
        greys = {f"paper, {name}": [paper.SAFETY_DATA[name].get(round(share)) for share in shares] for name in beside}
        labels = [f"{share:g}%" for share in shares]
        return point_chart(title, labels, series, "share of the safety data", y_label, connect=True, paper=greys)

    rewards = {"helpfulness reward": curve(*HELPFULNESS_REWARD), "safety reward": curve(*SAFETY_REWARD)}
    return [
        chart("Violations over safety data", "share of harmful prompts", {"here": curve(*VIOLATIONS)}),
        chart("Helpfulness over safety data", "oracle, 0 to 1", {"here": curve(*HELPFULNESS)}),
        chart("False refusals over safety data", "share of borderline prompts", {"here": curve(*REFUSALS)}, ["false refusals"]),
        chart("Mean reward over safety data", "mean reward", rewards, list(rewards)),
    ]


def multi_turn(seeds: Sequence[SeedRun]) -> Claim:
    """Other prompts stand on the two sides, so the difference is that of two means over prompts and all versions."""

    def violations(seed: SeedRun, several: bool) -> Values:
        rows = [row for version in seed.run.versions for row in seed.rows(f"{version}-evaluation")]
        return per_prompt((row for row in rows if row["task"] == "safety" and (row["turns"] > 1) == several), violates)

    groups = [[violations(seed, several) for seed in seeds] for several in (False, True)]
    both = [over_seeds(group) for group in groups]
    here = difference(*both)
    by_seed = [difference(*(mean(list(group[place].values())) for group in groups)) for place in range(len(seeds))]
    name = "violation rate on prompts of several turns minus single ones, mean of all versions"
    gap = paper.VIOLATION_70B["multi turn"] - paper.VIOLATION_70B["single turn"]
    effect = Effect(name, round(gap, 3), here if here["n"] else None, brief="single to several turns", said=arrow(*both))
    sentence = "Prompts of several turns draw more violations than single ones."
    return Claim(
        "Multi-turn safety", sentence, "2% to 8.5% of the 70B model, and worse for all models (figure 19, read off)", [Row(effect, by_seed)]
    )
