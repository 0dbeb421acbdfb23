"""`llamaherd claims`: for each seed the whole run and what the claims need beyond it, then the ledger."""

from collections.abc import Callable, Sequence
from pathlib import Path

from ...core.artifacts import MANIFEST, locked
from ...core.config import ConfigError, dump
from ...core.errors import UserError
from ...core.files import write_json
from ..chain import chain
from ..checks import problems
from ..config import RecipeConfig
from ..executor import Executor, Say
from ..forecast import work
from ..run import BESIDE_RESULTS, RECIPE, begun, run_recipe
from ..steps import Step
from .steps import claim_steps
from .variants import FOLDER


def run_claims(recipe: RecipeConfig, seeds: Sequence[int], out: Path, say: Say) -> None:
    """Brings the runs of all seeds, in `out`/seed-S, and their claims to an end from wherever they stand; writes and prints the ledger.

    Raises UserError when the recipe cannot work, or when a folder was begun with other settings or is being worked on.
    """
    from ...report.claims.ledger import build_ledger

    if found := problems(recipe):
        raise ConfigError(found)
    _demand_place(out)
    jobs: list[tuple[Callable[[RecipeConfig, Path, Say, Executor], None], RecipeConfig, Path, float]] = []
    for seed in seeds:
        own, run = recipe.model_copy(update={"seed": seed}), out / f"seed-{seed}"
        jobs.append((run_recipe, own, run, _left_s(chain(own, run), run, own)))
        jobs.append((_make, own, run, _left_s(claim_steps(own, run), run / FOLDER, own)))
    executor = Executor(recipe.workers, recipe.threads, say)
    with locked(out / "lock", str(out)):
        for place, (job, own, run, _) in enumerate(jobs, 1):
            executor.later_s = sum(left_s for *_, left_s in jobs[place:]) / recipe.workers
            job(own, run, say, executor)
        ledger = build_ledger([out / f"seed-{seed}" for seed in seeds], out)
    say("")
    say(ledger.text)
    say(f"ledger: {ledger.html}")


def _demand_place(out: Path) -> None:
    """Raises UserError when `out` is something else than a folder for claims."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is a file; --out takes a folder, new or of earlier claims")
    if out.is_dir() and any(not _ours(entry.name) for entry in out.iterdir()):
        raise UserError(f"{out} is not empty and holds no claims; choose another --out")


def _ours(name: str) -> bool:
    return name == "lock" or name.startswith("seed-") or name.lstrip(".").startswith("ledger.")


def _left_s(steps: Sequence[Step], folder: Path, recipe: RecipeConfig) -> float:
    """Expected seconds, on one core, of the steps that are not finished."""
    return sum(work(step, recipe) for step in steps if not (folder / step.name / MANIFEST).is_file())


def _make(recipe: RecipeConfig, run: Path, say: Say, executor: Executor) -> None:
    """Makes what the claims about a finished run need, in its folder `claims`."""
    folder, steps = run / FOLDER, claim_steps(recipe, run)
    if not begun(recipe, folder, BESIDE_RESULTS):
        write_json(folder / RECIPE, dump(recipe))
    say(f"{folder}: {len(steps)} artifacts for the claims")
    executor.work_through(steps, folder, {step.name: work(step, recipe) for step in steps})
