"""The ledger: every claim with the paper's figure, ours, and whether it shows. Nothing is left out for not showing."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...core.artifacts import code_version
from ...core.errors import UserError
from ...core.files import write_json, write_text
from ...measures.intervals import averaged, nothing
from ..effects import VERDICTS, Effect, measure_effects
from ..figures import Table, figure_text, number
from ..page import render
from ..sections import Section
from . import rewards, safety, sampling, tuning
from .parts import Claim, Measure, Row, SeedRun

CLAIMS: tuple[Measure, ...] = (
    rewards.joint_reward, tuning.hot_ppo, safety.distillation, safety.safety_data, rewards.margins, rewards.auxiliary_loss,
    rewards.reward_scaling, tuning.pool, rewards.fresh_preferences, safety.multi_turn, sampling.diversity,
    sampling.best_temperature, tuning.attention, tuning.few_good_examples, tuning.ghost_attention,
)  # fmt: skip


@dataclass(frozen=True)
class Ledger:
    """The two files and the ledger as a text table."""

    json: Path
    html: Path
    text: str


def build_ledger(runs: Sequence[Path], out: Path) -> Ledger:
    """Writes ledger.json and ledger.html into `out` from the folders of finished runs. Raises UserError when there is none."""
    if not runs:
        raise UserError("no run given; a ledger needs at least one seed")
    seeds = [SeedRun(run) for run in runs]
    claims = [run_effects(seeds), *(measure(seeds) for measure in CLAIMS)]
    ledger = Ledger(out / "ledger.json", out / "ledger.html", as_table(claims))
    write_json(ledger.json, {"seeds": [seed.run.seed for seed in seeds], "claims": [_to_json(claim) for claim in claims]})
    names = ", ".join(str(seed.run.seed) for seed in seeds)
    subtitle = f"The claims of the Llama 2 paper, held against runs of llamaherd {code_version()} with the seeds {names}."
    write_text(ledger.html, render("llamaherd: the ledger", subtitle, [_overview(claims), *map(_section, claims)]))
    return ledger


def run_effects(seeds: Sequence[SeedRun]) -> Claim:
    """What every run measures of itself, pooled over the seeds."""
    measured: dict[str, list[Effect]] = {}
    for seed in seeds:
        for effect in measure_effects(seed.run):
            measured.setdefault(effect.name, []).append(effect)
    rows: dict[str, Row] = {}
    for name, effects in measured.items():
        figures = [effect.here or nothing() for effect in effects]
        here, needs = averaged(figures), effects[0].needs
        pooled = replace(effects[0], here=here if here["n"] else None, needs=rows[needs.name].effect if needs else None)
        rows[name] = Row(pooled, figures)
    return Claim("run", "What each run shows of the paper by itself.", "see each row", list(rows.values()))


def _to_json(claim: Claim) -> dict[str, Any]:
    rows = [{**row.effect.to_row(), "by_seed": list(row.by_seed)} for row in claim.rows]
    return {"id": claim.id, "claim": claim.sentence, "paper": claim.paper, "rows": rows}


def _cells(row: Row) -> tuple[str, str, str]:
    """The paper's figure, ours, the verdict."""
    paper = row.effect.paper
    return "not printed" if paper is None else number(paper), figure_text(row.effect.here), row.effect.shown


def as_table(claims: Sequence[Claim]) -> str:
    """The ledger for a terminal: under each claim its figures, in columns."""
    rows = [[(row.effect.name, *_cells(row)) for row in claim.rows] for claim in claims]
    every = [("figure", "paper", "here, with 95% interval", "verdict"), *(cells for group in rows for cells in group)]
    widths = [max(len(cells[place]) for cells in every) for place in range(4)]

    def line(cells: Sequence[str]) -> str:
        return "  " + "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()

    lines = [line(every[0])]
    for claim, group in zip(claims, rows, strict=True):
        lines += ["", f"{claim.id}: {claim.sentence}", *map(line, group)]
    return "\n".join(lines)


def _overview(claims: Sequence[Claim]) -> Section:
    rows = [(claim.id, row.effect.name, *_cells(row)) for claim in claims for row in claim.rows]
    return Section(
        "Ledger", [VERDICTS], tables=[Table("All claims", ("claim", "figure", "paper", "here, with 95% interval", "verdict"), rows)]
    )


def _section(claim: Claim) -> Section:
    columns = ("figure", "paper", "here, with 95% interval", "shown if", "verdict", "by seed", "note")
    rows = []
    for row in claim.rows:
        paper, here, shown = _cells(row)
        seeds = "; ".join(figure_text(figure) for figure in row.by_seed)
        rows.append((row.effect.name, paper, here, row.effect.wanted, shown, seeds, row.effect.note))
    intro = [claim.sentence, f"The paper: {claim.paper}."]
    return Section(claim.id.replace("-", " ").capitalize(), intro, claim.charts, [Table(claim.sentence, columns, rows)])
