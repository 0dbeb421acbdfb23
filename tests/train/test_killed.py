import os
import subprocess
import sys
from pathlib import Path

import pytest

from llamaherd.core.metrics import read_metrics

KILLS = 15


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_kills_at_random_moments_change_nothing(tmp_path: Path) -> None:
    program = [sys.executable, str(Path(__file__).with_name("killed.py")), str(tmp_path), str(KILLS), "0"]
    done = subprocess.run(program, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= KILLS, "every attempt was to come so far as to save"
    ends = [(tmp_path / name / "end.safetensors").read_bytes() for name in ("whole", "killed")]
    assert ends[0] == ends[1]
    kept = ("step", "loss", "lr", "grad_norm", "tokens", "trained")
    whole, killed = (
        [[row[name] for name in kept] for row in read_metrics(tmp_path / name / "metrics.jsonl")] for name in ("whole", "killed")
    )
    assert whole == killed
    assert [row[0] for row in whole] == list(range(1, len(whole) + 1))
    assert "damaged" not in done.stderr, "a kill never leaves half a state where loading looks"
