"""Claims about temperature: what RLHF does to diversity, and where sampling is best (sections 6 and 12)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...measures.intervals import difference, mean, nothing, over_seeds
from .. import paper
from ..effects import Effect
from ..figures import Chart, point_chart
from ..folder import FIRST
from .parts import Claim, Number, Row, SeedRun, Values, by_id, less, pooled, row

SORTS = ("factual", "creative")


def _at(seed: SeedRun, version: str, temperature: float, read: Number, sorts: Sequence[str] = SORTS) -> Values:
    rows = seed.rows(f"{version}-temperatures")
    return by_id((found["id"], read(found)) for found in rows if found["temperature"] == temperature and found["sort"] in sorts)


def _temperatures(seeds: Sequence[SeedRun]) -> list[float]:
    return sorted({found["temperature"] for seed in seeds for found in seed.rows(f"{FIRST}-temperatures")})


def _versions(seed: SeedRun) -> list[str]:
    return [version for version in seed.run.versions if seed.rows(f"{version}-temperatures")]


def _self_bleu(row: Mapping[str, Any]) -> float:
    return float(row["self_bleu"])


def _best_of_all(row: Mapping[str, Any]) -> float:
    return float(max(row["best_of"].values()))


def _curves(
    title: str, seeds: Sequence[SeedRun], read: Number, sorts: Sequence[str], y_label: str, grey: dict[str, float] | None = None
) -> Chart:
    """One line per version over temperature."""
    temperatures = _temperatures(seeds)
    series = {
        version: [pooled(seeds, lambda seed, at=at, version=version: _at(seed, version, at, read, sorts)) for at in temperatures]  # type: ignore[misc]
        for version in _versions(seeds[0])
    }
    beside = {f"paper, {name}": [value if at == 1.4 else None for at in temperatures] for name, value in (grey or {}).items()}
    labels = [f"{at:g}" for at in temperatures]
    return point_chart(title, labels, series, "temperature", y_label, connect=True, paper=beside if 1.4 in temperatures else {})


def diversity(seeds: Sequence[SeedRun]) -> Claim:
    """Figure 21, at the highest temperature."""
    temperatures = _temperatures(seeds)
    if not temperatures:
        return _diversity([], [])
    hottest = temperatures[-1]

    def rise(*sorts: str) -> Callable[[SeedRun], Values]:
        return lambda seed: less(*(_at(seed, version, hottest, _self_bleu, sorts) for version in (FIRST, seed.run.last)))

    printed = {sort: round(values["v3"] - values["v0"], 3) for sort, values in paper.SELF_BLEU_AT_1_4.items()}
    note = "paper: V3 minus SFT at temperature 1.4, read off"
    rows = [
        row(f"Self-BLEU of {sort} answers at temperature {hottest:g}, last version minus {FIRST}", seeds, rise(sort), paper=printed[sort], note=note)
        for sort in SORTS
    ]  # fmt: skip
    # Other prompts stand on the two sides: a difference of two means.
    sides = [[rise(sort)(seed) for seed in seeds] for sort in ("creative", "factual")]
    here = difference(*(over_seeds(side) for side in sides))
    by_seed = [difference(*(mean(list(side[place].values())) for side in sides)) for place in range(len(seeds))]
    name = f"rise of Self-BLEU at temperature {hottest:g}, factual minus creative answers"
    gap = round(printed["factual"] - printed["creative"], 3)
    rows.append(Row(Effect(name, gap, here if here["n"] else None, note=note), by_seed))
    charts = [
        _curves(f"Self-BLEU of {sort} answers", seeds, _self_bleu, [sort], "Self-BLEU", paper.SELF_BLEU_AT_1_4[sort]) for sort in SORTS
    ]
    return _diversity(rows, charts)


def _diversity(rows: Sequence[Row], charts: Sequence[Chart]) -> Claim:
    return Claim(
        "diversity", "RLHF removes diversity from factual answers and keeps more of it in creative ones.",
        "figure 21, read off at temperature 1.4", rows, charts,
    )  # fmt: skip


def best_temperature(seeds: Sequence[SeedRun]) -> Claim:
    """Figure 8: with many samples the best temperature moves up with RLHF."""
    temperatures, rows, charts = _temperatures(seeds), list[Row](), list[Chart]()
    if temperatures:
        low, high = temperatures[0], temperatures[-1]

        def gain(seed: SeedRun, version: str) -> Values:
            return less(*(_at(seed, version, at, _best_of_all) for at in (low, high)))

        best = {version: _best(seeds, version) for version in _versions(seeds[0])}
        note = "best temperature: " + ", ".join(f"{version} {at:g}" for version, at in best.items())
        name = f"reward of the best of all samples, temperature {high:g} minus {low:g}: last version's minus {FIRST}'s"
        rows = [row(name, seeds, lambda seed: less(gain(seed, FIRST), gain(seed, seed.run.last)), note=note)]
        charts = [_curves("Reward of the best of all samples over temperature", seeds, _best_of_all, SORTS, "reward")]
    return Claim(
        "best-temperature", "The temperature at which the best of many samples is best moves up with RLHF.",
        "figure 8: 1.2 to 1.3 for the RLHF model with 10 to 100 samples", rows, charts,
    )  # fmt: skip


def _best(seeds: Sequence[SeedRun], version: str) -> float:
    """Where the pooled curve is highest, the lowest of equals."""

    def height(at: float) -> float:
        return (pooled(seeds, lambda seed: _at(seed, version, at, _best_of_all)) or nothing())["value"] or 0.0

    return max(_temperatures(seeds), key=height)
