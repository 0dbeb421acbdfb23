"""The log: a line for each request and each complaint, and no text of users unless that was asked for."""

import asyncio
import gc
import json
import threading

from tests.serve.wire import chat, request, send


def test_a_log_holds_a_line_for_each_request_and_no_text_of_users(serve, talkers, tmp_path) -> None:
    log = tmp_path / "log"
    with serve(models=[str(talkers / "short")], log=str(log)) as up:
        for path in ("/v1/models%0d%0aowner:%20root", "/x%1b%5b31m", "/v1/models?secret=s3cret", "/health"):
            send(up, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: s3cret\r\nX-A: \x1b]0;s3cret\x07\r\n\r\n".encode())
        send(up, request(b'{"model": "s3cret\\r\\n{}", "messages": [{"role": "user", "content": "http://a@169.254.169.254/s3cret"}]}'))
        send(up, request(b'{"s3cret": 1}'))
        send(up, b"S3CRET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    lines = log.read_text("utf-8").splitlines()
    assert len(lines) == 7
    seen = [json.loads(line) for line in lines]
    assert [line["status"] for line in seen] == [404, 404, 200, 200, 404, 400, 405]
    assert [line["route"] for line in seen] == ["-", "-", "/v1/models", "/health", "/v1/chat/completions", "/v1/chat/completions", "/"]
    assert seen[-1]["method"] == "other"
    assert {line["owner"] for line in seen} <= {"-", "local"}
    assert all(set(line) == {"time", "owner", "method", "route", "status", "seconds", "tokens"} for line in seen)
    assert "s3cret" not in log.read_text("utf-8").lower()
    assert "\x1b" not in log.read_text("utf-8")
    assert log.stat().st_mode & 0o777 == 0o600


def test_texts_are_logged_when_asked_for(serve, talkers, tmp_path) -> None:
    log = tmp_path / "log"
    with serve(models=[str(talkers / "short")], log=str(log), log_text=True) as up:
        send(up, request(chat(more=', "max_tokens": 2')))
    (line,) = log.read_text("utf-8").splitlines()
    assert json.loads(json.loads(line)["asked"])["messages"][0]["content"] == "Hi."
    assert "assistant" in json.loads(line)["answered"]


def test_complaints_are_one_line_without_the_words_of_an_error() -> None:
    import logging
    import sys

    from llamaherd.serve.journal import OneLine

    try:
        raise ValueError("what a user said\r\nllamaherd: all is well")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "f", 1, "failed\r\nfor %s\x1b[31m", ("a\nb",), sys.exc_info())
    line = OneLine().format(record)
    assert line.startswith("llamaherd: failed for a b [31m (ValueError at test_journal.py:")
    assert "said" not in line
    assert "\n" not in line


def test_complaints_of_tasks_and_threads_hold_no_words_either(monkeypatch) -> None:
    import io
    import logging
    import sys

    from llamaherd.serve.journal import complain_in_lines

    async def said_nobody_hears() -> None:
        async def fails() -> None:
            raise ValueError("s3cret")

        task = asyncio.create_task(fails())
        await asyncio.sleep(0)
        del task
        gc.collect()

    def dies() -> None:
        raise RuntimeError("s3cret\r\nllamaherd: all is well")

    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", list(root.handlers))
    monkeypatch.setattr(root, "level", root.level)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    monkeypatch.setattr(sys, "stderr", errors := io.StringIO())
    complain_in_lines()
    asyncio.run(said_nobody_hears())
    thread = threading.Thread(target=dies)
    thread.start()
    thread.join()
    first, second = errors.getvalue().splitlines()
    assert first.startswith("llamaherd: Task exception was never retrieved (ValueError at test_journal.py:")
    assert second.startswith("llamaherd: a thread died (RuntimeError at test_journal.py:")
    assert "s3cret" not in errors.getvalue()
