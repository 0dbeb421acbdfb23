import asyncio
import sys
from pathlib import Path

import pytest
from benchmarks.serving import Heard, Side, alone, lacks, lines, main, measure, others, requests, together, told
from tests.serve.conftest import running

from llamaherd.checkpoints.huggingface import save_model
from llamaherd.tokenizer.sentencepiece import Tokenizer


@pytest.fixture
def talker(make_tiny, tokenizer: Tokenizer, tmp_path: Path) -> Path:  # type: ignore[no-untyped-def]
    save_model(make_tiny(3), tokenizer, tmp_path / "model")
    return tmp_path / "model"


def test_figures_of_one_turn() -> None:
    """Two streams of 10 and 30 tokens, in 1 and 2 s, whose first words came after 0.1 and 0.3 s; all took 2 s."""
    found = told([Heard("a", 10, 0.1, 1.0), Heard("b", 30, 0.3, 2.0)], 2.0)
    assert found == pytest.approx({"first_ms": 200, "first_95_ms": 100, "tokens_per_s": 20, "stream_tokens_per_s": 12.5})
    hundred = told([Heard("a", 1, number / 1000, 1.0) for number in range(1, 102)], 1.0)
    assert hundred["first_95_ms"] == pytest.approx(96)


def test_requests_are_the_same_every_time_and_each_has_its_seed() -> None:
    assert requests(5, 8) == requests(9, 8)[:5]
    assert len({body["seed"] for body in requests(200, 8)}) == 200


def test_lines_of_a_chunked_body_wherever_chunks_end() -> None:
    async def read(body: bytes) -> list[str]:
        reader = asyncio.StreamReader()
        reader.feed_data(body)
        reader.feed_eof()
        return [line async for line in lines(reader)]

    assert asyncio.run(read(b"5\r\none\nt\r\n4\r\nwo\r\n\r\n1\r\nx\r\n0\r\n\r\n")) == ["one", "two", "x"]


def test_a_running_server_is_measured_and_compared(talker: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running(models=[f"model={talker}"], invariant=True, rows=4) as up:
        side = Side("llamaherd, invariant", up.url, "model")
        bodies = requests(3, 6)
        (at_once, seconds), apart = asyncio.run(together(side, bodies)), asyncio.run(alone(side, bodies))
        assert [one.text for one in at_once] == [one.text for one in apart]
        assert all(0 < one.tokens <= 6 for one in at_once)
        assert all(0 < one.first_s <= one.whole_s <= seconds for one in at_once)
        asyncio.run(measure([side], [1, 3], new=6, turns=1, most_s=60))
        with pytest.raises(RuntimeError, match=r"answered b'HTTP/1.1 404"):
            asyncio.run(alone(Side("ours", up.url, "other"), bodies[:1]))
    rows = [line.split("|") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")][1:]
    assert [(row[1].strip(), row[2].strip(), row[7].strip()) for row in rows] == [
        ("1", "llamaherd, invariant", "1 of 1"), ("3", "llamaherd, invariant", "3 of 3"),
    ]  # fmt: skip
    assert all(float(row[5].replace(",", "")) > 0 for row in rows)


def test_what_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert lacks(sys.executable, "json") is None
    assert "No module named 'nothing_of_the_kind'" in str(lacks(sys.executable, "nothing_of_the_kind"))
    monkeypatch.delenv("LLAMAHERD_LLAMA_CPP_PYTHON", raising=False)
    monkeypatch.setattr("benchmarks.serving.lacks", lambda *_: "ModuleNotFoundError: No module named 'typer'")
    assert list(others(tmp_path, 1, tmp_path)) == []
    said = capsys.readouterr().out
    assert "llama.cpp's server is left out: LLAMAHERD_LLAMA_CPP_PYTHON names no Python" in said
    assert "transformers serve is left out: ModuleNotFoundError: No module named 'typer'" in said


@pytest.mark.slow
def test_servers_of_their_own(talker: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--model", str(talker), "--streams", "1,4", "--new", "4", "--turns", "1", "--threads", "1", "--ours"])
    rows = [line.split("|") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")][1:]
    assert [(row[1].strip(), row[2].strip()) for row in rows] == [
        (count, name) for count in ("1", "4") for name in ("llamaherd", "llamaherd, invariant")
    ]
    assert rows[3][7].strip() == "4 of 4"
