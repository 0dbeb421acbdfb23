"""The endpoint client against a server on the loopback interface that says what each test tells it to."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import pytest

from llamaherd.assistant.endpoint import KEY_VARIABLE, Endpoint
from llamaherd.chat.dialogue import Message, checked
from llamaherd.core.errors import UserError
from llamaherd.generate.config import SamplingConfig

DIALOGUE = checked([Message("system", "Be kind."), Message("user", "Where?")])
SAMPLING = SamplingConfig(temperature=0.5, top_p=0.8, max_new_tokens=7)


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append(SimpleNamespace(path=self.path, headers=self.headers, body=body))  # type: ignore[attr-defined]
        self.server.reply(self)  # type: ignore[attr-defined]

    def do_GET(self) -> None:
        self.server.seen.append(SimpleNamespace(path=self.path, headers=self.headers, body=None))  # type: ignore[attr-defined]
        if reply := getattr(self.server, "reply_to_get", None):
            reply(self)

    def log_message(self, *_: Any) -> None:
        """Tests are quiet."""


Reply = Callable[[BaseHTTPRequestHandler], None]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.seen = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def sends(body: str, status: int = 200, kind: str = "text/event-stream", **headers: str) -> Reply:
    def reply(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Type", kind)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body.encode())

    return reply


def events(*rows: Any) -> str:
    return "".join(f"data: {row if isinstance(row, str) else json.dumps(row)}\n\n" for row in rows)


def piece(text: str | None, end: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": end}]}


def endpoint(server: ThreadingHTTPServer, **options: Any) -> Endpoint:
    model = Endpoint.parse(f"http://127.0.0.1:{server.server_port}/v1/#small")
    return Endpoint(model.address, model.name, **options)


def failure(server: ThreadingHTTPServer, reply: Reply, **options: Any) -> str:
    server.reply = reply  # type: ignore[attr-defined]
    with pytest.raises(UserError) as found:
        list(endpoint(server, **options).stream(DIALOGUE, SAMPLING, 1))
    assert "\n" not in str(found.value)
    assert str(found.value).startswith(f"http://127.0.0.1:{server.server_port}/v1: ")
    return str(found.value).partition("/v1: ")[2]


def test_a_dialogue_is_asked_and_its_answer_comes_in_pieces(server: ThreadingHTTPServer) -> None:
    first = {"choices": [{"delta": {"role": "assistant"}}]}
    counts = {"choices": [], "usage": {"total_tokens": 9}}
    text = ": still here\n\nevent: message\n" + events(first, piece("In "), piece("Lima ☀"), piece(None, "stop"), counts, "[DONE]", "junk")
    server.reply = sends(text)  # type: ignore[attr-defined]
    assert list(endpoint(server).stream(DIALOGUE, SAMPLING, (1 << 62) + 5)) == ["In ", "Lima ☀"]
    [seen] = server.seen  # type: ignore[attr-defined]
    assert seen.path == "/v1/chat/completions"
    assert seen.headers["Authorization"] is None
    assert seen.body == {
        "model": "small", "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Where?"}],
        "temperature": 0.5, "top_p": 0.8, "max_tokens": 7, "seed": 5, "stream": True,
    }  # fmt: skip


def test_raw_text_is_continued(server: ThreadingHTTPServer) -> None:
    server.reply = sends(events({"choices": [{"text": "on"}]}, {"choices": [{"text": "ce", "finish_reason": "length"}]}))  # type: ignore[attr-defined]
    assert list(endpoint(server).continuation("[INST]", SAMPLING, 1)) == ["on", "ce"]
    [seen] = server.seen  # type: ignore[attr-defined]
    assert seen.path == "/v1/completions"
    assert seen.body["prompt"] == "[INST]"


@pytest.mark.parametrize(("told", "prompt"), [
    ('{"bos_token_id": 1, "bos_token": null}', [1]), ('{"bos_token": "<s>"}', ""), ("[]", ""), ("no JSON", ""), (None, ""),
])  # fmt: skip
def test_an_empty_text_starts_from_begin_where_the_server_says_which_id_that_is(
    server: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch, told: str | None, prompt: Any
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "sk-1")
    server.reply = sends(events({"choices": [{"text": "Once", "finish_reason": "length"}]}))  # type: ignore[attr-defined]
    server.reply_to_get = sends(told or "", 404 if told is None else 200, "application/json")  # type: ignore[attr-defined]
    assert list(endpoint(server).continuation("", SAMPLING, 1)) == ["Once"]
    [asked, said] = server.seen  # type: ignore[attr-defined]
    assert (asked.path, asked.headers["Authorization"]) == ("/tokenizer_info?model=small", "Bearer sk-1")
    assert said.body["prompt"] == prompt


def test_a_server_that_does_not_stream(server: ThreadingHTTPServer) -> None:
    server.reply = sends(json.dumps({"choices": [{"message": {"content": "Lima"}}]}), kind="application/json; charset=utf-8")  # type: ignore[attr-defined]
    assert list(endpoint(server).stream(DIALOGUE, SAMPLING, 1)) == ["Lima"]


def test_pieces_come_before_the_answer_is_complete(server: ThreadingHTTPServer) -> None:
    seen_first = threading.Event()

    def reply(handler: BaseHTTPRequestHandler) -> None:
        sends(events(piece("one")))(handler)
        assert seen_first.wait(10)
        handler.wfile.write(events(piece(" two", "stop")).encode())

    server.reply = reply  # type: ignore[attr-defined]
    stream = endpoint(server).stream(DIALOGUE, SAMPLING, 1)
    assert next(stream) == "one"
    seen_first.set()
    assert list(stream) == [" two"]


def test_nothing_is_sent_before_an_answer_is_wanted(server: ThreadingHTTPServer) -> None:
    model = endpoint(server)
    assert model.fitted(DIALOGUE, SAMPLING) == (DIALOGUE, 0)
    model.stream(DIALOGUE, SAMPLING, 1)
    assert server.seen == []  # type: ignore[attr-defined]


def test_the_key_comes_from_the_environment(server: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "secret-1\n")
    server.reply = sends(events("[DONE]"))  # type: ignore[attr-defined]
    assert list(endpoint(server).stream(DIALOGUE, SAMPLING, 1)) == []
    assert server.seen[0].headers["Authorization"] == "Bearer secret-1"  # type: ignore[attr-defined]
    monkeypatch.setenv(KEY_VARIABLE, "secret\n2")
    with pytest.raises(UserError, match=KEY_VARIABLE) as found:
        list(endpoint(server).stream(DIALOGUE, SAMPLING, 1))
    assert "secret" not in str(found.value)


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (401, '{"error": {"message": "bad key", "code": 7}}', f"status 401: bad key; set {KEY_VARIABLE} to a key that it accepts"),
        (404, '{"error": "no model\\nsmall"}', "status 404: no model small; check the address"),
        (429, '{"detail": "slow down"}', "status 429: slow down; too many requests"),
        (400, '{"object": "error", "message": "context is 9"}', "status 400: context is 9"),
        (503, "<h1>\x1b[2Jbusy</h1>", "status 503: <h1> [2Jbusy</h1>; the server failed; try again later"),
        (500, "", "status 500; the server failed; try again later"),
    ],
)
def test_a_status_is_one_line_with_the_servers_words(server: ThreadingHTTPServer, status: int, body: str, expected: str) -> None:
    assert failure(server, sends(body, status, "application/json")).startswith(expected)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(server: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "secret")
    target = f"http://localhost:{server.server_port}/elsewhere"
    assert failure(server, sends("", status, Location=target)).startswith(f"redirects to {target}, which is not followed")
    assert len(server.seen) == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "event",
    ["{", "[]", "7", "{}", '{"choices": 3}', '{"choices": [3]}', '{"choices": [{"delta": null}]}', '{"choices": [{"text": 3}]}',
     '{"choices": [{"text": "\\ud83d"}]}'],
)  # fmt: skip
def test_a_malformed_stream_is_one_line(server: ThreadingHTTPServer, event: str) -> None:
    assert failure(server, sends(events(event))) == f"not the stream of an OpenAI-compatible server: {event}"


def test_an_error_within_the_stream(server: ThreadingHTTPServer) -> None:
    assert failure(server, sends(events(piece("a"), {"error": {"message": "out of memory"}}))) == "the server says: out of memory"


def test_an_answer_that_breaks_off(server: ThreadingHTTPServer) -> None:
    assert failure(server, sends(events(piece("a")))) == "the answer broke off before its end; ask again"


def test_a_line_without_an_end(server: ThreadingHTTPServer) -> None:
    assert failure(server, sends("data: " + "x" * (1 << 20))).endswith("a line without an end")


def test_a_server_that_speaks_no_http(server: ThreadingHTTPServer) -> None:
    assert "cannot be reached, or broke off" in failure(server, lambda handler: handler.wfile.write(b"SSH-2.0\r\n\r\n"))


def test_a_silent_server(server: ThreadingHTTPServer) -> None:
    done = threading.Event()

    def reply(handler: BaseHTTPRequestHandler) -> None:
        sends(events(piece("a")))(handler)
        done.wait(10)

    assert failure(server, reply, timeout_s=0.2).startswith("silent for 0.2 s")
    done.set()


def test_a_refused_connection() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        model = Endpoint(f"http://127.0.0.1:{taken.getsockname()[1]}/v1", "small")
        with pytest.raises(UserError, match=r"cannot be reached.*refused.*see whether the server runs") as found:
            list(model.stream(DIALOGUE, SAMPLING, 1))
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("spec", "address", "name"),
    [
        ("http://host/v1#small", "http://host/v1", "small"),
        ("https://[::1]:8080/v1/#meta/llama-2", "https://[::1]:8080/v1", "meta/llama-2"),
        ("http://host#m", "http://host", "m"),
        ("https://host/v1?api-version=3#m", "https://host/v1?api-version=3", "m"),
    ],
)
def test_addresses(spec: str, address: str, name: str) -> None:
    model = Endpoint.parse(spec)
    assert (model.address, model.name) == (address, name)


@pytest.mark.parametrize(
    "spec",
    ["http://host/v1", "http://host/v1#", "http:///v1#m", "http://host:x/v1#m", "http://host:99999/v1#m", "http://me:pw@host/v1#m",
     "http://[::1/v1#m", "http://ho st/v1#m", "http://host/v1\n#m", "http://höst/v1#m"],
)  # fmt: skip
def test_addresses_that_are_none(spec: str) -> None:
    with pytest.raises(UserError, match=r"expected an endpoint as http\(s\)://host/v1#name") as found:
        Endpoint.parse(spec)
    assert "\n" not in str(found.value)


def test_stop_texts_are_passed_on(server: ThreadingHTTPServer) -> None:
    server.reply = sends(events(piece("Oslo"), piece(None, "stop"), "[DONE]"))  # type: ignore[attr-defined]
    config = SAMPLING.model_copy(update={"stop": ("x", "yz")})
    assert list(endpoint(server).stream(DIALOGUE, config, 1)) == ["Oslo"]
    assert server.seen[-1].body["stop"] == ["x", "yz"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("setting", [{"top_k": 5}, {"min_p": 0.1}, {"repetition_penalty": 1.2}, {"top_log_probs": 2}])
def test_settings_that_no_such_server_knows_are_refused_before_it_is_asked(server: ThreadingHTTPServer, setting: dict[str, Any]) -> None:
    config = SAMPLING.model_copy(update=setting)
    name = next(iter(setting)).replace("_", "-")
    for ask in (lambda: endpoint(server).stream(DIALOGUE, config, 1), lambda: endpoint(server).continuation("a", config, 1)):
        with pytest.raises(UserError, match=f"knows no --{name}; leave that out"):
            list(ask())
    assert server.seen == []  # type: ignore[attr-defined]
