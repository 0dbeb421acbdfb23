"""Claims about safety tuning and evaluation (sections 9 and 11)."""

import re
from collections.abc import Callable, Sequence

from ...measures.intervals import difference, mean, over_seeds
from .. import paper
from ..effects import ORACLE_LOSS_ALLOWED, Effect
from ..figures import Chart, point_chart
from .parts import Claim, Number, Row, SeedRun, Values, by_id, compared, of_domain, pooled, refuses, score, violates


def distillation(seeds: Sequence[SeedRun]) -> Claim:
    """The version tuned on distilled answers against two that were not, or on whatever came out."""

    def against(arm: str) -> Callable[[SeedRun], tuple[str, str]]:
        return lambda seed: (arm, seed.run.rejection)

    none, unchosen = against("undistilled"), against("distilled-without-choice")
    rows = [
        compared("violation rate, with distilled answers minus without", seeds, "safety", violates, none, direction="below"),
        compared("helpfulness, with distilled answers minus without: not fallen", seeds, "helpfulness", score, none,
                 threshold=-ORACLE_LOSS_ALLOWED),
        compared("violation rate, answers chosen by the safety reward model minus all taken", seeds, "safety", violates, unchosen,
                 direction="below"),
        compared("helpfulness, answers chosen by the safety reward model minus all taken", seeds, "helpfulness", score, unchosen),
        compared("false refusals, answers chosen by the safety reward model minus all taken", seeds, "borderline", refuses, unchosen,
                 direction="below"),
    ]  # fmt: skip
    return Claim(
        "distillation", "Context distillation makes the tuned model safer, and choosing by the safety reward model keeps it helpful.",
        "figure 16, read off: median safety reward 0.75 before, 0.87 with a preprompt; no numbers for the tuned model", rows,
    )  # fmt: skip


def safety_data(seeds: Sequence[SeedRun]) -> Claim:
    """Figures 15 and 33. All of the safety data is the run's own last tuning."""

    def ends(seed: SeedRun) -> tuple[str, str]:
        return "safety-0", seed.run.rejection

    rows = [
        compared("violation rate, all safety data minus none", seeds, "safety", violates, ends, direction="below"),
        compared("mean safety reward, all safety data minus none", seeds, "rewards", of_domain("safety"), ends, paper=0.093),
        compared("helpfulness by the oracle, all safety data minus none: not fallen", seeds, "helpfulness", score, ends,
                 paper=-0.003, threshold=-ORACLE_LOSS_ALLOWED, note="paper: mean helpfulness reward, read off"),
        compared("false refusals on borderline prompts, all safety data minus none", seeds, "borderline", refuses, ends, paper=0.122),
    ]  # fmt: skip
    return Claim(
        "safety-data", "More safety data makes the model safer without making it less helpful, and lets it refuse more.",
        "figures 15 and 33, read off", rows, safety_charts(seeds),
    )  # fmt: skip


def safety_charts(seeds: Sequence[SeedRun]) -> list[Chart]:
    """What changes with the share of the safety data."""
    found = [re.fullmatch(r"safety-([\d.]+)", name) for name in seeds[0].claims.artifacts]
    shares = sorted({float(match[1]) for match in found if match})
    if not shares:
        return []
    arms: dict[float, Callable[[SeedRun], str]] = {share: lambda seed, share=share: f"safety-{share:g}" for share in shares}  # type: ignore[misc]
    arms[100.0] = lambda seed: seed.run.rejection
    labels = [f"{share:g}%" for share in arms]
    greys = {name: [values.get(round(share)) for share in arms] for name, values in paper.SAFETY_DATA.items()}

    def chart(title: str, y_label: str, task: str, numbers: dict[str, Number], grey: Sequence[str] = ()) -> Chart:
        series = {
            name: [pooled(seeds, lambda seed, arm=arm, number=number: seed.judged(arm(seed), task, number)) for arm in arms.values()]  # type: ignore[misc]
            for name, number in numbers.items()
        }
        beside = {f"paper, {name}": greys[name] for name in grey}
        return point_chart(title, labels, series, "share of the safety data", y_label, connect=True, paper=beside)

    return [
        chart("Violations over safety data", "violation rate", "safety", {"here": violates}),
        chart("Helpfulness over safety data", "oracle, 0 to 1", "helpfulness", {"here": score}),
        chart("False refusals over safety data", "share of borderline prompts", "borderline", {"here": refuses}, ["false refusals"]),
        chart("Mean reward over safety data", "mean reward", "rewards",
              {f"{domain} reward": of_domain(domain) for domain in ("helpfulness", "safety")}, ["helpfulness reward", "safety reward"]),
    ]  # fmt: skip


def multi_turn(seeds: Sequence[SeedRun]) -> Claim:
    """Other prompts stand on the two sides, so the difference is that of two means over prompts and all versions."""

    def violations(seed: SeedRun, several: bool) -> Values:
        rows = [row for version in seed.run.versions for row in seed.rows(f"{version}-evaluation") if row["task"] == "safety"]
        return by_id((row["id"], violates(row)) for row in rows if (row["turns"] > 1) == several)

    groups = [[violations(seed, several) for seed in seeds] for several in (False, True)]
    here = difference(*(over_seeds(group) for group in groups))
    by_seed = [difference(*(mean(list(group[place].values())) for group in groups)) for place in range(len(seeds))]
    name = "violation rate on prompts of several turns minus single ones, mean of all versions"
    gap = paper.VIOLATION_70B["multi turn"] - paper.VIOLATION_70B["single turn"]
    return Claim(
        "multi-turn", "Prompts of several turns draw more violations than single ones.", "figure 19, read off: worse for all models",
        [Row(Effect(name, round(gap, 3), here if here["n"] else None), by_seed)],
    )  # fmt: skip
