"""Adapters and their bases."""

from pathlib import Path
from typing import Literal

from .common import built


def merge(
    model: Path,
    adapter: Path,
    dst: Path,
    *,
    into: Literal["base", "dequantised"] | None = None,
    max_drift: float = 0.05,
    text: Path | None = None,
) -> None:
    """Fold an adapter into its base and write one model.

    Parameters
    ----------
    model
        The base: a folder, RUN or RUN:VERSION.
    adapter
        Folder of the adapter.
    dst
        Folder to write; it must not exist yet.
    into
        The base as it is stored, or what four bits leave of it (default: whichever the adapter was trained on).
    max_drift
        Largest mean difference of log-probabilities, in nats, between base with adapter and merged model.
    text
        File to measure drift on (default: a short text that comes along).
    """
    from ..core.device import set_threads
    from ..stages.merge import MergeConfig, headline, run

    set_threads()
    artifact = run(built(MergeConfig, model=model, adapter=adapter, into=into, max_drift=max_drift, text=text), dst, 0)
    print(f"{dst}: {headline(artifact)}")
