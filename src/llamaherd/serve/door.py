"""What stands before everything else: headers that keep browsers safe, names and pages that may ask, and no more work once the server ends.

A browser on this machine reaches a server on loopback from any page it shows. So that such pages get nothing: the name that the
client called must be one of the server's own (a stranger's name that resolves to this machine, as in DNS rebinding, is not), and a
page of another origin may not ask unless the operator said so.
"""

import ipaddress
import re
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..core.errors import UserError, one_line
from .config import ServeConfig
from .errors import ApiError, failure
from .service import Service

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
SAFE = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""On every answer that does not say otherwise itself."""
_NAME = re.compile(r"[A-Za-z0-9._:-]+")
A_YEAR_S = 365 * 24 * 3600
OPEN = "/health"
"""Answered to everybody, in every state."""


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens at `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def asks_for_keys(config: ServeConfig) -> bool:
    """Whoever reaches a server on loopback is its user; beyond that, keys say who asks."""
    return config.access.ask_keys or not is_loopback(config.host)


def host_of(netloc: str) -> str | None:
    """The name in `NAME[:PORT]` or `[ADDRESS][:PORT]`, in lower case; None when it is neither."""
    try:
        parts = urlsplit(f"//{netloc}")
        port_is_a_number = parts.port is None or parts.port >= 0
    except ValueError:
        return None
    plain = parts.netloc == netloc and parts.username is None and not parts.path and not parts.query and not parts.fragment
    return parts.hostname.lower() if plain and port_is_a_number and parts.hostname else None


def checked_origin(origin: str) -> str:
    """An origin as browsers write it. Raises UserError."""
    try:
        parts = urlsplit(origin)
    except ValueError:  # brackets that hold no address
        parts = urlsplit("")
    if (
        parts.scheme not in ("http", "https")
        or host_of(parts.netloc) is None
        or parts.path not in ("", "/")
        or parts.query
        or parts.fragment
    ):
        raise UserError(f"--allow-origin {one_line(origin, 100)}: expected https://HOST or https://HOST:PORT, and never *")
    return f"{parts.scheme}://{parts.netloc.lower()}"


class Names:
    """By which names, and from which pages, a server may be asked."""

    def __init__(self, config: ServeConfig):
        for name in config.access.allow_host:
            if host_of(name) != name.lower() or not _NAME.fullmatch(name):
                raise UserError(f"--allow-host {one_line(name, 100)}: expected a name such as chat.example.org, without port and never *")
        self._hosts = {"localhost", config.host.lower(), *(name.lower() for name in config.access.allow_host)}
        self.origins = {checked_origin(origin) for origin in config.access.allow_origin}

    def check(self, scope: Scope, headers: Headers) -> None:
        """Raises ApiError for a request that a page of others may have made the browser send."""
        hosts = headers.getlist("host")
        name = host_of(hosts[0]) if len(hosts) == 1 else None
        if name is None or not (name in self._hosts or _reached_at(name, scope)):
            raise ApiError(421, f"this server is not called {one_line(' '.join(hosts), 100)!r}; --allow-host adds a name", code="host")
        origins, site = headers.getlist("origin"), headers.get("sec-fetch-site", "none")
        if origins:
            if not (own_page(scope, headers) or (len(origins) == 1 and origins[0].lower() in self.origins)):
                said = one_line(" ".join(origins), 100)
                raise ApiError(403, f"pages of {said!r} may not ask this server; --allow-origin lets them", code="origin")
        elif site not in ("none", "same-origin") and not _follows_a_link(scope, headers):
            raise ApiError(403, "pages of other sites may not ask this server", code="origin")


def _reached_at(name: str, scope: Scope) -> bool:
    """Whether a name is an address of loopback, or the one that the connection came in at: no stranger's name resolves a number."""
    try:
        address = ipaddress.ip_address(name)
        return address.is_loopback or address == ipaddress.ip_address((scope.get("server") or [""])[0])
    except ValueError:
        return False


def own_page(scope: Scope, headers: Headers) -> bool:
    """Whether the request says that it comes from a page of this server.

    A form of a page without referrers says `null`, as strangers may; then it counts what the browser says of itself, which no page can.
    """
    origins, sites = headers.getlist("origin"), headers.getlist("sec-fetch-site")
    if origins == ["null"]:
        return sites == ["same-origin"]
    return len(origins) == 1 and same_origin(origins[0], headers.get("host", ""), scope)


def same_origin(origin: str, host: str, scope: Scope) -> bool:
    """Whether a page came from where it asks. Without TLS of its own the server cannot know which scheme a proxy before it has."""
    schemes = ("https",) if scope["scheme"] == "https" else ("http", "https")
    return any(_netloc(origin, scheme) == _netloc(f"{scheme}://{host}", scheme) for scheme in schemes)


def _netloc(origin: str, scheme: str) -> tuple[str, int] | str:
    """Name and port; a text that equals no other where it is no origin of this scheme."""
    try:
        parts = urlsplit(origin)
    except ValueError:  # brackets that hold no address
        return f"none: {origin}"
    if parts.scheme != scheme or (name := host_of(parts.netloc)) is None or origin != f"{parts.scheme}://{parts.netloc}":
        return f"none: {origin}"
    return name, parts.port or {"http": 80, "https": 443}[scheme]


def _follows_a_link(scope: Scope, headers: Headers) -> bool:
    """A person who goes to a page: nothing is changed by it, and whoever led there reads none of it."""
    return scope["method"] == "GET" and headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"


class Door:
    """The outermost middleware."""

    def __init__(self, app: ASGIApp, service: Service):
        self._app, self._service = app, service
        self._names = Names(service.config)
        self.at_work = 0
        """Requests that were let in and have no whole answer yet."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin = headers.get("origin", "").lower()
        allowed = origin if origin in self._names.origins else None
        begun = False

        async def safely(message: Message) -> None:
            nonlocal begun
            begun = True
            if message["type"] == "http.response.start":
                _add_headers(MutableHeaders(scope=message), scope["scheme"] == "https", allowed)
            await send(message)

        try:
            _demand_short_head(scope, self._service.config.limits.head_bytes)
            _demand_one_length(headers)
            self._names.check(scope, headers)
            if self._service.state == "draining" and scope["path"] != OPEN:
                raise ApiError(
                    503, "the server is ending; try again later", code="draining", headers={"Retry-After": "5", "Connection": "close"}
                )
        except ApiError as error:
            await error.response(scope, receive, safely)
            return
        if allowed and scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
            await _preflight(headers)(scope, receive, safely)
            return
        self.at_work += 1
        try:
            await self._app(scope, receive, safely)
        except Exception as error:
            if not begun:
                await failure(error).response(scope, receive, safely)
            raise  # to whoever writes down that it failed
        finally:
            self.at_work -= 1


def _demand_short_head(scope: Scope, most: int) -> None:
    """One that came in a single piece was parsed before its length could be seen. Raises ApiError."""
    if len(scope["raw_path"]) + len(scope["query_string"]) + sum(len(name) + len(value) + 4 for name, value in scope["headers"]) > most:
        message = f"request line and headers are longer than {most} bytes"
        raise ApiError(431, message, code="too_large", headers={"Connection": "close"})


def _demand_one_length(headers: Headers) -> None:
    """What stands before this server may have gone by the other of the two, and taken the rest for another's request. Raises ApiError."""
    if "content-length" in headers and "transfer-encoding" in headers:
        message = "the body's length is said twice; send Content-Length or Transfer-Encoding, not both"
        raise ApiError(400, message, code="not_http", headers={"Connection": "close"})


def _add_headers(headers: MutableHeaders, tls: bool, allowed: str | None) -> None:
    for name, value in SAFE.items():
        headers.setdefault(name, value)
    if tls:
        headers["Strict-Transport-Security"] = f"max-age={A_YEAR_S}"
    headers.add_vary_header("Origin")
    if allowed:
        headers["Access-Control-Allow-Origin"] = allowed
        headers["Access-Control-Expose-Headers"] = "Retry-After"


def _preflight(headers: Headers) -> Response:
    """What a browser asks before it lets a page of another site send JSON and a key."""
    answer = {
        "Access-Control-Allow-Methods": "GET, HEAD, POST, PUT, PATCH, DELETE",
        "Access-Control-Allow-Headers": _tokens(headers.get("access-control-request-headers", "").split(",")),
        "Access-Control-Max-Age": "600",
    }
    if headers.get("access-control-request-private-network") == "true":
        answer["Access-Control-Allow-Private-Network"] = "true"
    return Response(status_code=204, headers=answer)


def _tokens(names: Iterable[str]) -> str:
    return ", ".join(name.strip() for name in names if name.strip().replace("-", "").isalnum() and name.isascii())
