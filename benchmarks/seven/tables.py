"""What was measured, as tables for the page."""

import json
from collections.abc import Mapping
from typing import Any

import torch

from ..pages import markdown
from .bench import MANY, Bench
from .inputs import SEVEN
from .recipes import RECIPES


def measured_table(found: Mapping[str, Mapping[str, Any]]) -> str:
    rows = []
    for name, row in found.items():
        plan = f"{row['planned_bytes'] / 1e6:,.0f}" if row["planned_bytes"] else ""
        unit = "steps" if RECIPES[name].trains else "chunks"
        cells = [row["moved"], f"{row['killed_after']} {unit}, same bytes", row["exported"], f"{row['peak_bytes'] / 1e6:,.0f}", plan]
        rows.append([f"`{name}`", *cells, f"{row['seconds']:.0f}"])
    return markdown(["recipe", "loss, first to last", "killed after, and given again", "export", "peak, MB", "planned, MB", "s"], rows)


def overrides_table(found: Mapping[str, Mapping[str, Any]]) -> str:
    return markdown(["recipe", "what is cut"], [[f"`{name}`", f"`{' '.join(row['overrides'])}`"] for name, row in found.items()])


CARDS = (24, 80, 141)
FULL: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("llama2-7b-sft", "sft", ()),
    ("llama2-7b-sft", "sft", ("--optimizer.kind=adamw-8bit",)),
    ("llama2-7b-qlora", "qlora", ()),
    ("llama2-7b-helpfulness", "reward", ()),
    ("llama2-7b-helpfulness", "reward", ("--base.bits=4",)),
    ("llama2-7b-safety", "reward", ()),
    ("llama2-7b-ppo", "ppo", ("--context=512",)),
    ("llama2-7b-ppo", "ppo", ("--context=512", "--roles.bits=4")),
)


def full_table(bench: Bench) -> str:
    """What `llamaherd plan` says of the recipes at the 7B's own shape, on one card of each size."""
    asked = [
        ["plan", task, "llama2-7b", "--config", name, *more, "--device=cuda", f"--memory={card}GB", "--json", "--no-measure"]
        for name, task, more in FULL for card in CARDS
    ]  # fmt: skip
    answers = iter(json.loads(line) for line in bench.process(MANY, given=json.dumps(asked)).splitlines())
    rows = []
    for name, _, more in FULL:
        cells = [next(answers) for _ in CARDS]
        fits = ["fits" if cell["fits"] else f"`{cell['advice'][0]['change']}`" for cell in cells]
        rows.append([f"`{' '.join((name, *more))}`", f"{cells[0]['total_bytes'] / 1e9:.1f}", *fits])
    return markdown(["recipe", "needs, GB", *(f"{card} GB" for card in CARDS)], rows)


def tables(bench: Bench, found: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    where = "one thread of a CPU" if bench.device == "cpu" else torch.cuda.get_device_name()
    head = (
        f"Width {bench.shape.dim} in place of {SEVEN.dim}, {bench.shape.layers} layers, {bench.shape.vocab_size:,} pieces, "
        f"{bench.shape.parameters:,} random weights, {where}.\n\n"
    )
    return {"seven": head + measured_table(found) + "\n" + overrides_table(found), "seven-plan": full_table(bench)}
