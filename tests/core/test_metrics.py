"""Metrics: one line a step, a torn end is left out, a resumed run continues its own file."""

import json
import math
import os
from pathlib import Path

import pytest

from llamaherd.core.errors import UserError
from llamaherd.core.metrics import MetricsLog, read_metrics


def written(path: Path, first: int, last: int, resume_step: int = 0) -> None:
    log = MetricsLog(path, resume_step)
    for step in range(first, last + 1):
        log.write(step, {"train/loss": step / 2})
    log.close()


def test_values_come_back_and_what_json_cannot_hold_is_null(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "deep" / "m.jsonl")
    log.write(1, {"a": 0.1, "b": math.nan, "c": math.inf, "d": None, "e": "x\u2028y", "f": 3})
    expected = [{"step": 1, "a": 0.1, "b": None, "c": None, "d": None, "e": "x\u2028y", "f": 3}]
    assert read_metrics(tmp_path / "deep" / "m.jsonl") == expected, "each line is there as soon as it is written"
    log.close()
    assert read_metrics(tmp_path / "absent.jsonl") == []


def test_every_tear_of_the_last_line_leaves_the_lines_before(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    written(path, 1, 3)
    whole = path.read_bytes()
    second = whole.rindex(b"\n", 0, -1)
    for end in range(second + 1, len(whole) + 1):
        path.write_bytes(whole[:end])
        assert [row["step"] for row in read_metrics(path)] == ([1, 2, 3] if end >= len(whole) - 1 else [1, 2])


def test_resuming_drops_later_steps_and_the_torn_end(tmp_path: Path) -> None:
    path, unbroken = tmp_path / "m.jsonl", tmp_path / "u.jsonl"
    written(unbroken, 1, 8)
    written(path, 1, 5)
    with path.open("a") as file:
        file.write('{"step": 6, "train/lo')
    written(path, 4, 8, resume_step=3)
    assert path.read_bytes() == unbroken.read_bytes()
    written(path, 1, 2)
    assert [row["step"] for row in read_metrics(path)] == [1, 2]


def test_damage_before_the_end_is_named_and_the_file_kept(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(UserError, match=r"m\.jsonl line 2: not JSON"):
        MetricsLog(path, resume_step=3)
    assert path.read_text().count("\n") == 3


def test_a_full_disk_at_resume_keeps_the_old_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.jsonl"
    written(path, 1, 3)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space.*m\.jsonl"):
        MetricsLog(path, resume_step=3)
    assert len(read_metrics(path)) == 3


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_while_writing_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = MetricsLog(tmp_path / "m.jsonl")
    log.close()
    log._file = Path("/dev/full").open("a")  # noqa: SIM115
    with pytest.raises(OSError, match=r"No space.*m\.jsonl"):
        log.write(1, {"loss": 1.0})
    with pytest.raises(OSError, match=r"No space.*m\.jsonl"):
        log.close()


def test_lines_are_plain_json(tmp_path: Path) -> None:
    written(tmp_path / "m.jsonl", 1, 1)
    assert json.loads((tmp_path / "m.jsonl").read_text()) == {"step": 1, "train/loss": 0.5}
