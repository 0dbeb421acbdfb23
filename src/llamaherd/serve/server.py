"""From settings to a server that listens."""

import uvicorn

from .app import create_app
from .config import ServeConfig
from .service import Service


def run(config: ServeConfig) -> None:
    """Serves until it is told to end. Raises UserError for what cannot be served."""
    service = Service(config)
    uvicorn.run(
        create_app(service), host=config.host, port=config.port, log_level="warning", access_log=False, server_header=False,
        timeout_graceful_shutdown=int(config.limits.drain_s), h11_max_incomplete_event_size=64 << 10,
    )  # fmt: skip
