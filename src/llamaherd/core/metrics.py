"""Metrics as append-only JSON lines, keys grouped by slash: one writer per file, a resumed run continues its own."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import UserError
from .files import naming, write_text


class MetricsLog:
    """Appends `{"step": n, ...}` lines to `path`; opening it at a step drops the lines of later steps."""

    def __init__(self, path: Path, resume_step: int = 0):
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [line for line in read_metrics(path) if line["step"] <= resume_step]
        write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
        self._file = path.open("a", encoding="utf-8")

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """One line; a non-finite number is written as null, since JSON has no NaN."""
        row: dict[str, Any] = {"step": step}
        for key, value in values.items():
            row[key] = None if isinstance(value, float) and not math.isfinite(value) else value
        with naming(self.path):
            self._file.write(json.dumps(row) + "\n")
            self._file.flush()

    def close(self) -> None:
        with naming(self.path):
            self._file.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a metrics file; the last one, when a crash tore it, is left out.

    Raises UserError for damage that no crash explains: an earlier line that is no JSON object, or what is not text.
    """
    if not path.exists():
        return []
    try:
        *lines, rest = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}); damaged, remove the file") from None
    rows = []
    for number, line in enumerate([*lines, rest], 1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            if number > len(lines):  # nothing, or the beginning of a line
                break
            raise UserError(f"{path} line {number}: not JSON ({error.msg}); damaged, remove the file or that line") from None
        if not isinstance(row, dict) or not isinstance(row.get("step"), int):
            raise UserError(f"{path} line {number}: no object with a step; damaged, remove the file or that line")
        rows.append(row)
    return rows
