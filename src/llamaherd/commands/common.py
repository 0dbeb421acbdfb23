"""What commands share: how words and settings are taken from the command line, and how output is encoded."""

import io
import sys
from typing import Annotated, Any

from cyclopts import Parameter

Settings = Annotated[str, Parameter(allow_leading_hyphen=True, show=False)]
"""`--a.b=value` tokens that no parameter takes: overrides of settings."""

Text = Annotated[str, Parameter(allow_leading_hyphen=True)]
"""Words of people, which may begin with a hyphen."""

Texts = Annotated[tuple[str, ...], Parameter(allow_leading_hyphen=True)]
"""The same, where the option may be given several times."""


def built(settings: Any, **values: Any) -> Any:
    from ..core.config import build

    return build(settings, values)


def encode_output(**how: Any) -> None:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(**how)
