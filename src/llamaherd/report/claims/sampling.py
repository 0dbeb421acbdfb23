"""Claims about temperature: what RLHF does to diversity, and where sampling is best (sections 6 and 12)."""

from collections.abc import Mapping, Sequence
from typing import Any

from ...measures.intervals import Figure, difference, mean, of_means_over_seeds, over_seeds
from .. import paper
from ..effects import Effect, arrow, differences
from ..figures import Chart, figure_text, point_chart
from ..folder import FIRST, per_prompt
from .parts import Claim, Number, Row, SeedRun, Values, paired_row, pooled

SORTS = ("factual", "creative")


def _self_bleu(row: Mapping[str, Any]) -> float:
    return float(row["self_bleu"])


def _best_of_all(row: Mapping[str, Any]) -> float:
    return float(max(row["best_of"].values()))


def _at(seed: SeedRun, version: str, temperature: float, number: Number, **where: str) -> Values:
    return per_prompt(seed.rows(f"{version}-temperatures"), number, temperature=temperature, **where)


def _temperatures(seeds: Sequence[SeedRun]) -> list[float]:
    return sorted({row["temperature"] for seed in seeds for row in seed.rows(f"{FIRST}-temperatures")})


def _versions(seeds: Sequence[SeedRun]) -> list[str]:
    return [version for version in seeds[0].run.versions if seeds[0].rows(f"{version}-temperatures")]


def _curves(
    title: str, seeds: Sequence[SeedRun], number: Number, y_label: str, grey: Mapping[str, float] | None = None, **where: str
) -> Chart:
    """One line per version over temperature."""
    temperatures = _temperatures(seeds)
    series = {
        version: [pooled([_at(seed, version, at, number, **where) for seed in seeds]) for at in temperatures]
        for version in _versions(seeds)
    }
    beside = {f"paper, {name}": [value if at == 1.4 else None for at in temperatures] for name, value in (grey or {}).items()}
    labels = [f"{at:g}" for at in temperatures]
    return point_chart(title, labels, series, "temperature", y_label, connect=True, paper=beside if 1.4 in temperatures else {})


def diversity(seeds: Sequence[SeedRun]) -> Claim:
    """Figure 21: each prompt's mean over all temperatures."""
    rows, charts = list[Row](), list[Chart]()
    if _temperatures(seeds):
        ends = {
            sort: [
                tuple(per_prompt(seed.rows(f"{version}-temperatures"), _self_bleu, sort=sort) for version in (FIRST, seed.run.last))
                for seed in seeds
            ]
            for sort in SORTS
        }
        printed = {sort: round(values["v3"] - values["v0"], 3) for sort, values in paper.SELF_BLEU_AT_1_4.items()}
        note = "paper: SFT to V3 at temperature 1.4, read off"
        rows = [
            paired_row(f"Self-BLEU of {sort} answers, mean over temperatures, last version minus {FIRST}", f"{sort} answers", ends[sort],  # type: ignore[arg-type]
                       paper=printed[sort], note=note)
            for sort in SORTS
        ]  # fmt: skip
        # Other prompts stand on the two sides: a difference of two means.
        rises = {sort: [differences(*both) for both in ends[sort]] for sort in SORTS}
        here = difference(over_seeds(rises["creative"]), over_seeds(rises["factual"]))
        by_seed = [difference(mean(list(b.values())), mean(list(a.values()))) for a, b in zip(*rises.values(), strict=True)]
        name = "rise of Self-BLEU, mean over temperatures, factual minus creative answers"
        gap = round(printed["factual"] - printed["creative"], 3)
        rows.append(Row(Effect(name, gap, here if here["n"] else None, note=note, brief="rise of factual over creative ones"), by_seed))
        charts = [
            _curves(f"Self-BLEU of {sort} answers", seeds, _self_bleu, "Self-BLEU", paper.SELF_BLEU_AT_1_4[sort], sort=sort)
            for sort in SORTS
        ]
    return Claim(
        "Diversity", "RLHF removes diversity from factual answers and keeps more of it in creative ones.",
        "Self-BLEU 0.77 to 0.93 factual, 0.755 to 0.85 creative, SFT to V3 at temperature 1.4 (figure 21, read off)", rows, charts,
    )  # fmt: skip


def best_temperature(seeds: Sequence[SeedRun]) -> Claim:
    """Figure 8: with many samples the best temperature moves up with RLHF."""
    rows, charts = list[Row](), list[Chart]()
    if temperatures := _temperatures(seeds):
        last = seeds[0].run.last

        def best(version: str) -> Figure:
            found = [_over_temperatures(seed, (version,), temperatures) for seed in seeds]
            return of_means_over_seeds(found, lambda means: temperatures[int(means.argmax())])

        def moved(means: Any) -> float:
            before, after = means[: len(temperatures)], means[len(temperatures) :]
            return temperatures[int(after.argmax())] - temperatures[int(before.argmax())]

        both = [_over_temperatures(seed, (FIRST, last), temperatures) for seed in seeds]
        here = of_means_over_seeds(both, moved)
        note = "best: " + ", ".join(f"{version} {figure_text(best(version))}" for version in _versions(seeds))
        effect = Effect(
            f"temperature at which the best of all samples earns most, last version minus {FIRST}", None, here if here["n"] else None,
            note=note, brief=f"best temperature, {FIRST} to {last}", said=arrow(best(FIRST), best(last)),
        )  # fmt: skip
        rows = [Row(effect, [of_means_over_seeds([values], moved) for values in both])]
        charts = [_curves("Reward of the best of all samples over temperature", seeds, _best_of_all, "reward")]
    return Claim(
        "Best temperature", "The temperature at which the best of many samples is best moves up with RLHF.",
        "1.2 to 1.3 for the RLHF model with 10 to 100 samples (figure 8)", rows, charts,
    )  # fmt: skip


def _over_temperatures(seed: SeedRun, versions: Sequence[str], temperatures: Sequence[float]) -> dict[str, list[float]]:
    """For each prompt the reward of the best of all samples, by version and temperature."""
    curves = [_at(seed, version, at, _best_of_all) for version in versions for at in temperatures]
    return {prompt: [curve[prompt] for curve in curves] for prompt in curves[0] if all(prompt in curve for curve in curves)}
