"""Case 27: who may ask, and what is seen without a key."""

import re
import time
from pathlib import Path

import pytest
from tests.serve.conftest import Running
from tests.serve.wire import CHAT, JSON, Answer, Locked, ask, bearer

from llamaherd.serve import access
from llamaherd.serve.keys import Keys

HTML = {"Accept": "text/html,application/xhtml+xml"}


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
