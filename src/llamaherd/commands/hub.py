"""Models from the Hugging Face hub and to it: the only commands, with data named hub:OWNER/NAME, that use the network."""

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ..core.errors import UserError
from .common import built


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def download(repository: str, *, out: Path | None = None, revision: str = "main", include: tuple[str, ...] = ()) -> None:
    """Fetch a Llama model from the Hugging Face hub, or go on where it stopped.

    Parameters
    ----------
    repository
        OWNER/NAME, such as meta-llama/Llama-2-7b-chat-hf.
    out
        Folder to write; it must not exist yet (default: models/NAME).
    revision
        A branch, tag or commit.
    include
        Files to fetch besides what a model needs, as a pattern such as '*.bin'; may be given several times.
    """
    from ..stages.download import DownloadConfig, default_out, headline, run

    place = out or default_out(repository)
    artifact = run(built(DownloadConfig, repository=repository, revision=revision, include=include), place, _say)
    print(f"{place}: {headline(artifact)}")


def upload(
    folder: str,
    repository: str,
    *,
    public: Annotated[bool, Parameter(negative="")] = False,
    private: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Send a model, adapter or data folder with its card to the Hugging Face hub; the repository is private unless --public.

    Parameters
    ----------
    folder
        A folder that llamaherd wrote, RUN or RUN:NAME.
    repository
        OWNER/NAME; made if it is not there.
    public
        Everybody may see it.
    private
        Only its owner may see it, as when nothing is said.
    """
    from ..stages.upload import run

    if public and private:
        raise UserError("--public and --private are given; give one of them")
    print(run(folder, repository, public, _say))
