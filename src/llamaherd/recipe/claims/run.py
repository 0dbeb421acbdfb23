"""`llamaherd claims`: for each seed the run and what the claims need beyond it, then the ledger."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from ...core.artifacts import MANIFEST, locked
from ...core.config import ConfigError, dump
from ...core.errors import UserError, did_you_mean
from ...core.files import write_json
from ..chain import chain
from ..checks import problems
from ..config import MiniatureRecipe, RecipeConfig
from ..executor import Executor, Say
from ..forecast import work
from ..run import BESIDE_RESULTS, OF_NO_RUN, RECIPE, begun, run_recipe
from ..steps import Step
from .steps import CLAIMS, claim_steps, run_steps
from .variants import FOLDER


def run_claims(recipe: RecipeConfig, seeds: Sequence[int], out: Path, say: Say, only: Sequence[str] = ()) -> None:
    """Brings the runs of all seeds, in `out`/seed-S, and their claims to an end from wherever they stand; writes and prints the ledger.

    `only`: ids of the claims that are wanted, with what they need of the runs and nothing else; empty: all. Raises UserError when the
    recipe cannot work, for an id that no claim has, or when a folder was begun with other settings or is being worked on.
    """
    from ...report.claims.ledger import build_ledger

    if unknown := next((name for name in only if name not in CLAIMS), None):
        raise UserError(f"no claim {unknown!r}{did_you_mean(unknown, CLAIMS)}; there are {', '.join(CLAIMS)}")
    if not isinstance(recipe, MiniatureRecipe):
        raise UserError(
            "claims are held against a recipe of the miniature, whose oracle knows what is true; this one's kind is public: `run` it"
        )
    if found := problems(recipe):
        raise ConfigError(found)
    _demand_place(out)
    jobs: list[tuple[Callable[[MiniatureRecipe, Path, Say, Executor], None], MiniatureRecipe, Path, float]] = []
    for seed in seeds:
        own, run = recipe.model_copy(update={"seed": seed}), out / f"seed-{seed}"
        needed, arms = run_steps(own, run, only), claim_steps(own, run, only)
        whole = len(needed) == len(chain(own, run))
        jobs.append((run_recipe if whole else partial(_make_part, needed), own, run, _left_s(needed, run, own)))
        jobs.append((partial(_make, arms), own, run, _left_s(arms, run / FOLDER, own)))
    executor = Executor(recipe.workers, recipe.threads, say)
    with locked(out / "lock", str(out)):
        for place, (job, own, run, _) in enumerate(jobs, 1):
            executor.later_s = sum(left_s for *_, left_s in jobs[place:]) / recipe.workers
            job(own, run, say, executor)
        ledger = build_ledger([out / f"seed-{seed}" for seed in seeds], out, only)
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


def _left_s(steps: Sequence[Step], folder: Path, recipe: MiniatureRecipe) -> float:
    """Expected seconds, on one core, of the steps that are not finished."""
    return sum(work(step, recipe) for step in steps if not (folder / step.name / MANIFEST).is_file())


def _make_part(steps: Sequence[Step], recipe: MiniatureRecipe, run: Path, say: Say, executor: Executor) -> None:
    """Makes the steps of a run that the wanted claims need; `llamaherd run` and other claims go on from there."""
    with locked(run / "lock", str(run)):
        if not begun(recipe, run, OF_NO_RUN):
            write_json(run / RECIPE, dump(recipe))
        say(f"{run}: {len(steps)} artifacts of the run, which the claims need")
        executor.work_through(list(steps), run, {step.name: work(step, recipe) for step in steps})


def _make(steps: Sequence[Step], recipe: MiniatureRecipe, run: Path, say: Say, executor: Executor) -> None:
    """Makes what the claims about a run need beyond it, in its folder `claims`."""
    if not steps:
        return
    folder = run / FOLDER
    if not begun(recipe, folder, BESIDE_RESULTS):
        write_json(folder / RECIPE, dump(recipe))
    say(f"{folder}: {len(steps)} artifacts for the claims")
    executor.work_through(list(steps), folder, {step.name: work(step, recipe) for step in steps})
