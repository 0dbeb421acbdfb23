"""A real server on a free port of loopback, in this process, on models that say random things."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import uvicorn

from llamaherd.assistant.local import Assistant
from llamaherd.checkpoints.huggingface import save_model
from llamaherd.core.config import build
from llamaherd.model.transformer import Transformer
from llamaherd.serve.config import ServeConfig
from llamaherd.serve.keys import Keys
from llamaherd.serve.server import bind, make_server
from llamaherd.serve.service import Service
from llamaherd.tokenizer.sentencepiece import Tokenizer


class Running:
    """A server that is up: its address, and what it is made of."""

    def __init__(self, service: Service, server: uvicorn.Server, port: int):
        self.service, self.server, self.port = service, server, port
        self.url = f"http://127.0.0.1:{port}"
        self.v1 = f"{self.url}/v1"

    def wait_ready(self) -> None:
        deadline = time.monotonic() + 60
        while self.service.state == "loading":
            assert time.monotonic() < deadline, "the models are not loaded in time"
            time.sleep(0.01)
        assert self.service.state == "ready", self.service.why

    def wait_empty(self, seconds: float = 1.0) -> None:
        """Fails when sequences are still open after so long."""
        deadline = time.monotonic() + seconds
        while self.open:
            assert time.monotonic() < deadline, f"{self.open} sequences are still open"
            time.sleep(0.005)

    @property
    def open(self) -> int:
        """Sequences that wait or are at work."""
        return sum(base.worker.open for base in self.service._bases if base.worker)


@contextmanager
def running(ready: bool = True, **settings: Any) -> Iterator[Running]:
    """Settings as in ServeConfig."""
    service = Service(build(ServeConfig, {"port": 0, **settings}))
    server = make_server(service)
    listening = bind(service.config.host, service.config.port)
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.005)
    up = Running(service, server, server.servers[0].sockets[0].getsockname()[1])
    if ready:
        up.wait_ready()
    try:
        yield up
    finally:
        server.should_exit = True
        thread.join(30)
        listening.close()


@pytest.fixture(scope="session")
def serve() -> Callable[..., AbstractContextManager[Running]]:
    """`with serve(models=[folder], ...) as up:` for settings of one's own."""
    return running


@pytest.fixture(scope="session")
def talkers(make_tiny: Callable[[int], Transformer], tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models `short`, whose answers end after a few tokens, and `endless`, whose answers only a limit ends; both with a long context."""
    folder = tmp_path_factory.mktemp("talkers")
    for name in ("short", "endless"):
        model = make_tiny(3)
        model.config = model.config.model_copy(update={"context": 2048})
        if name == "endless":
            with torch.no_grad():
                model.output.weight[tokenizer.eos_id, 0] = model.output.weight[tokenizer.bos_id, 0] = -50.0
        save_model(model, tokenizer, folder / name)
    return folder


@pytest.fixture(scope="module")
def up(talkers: Path) -> Iterator[Running]:
    """One server for a module's tests, with both models."""
    with running(models=[str(talkers / "short"), str(talkers / "endless")]) as server:
        yield server


@pytest.fixture(scope="module")
def locked(serve: Callable[..., AbstractContextManager[Running]], talkers: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A server that asks for keys, with two holders; a `Locked`."""
    from tests.serve.wire import Locked

    state, log = tmp_path_factory.mktemp("state"), tmp_path_factory.mktemp("log") / "log"
    keys = Keys(state)
    ann, ben = keys.add("ann"), keys.add("ben")
    access_settings = {"ask_keys": True, "allow_host": ["chat.example.org"], "allow_origin": ["https://friend.example:8443"]}
    with serve(models=[str(talkers / "short")], access=access_settings, state=str(state), log=str(log)) as up:
        yield Locked(up, ann, ben, keys)


@pytest.fixture(scope="module")
def endless(talkers: Path) -> Assistant:
    """The model whose answers only a limit ends."""
    return Assistant.load(talkers / "endless")


@pytest.fixture(scope="session", autouse=True)
def _state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keys and conversations of servers that name no folder: not those of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLAMAHERD_STATE", str(tmp_path_factory.mktemp("state")))
        yield
