"""When a run needs no more work."""

import os
from pathlib import Path

from llamaherd.core.artifacts import MANIFEST
from llamaherd.recipe.run import is_finished
from llamaherd.recipe.steps import Step
from llamaherd.stages.corpus import CorpusSettings


def write(file: Path, second: int) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text("{}")
    os.utime(file, (second, second))


def test_what_is_put_beside_a_finished_run_reaches_its_report(tmp_path: Path) -> None:
    steps = [Step("corpus", "corpus", CorpusSettings(), 0)]
    write(tmp_path / "corpus" / MANIFEST, 10)
    assert not is_finished(steps, tmp_path)
    write(tmp_path / "report.html", 20)
    assert not is_finished(steps, tmp_path)
    write(tmp_path / "summary.json", 20)
    assert is_finished(steps, tmp_path)
    write(tmp_path / "v5-curves" / MANIFEST, 30)
    assert not is_finished(steps, tmp_path)
    write(tmp_path / "report.html", 40)
    assert is_finished(steps, tmp_path)
