"""Runs of two seeds and what was made for the claims, by hand: a few prompts, a few comparisons."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from llamaherd.report.claims.parts import SeedRun

VERSIONS = ("v0", "v1", "v2")
Make = Callable[..., SeedRun]
MODELS = {"base": "model", **dict.fromkeys((*VERSIONS, "v2-rejection"), "model")}


def artifact(folder: Path, name: str, kind: str = "evaluation", metrics: dict[str, Any] | None = None, **files: Sequence[Any]) -> None:
    """An artifact as the report reads it; files are rows by name, without the ending."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    manifest = {"kind": kind, "stage": kind, "seed": 0, "hash": name, "metrics": metrics or {}, "seconds": 10.0, "energy_wh_estimate": 0.1}
    (folder / name / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    for file, rows in files.items():
        (folder / name / f"{file}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def answers(task: str, values: Sequence[float], key: str = "score", **more: Any) -> list[dict[str, Any]]:
    """Rows of judged answers to prompts p0, p1 ... of a task."""
    return [{"task": task, "mode": "sampled", "id": f"{task} p{place}", key: value, **more} for place, value in enumerate(values)]


def comparisons(agree: Sequence[int], domain: str = "helpfulness", **more: Any) -> list[dict[str, Any]]:
    """Rows of test comparisons c0, c1 ..., whose logits are 1 or -1 apart."""
    return [
        {"id": f"{domain} c{place}", "domain": domain, "grade": "significantly" if place % 2 else "slightly", "agrees": bool(one),
         "chosen_logit": float(one), "rejected_logit": 0.0 if one else 1.0, "chosen_safe": None, "rejected_safe": None, **more}
        for place, one in enumerate(agree)
    ]  # fmt: skip


@pytest.fixture
def seed(tmp_path: Path) -> Make:
    """`seed(0, claims={name: {...}}, run={name: {...}})`: the folders of one seed with these artifacts beside the models."""

    def make(number: int, claims: dict[str, dict[str, Any]] | None = None, run: dict[str, dict[str, Any]] | None = None) -> SeedRun:
        folder = tmp_path / f"seed-{number}"
        folder.mkdir()
        (folder / "recipe.json").write_text(json.dumps({"seed": number, "world": {"versions": 2}, "ghost_after": 1}), "utf-8")
        for name, kind in MODELS.items():
            artifact(folder, name, kind, {"parameters": 1000} if name == "base" else {})
        for name, content in (run or {}).items():
            artifact(folder, name, **content)
        artifact(folder / "claims", "something", "model")
        for name, content in (claims or {}).items():
            artifact(folder / "claims", name, **content)
        return SeedRun(folder)

    return make
