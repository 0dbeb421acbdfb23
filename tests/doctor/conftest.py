"""Small artifacts made by real stages, healthy or broken in one way, and what the doctor says of them."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from llamaherd.core.artifacts import Artifact
from llamaherd.core.config import build
from llamaherd.core.files import write_rows
from llamaherd.data.records import GRADES
from llamaherd.doctor.examine import examine
from llamaherd.doctor.finding import Finding
from llamaherd.stages import ppo, reject, reward, sft

NAMES = ("Ada", "Bob", "Cleo", "Dan")
CITIES = ("Lima", "Oslo", "Rome", "Cairo")


def asked(number: int) -> str:
    """Different prompts in words that the small tokenizer knows."""
    return f"Where does {NAMES[number % 4]} live? {number}"


def comparison(number: int, chosen: str, rejected: str, domain: str = "helpfulness", **fields: Any) -> dict[str, Any]:
    about = {"grade": GRADES[number % 4], "batch": "v1", "chosen_safe": None, "rejected_safe": None}
    return {
        "messages": [{"role": "user", "content": asked(number)}], "chosen": chosen, "rejected": rejected, "domain": domain, **about, **fields,
    }  # fmt: skip


def said(number: int, city: str, times: int = 1) -> str:
    return " ".join([f"{NAMES[number % 4]} lives in {city}."] * times)


@pytest.fixture(scope="session")
def train_reward(tiny_folder: Path) -> Callable[..., Artifact]:
    def run(out: Path, rows: Iterable[dict[str, Any]], domain: str = "helpfulness", **values: Any) -> Artifact:
        data = out.with_name(f"{out.name}.jsonl")
        data.parent.mkdir(parents=True, exist_ok=True)
        write_rows(data, list(rows))
        given = {
            "model": str(tiny_folder / "v0"), "data": str(data), "domain": domain, "epochs": 4, "batch_pairs": 8, "micro_pairs": 8,
            "test_share": 0.4, "other_share": 1.0, "optimizer": {"lr": 1e-2},
        }  # fmt: skip
        return reward.run(build(reward.RewardConfig, given | values), out, 0)

    return run


@pytest.fixture(scope="session")
def tune(tiny_folder: Path) -> Callable[..., Artifact]:
    def run(out: Path, data: Path | list[str], **values: Any) -> Artifact:
        given = {
            "model": str(tiny_folder / "v0"), "data": data if isinstance(data, list) else str(data), "epochs": 8, "batch_rows": 1, "row_tokens": 64, "optimizer": {"lr": 1e-2},
        }  # fmt: skip
        return sft.run(build(sft.SftConfig, given | values), out, 0)

    return run


@pytest.fixture(scope="session")
def sample(tiny_folder: Path, tiny_inputs: Path) -> Callable[..., Artifact]:
    def run(out: Path, **values: Any) -> Artifact:
        given = {
            "model": str(tiny_folder / "v0"), "helpfulness": str(tiny_folder / "helpfulness"), "safety": str(tiny_folder / "safety"),
            "prompts": str(tiny_inputs / "prompts.jsonl"), "k": 4, "max_new_tokens": 64,
        }  # fmt: skip
        return reject.run(build(reject.RejectConfig, given | values), out, 0)

    return run


@pytest.fixture(scope="session")
def run_ppo(tiny_folder: Path, tiny_inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Artifact]:
    folder = tmp_path_factory.mktemp("held-out")
    held_out = [{"messages": [{"role": "user", "content": asked(number)}], "safety": number % 3 == 0} for number in range(100, 112)]
    write_rows(folder / "held-out.jsonl", held_out)

    def run(out: Path, lr: float = 3e-3, held: Path | None = None, **settings: Any) -> Artifact:
        values = {"iterations": 6, "batch": 12, "mini_batch": 4, "micro_batch": 4, "max_new_tokens": 40, "check_every": 2, "beta": 0.05}
        given = {
            "model": str(tiny_folder / "v0"), "helpfulness": str(tiny_folder / "helpfulness"), "safety": str(tiny_folder / "safety"),
            "prompts": str(tiny_inputs / "prompts.jsonl"), "held_out": str(held or folder / "held-out.jsonl"), "ppo": values | settings,
            "optimizer": {"lr": lr, "schedule": "constant"},
        }  # fmt: skip
        return ppo.run(build(ppo.PpoStageConfig, given), out, 0)

    return run


def findings(spec: Path) -> dict[str, list[Finding]]:
    """What is wrong, by check."""
    found: dict[str, list[Finding]] = {}
    for one in examine(spec)[1]:
        if one.state == "wrong":
            found.setdefault(one.check, []).append(one)
    return found


def absent(spec: Path) -> set[str]:
    return {one.check for one in examine(spec)[1] if one.state == "not measured"}


def rewrite(artifact: Path, manifest: Callable[[dict[str, Any]], None]) -> None:
    """Changes a manifest in place."""
    file = artifact / "manifest.json"
    value = json.loads(file.read_text("utf-8"))
    manifest(value)
    file.write_text(json.dumps(value), "utf-8")
