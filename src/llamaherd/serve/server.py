"""From settings to a server that listens, and from a signal to its end."""

import asyncio
import errno
import logging
import os
import socket
import ssl
import sys
import threading
import time
import webbrowser
from functools import partial
from pathlib import Path
from types import FrameType

import uvicorn

from ..core.errors import UserError
from .app import App, create_app
from .config import ServeConfig
from .door import asks_for_keys, is_loopback
from .journal import complain_in_lines
from .keys import FIRST, Keys
from .protocol import KEEP_ALIVE_S, SPARE_CONNECTIONS, limited
from .service import Service
from .sockets import HANDSHAKES, Listening, demand_files

log = logging.getLogger(__name__)
LAST_WORDS_S = 2
"""So long after the deadline, answers that were ended may say so."""


HANDSHAKE_S = 10.0
"""Longest that a client may take for its TLS handshake."""


def say(*lines: str) -> None:
    """On standard output, while somebody reads it: a server goes on when its pipe is closed."""
    try:
        for line in lines:
            print(line, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # so that what is left to write fails no more


class Server(uvicorn.Server):
    """Told to end, it goes on listening, and says that it ends, until the answers at work are there."""

    def __init__(self, config: uvicorn.Config, app: App, announced: tuple[str, ...] = ()):
        super().__init__(config)
        self._app, self._service, self._announced = app, app.state.service, announced
        self.port = 0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal ends the server in order, the second at once, whatever threads still compute."""
        if self.should_exit:
            os.write(2, b"llamaherd: ended at once; answers at work are cut\n")
            os._exit(1)
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        if self.config.is_ssl:  # uvicorn has no setting for it, and asyncio waits a minute
            loop, limits = asyncio.get_running_loop(), self._service.config.limits
            patient = partial(loop.create_server, ssl_handshake_timeout=min(HANDSHAKE_S, limits.silence_s))
            loop.create_server = patient  # type: ignore[method-assign]
        await super().startup(sockets)
        self.port = self.servers[0].sockets[0].getsockname()[1]
        say(*self._announced)

    async def on_tick(self, counter: int) -> bool:
        if self._service.state == "ready" and self._announced:
            say(f"ready: {', '.join(self._service.models)}")
            self._announced = ()
        return await super().on_tick(counter) or self._service.state == "failed"

    async def main_loop(self) -> None:
        await super().main_loop()
        if self._service.state != "failed":
            self._service.state = "draining"
            await self._drain()

    async def _drain(self) -> None:
        """Until nothing is at work or the time is up: answers that are cut then end with an error that says so."""
        ends = time.monotonic() + self._service.config.limits.drain_s
        while self._app.state.door.at_work and time.monotonic() < ends:
            await asyncio.sleep(0.02)
        if self._app.state.door.at_work:
            log.warning("%d requests were still at work after limits.drain_s and were ended", self._app.state.door.at_work)
            await asyncio.to_thread(self._service.close)


def make_server(service: Service, announced: tuple[str, ...] = ()) -> Server:
    """A server for sockets that are bound already, or for host and port of the settings. Raises UserError."""
    config, app = service.config, create_app(service)
    made = uvicorn.Config(
        app, host=config.host, port=config.port, http=limited(config.limits), ws="none", lifespan="on", log_config=None, log_level="warning", access_log=False,
        server_header=False, proxy_headers=False, timeout_keep_alive=KEEP_ALIVE_S, timeout_graceful_shutdown=LAST_WORDS_S,
        h11_max_incomplete_event_size=config.limits.head_bytes, ssl_certfile=config.access.tls_cert, ssl_keyfile=config.access.tls_key,
    )  # fmt: skip
    return Server(made, app, announced)


def check_sharing(config: ServeConfig) -> None:
    """Raises UserError unless what is beyond loopback is encrypted, or the operator says that something else does that."""
    cert, key = config.access.tls_cert, config.access.tls_key
    if (cert is None) != (key is None):
        raise UserError(f"--tls-{'key' if cert else 'cert'} is missing; TLS takes both, --tls-cert FILE --tls-key FILE")
    if cert and key:
        _check_tls(cert, key)
    elif not is_loopback(config.host) and not config.access.insecure_http:
        raise UserError(
            f"--host {config.host} is reached from other machines, so give --tls-cert FILE --tls-key FILE; "
            "or, behind a proxy that has TLS, --insecure-http"
        )
    if config.log_text and not config.log:
        raise UserError("--log-text says what goes into the log; give --log FILE too, or --log - for standard error")


def _check_tls(cert: Path, key: Path) -> None:
    for name, file in (("cert", cert), ("key", key)):
        try:
            file.open("rb").close()
        except OSError as error:
            raise UserError(f"--tls-{name} {file}: cannot be read: {error.strerror}") from None

    def password() -> str:
        raise UserError(f"--tls-key {key}: is locked with a password; give a key without one, readable by the server's user alone")

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password)
    except ssl.SSLError as error:
        raise UserError(
            f"--tls-cert {cert}, --tls-key {key}: not a certificate and its private key as PEM ({error.reason or error})"
        ) from None


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises UserError for an address that is no address of this machine, or taken."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=1024)
    except socket.gaierror:
        raise UserError(f"--host {host}: no address of that name; give an address of this machine such as 127.0.0.1") from None
    except PermissionError:
        raise UserError(f"--port {port}: this user may not listen there; take one above 1023") from None
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise UserError(f"--host {host} --port {port}: cannot listen there: {os.strerror(error.errno or 0)}") from None
        raise UserError(f"--port {port}: something listens at {host} already; take another port, or --port 0 for a free one") from None


def address(config: ServeConfig, port: int) -> str:
    """What to open in a browser on this machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(config.host, f"[{config.host}]" if ":" in config.host else config.host)
    return f"{'https' if config.access.tls_cert else 'http'}://{host}:{port}"


def _announced(config: ServeConfig, service: Service, port: int) -> tuple[str, ...]:
    """What is said at the start; makes the first key where one is needed."""
    wide = f", at every address of this machine, port {port}" if config.host in ("0.0.0.0", "::") else ""
    lines = [f"llamaherd at {address(config, port)} (API: {address(config, port)}/v1{wide}); Ctrl+C ends it"]
    lines.append(f"loading {', '.join(service.models)}")
    if asks_for_keys(config):
        keys = Keys(config.folder)
        if not keys.names():
            lines.append(f"key of {FIRST}, shown this once: {keys.add(FIRST)} (more: llamaherd keys add NAME)")
    if config.log_text:
        lines.append(f"everything that users and models say is written to {config.log} (--log-text)")
    if not is_loopback(config.host) and not config.access.tls_cert:
        print(
            "llamaherd: warning: plain HTTP beyond this machine (--insecure-http): keys and talks can be read on the way", file=sys.stderr
        )
    return tuple(lines)


def run(config: ServeConfig, open_page: bool = False) -> None:
    """Serves until it is told to end. Raises UserError for what cannot be served, before anything listens or is loaded."""
    check_sharing(config)
    complain_in_lines()
    most = config.limits.connections + SPARE_CONNECTIONS + HANDSHAKES
    demand_files(most)
    service = Service(config)
    with Listening(bind(config.host, config.port), most) as listening:
        port = listening.getsockname()[1]
        server = make_server(service, _announced(config, service, port))
        if open_page:  # the socket listens already: the browser's first request waits for the loop
            threading.Thread(target=webbrowser.open, args=(address(config, port),), daemon=True).start()
        server.run([listening])
    if service.state == "failed":
        raise UserError(f"loading failed: {service.why}")
    if service.loading:  # a thread that still reads weights would hold up the end, or fall over it
        sys.stdout.flush()
        os._exit(0)
