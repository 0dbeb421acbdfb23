"""Who asks: a key in each request, or a browser that signed in with one. Nothing but health is answered without."""

import asyncio
import ipaddress
import logging
import time
from collections import OrderedDict
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from ..core.errors import UserError
from .bodies import Gone, read_body
from .config import ServeConfig
from .door import OPEN, own_page
from .errors import ApiError
from .keys import Keys, digest
from .sessions import Sessions
from .signin import SIGN_IN_POLICY, sign_in_page

log = logging.getLogger(__name__)
FORM_BYTES = 4 << 10
MOST_ADDRESSES, MOST_HELD = 4096, 4
WRONG_KEY_S = 0.5
"""So long a wrong key waits for its answer, after too many of them from one address."""
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


class Guesses:
    """Wrong keys of late, by address. Whoever has a right key is never held up, also not by what others at the same address try."""

    def __init__(self, most: int):
        self._most = most
        self._wrong: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._held: dict[str, int] = {}

    async def wrong(self, host: str) -> None:
        """Takes its time after too many. Raises ApiError when too many of this address wait already."""
        address = _network(host)
        now = time.monotonic()
        since, count = self._wrong.pop(address, (now, 0))
        since, count = (now, 1) if now - since > 60 else (since, count + 1)
        self._wrong[address] = since, count
        while len(self._wrong) > MOST_ADDRESSES:
            self._wrong.popitem(last=False)
        if count <= self._most:
            return
        if self._held.get(address, 0) >= MOST_HELD:
            raise ApiError(429, "too many wrong keys; try again later", code="wrong_keys", headers={"Retry-After": "60"})
        self._held[address] = self._held.get(address, 0) + 1
        try:
            await asyncio.sleep(WRONG_KEY_S)
        finally:
            self._held[address] -= 1
            if not self._held[address]:
                del self._held[address]


def _network(host: str) -> str:
    """An address, or the network that one customer has of IPv6."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    return host if address.version == 4 else str(ipaddress.ip_network(f"{host}/64", strict=False))


class Access:
    """Middleware that knows who asks: `request.state.owner` is the name of the key's holder."""

    def __init__(self, app: ASGIApp, config: ServeConfig, keys: Keys):
        self._app, self._config, self._keys = app, config, keys
        self._sessions = Sessions(config.folder, config.access.session_h * 3600)
        self._guesses = Guesses(config.access.wrong_keys)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or (scope["path"] == OPEN and scope["method"] in ("GET", "HEAD")):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            if scope["path"] == "/login":
                response = await self._login(scope, headers, receive)
            elif scope["path"] == "/logout" and scope["method"] == "POST":
                response = await self._logout(scope, headers)
            else:
                name, by_cookie = await self._who(scope, headers)
                scope.setdefault("state", {}).update(owner=name, signed_in=by_cookie)
                await self._app(scope, receive, send)
                return
        except ApiError as error:
            asks_for_a_page = error.status == 401 and scope["method"] in ("GET", "HEAD") and "text/html" in headers.get("accept", "")
            response = _page(401) if asks_for_a_page else error.response
        except Gone:
            return
        await response(scope, receive, send)

    async def _who(self, scope: Scope, headers: Headers) -> tuple[str, bool]:
        """Name of the one who asks, and whether a cookie says so. Raises ApiError."""
        given = headers.getlist("authorization")
        if given:
            scheme, _, key = given[0].partition(" ")
            owner = self._owner(digest(key.encode("latin-1"))) if len(given) == 1 and scheme == "Bearer" else None
            if owner is None:
                await self._guesses.wrong(_address(scope))
                raise _unknown("no key of this server; send one of its keys as `Authorization: Bearer KEY`")
            return owner, False
        session = _cookie(scope, headers)
        key_hash = self._sessions.key_hash(session) if session else None
        owner = self._owner(key_hash) if key_hash else None
        if owner is None:
            raise _unknown("a key is needed; send it as `Authorization: Bearer KEY`")
        if scope["method"] not in SAFE_METHODS and not own_page(scope, headers):
            raise ApiError(403, "a browser that signed in may change things from the server's own pages only", code="origin")
        return owner, True

    def _owner(self, key_hash: bytes) -> str | None:
        """Raises ApiError when the file of keys cannot be read: nobody gets in then."""
        try:
            return self._keys.owner_of(key_hash)
        except (UserError, OSError) as error:
            log.error("%s", error)  # names the file and what is wrong with it, and quotes nothing of it
            raise ApiError(503, "the server's keys cannot be read; its log says why", code="keys") from None

    async def _login(self, scope: Scope, headers: Headers, receive: Receive) -> Response:
        if scope["method"] in ("GET", "HEAD"):
            return _page(200)
        if scope["method"] != "POST":
            raise ApiError(405, "sign in with GET and POST", headers={"Allow": "GET, HEAD, POST"})
        if not own_page(scope, headers):
            raise ApiError(403, "sign in from the server's own page", code="origin")
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
            raise ApiError(415, "sign in with a form", headers={"Connection": "close"})
        body = await read_body(receive, headers, FORM_BYTES, self._config.limits)
        try:
            given = parse_qs(body.decode("ascii"), strict_parsing=True, max_num_fields=4, encoding="utf-8", errors="strict").get("key", [])
        except ValueError:
            given = []
        key = given[0].strip().encode() if len(given) == 1 else b""
        if self._owner(digest(key)) is None:
            await self._guesses.wrong(_address(scope))
            return _page(401, wrong=True)
        session = await asyncio.to_thread(self._sessions.begin, digest(key))
        cookie = f"{_cookie_name(scope)}={session}; Path=/; HttpOnly; SameSite=Strict"
        life = f"; Max-Age={int(self._sessions.life_s)}"
        return RedirectResponse("/", 303, {"Set-Cookie": cookie + life + ("; Secure" if _over_tls(scope, headers) else "")})

    async def _logout(self, scope: Scope, headers: Headers) -> Response:
        if not own_page(scope, headers):
            raise ApiError(403, "sign out from the server's own page", code="origin")
        if session := _cookie(scope, headers):
            await asyncio.to_thread(self._sessions.end, session)
        gone = f"{_cookie_name(scope)}=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0"
        return RedirectResponse("/login", 303, {"Set-Cookie": gone})


def _unknown(message: str) -> ApiError:
    return ApiError(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})


def _page(status: int, wrong: bool = False) -> Response:
    headers = {"Content-Security-Policy": SIGN_IN_POLICY, "Referrer-Policy": "same-origin"} | (
        {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    )
    return HTMLResponse(sign_in_page(wrong), status, headers)


def _address(scope: Scope) -> str:
    return str((scope.get("client") or ["?"])[0])


def _cookie_name(scope: Scope) -> str:
    """Cookies of servers at other ports of the same name would replace each other."""
    return f"llamaherd-{(scope.get('server') or ('', 0))[1]}"


def _cookie(scope: Scope, headers: Headers) -> bytes | None:
    """What the one cookie of ours holds; None for none or several."""
    name = _cookie_name(scope)
    pairs = [pair.strip().partition("=") for line in headers.getlist("cookie") for pair in line.split(";")]
    found = [value for key, _, value in pairs if key == name and value]
    return found[0].encode("latin-1") if len(found) == 1 else None


def _over_tls(scope: Scope, headers: Headers) -> bool:
    """Also where a proxy has the TLS: the browser says so."""
    return bool(scope["scheme"] == "https" or headers.get("origin", "").startswith("https:"))
