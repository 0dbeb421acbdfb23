"""Saved conversations over HTTP."""

import json
import re
import subprocess
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.serve.conftest import Running
from tests.serve.test_limits import watching

from llamaherd.serve.store import intake


@pytest.fixture
def http(up: Running) -> Any:
    with httpx.Client(base_url=f"{up.url}/api", timeout=60) as client:
        yield client


def new_id() -> str:
    return str(uuid.uuid4())


def message(content: str = "Hi.", parent: str | None = None, role: str = "user", **more: Any) -> dict[str, Any]:
    return {"id": new_id(), "parent": parent, "role": role, "content": content, **more}


def test_a_conversation_from_its_beginning_to_its_end(http: httpx.Client) -> None:
    id = new_id()
    made = http.post("/conversations", json={"id": id, "title": "A", "settings": {"temperature": 0}}).json()
    assert (made["id"], made["title"], made["settings"], made["nodes"], made["leaf"]) == (id, "A", {"temperature": 0}, [], None)
    user = message("Where does Ada live?")
    node = http.post(f"/conversations/{id}/nodes", json=user).json()
    assert node == {**user, "model": None, "meta": {}, "created_s": node["created_s"]}
    answer = message("In", user["id"], "assistant", model="short", meta={"finish": "length"})
    assert http.post(f"/conversations/{id}/nodes", json=answer).json() == http.post(f"/conversations/{id}/nodes", json=answer).json()
    more = http.patch(f"/conversations/{id}/nodes/{answer['id']}", json={"content": "In Lima.", "meta": None}).json()
    assert (more["content"], more["meta"]) == ("In Lima.", {"finish": "length"})
    assert http.patch(f"/conversations/{id}", json={"title": "B", "leaf": user["id"]}).json()["leaf"] == user["id"]
    whole = http.get(f"/conversations/{id}").json()
    assert [one["content"] for one in whole["nodes"]] == ["Where does Ada live?", "In Lima."]
    assert (whole["title"], whole["leaf"]) == ("B", user["id"])
    found = http.get("/conversations", params={"query": "LIMA"}).json()["data"][0]
    assert (found["id"], found["snippet"], found["hit"]["start"]) == (id, "In Lima.", 3)
    file = http.get(f"/conversations/{id}/export")
    assert file.headers["content-disposition"] == f'attachment; filename="llamaherd-conversation-{id}.json"'
    assert file.json()["conversations"] == [whole]
    assert http.delete(f"/conversations/{id}/nodes/{answer['id']}").json()["leaf"] == user["id"]
    assert http.delete(f"/conversations/{id}").status_code == 204
    assert http.get(f"/conversations/{id}").status_code == 404
    assert http.delete(f"/conversations/{id}").json()["error"]["message"] == "no such conversation"


def test_export_and_import(http: httpx.Client) -> None:
    http.post("/conversations", json={"title": "kept"})
    file = http.get("/export")
    assert file.headers["content-disposition"] == 'attachment; filename="llamaherd-conversations.json"'
    count = len(file.json()["conversations"])
    result = http.post("/import", content=file.content, headers={"Content-Type": "application/json"}).json()
    assert result == {"imported": count, "left_out": []}
    assert len(http.get("/export").json()["conversations"]) == 2 * count
    for content, complaint in ((b"\xff", "not UTF-8"), (b"[", "not JSON"), (b'""', "expected conversations")):
        refused = http.post("/import", content=content, headers={"Content-Type": "application/json"})
        assert refused.status_code == 400
        assert complaint in refused.json()["error"]["message"]


def test_a_file_may_be_larger_than_other_bodies_but_not_too_large(http: httpx.Client, up: Running) -> None:
    limits, store = up.service.config.limits, up.service.config.store
    large = json.dumps({"messages": [{"role": "user", "content": "x" * 500_000}, {"role": "assistant", "content": "y" * 500_000}]})
    content = "\n".join([large] * (limits.body_bytes // 1_000_000 + 1)).encode()
    assert len(content) > limits.body_bytes
    taken = http.post("/import", content=content, headers={"Content-Type": "application/json"})
    assert taken.json()["imported"] == limits.body_bytes // 1_000_000 + 1
    huge = http.post("/import", content=b" " * (store.import_bytes + 1), headers={"Content-Type": "application/json"})
    assert huge.status_code == 413


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ({"id": "1", "role": "user", "content": "x"}, "id: "), ({"role": "user", "content": "x"}, "id: "),
        (message(role="tool"), "role: "), (message(content=1), "content: "), (message(more=1), "more: "),  # type: ignore[arg-type]
        (message("[/INST]"), "message 1 (user): contains the template tag [/INST]"), (message("x", new_id(), "assistant"), "parent: no such"),
        (message(meta=[]), "meta: "), (message(parent="x"), "parent: "), (message(""), "message 1 (user): is empty"),
        (message(model="x" * 501), "model: "),
    ],
)  # fmt: skip
def test_messages_that_are_refused(body: dict[str, Any], complaint: str, http: httpx.Client) -> None:
    id = http.post("/conversations", json={}).json()["id"]
    refused = http.post(f"/conversations/{id}/nodes", json=body)
    assert refused.status_code == 400
    assert refused.json()["error"]["message"].startswith(complaint)


@pytest.mark.parametrize("id", ["x", "%00", "..%2f..", "%ed%a0%80", "1" * 300, str(uuid.UUID(int=0))])
def test_conversations_that_are_not_there(id: str, http: httpx.Client) -> None:
    for path in (f"/conversations/{id}", f"/conversations/{id}/export"):
        assert http.get(path).status_code == 404
    assert http.delete(f"/conversations/{id}/nodes/{id}").status_code == 404


@pytest.mark.parametrize("body", [b'{"title": "\\ud800"}', b'{"settings": {"a": "\\ud800"}}', b'{"settings": {"a": NaN}}', b'{"title": 1}'])
def test_what_no_database_keeps_is_refused(body: bytes, http: httpx.Client) -> None:
    answer = http.post("/conversations", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]


def test_lists_are_asked_for_in_bounds(http: httpx.Client) -> None:
    for wrong in ({"limit": 0}, {"limit": 201}, {"limit": "x"}, {"before": "x"}, {"query": "x" * 201}):
        assert http.get("/conversations", params=wrong).status_code == 400
    assert http.get("/conversations", params={"query": "\0", "limit": 1}).json()["data"] == []


def test_users_keep_apart(up: Running) -> None:
    """As the middleware names them."""
    store = up.service.store
    id = json.loads(store.create("ben", None, "secret", {}))["id"]
    assert httpx.get(f"{up.url}/api/conversations/{id}").status_code == 404
    assert id not in httpx.get(f"{up.url}/api/export").text


@pytest.mark.slow
def test_a_server_that_is_killed_keeps_what_it_answered(talkers: Path, tmp_path: Path) -> None:
    answered: list[tuple[str, str]] = []
    for round in range(2):
        command = [sys.executable, "-m", "llamaherd.cli", "serve", str(talkers / "short"), "--port", "0", "--state", str(tmp_path)]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        url = next(match[0] for line in server.stdout if (match := re.search(r"http://127\.0\.0\.1:\d+", line)))
        with httpx.Client(base_url=f"{url}/api") as client:
            for id, node in answered:
                assert [one["id"] for one in client.get(f"/conversations/{id}").json()["nodes"]] == [node]
            if round == 1:
                assert all(len(one["nodes"]) < 2 for one in client.get("/export").json()["conversations"])
        with ThreadPoolExecutor(8) as threads:
            writers = [threads.submit(_write_until_it_ends, url, answered) for _ in range(8)]
            enough, deadline = len(answered) + 20, time.monotonic() + 60
            while len(answered) < enough and time.monotonic() < deadline:
                time.sleep(0.01)
            server.kill()
            for writer in writers:
                writer.result()
        server.wait()
        server.stdout.close()
    assert len(answered) >= 40


def _write_until_it_ends(url: str, answered: list[tuple[str, str]]) -> None:
    with httpx.Client(base_url=f"{url}/api", timeout=10) as client:
        try:
            while True:
                id = client.post("/conversations", json={}).raise_for_status().json()["id"]
                node = message("x" * 3000)
                client.post(f"/conversations/{id}/nodes", json=node).raise_for_status()
                answered.append((id, node["id"]))
        except httpx.TransportError:
            pass


def test_a_long_conversation_loads_fast(http: httpx.Client) -> None:
    """100,000 tokens in 2,000 messages, and in one: well under a second even here, beside other work."""
    words = "word " * 50
    rows = [{"role": ("user", "assistant")[number % 2], "content": words} for number in range(2000)]
    one = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": words * 2000}]
    for messages in (rows, one):
        body = json.dumps({"messages": messages})
        assert http.post("/import", content=body.encode(), headers={"Content-Type": "application/json"}).json()["imported"] == 1
        id = http.get("/conversations", params={"limit": 1}).json()["data"][0]["id"]
        start = time.perf_counter()
        assert len(http.get(f"/conversations/{id}").json()["nodes"]) == len(messages)
        assert time.perf_counter() - start < 2
        http.delete(f"/conversations/{id}")


def test_an_export_that_cannot_begin_is_a_503(http: httpx.Client, up: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    from sqlalchemy.exc import OperationalError

    def fails() -> Any:
        raise OperationalError("SELECT", {}, Exception("s3cret"))

    monkeypatch.setattr(up.service.store.database, "reading", fails)
    answer = http.get("/export")
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "database"


def test_a_file_that_is_hard_to_read_holds_up_nobody(http: httpx.Client, up: Running) -> None:
    hard = b'{"a": [' + b"[]," * 2_000_000 + b"1]}"
    with watching(up) as late:
        answer = http.post("/import", content=hard, headers={"Content-Type": "application/json"})
    assert answer.json()["imported"] == 0
    assert len(answer.json()["left_out"]) == 1
    assert max(turn.cpu_s for turn in late) < 0.1
    assert max(turn.wall_s for turn in late) < 1.0


def test_what_a_file_is_not_is_said_as_ever(http: httpx.Client, up: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(content: bytes) -> httpx.Response:
        return http.post("/import", content=content, headers={"Content-Type": "application/json"})

    for content, message in ((b"\xff", "the file is not UTF-8: invalid start byte at byte 0"), (b"[", "the file is not JSON: ")):
        answer = asked(content)
        assert (answer.status_code, answer.json()["error"]["message"][: len(message)]) == (400, message)
    monkeypatch.setattr(intake, "LIMIT_S", 0.01)
    assert asked(b"[]").json()["error"]["message"] == "the file takes too long or too much memory to read; split it"
    monkeypatch.undo()
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert asked(b"[]").json()["error"]["code"] == "too_large"
