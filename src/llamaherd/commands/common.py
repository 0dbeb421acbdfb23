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
"""Packaged settings of stages, one file for each name."""


def settings_file(given: Path | None) -> Path | None:
    """A file of settings, or the packaged one of that name. Raises UserError when there is neither."""
    from ..core.errors import UserError, did_you_mean

    if given is None or given.exists() or given.suffix:
        return given
    names = sorted(file.stem for file in SETTINGS.glob("*.yaml"))
    if str(given) not in names:
        raise UserError(f"--config {given}: no such file{did_you_mean(str(given), names)}; packaged settings are {', '.join(names)}")
    return SETTINGS / f"{given}.yaml"


def built(settings: Any, **values: Any) -> Any:
    from ..core.config import build

    return build(settings, values)


def encode_output(**how: Any) -> None:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(**how)
