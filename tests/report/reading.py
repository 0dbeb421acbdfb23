"""What the tests of several parts of the report do alike: look up an effect, change a file."""

import json
from pathlib import Path

from llamaherd.report.effects import Effect, measure_effects
from llamaherd.report.folder import RunFolder


def effects(run: Path) -> dict[str, Effect]:
    return {one.name: one for one in measure_effects(RunFolder(run))}


def one_of(run: Path, *parts: str) -> Effect:
    found = [one for name, one in effects(run).items() if all(part in name for part in parts)]
    assert len(found) == 1, (parts, [one.name for one in found])
    return found[0]


def value(one: Effect) -> float:
    assert one.here is not None
    assert one.here["value"] is not None
    return one.here["value"]


def change(file: Path, *keys: str, to: object) -> None:
    """Puts a value into a JSON file."""
    whole = place = json.loads(file.read_text())
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = to
    file.write_text(json.dumps(whole))
