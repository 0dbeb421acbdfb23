from collections.abc import Callable

import pytest

from benchmarks import ppo

SMALL = ["--shape", "tiny", "--prompts", "4", "--prompt-tokens", "6", "--new-tokens", "4", "--micro-batch", "2", "--pairs", "1"]


def rows(printed: str) -> dict[str, list[str]]:
    """Cells by the name of the row."""
    lines = [line.strip("|").split("|") for line in printed.splitlines() if line.startswith("| ")]
    return {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in lines[1:]}


def test_every_way_to_share_weights(capsys: pytest.CaptureFixture[str]) -> None:
    ppo.main([*SMALL, "--no-trl"])
    printed = capsys.readouterr().out
    found = rows(printed)
    assert list(found) == ["separate", "adapter", "head"]
    for cells in found.values():
        total, *phases = map(float, cells[:5])
        assert sum(phases) == pytest.approx(total, rel=0.3)
        assert float(cells[6].replace(",", "")) == pytest.approx(16 / total, rel=0.1)
        assert 0 < float(cells[7]) < total, "no faster than the products alone"
    assert "memory by role, MB" in printed


def test_the_way_of_the_7b_on_a_small_shape(capsys: pytest.CaptureFixture[str]) -> None:
    ppo.main([*SMALL, "--no-trl", "--roles", "adapter", "--bits", "16", "--judges", "2", "--checkpointing", "--epochs", "1"])
    printed = capsys.readouterr().out
    assert "base, 16 bits" in printed
    assert "safety" in printed
    assert list(rows(printed)) == ["adapter"]


@pytest.mark.parametrize(
    ("words", "told"), [(["--roles", "own"], "expected some of separate, adapter, head"), (["--shape", "8b"], "invalid choice")]
)
def test_bad_words(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        ppo.main(words)
    assert told in capsys.readouterr().err


@pytest.mark.slow
def test_beside_trl(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Callable[[], ppo.Times]] = []
    real = ppo.trls
    monkeypatch.setattr(ppo, "trls", lambda *arguments: made.append(real(*arguments)) or made[-1])
    ppo.main([*SMALL, "--roles", "separate"])
    found = rows(capsys.readouterr().out)
    assert list(found) == ["TRL", "separate"]
    assert float(found["separate"][8]) > 0
