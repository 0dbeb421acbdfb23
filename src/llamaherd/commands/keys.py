"""Keys of a server."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .common import Text

if TYPE_CHECKING:
    from ..serve.keys import Keys


def add(name: Text, *, state: Path | None = None) -> None:
    """Make a key for one user and print it, this once; a running server takes it at once.

    Parameters
    ----------
    name
        Who gets it; conversations belong to that name.
    state
        Folder of the server (LLAMAHERD_STATE, or the platform's folder for a user's data).
    """
    print(_keys(state).add(name))
    print(f"This is the key of {name}. It is shown this once, and only its hash is kept.", file=sys.stderr)


def listed(*, state: Path | None = None) -> None:
    """Print who has a key.

    Parameters
    ----------
    state
        Folder of the server.
    """
    for name in _keys(state).names():
        print(name)


def remove(name: Text, *, state: Path | None = None) -> None:
    """End a user's key, and every browser session that was begun with it.

    Parameters
    ----------
    name
        Whose key.
    state
        Folder of the server.
    """
    _keys(state).remove(name)
    print(f"the key of {name} is no more")


def _keys(state: Path | None) -> "Keys":
    from ..serve.config import state_folder
    from ..serve.keys import Keys

    return Keys(state_folder(state))
