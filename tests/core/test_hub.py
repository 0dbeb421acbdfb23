"""What a hub, or the lack of one, does to a request: one line that says what it was and what mends it."""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from llamaherd.core.errors import UserError
from llamaherd.core.hub import LEAVES, WINDOWS, RemoteFile, check_name, described, existing, repository

from .loopback import TOKEN, LoopbackHub

NAME = "owner/model"
FILES = {"config.json": b"{}", "w.safetensors": b"12345678"}


def refusal(ask) -> str:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError) as refused:
        ask()
    assert "\n" not in str(refused.value)
    return str(refused.value)


def looked() -> None:
    described(repo := repository(NAME, "model"), repo.files)


def test_what_a_repository_holds(hub: LoopbackHub) -> None:
    hub.add(f"models/{NAME}", FILES, private=True)
    repo = repository(NAME, "model")
    assert (repo.commit, repo.private) == ("a" * 40, True)
    small, large = described(repo, repo.files)
    assert (small.path, small.size, small.sha256, small.blob) == ("config.json", 2, None, "9e26dfeeb6e641a33dae4961196235bdb965b21b")
    assert (large.size, large.blob) == (8, None)
    assert large.sha256 == "ef797c8118f02dfb649607dd5d3f8c7623048c9c063d532cc95c5ed7a898a64f"
    assert repository(NAME, "model", "a" * 40).commit == "a" * 40


def test_a_mirror_without_trees_is_asked_file_by_file(hub: LoopbackHub) -> None:
    hub.add(f"models/{NAME}", FILES, tree=False)
    repo = repository(NAME, "model")
    assert repo.files == (RemoteFile("config.json"), RemoteFile("w.safetensors"))
    assert [(file.size, file.sha256 is not None) for file in described(repo, repo.files)] == [(2, False), (8, True)]


CASES = [
    (
        {"status": {"api": [401]}},
        None,
        f"{NAME}: needs a token (401): it is private or gated, or there is no such repository; check the name",
    ),
    ({"status": {"api": [401]}}, TOKEN, f"{NAME}: the token is not accepted (401): make one at http"),
    ({"status": {"api": [403]}}, TOKEN, f"{NAME}: no access (403): accept the licence or ask for access at http"),
    ({"status": {"api": [404]}}, None, f"{NAME}: no such model repository at http"),
    ({"status": {"api": [500]}}, None, f"{NAME}: the hub fails (500); try again later; the hub says: as the test wants"),
    ({"status": {"api": [429]}, "retry_after": "300"}, None, f"{NAME}: too many requests (429); try again in 300 s; with a token"),
    ({"status": {"api": [418]}}, None, f"{NAME}: the hub refuses (status 418); the hub says: as the test wants"),
    ({"status": {"HEAD config.json": [401]}, "code": "GatedRepo"}, None, f"{NAME}: is gated (401): accept its licence at http"),
    ({"status": {"HEAD config.json": [403]}, "code": "GatedRepo"}, TOKEN, f"{NAME}: is gated (403): accept its licence at http"),
    ({"status": {"HEAD w.safetensors": [403]}}, TOKEN, f"{NAME}: no access (403): "),
]


@pytest.mark.parametrize(("how", "token", "said"), CASES)
def test_every_refusal_is_one_line_with_the_fix(hub: LoopbackHub, monkeypatch, how, token, said) -> None:  # type: ignore[no-untyped-def]
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    hub.add(f"models/{NAME}", FILES, **how)
    words = refusal(looked)
    assert words.startswith(said)
    if "gated" in said or "token" in said or "licence" in said:
        assert "`hf auth login` or set HF_TOKEN" in words
    if "licence at http" in said:
        assert f"at {hub.address}/{NAME}," in words


def test_what_is_not_there(hub: LoopbackHub) -> None:
    hub.add(f"models/{NAME}", FILES)
    assert refusal(lambda: repository("owner/other", "model")).startswith(
        f"owner/other: no such model repository at {hub.address} (404); check"
    )
    assert refusal(lambda: repository(NAME, "model", "v9")) == (
        f"{NAME}: has no revision 'v9' (404); its branches and tags are at {hub.address}/{NAME}"
    )
    assert refusal(lambda: repository(NAME, "dataset")).startswith(f"{NAME}: no such dataset repository at")


def test_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert refusal(lambda: repository(NAME, "model")).startswith(f"{NAME}: http://127.0.0.1:9 cannot be reached, or broke off (")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in refusal(lambda: repository(NAME, "model"))


@pytest.mark.parametrize("address", ["localhost:8000", "ftp://host", "https://", "hub"])
def test_an_endpoint_that_is_none(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("HF_ENDPOINT", address)
    assert refusal(lambda: repository(NAME, "model")) == (
        f"HF_ENDPOINT is {address!r}; expected the address of a hub as http(s)://host, or unset it"
    )


@pytest.mark.parametrize(
    "body", [b"<html>log in</html>", b"[]", b'{"id": "owner/model"}', json.dumps({"id": NAME, "sha": "../x"}).encode()]
)
def test_a_server_that_is_no_hub(monkeypatch: pytest.MonkeyPatch, body: bytes) -> None:
    class Portal(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Portal) as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
        assert "does not answer as a hub does" in refusal(lambda: repository(NAME, "model"))
        server.shutdown()


def test_a_silent_hub_ends_the_request(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    from socket import create_server

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
    with create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert "was silent for too long" in refusal(lambda: repository(NAME, "model"))


@pytest.mark.parametrize("token", ["hf_ö", "hf_\x01"])
def test_a_token_that_is_none(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    hub.add(f"models/{NAME}", FILES)
    words = refusal(lambda: repository(NAME, "model"))
    assert "HF_TOKEN" in words
    assert token not in words


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc/x", "a//b", "./a", "a/", "C:/x", "a\\..\\x", "a\nb", "..", ""])
def test_a_name_that_leaves_its_folder_is_refused_whatever_is_asked_for(hub: LoopbackHub, path: str) -> None:
    hub.add(f"models/{NAME}", {**FILES, path: b"x"})
    assert "would leave its folder; nothing was fetched" in refusal(lambda: repository(NAME, "model"))


@pytest.mark.parametrize(
    "path", ["aux.json", "a/CON", "com1.model", "a.", "a /b", "a:b", "c:x", 'q"q', "a|b", "w.safetensors/x", "CONFIG.JSON"]
)
def test_a_name_that_some_system_cannot_store_is_not_fetched(hub: LoopbackHub, path: str) -> None:
    hub.add(f"models/{NAME}", {**FILES, path: b"x"})
    assert "cannot be stored under its name on every system" in refusal(looked)


@pytest.mark.parametrize("path", ["config.json", "model-00001-of-00002.safetensors", "a/b.c/d", ".gitattributes", "console.json", "...x"])
def test_usual_names_are_fine(path: str) -> None:
    assert not LEAVES.search(path)
    assert not WINDOWS.search(path)


@pytest.mark.parametrize("name", ["", "a/b/c", "a b", "../x", "a/..", "https://huggingface.co/a/b", "a--b", "-a/b", "a/b\n"])
def test_a_repository_is_named_by_owner_and_name(name: str) -> None:
    assert "expected a repository as OWNER/NAME" in refusal(lambda: check_name(name))


def test_sending_needs_a_token_and_an_owner(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refusal(lambda: existing(NAME, "model")).startswith(
        f"{NAME}: sending needs a token with write access: make one at {hub.address}"
    )
    assert hub.asked == []
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert existing(NAME, "model") is None
    assert "expected a repository as OWNER/NAME" in refusal(lambda: existing("model", "model"))
