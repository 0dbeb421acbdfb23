"""What is left to do in a folder, and the command that does it: of a recipe's run, of an interrupted build, or after a single artifact."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.artifacts import MANIFEST, find_artifact
from ..core.errors import UserError
from ..core.files import read_json
from .chain import chain
from .config import recipe_of
from .run import RECIPE, is_finished

AFTER = {
    "pretrain": "llamaherd sft --model {here} --data DIALOGUES --out CHAT",
    "sft": "llamaherd reward --model {here} --data PREFERENCES --domain helpfulness --out HELPFULNESS",
    "collect": "llamaherd reward --model CHAT --data {here} --domain helpfulness --out HELPFULNESS",
    "reward": "llamaherd reject --model CHAT --{domain} {here} --{other} OTHER_REWARD_MODEL --prompts PROMPTS --out SAMPLES",
    "reject": "llamaherd sft --model BASE --data '[DEMONSTRATIONS,{here}]' --out NEXT_CHAT",
    "ghost": "llamaherd sft --model BASE --data '[DEMONSTRATIONS,{here}]' --out NEXT_CHAT",
    "distill": "llamaherd sft --model BASE --data '[DEMONSTRATIONS,{here}]' --out NEXT_CHAT",
    "ppo": "llamaherd chat {here}",
    "merge": "llamaherd chat {here}",
}
"""What a stage's artifact is for in the paper's order; words in capitals are the reader's own."""


@dataclass(frozen=True)
class Rest:
    """`command`: what goes on from here; `why`: how far it has come."""

    command: str
    why: str


def rest_of(folder: Path) -> Rest | None:
    """What comes next in a folder; None where a recipe has come to its end, or nothing is known."""
    artifact = find_artifact(folder)
    if artifact is not None:
        return _after(folder, artifact.manifest)
    begun = sorted(folder.glob("*.partial/begun.json"))
    if (folder / RECIPE).is_file():
        # What the claims need beyond a run lies in a folder within it, with a recipe of its own and other steps.
        return None if (folder.resolve().parent / RECIPE).is_file() else _of_run(folder)
    if begun:
        stage, out = read_json(begun[0]).get("stage"), shlex.quote(str(begun[0].parent.with_suffix("")))
        return Rest(
            f"llamaherd {stage} --config FILE --out {out}", f"{out} was interrupted; its own command, given again, goes on from there"
        )
    return None


def _of_run(folder: Path) -> Rest | None:
    try:
        steps = chain(recipe_of(read_json(folder / RECIPE)), folder)
    except UserError:  # begun by another version of the package, whose settings this one does not know
        return None
    missing = [step.name for step in steps if not (folder / step.name / MANIFEST).is_file()]
    if is_finished(steps, folder):
        return None
    left = f"{len(missing)} of {len(steps)} steps are left, {missing[0]} first" if missing else "all steps are done, the report is left"
    return Rest(f"llamaherd run {shlex.quote(str(folder / RECIPE))} --out {shlex.quote(str(folder))}", left)


def _after(folder: Path, manifest: dict[str, Any] | Any) -> Rest | None:
    """The command that takes an artifact as its input, in the paper's order: tuning, reward models, sampling or PPO."""
    here, stage = shlex.quote(str(folder)), str(manifest.get("stage"))
    if manifest["kind"] == "adapter":
        base = shlex.quote(str(manifest.get("config", {}).get("model", "BASE")))
        return Rest(f"llamaherd merge {base} {here} MERGED", "an adapter is merged into its base before anything else is made of it")
    if stage not in AFTER:
        return None
    domain = manifest.get("metrics", {}).get("domain") or "helpfulness"
    other = "safety" if domain == "helpfulness" else "helpfulness"
    return Rest(AFTER[stage].format(here=here, domain=domain, other=other), f"what {stage} made goes on into this")
