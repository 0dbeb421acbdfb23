"""What commands share: how words and settings are taken from the command line, and how output is encoded."""

import io
import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

Settings = Annotated[str, Parameter(allow_leading_hyphen=True, show=False)]
"""`--a.b=value` tokens that no parameter takes: overrides of settings."""

Text = Annotated[str, Parameter(allow_leading_hyphen=True)]
"""Words of people, which may begin with a hyphen."""

Texts = Annotated[tuple[str, ...], Parameter(allow_leading_hyphen=True)]
"""The same, where the option may be given several times."""


SETTINGS = Path(__file__).parents[1] / "stages" / "settings"
"""Packaged settings of stages: a folder for each stage, in it one file for each name."""


def packaged(stage: str) -> list[str]:
    """The names of a stage's packaged settings."""
    return sorted(file.stem for file in (SETTINGS / stage).glob("*.yaml"))


def settings_file(given: Path | None, stage: str) -> Path | None:
    """A file of settings, or the packaged one of that name for a stage. Raises UserError when there is neither."""
    from ..core.errors import UserError, did_you_mean

    # A folder of that name is what a run before this one may have made.
    if given is None or given.is_file() or given.suffix:
        return given
    names = packaged(stage)
    if str(given) not in names:
        others = [file.parent.name for file in SETTINGS.glob(f"*/{given.name}.yaml")]
        reason = f"is for `llamaherd {others[0]}`" if others else f"no such file{did_you_mean(str(given), names)}"
        listed = f"packaged settings for {stage} are {', '.join(names)}" if names else f"there are no packaged settings for {stage}"
        raise UserError(f"--config {given}: {reason}; {listed}")
    return SETTINGS / stage / f"{given}.yaml"


def built(settings: Any, **values: Any) -> Any:
    from ..core.config import build

    return build(settings, values)


def encode_output(**how: Any) -> None:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(**how)
