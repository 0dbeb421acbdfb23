"""How a run is doing: what is wrong with it, how its versions came about, and the command that goes on."""

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from ..core.errors import UserError
from .common import Settings

Flag = Annotated[bool, Parameter(negative=())]


def doctor(run: str, *settings: Settings, json: Flag = False, everything: Flag = False) -> None:
    """Say in plain words what is wrong with a run and what to do; exit code 0 when nothing is, 1 when something is.

    Parameters
    ----------
    run
        A run, a folder of artifacts, or one artifact: a reward model, a tuned model, a PPO run, preferences; or RUN:NAME.
    json
        For programs: every finding with its numbers.
    everything
        Name what is healthy too.
    """
    import json as writer

    from ..core.config import load
    from ..doctor.config import Thresholds
    from ..doctor.examine import as_json, as_text, examine
    from ..recipe.rest import rest_of

    patient, found = examine(run, load(Thresholds, None, settings))
    rest = rest_of(patient.path)
    if json:
        print(writer.dumps(as_json(patient, found, rest.command if rest else None), indent=2, ensure_ascii=False, allow_nan=False))
    else:
        print(as_text(patient, found, everything))
        _say_next(rest)
    if any(one.state == "wrong" for one in found):
        raise SystemExit(1)


def versions(run: Path, *, json: Flag = False) -> None:
    """Print how each version of a run came about and how it compares with the one before; a version that lost is marked.

    Parameters
    ----------
    run
        The run's folder.
    json
        For programs: a list, as `versions` in summary.json.
    """
    import json as writer

    from ..recipe.rest import rest_of
    from ..report.folder import RunFolder
    from ..report.lineage import lineage
    from ..report.told import lineage_table

    if not run.is_dir():
        raise UserError(f"{run}: no such folder; expected the folder of a run, such as runs/miniature")
    rest = rest_of(run)
    begun = rest is not None or (run / "recipe.json").is_file()
    artifacts = any(run.glob("*/manifest.json"))
    if not artifacts and not begun:
        raise UserError(f"{run}: holds no run; expected the folder of one, such as runs/miniature")
    found = lineage(RunFolder(run)) if artifacts else []
    if json:
        print(writer.dumps(found, indent=2, ensure_ascii=False, allow_nan=False))
        return
    print(lineage_table(found) if found else f"{run}: no version is finished yet; the first one (v0) comes after supervised fine-tuning")
    _say_next(rest)


def _say_next(rest: Any) -> None:
    if rest is not None:
        print(f"\nnext: {rest.command}\n      ({rest.why})")
