"""The server."""

from typing import Annotated

from cyclopts import Parameter

from .common import Text, built


def serve(
    *model: str, adapter: list[str] | None = None, guard: str | None = None, host: Text = "127.0.0.1", port: int = 8000,
    invariant: Annotated[bool, Parameter(negative="")] = False,
) -> None:  # fmt: skip
    """Serve models to OpenAI's clients.

    Parameters
    ----------
    model
        Folders, RUN (its newest version) or RUN:VERSION, each called as its folder is, or NAME=one of these.
    adapter
        NAME=DIR or DIR of an adapter, which is served as a model of that name.
    guard
        A safety reward model that reads along.
    host
        Address to listen at.
    port
        Port; 0 takes a free one.
    invariant
        The same bits whatever else is at work: a fixed number of slots, slower and with more memory.
    """
    from ..core.device import set_threads
    from ..serve.config import ServeConfig
    from ..serve.server import run

    set_threads()
    run(built(ServeConfig, models=model, adapters=adapter or [], guard={"model": guard}, host=host, port=port, invariant=invariant))
