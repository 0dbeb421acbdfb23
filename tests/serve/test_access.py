"""Cases 27, 28 and 30: who may ask, by which names and from which pages; what is seen without a key."""

import http.client
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.serve.conftest import Running

from llamaherd.serve import access
from llamaherd.serve.config import AccessConfig, ServeConfig
from llamaherd.serve.door import Names, host_of, is_loopback
from llamaherd.serve.keys import Keys

CHAT = b'{"model": "short", "messages": [{"role": "user", "content": "Hi."}], "max_tokens": 2}'
JSON = {"Content-Type": "application/json"}
HTML = {"Accept": "text/html,application/xhtml+xml"}


class Answer(NamedTuple):
    status: int
    headers: Any
    body: bytes


def ask(up: Running, method: str, path: str, headers: Any = (), body: bytes | None = None) -> Answer:
    """One request with these headers and no others of weight; pairs may repeat a name, and `Host` may be given."""
    pairs = list(headers.items()) if isinstance(headers, dict) else list(headers)
    connection = http.client.HTTPConnection("127.0.0.1", up.port, timeout=30)
    try:
        connection.putrequest(method, path, skip_host=any(name == "Host" for name, _ in pairs), skip_accept_encoding=True)
        for name, value in pairs:
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())
    finally:
        connection.close()


class Locked(NamedTuple):
    up: Running
    ann: str
    ben: str
    keys: Keys


@pytest.fixture(scope="module")
def locked(serve, talkers: Path, tmp_path_factory) -> Iterator[Locked]:
    state, log = tmp_path_factory.mktemp("state"), tmp_path_factory.mktemp("log") / "log"
    keys = Keys(state)
    ann, ben = keys.add("ann"), keys.add("ben")
    access_settings = {"ask_keys": True, "allow_host": ["chat.example.org"], "allow_origin": ["https://friend.example:8443"]}
    with serve(models=[str(talkers / "short")], access=access_settings, state=str(state), log=str(log)) as up:
        yield Locked(up, ann, ben, keys)


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def routes(up: Running) -> list[tuple[str, str]]:
    app = up.server.config.app
    found = [(method, path) for path, methods in app.openapi()["paths"].items() for method in methods]
    extra = [
        "/",
        "/openapi.json",
        "/docs",
        "/metrics",
        "/static/app.js",
        "/nowhere",
        "/%2e%2e/etc/passwd",
        "//health",
        "/health/",
        "/Health",
    ]
    return [(method.upper(), re.sub(r"\{[^}]*\}", "x", path)) for method, path in found] + [("GET", path) for path in extra]


def test_no_route_but_health_answers_without_a_key(locked) -> None:
    found = routes(locked.up)
    assert ("POST", "/v1/chat/completions") in found
    asked = {(method, path): ask(locked.up, method, path).status for method, path in found if (method, path) != ("GET", "/health")}
    assert {place: status for place, status in asked.items() if status != 401} == {}
    assert ask(locked.up, "GET", "/health").status == 200
    for method in ("POST", "OPTIONS", "PUT", "DELETE", "FOO"):
        assert ask(locked.up, method, "/health").status == 401


def test_what_is_no_key(locked, monkeypatch) -> None:
    monkeypatch.setattr(access, "WRONG_KEY_S", 0.0)
    key = locked.ann
    wrong: list[list[tuple[str, str]]] = [
        [],
        [("Authorization", f"Bearer {wrong}")] if (wrong := key[:-1]) else [],
        [("Authorization", f"Bearer {key}x")],
        [("Authorization", f"Bearer {key.swapcase()}")],
        [("Authorization", f"Bearer  {key}")],
        [("Authorization", f"bearer {key}")],
        [("Authorization", f"Bearer{key}")],
        [("Authorization", f"Basic {key}")],
        [("Authorization", key)],
        [("Authorization", "Bearer")],
        [("Authorization", "")],
        [("Authorization", f"Bearer {key}"), ("Authorization", f"Bearer {key}")],
        [("Authorization", f"Bearer {key}"), ("Authorization", "Bearer x")],
        [("Authorization", f"Bearer {key}, Bearer {key}")],
        [("X-API-Key", key)],
        [("Api-Key", key)],
        [("Proxy-Authorization", f"Bearer {key}")],
        [("Cookie", f"llamaherd-{locked.up.port}={key}")],
        [("Authorization", f"Bearer {'é' * 20}".encode().decode("latin-1"))],
    ]
    for headers in wrong:
        answer = ask(locked.up, "GET", "/v1/models", headers)
        assert answer.status == 401, headers
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert b'"authentication_error"' in answer.body
        assert key.encode() not in answer.body
    assert ask(locked.up, "GET", f"/v1/models?api_key={key}&key={key}").status == 401
    assert ask(locked.up, "GET", "/v1/models", bearer(key)).status == 200


def test_each_key_is_its_holder_and_ends_when_it_is_removed(locked) -> None:
    key = locked.keys.add("cleo")
    assert ask(locked.up, "POST", "/v1/chat/completions", JSON | bearer(key), CHAT).status == 200
    line = '"owner": "cleo", "method": "POST", "route": "/v1/chat/completions", "status": 200'
    ends = time.monotonic() + 10
    while line not in (written := Path(locked.up.service.config.log).read_text("utf-8")):  # the answer is there before its line
        assert time.monotonic() < ends
        time.sleep(0.01)
    assert "Hi." not in written
    assert not [secret for secret in (key, locked.ann, locked.ben) if secret in written]
    locked.keys.remove("cleo")
    assert ask(locked.up, "GET", "/v1/models", bearer(key)).status == 401


def test_a_damaged_file_of_keys_lets_nobody_in_and_is_named(locked, caplog) -> None:
    kept = locked.keys.file.read_bytes()
    try:
        for damage in (b"{ s3cret", b"\xff\xfe", b'{"ann": 3}'):
            locked.keys.file.write_bytes(damage)
            answer = ask(locked.up, "GET", "/v1/models", bearer(locked.ann))
            assert (answer.status, answer.headers["Cache-Control"]) == (503, "no-store")
            assert b'"code":"keys"' in answer.body
            assert str(locked.keys.file) in caplog.text
            assert "s3cret" not in caplog.text
            caplog.clear()
    finally:
        locked.keys.file.write_bytes(kept)
    assert ask(locked.up, "GET", "/v1/models", bearer(locked.ann)).status == 200


def test_keys_are_compared_in_constant_time_with_every_one(locked, monkeypatch) -> None:
    import hmac

    compared = []
    monkeypatch.setattr(hmac, "compare_digest", lambda one, other: compared.append((one, other)) or one == other)
    keys = Keys(locked.keys.file.parent)
    assert keys.owner(locked.ann.encode()) == "ann"
    assert len(compared) == len(keys.names()) > 1
    assert {len(one) for pair in compared for one in pair} == {32}


def test_guessing_is_slowed_and_nobody_else_is(locked, monkeypatch) -> None:
    monkeypatch.setattr(access, "WRONG_KEY_S", 0.2)
    for _ in range(locked.up.service.config.access.wrong_keys):
        assert ask(locked.up, "GET", "/v1/models", bearer("lh-guess")).status == 401
    began = time.monotonic()
    assert ask(locked.up, "GET", "/v1/models", bearer("lh-guess")).status == 401
    assert time.monotonic() - began >= 0.2
    began = time.monotonic()
    assert ask(locked.up, "GET", "/v1/models", bearer(locked.ann)).status == 200
    assert ask(locked.up, "GET", "/v1/models").status == 401
    assert time.monotonic() - began < 0.2


@pytest.mark.anyio
async def test_what_is_kept_of_guesses_is_bounded(monkeypatch) -> None:
    monkeypatch.setattr(access, "MOST_ADDRESSES", 100)
    guesses = access.Guesses(10)
    for number in range(300):
        await guesses.wrong(f"2001:db8:{number:x}::1")
    assert len(guesses._wrong) == 100
    await guesses.wrong("2001:db8:12b::2")  # the same customer's network
    assert guesses._wrong["2001:db8:12b::/64"][1] == 2


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


# A browser that signs in


def sign_in(locked: Locked, key: str, **headers: str) -> Answer:
    form = {"Content-Type": "application/x-www-form-urlencoded", "Origin": locked.up.url} | headers
    return ask(locked.up, "POST", "/login", form, f"key={key}".encode())


def test_a_browser_gets_a_form_and_a_cookie_for_its_key(locked) -> None:
    form = ask(locked.up, "GET", "/", HTML)
    assert form.status == 401
    assert b'<form method="post" action="/login">' in form.body
    assert form.headers["Content-Security-Policy"].startswith("default-src 'none'; style-src 'sha256-")
    assert b"<script" not in form.body
    answer = sign_in(locked, locked.ann)
    assert (answer.status, answer.headers["Location"]) == (303, "/")
    said = answer.headers["Set-Cookie"]
    assert "; HttpOnly; SameSite=Strict; Max-Age=604800" in said
    assert "Secure" not in said  # plain HTTP on loopback
    assert "; Secure" in sign_in(locked, locked.ann, Host="chat.example.org", Origin="https://chat.example.org").headers["Set-Cookie"]
    cookie = {"Cookie": said.partition(";")[0]}
    assert ask(locked.up, "GET", "/v1/models", cookie).status == 200
    chat = JSON | cookie
    assert ask(locked.up, "POST", "/v1/chat/completions", chat | {"Origin": locked.up.url}, CHAT).status == 200
    assert ask(locked.up, "POST", "/v1/chat/completions", chat, CHAT).status == 403
    assert ask(locked.up, "POST", "/v1/chat/completions", chat | {"Origin": "https://friend.example:8443"}, CHAT).status == 403
    assert ask(locked.up, "GET", "/v1/models", cookie | bearer("wrong")).status == 401
    assert ask(locked.up, "GET", "/v1/models", {"Cookie": f"{cookie['Cookie']}; {cookie['Cookie']}"}).status == 401
    assert ask(locked.up, "POST", "/logout", cookie).status == 403
    gone = ask(locked.up, "POST", "/logout", cookie | {"Origin": locked.up.url})
    assert (gone.status, gone.headers["Location"]) == (303, "/login")
    assert "Max-Age=0" in gone.headers["Set-Cookie"]
    assert ask(locked.up, "GET", "/v1/models", cookie).status == 401


def test_a_form_with_a_wrong_key_says_so_and_sets_nothing(locked, monkeypatch) -> None:
    monkeypatch.setattr(access, "WRONG_KEY_S", 0.0)
    answer = sign_in(locked, "wrong")
    assert answer.status == 401
    assert b'role="alert"' in answer.body
    assert "Set-Cookie" not in answer.headers
    for body in (b"", b"key=", b"x=1", f"key={locked.ann}&key={locked.ann}".encode(), b"\xff\xfe", b"&&&"):
        form = {"Content-Type": "application/x-www-form-urlencoded", "Origin": locked.up.url}
        assert ask(locked.up, "POST", "/login", form, body).status == 401, body
    assert sign_in(locked, locked.ann, Origin="https://evil.com").status == 403
    assert ask(locked.up, "POST", "/login", {"Content-Type": "application/x-www-form-urlencoded"}, b"key=x").status == 403
    assert ask(locked.up, "POST", "/login", JSON | {"Origin": locked.up.url}, b"{}").status == 415
    assert sign_in(locked, "x" * 5000).status == 413


def test_sessions_end_with_their_key(locked) -> None:
    key = locked.keys.add("dora")
    cookie = {"Cookie": sign_in(locked, key).headers["Set-Cookie"].partition(";")[0]}
    assert ask(locked.up, "GET", "/v1/models", cookie).status == 200
    locked.keys.remove("dora")
    assert ask(locked.up, "GET", "/v1/models", cookie).status == 401


# Names and pages (case 28)

EVIL_HOSTS = [
    "evil.com",
    "evil.com:80",
    "localhost.evil.com",
    "127.0.0.1.evil.com",
    "localhost@evil.com",
    "192.168.1.77",
    "[::2]",
    "0.0.0.0",
    "*",
    "a b",
    "[",
    "[]",
    "localhost.",
    "localhost:-1",
    "xn--lcalhost-54a",
    "2130706433",
]


@pytest.mark.parametrize("host", EVIL_HOSTS)
def test_names_that_are_not_the_servers(up, host) -> None:
    for method, path, body in (("GET", "/v1/models", None), ("POST", "/v1/chat/completions", CHAT), ("GET", "/health", None)):
        answer = ask(up, method, path, {"Host": host} | JSON, body)
        assert answer.status == 421, path
        assert b'"error"' in answer.body


def test_names_of_loopback_at_any_port(up, locked) -> None:
    for host in ("localhost", f"localhost:{up.port}", "127.0.0.1", "127.0.0.1:9", "[::1]:8000", "LOCALHOST:1", "127.8.8.8"):
        assert ask(up, "GET", "/v1/models", {"Host": host}).status == 200, host
    assert ask(locked.up, "GET", "/v1/models", {"Host": "chat.example.org"} | bearer(locked.ann)).status == 200
    for twice in ([("Host", "localhost"), ("Host", "evil.com")], [("Host", "")]):
        assert ask(up, "GET", "/v1/models", twice).status in (400, 421)


EVIL_ORIGINS = [
    "https://evil.com",
    "null",
    "http://localhost:1",
    "file://",
    "http://localhost.evil.com",
    "http://127.0.0.1",
    "",
    "*",
    "https://friend.example",
    "http://[",
    "http://[::1",
    "http://[v1.x]",
]


@pytest.mark.parametrize("origin", EVIL_ORIGINS)
def test_pages_of_other_origins(up, origin) -> None:
    for method, body in (("GET", None), ("POST", CHAT), ("OPTIONS", None)):
        path = "/v1/models" if method == "GET" else "/v1/chat/completions"
        answer = ask(up, method, path, JSON | {"Origin": origin, "Access-Control-Request-Method": "POST"}, body)
        assert answer.status == 403, (method, origin)
        assert "Access-Control-Allow-Origin" not in answer.headers
    assert up.open == 0


def test_the_servers_own_pages_and_those_let_in(up, locked) -> None:
    assert ask(up, "POST", "/v1/chat/completions", JSON | {"Origin": up.url}, CHAT).status == 200
    assert ask(up, "GET", "/v1/models", {"Origin": "http://localhost:81", "Host": "localhost:81"}).status == 200
    friend = {"Origin": "https://friend.example:8443"}
    preflight = friend | {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, x-stainless-os, bad header",
    }
    let_in = ask(locked.up, "OPTIONS", "/v1/chat/completions", preflight)
    assert let_in.status == 204
    assert let_in.headers["Access-Control-Allow-Origin"] == "https://friend.example:8443"
    assert let_in.headers["Access-Control-Allow-Headers"] == "authorization, x-stainless-os"
    assert "Access-Control-Allow-Credentials" not in let_in.headers
    answer = ask(locked.up, "POST", "/v1/chat/completions", JSON | friend | bearer(locked.ann), CHAT)
    assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (200, "https://friend.example:8443")
    refused = ask(locked.up, "POST", "/v1/chat/completions", JSON | friend, CHAT)
    assert (refused.status, refused.headers["Access-Control-Allow-Origin"]) == (401, "https://friend.example:8443")


def test_what_browsers_say_about_other_sites(up) -> None:
    for site in ("cross-site", "same-site", "weird"):
        assert ask(up, "GET", "/v1/models", {"Sec-Fetch-Site": site}).status == 403
        assert ask(up, "POST", "/v1/chat/completions", JSON | {"Sec-Fetch-Site": site}, CHAT).status == 403
        link = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
        assert ask(up, "GET", "/v1/models", link).status == 200
        assert ask(up, "POST", "/v1/chat/completions", JSON | link, CHAT).status == 403
        assert ask(up, "GET", "/v1/models", link | {"Sec-Fetch-Dest": "iframe"}).status == 403
    assert ask(up, "GET", "/v1/models", {"Sec-Fetch-Site": "same-origin"}).status == 200
    for site, status in (("same-origin", 200), ("cross-site", 403), ("same-site", 403), ("none", 403)):
        assert ask(up, "POST", "/v1/chat/completions", JSON | {"Origin": "null", "Sec-Fetch-Site": site}, CHAT).status == status


@pytest.mark.parametrize(
    "kind",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", "text/plain; a=application/json", "application/jsonp"],
)
def test_bodies_that_pages_may_send_without_asking(up, kind) -> None:
    answer = ask(up, "POST", "/v1/chat/completions", {"Content-Type": kind}, CHAT)
    assert answer.status == 415
    assert b'"error"' in answer.body


def test_a_body_is_json_said_once_and_not_packed(up) -> None:
    assert ask(up, "POST", "/v1/chat/completions", (), CHAT).status == 415
    assert (
        ask(up, "POST", "/v1/chat/completions", [("Content-Type", "application/json"), ("Content-Type", "text/plain")], CHAT).status == 415
    )
    assert ask(up, "POST", "/v1/chat/completions", JSON | {"Content-Encoding": "gzip"}, CHAT).status == 415
    assert ask(up, "POST", "/v1/chat/completions", {"Content-Type": "Application/JSON; charset=UTF-8"}, CHAT).status == 200


# Headers of every answer


def test_every_answer_keeps_browsers_safe(up, locked) -> None:
    answers = [ask(up, "GET", "/health"), ask(up, "GET", "/nowhere"), ask(up, "GET", "/v1/models", {"Host": "evil.com"})]
    answers += [ask(locked.up, "GET", "/"), ask(up, "POST", "/v1/chat/completions", JSON, CHAT[:-1] + b', "stream": true}')]
    answers += [ask(up, "POST", "/v1/chat/completions", JSON, b"{"), ask(up, "GET", "/", {"X": "y" * 40000})]
    assert [answer.status for answer in answers] == [200, 404, 421, 401, 200, 400, 431]
    for answer in answers:
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert "unsafe" not in answer.headers["Content-Security-Policy"]
        for name, value in (("X-Content-Type-Options", "nosniff"), ("Referrer-Policy", "no-referrer"), ("Cache-Control", "no-store")):
            assert answer.headers[name] == value
        assert answer.headers["Cross-Origin-Resource-Policy"] == answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert "Server" not in answer.headers
        assert "Strict-Transport-Security" not in answer.headers


def test_what_fails_before_any_route_keeps_browsers_safe_too(up, monkeypatch, caplog) -> None:
    async def fails(*_: Any) -> None:
        raise RuntimeError("s3cret")

    monkeypatch.setattr(up.server.config.app.state.door, "_app", fails)
    answer = ask(up, "GET", "/health")
    assert (answer.status, answer.headers["Cache-Control"]) == (500, "no-store")
    assert b'"message":"the server failed (RuntimeError); its log says where"' in answer.body
    assert b"s3cret" not in answer.body


def test_paths_and_methods_that_there_are_not(up) -> None:
    answer = ask(up, "GET", "/nowhere%0d%0a")
    assert answer.status == 404
    assert b"there is no /nowhere; GET /openapi.json lists what there is" in answer.body
    answer = ask(up, "PUT", "/v1/models")
    assert (answer.status, answer.headers["Allow"]) == (405, "GET")
    assert b"PUT is not for /v1/models; it takes GET" in answer.body
    assert ask(up, "HEAD", "/health").status == 200  # as those ask who watch over servers


# Names of models (case 30)

HOSTILE_NAMES = [
    "../short",
    "/etc/passwd",
    "%2e%2e/short",
    "..\\short",
    "short/",
    "./short",
    "C:\\short",
    "CON",
    "short\x00",
    "short\r\nX: y",
    "SHORT",
    "",
    "short:v1",
    "http://169.254.169.254/",
    "file:///etc/passwd",
]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_only_names_of_the_registry_resolve(up, name) -> None:
    import json

    body = json.dumps({"model": name, "messages": [{"role": "user", "content": "Hi."}], "max_tokens": 2}).encode()
    answer = ask(up, "POST", "/v1/chat/completions", JSON, body)
    assert answer.status in (400, 404)
    assert b'"model"' in answer.body
    assert ask(up, "GET", "/static/../../etc/passwd").status == 404
    assert ask(up, "GET", "/static/%2e%2e/%2e%2e/etc/passwd").status == 404


# The parts


def test_hosts_and_loopback() -> None:
    assert [host_of(text) for text in ("A:1", "[::1]:2", "a:b", "u@h", "a/b", "", "a:99999")] == ["a", "::1", None, None, None, None, None]
    assert [host for host in ("127.0.0.1", "::1", "localhost", "127.9.9.9", "0.0.0.0", "::", "10.0.0.1", "box") if is_loopback(host)] == [
        "127.0.0.1", "::1", "localhost", "127.9.9.9",
    ]  # fmt: skip


def test_a_name_bound_beyond_loopback_is_its_own() -> None:
    from starlette.datastructures import Headers

    names = Names(ServeConfig(models=("x",), host="box.lan", access=AccessConfig()))
    scope = {"scheme": "https", "method": "GET", "server": ("10.0.0.5", 8000)}
    for host in ("box.lan:8000", "10.0.0.5:8000", "localhost"):
        names.check(scope, Headers({"host": host, "origin": f"https://{host}"}))
    for host, origin in (("10.0.0.6", "https://10.0.0.6"), ("box.lan", "http://box.lan"), ("other.lan", "https://other.lan")):
        with pytest.raises(Exception, match="not called|may not ask"):
            names.check(scope, Headers({"host": host, "origin": origin}))
