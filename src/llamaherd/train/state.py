"""Training state on disk: safetensors and JSON in `step-N` folders, each whole or absent, the last two kept."""

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..core.artifacts import hash_files, hash_of
from ..core.errors import UserError
from ..core.files import fsync_file, fsync_folder, read_json, write_json
from .optimizer import moments_of, restore_moments

KEPT = 2
STATE = "state.json"


def _optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name, weight in model.named_parameters():
        found |= {f"{name}/{key}": value for key, value in moments_of(optimizer, weight).items()}
    return found


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Writes safetensors durably. Raises OSError that names the file (a full disk, for one)."""
    try:
        save_file({name: value.detach().contiguous() for name, value in tensors.items()}, path, metadata={"format": "pt"})
        fsync_file(path)
    except SafetensorError as error:
        raise OSError(f"cannot write {path}: {error}") from None


class ModelFiles(Protocol):
    """How a stage's model goes to disk and back: as folders that other programs can load, at every saved state too."""

    def save(self, folder: Path) -> None: ...

    def load(self, folder: Path) -> None: ...


def save_state(folder: Path, step: int, files: ModelFiles, model: nn.Module, optimizer: torch.optim.Optimizer, source: Any) -> None:
    """Saves everything that the steps after `step` depend on; then removes all but the last two states."""
    beside = folder / ".saving"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    files.save(beside / "model")
    save_tensors(_optimizer_tensors(model, optimizer), beside / "optimizer.safetensors")
    state = {"step": step, "source": source, "hashes": hash_files(beside)}
    write_json(beside / STATE, state | {"hash": hash_of(state)})
    place = folder / f"step-{step:08d}"
    shutil.rmtree(place, ignore_errors=True)
    os.replace(beside, place)
    fsync_folder(folder)
    states = _states(folder)
    # Newer ones than this are damaged: loading passed over them.
    kept = [state for state in states if state <= place][:KEPT]
    for old in states:
        if old not in kept:
            shutil.rmtree(old, ignore_errors=True)


def _states(folder: Path) -> list[Path]:
    """Saved states, newest first."""
    return sorted(folder.glob("step-*"), reverse=True)


def _verified(place: Path) -> Any:
    """The state's JSON. Raises UserError that names the first file whose content is not what was saved."""
    state = read_json(place / STATE)
    if not isinstance(state, dict) or state.pop("hash", None) != hash_of(state):
        raise UserError(f"{place / STATE}: its hash differs from what was saved")
    there = hash_files(place)
    for name, expected in state["hashes"].items():
        if there.get(name) != expected:
            raise UserError(f"{place / name}: {'its hash differs from what was saved' if name in there else 'is missing'}")
    return state


def load_state(folder: Path, files: ModelFiles, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[int, Any]:
    """Restores the newest undamaged state: (steps done, where the batch source stood); (0, None) without any.

    A damaged state is named on standard error and the one before it is taken; when all are damaged, raises UserError.
    """
    states = _states(folder)
    for place in states:
        try:
            state = _verified(place)
        except (UserError, OSError) as error:
            print(f"damaged training state left out: {error}", file=sys.stderr)
            continue
        files.load(place / "model")
        moments: dict[str, dict[str, Tensor]] = {}
        for name, value in load_file(place / "optimizer.safetensors").items():
            weight_name, _, key = name.rpartition("/")
            moments.setdefault(weight_name, {})[key] = value
        for name, weight in model.named_parameters():
            if name in moments:
                restore_moments(optimizer, weight, moments[name])
        return int(state["step"]), state["source"]
    if states:
        raise UserError(f"{folder}: every saved training state is damaged; remove the folder to train from the start")
    return 0, None
