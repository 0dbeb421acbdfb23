"""The ledger: every claim with the paper's figure, ours, and whether it shows. Nothing is left out for not showing."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...core.artifacts import code_version
from ...core.errors import UserError
from ...core.files import write_json, write_text
from ...core.progress import clock
from ...measures.intervals import averaged, nothing
from ..effects import TITLES, VERDICTS, Effect, measure_effects, together
from ..figures import Table, figure_text, number
from ..glance import verdict_table
from ..page import render
from ..sections import Fact, Section, chip, lines
from . import rewards, safety, sampling, tuning
from .parts import Claim, Measure, Row, SeedRun, pooled

CLAIMS: dict[str, Measure] = {
    "joint-reward-model": rewards.joint_reward, "hot-ppo": tuning.hot_ppo, "distillation": safety.distillation,
    "safety-data": safety.safety_data, "margins": rewards.margins, "auxiliary-loss": rewards.auxiliary_loss,
    "reward-scaling": rewards.reward_scaling, "pool-of-all-versions": tuning.pool, "fresh-preferences": rewards.fresh_preferences,
    "multi-turn-safety": safety.multi_turn, "diversity": sampling.diversity, "best-temperature": sampling.best_temperature,
    "grouped-queries": tuning.grouped_queries, "few-good-examples": tuning.few_good_examples, "ghost-attention": tuning.ghost_attention,
}  # fmt: skip
"""What measures each claim, by its id."""
HOW = (
    "Figures are paired by prompt within a seed, averaged over the seeds and bootstrapped over prompts; a prompt that several "
    "seeds were asked counts once."
)


@dataclass(frozen=True)
class Ledger:
    """The two files and the ledger as a text table."""

    json: Path
    html: Path
    text: str


def build_ledger(runs: Sequence[Path], out: Path, only: Sequence[str] = ()) -> Ledger:
    """Writes ledger.json and ledger.html into `out` from the folders of finished runs. `only`: ids of the claims that stand in it, without
    what each run shows by itself; empty: everything. Raises UserError when there is no run."""
    if not runs:
        raise UserError("no run given; a ledger needs at least one seed")
    seeds = [SeedRun(run) for run in runs]
    own = [] if only else run_effects(seeds)
    claims = [measure(seeds) for name, measure in CLAIMS.items() if not only or name in only]
    ledger = Ledger(out / "ledger.json", out / "ledger.html", as_table([*own, *claims]))
    write_json(ledger.json, {"seeds": [seed.run.seed for seed in seeds], "claims": [_to_json(claim) for claim in (*own, *claims)]})
    names = f"seed{'s' * (len(seeds) > 1)} {', '.join(str(seed.run.seed) for seed in seeds)}"
    subtitle = f"The claims of the Llama 2 paper, held against runs of llamaherd {code_version()}, {names}."
    sections = [_overview(seeds, own, claims), *(_section(claim, names) for claim in claims)]
    if own:
        sections.append(Section("What each run shows by itself", tables=[_in_full("Effects in full", own, names)]))
    write_text(ledger.html, render("llamaherd: the ledger", subtitle, sections))
    return ledger


def run_effects(seeds: Sequence[SeedRun]) -> list[Claim]:
    """What every run measures of itself, pooled over the seeds: one claim for each of the eight effects."""
    measured: dict[str, list[Effect]] = {}
    for seed in seeds:
        for effect in measure_effects(seed.run):
            measured.setdefault(effect.name, []).append(effect)
    rows: dict[str, Row] = {}
    for name, effects in measured.items():
        figures = [effect.here or nothing() for effect in effects]
        # Where there is no number for each prompt, the seeds had different ones: their figures are independent.
        here = pooled([effect.values for effect in effects]) or averaged(figures)
        needs = rows[effects[0].needs.name].effect if effects[0].needs else None
        said = ", ".join(effect.said for effect in effects)
        rows[name] = Row(replace(effects[0], here=here if here["n"] else None, needs=needs, said=said), figures)
    claims = []
    for one, title in enumerate(TITLES, 1):
        parts = [row for row in rows.values() if row.effect.number == one]
        known = dict.fromkeys(row.effect.paper_said for row in parts if row.effect.paper_said)
        claims.append(Claim(f"Effect {one}", f"{title}.", "; ".join(known) or "not printed", parts))
    return claims


def _to_json(claim: Claim) -> dict[str, Any]:
    rows = [{**row.effect.to_row(), "by_seed": list(row.by_seed)} for row in claim.rows]
    return {"id": claim.id, "claim": claim.sentence, "paper": claim.paper, "shown": together(claim.effects), "rows": rows}


def _printed(effect: Effect) -> str:
    return "not printed" if effect.paper is None else number(effect.paper)


def as_table(claims: Sequence[Claim]) -> str:
    """The ledger for a terminal: under each claim its figures, the verdict first."""
    groups = [
        [(row.effect.shown, figure_text(row.effect.here), _printed(row.effect), row.effect.brief) for row in claim.rows] for claim in claims
    ]
    heading = ("verdict", "here", "paper", "figure (differences, with 95% intervals)")
    widths = [max(len(cells[place]) for cells in (heading, *(cells for group in groups for cells in group))) for place in range(3)]

    def line(cells: Sequence[str]) -> str:
        return "  ".join(["", *(cell.ljust(width) for cell, width in zip(cells, widths)), cells[3]])

    found = [line(heading)]
    for claim, group in zip(claims, groups, strict=True):
        found += ["", f"{claim.id}: {claim.sentence}", *map(line, group)]
    return "\n".join(found)


def _overview(seeds: Sequence[SeedRun], own: Sequence[Claim], claims: Sequence[Claim]) -> Section:
    """Every claim in a line."""

    def table(caption: str, listed: Sequence[Claim]) -> Table:
        return verdict_table(caption, "claim", [(claim.sentence, claim.effects, claim.paper) for claim in listed])

    verdicts = [together(claim.effects) for claim in (*own, *claims)]
    facts = [Fact(one.capitalize(), str(verdicts.count(one)), f"of {len(verdicts)} claims") for one in ("shown", "undecided", "not shown")]
    worked = [sum(folder.seconds for folder in {id(folder): folder for folder in (seed.run, seed.claims)}.values()) for seed in seeds]
    facts.append(Fact("Time", clock(sum(worked)), f"{len(seeds)} run{'s' * (len(seeds) > 1)} and what the claims need beyond"))
    tables = [
        table(caption, some) for caption, some in (("What each run shows by itself", own), ("What takes more than a run", claims)) if some
    ]
    return Section("Ledger", [VERDICTS, "A claim of several figures is shown if all of them are.", HOW], facts=facts, tables=tables)


def _section(claim: Claim, seeds: str) -> Section:
    table = _in_full(f"{claim.title} in full", [claim], seeds)
    return Section(claim.title, [claim.sentence, f"The paper: {claim.paper}."], claim.charts, [table])


def _in_full(caption: str, claims: Sequence[Claim], seeds: str) -> Table:
    """Every figure of some claims; `seeds` heads the column of each seed's own."""
    columns = ("figure", "here, with 95% interval", seeds, "paper", "shown if", "verdict", "note")
    rows = [
        (row.effect.name, figure_text(row.effect.here, with_n=True), lines(*map(figure_text, row.by_seed)), _printed(row.effect),
         row.effect.wanted, chip(row.effect.shown), row.effect.note)
        for claim in claims for row in claim.rows
    ]  # fmt: skip
    return Table(caption, columns, rows)
