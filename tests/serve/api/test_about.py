"""Health is what can be asked for, also when a thread has died."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest


def test_a_model_whose_thread_died_is_failed(serve: Callable[..., Any], talkers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: Any) -> None:
        raise SystemExit

    with serve(models=[str(talkers / "short"), str(talkers / "endless")]) as up:
        assert httpx.get(f"{up.url}/health").status_code == 200
        monkeypatch.setattr(threading, "excepthook", lambda _: None)
        worker = up.service.models["short"].worker
        monkeypatch.setattr(worker, "_step", die)
        asked = {"model": "short", "messages": [{"role": "user", "content": "Hi."}]}
        assert httpx.post(f"{up.v1}/chat/completions", json=asked).status_code == 503
        ends = time.monotonic() + 10
        while worker.alive:
            assert time.monotonic() < ends
            time.sleep(0.01)
        health = httpx.get(f"{up.url}/health")
        assert (health.status_code, health.json()) == (503, {"status": "failed"})
        assert 'llamaherd_state{state="failed"} 1.0' in httpx.get(f"{up.url}/metrics").text
        assert httpx.post(f"{up.v1}/chat/completions", json=asked).status_code == 503
        assert httpx.post(f"{up.v1}/chat/completions", json=asked | {"model": "endless", "max_tokens": 2}).status_code == 200
