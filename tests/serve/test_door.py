"""Cases 28 and 30: by which names the server may be called and from which pages, and what names of models come to."""

from typing import Any

import pytest
from tests.serve.wire import CHAT, JSON, ask, bearer

from llamaherd.serve.config import AccessConfig, ServeConfig
from llamaherd.serve.door import Names, host_of, is_loopback

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
    assert ask(up, "PUT", "/api/conversations").headers["Allow"] == "GET, POST", "of all routes of a path"
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
