"""Any training: numbers that are none, a handful of steps, and a loss that rose."""

from collections.abc import Iterator

from ..core.artifacts import METRICS
from ..measures.intervals import FEWEST, difference, mean
from .config import Thresholds
from .finding import Check, Finding, gap, low
from .patient import Patient, series

NAN = Check(
    "nan", "figures of its training are not numbers",
    "look at the first of these steps: a reward or a loss without a value there means rows that cannot be scored, or a learning rate too high",
)  # fmt: skip
FEW = Check(
    "few-steps", "it was hardly trained",
    "give smaller batches (batch_rows, row_tokens, batch_pairs) or more epochs: the defaults are the paper's, made for large data and models",
)  # fmt: skip
ROSE = Check(
    "loss-rose", "its loss rose", "lower the learning rate or lengthen the warm-up, and look for rows of another kind late in the data"
)

THIRDS = 3
FEWEST_STEPS = 10
"""Small data in batches made for large ones are a step or two, which change nothing."""


def look(patient: Patient, limits: Thresholds) -> Iterator[Finding]:
    """Every artifact with a log of steps."""
    for name, artifact in patient.artifacts.items():
        rows = patient.log(artifact)
        if not rows:
            if artifact.kind in ("model", "reward-model", "adapter"):
                yield NAN.absent(name, f"no {METRICS}")
            continue
        empty = {key: row["step"] for row in reversed(rows) for key, value in row.items() if value is None}
        said = ", ".join(f"{key} (first at step {step})" for key, step in sorted(empty.items())) or "none"
        yield NAN.found(name, bool(empty), f"not a number: {said}, in {len(rows):,} steps", "none", first_steps=empty)
        if artifact.manifest.get("stage") == "ppo":  # whose loss is no measure of anything: its target moves
            continue
        losses = series(rows, "loss")
        yield FEW.found(name, len(losses) < FEWEST_STEPS, f"{len(losses):,} steps", f"at least {FEWEST_STEPS}", steps=len(losses))
        part = len(losses) // THIRDS
        if part < FEWEST:
            yield ROSE.absent(name, f"{len(losses)} steps; at least {THIRDS * FEWEST} show a trend")
            continue
        rise = difference(mean(losses[:part]), mean(losses[-part:]))
        yield ROSE.found(
            name, low(rise) > 0, f"from its first to its last third the loss changes by {gap(rise)} nats", "no rise with its whole interval above 0",
            rise=rise,
        )  # fmt: skip
