"""Artifacts: built beside their place, whole or absent, found by name, never mixed up."""

import errno
import os
import re
import shutil
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import torch

import llamaherd.core.artifacts as artifacts
from llamaherd.core.artifacts import (
    WATTS_PER_CPU_CORE,
    Artifact,
    Kind,
    Workplace,
    building,
    find_artifact,
    hash_files,
    open_artifact,
    resolve,
    versions,
)
from llamaherd.core.config import Config
from llamaherd.core.errors import UserError
from llamaherd.core.files import read_json, write_json, write_text


class Settings(Config):
    lr: float = 0.1
    folder: Path = Path("a")


def started(
    out: Path, kind: Kind = "samples", parents: Mapping[str, Artifact] | None = None, seed: int = 0, **settings: Any
) -> AbstractContextManager[Workplace]:
    return building(out, kind=kind, stage="test", config=Settings(**settings), parents=parents or {}, seed=seed)


def made(out: Path, text: str = "content", kind: Kind = "samples", **more: Any) -> Artifact:
    with started(out, kind, **more) as place:
        write_text(place.folder / "deep" / "x.txt", text)
    return open_artifact(out)


def interrupted(out: Path, **more: Any) -> None:
    with pytest.raises(KeyboardInterrupt), started(out, **more) as place:  # noqa: PT012
        write_json(place.state / "step.json", 7)
        write_text(place.folder / "half.txt", "half")
        raise KeyboardInterrupt


def test_a_finished_artifact_says_where_it_comes_from(tmp_path: Path) -> None:
    parent = made(tmp_path / "parent", kind="model")
    with started(tmp_path / "new" / "out", parents={"model": parent}, seed=3, lr=0.5) as place:
        write_text(place.folder / "x.txt", "x")
        place.metrics["loss"] = 1.5
    found = open_artifact(tmp_path / "new" / "out", "samples")
    assert found.kind == "samples"
    assert found.metrics == {"loss": 1.5}
    assert found.manifest["config"] == {"lr": 0.5, "folder": "a"}
    assert found.manifest["seed"] == 3
    assert found.manifest["parents"] == {"model": {"path": str(parent.path), "hash": parent.hash}}
    assert found.manifest["files"] == {"x.txt": "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"}
    assert found.manifest["seconds"] >= 0
    begun, ended = (datetime.fromisoformat(found.manifest[key]) for key in ("started", "finished"))
    assert (ended - begun).total_seconds() == pytest.approx(found.manifest["seconds"], abs=0.1)
    assert found.manifest["peak_memory_bytes"] > 10_000_000, "an interpreter alone takes as much"
    cores = torch.get_num_threads()
    assert found.manifest["energy_wh_estimate"] == pytest.approx(found.manifest["seconds"] * WATTS_PER_CPU_CORE * cores / 3600)
    assert os.listdir(tmp_path / "new") == ["out"]


def test_the_hash_depends_on_content_and_kind_not_on_time_and_place(tmp_path: Path) -> None:
    first = made(tmp_path / "a")
    time.sleep(0.01)
    assert made(tmp_path / "b" / "c").hash == first.hash
    shutil.copytree(tmp_path / "a", tmp_path / "moved")
    assert hash_files(tmp_path / "moved") == first.manifest["files"]
    assert made(tmp_path / "d", text="other").hash != first.hash
    assert made(tmp_path / "e", kind="dialogues").hash != first.hash


def test_an_existing_place_is_refused_and_kept(tmp_path: Path) -> None:
    made(tmp_path / "out", text="first")
    with pytest.raises(UserError, match="exists already; choose another --out"):
        made(tmp_path / "out", text="second")
    assert (tmp_path / "out" / "deep" / "x.txt").read_text() == "first"
    assert os.listdir(tmp_path) == ["out"]


def test_an_interrupted_build_goes_on_with_its_state_and_without_half_files(tmp_path: Path) -> None:
    out = tmp_path / "out"
    interrupted(out)
    assert find_artifact(out) is None
    spent = read_json(tmp_path / "out.partial" / "seconds.json")
    assert spent > 0
    with started(out) as place:
        assert read_json(place.state / "step.json") == 7
        assert os.listdir(place.folder) == []
        write_text(place.folder / "x.txt", "x")
    assert list(open_artifact(out).manifest["files"]) == ["x.txt"]
    assert open_artifact(out).manifest["seconds"] > spent
    assert os.listdir(tmp_path) == ["out"]


def test_other_settings_seed_or_inputs_are_refused_and_the_state_is_kept(tmp_path: Path) -> None:
    parent, other = made(tmp_path / "p", text="one"), made(tmp_path / "q", text="two")
    out = tmp_path / "out"
    interrupted(out, parents={"x": parent})
    for more in ({"lr": 0.2}, {"seed": 1}, {"parents": {"x": other}}, {"parents": {}}):
        with pytest.raises(UserError, match="unfinished build with other settings or inputs"):
            made(out, **{"parents": {"x": parent}, **more})
    assert read_json(tmp_path / "out.partial" / "state" / "step.json") == 7
    moved = tmp_path / "moved"
    shutil.move(tmp_path / "p", moved)
    assert made(out, parents={"x": open_artifact(moved)}).manifest["parents"]["x"]["path"] == str(moved)


@pytest.mark.parametrize("what", ["all", "and made anew by another"])
def test_a_build_whose_folder_was_removed_is_not_published(tmp_path: Path, what: str) -> None:
    with pytest.raises(UserError, match="was removed or taken over"), started(tmp_path / "out") as place:  # noqa: PT012
        write_text(place.folder / "lost.txt", "x")
        shutil.rmtree(tmp_path / "out.partial")
        if what != "all":
            interrupted(tmp_path / "out")
        write_text(place.folder / "kept.txt", "x")
    assert not (tmp_path / "out").exists()


def test_a_removed_folder_is_not_made_again_by_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="mine"), started(tmp_path / "out"):  # noqa: PT012
        shutil.rmtree(tmp_path / "out.partial")
        raise RuntimeError("mine")
    assert os.listdir(tmp_path) == []


def test_a_full_disk_shows_the_first_error_and_keeps_the_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, *_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    out = tmp_path / "out"
    with pytest.raises(RuntimeError, match="the first"), started(out) as place:  # noqa: PT012
        write_json(place.state / "step.json", 7)
        monkeypatch.setattr(artifacts, "write_json", full)
        raise RuntimeError("the first")
    monkeypatch.undo()
    with pytest.raises(OSError, match=r"No space.*manifest\.json"), started(out) as place:
        monkeypatch.setattr(artifacts, "write_json", full)
    monkeypatch.undo()
    with pytest.raises(OSError, match=r"No space.*x\.txt"), started(out) as place:  # noqa: PT012
        write_text(place.folder / "x.txt", "x")
        monkeypatch.setattr(artifacts, "fsync_file", full)
    monkeypatch.undo()
    assert find_artifact(out) is None
    with started(out) as place:
        assert read_json(place.state / "step.json") == 7


def test_a_place_that_cannot_be_made_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=re.escape(str(tmp_path / "file"))), started(tmp_path / "file" / "out"):
        pass


def test_opening_checks_the_kind_and_the_manifest(tmp_path: Path) -> None:
    made(tmp_path / "out")
    with pytest.raises(UserError, match="is of kind 'samples'; expected model or reward-model"):
        open_artifact(tmp_path / "out", "model", "reward-model")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no manifest\.json there; expected a folder that llamaherd wrote \(model\)"):
        open_artifact(tmp_path / "empty", "model")
    for damage, said in (("[]", "has no kind and hash"), ('{"kind": "model"}', "has no kind and hash"), ("{", "not JSON")):
        (tmp_path / "empty" / "manifest.json").write_text(damage)
        with pytest.raises(UserError, match=said):
            open_artifact(tmp_path / "empty")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "runs" / "mini"
    write_json(folder / "recipe.json", {})
    for name in ("v0", "v2", "v10"):
        made(folder / name, kind="model")
    made(folder / "v11", kind="samples")
    made(folder / "base", kind="model")
    interrupted(folder / "v12", kind="model")
    return folder


def test_versions_are_the_finished_models_in_order(run: Path) -> None:
    assert versions(run) == ["v0", "v2", "v10"]
    assert versions(run / "absent") == []


def test_a_run_means_its_newest_version_and_a_name_means_that_one(run: Path) -> None:
    assert resolve(run) == run / "v10"
    assert resolve(f"{run}:v2") == run / "v2"
    assert resolve(f"{run}:base") == run / "base"
    assert resolve(run / "v0") == run / "v0"


def test_unknown_names_say_what_there_is(run: Path) -> None:
    with pytest.raises(UserError, match=r"has no 'bsae' \(did you mean 'base'\?\); it has base, v0, v10, v11, v2$"):
        resolve(f"{run}:bsae")
    with pytest.raises(UserError, match="no such folder; expected a model folder, RUN or RUN:VERSION"):
        resolve(f"{run}x:v0")
    write_text(run / "notes.txt", "")
    for spec in (run / "notes.txt", f"{run / 'notes.txt'}:v0"):
        with pytest.raises(UserError, match=r"notes\.txt: is a file; expected a model folder, RUN or RUN:VERSION"):
            resolve(spec)
    for name in ("", ".", "..", "../mini", "v0/deep"):
        with pytest.raises(UserError, match="has no "):
            resolve(f"{run}:{name}")


def test_a_run_without_a_version_says_so(tmp_path: Path) -> None:
    write_json(tmp_path / "recipe.json", {})
    with pytest.raises(UserError, match="no version is finished yet"):
        resolve(tmp_path)
    with pytest.raises(UserError, match="nothing finished yet"):
        resolve(f"{tmp_path}:v1")


def test_names_with_a_drive_letter_or_a_colon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        resolve("C:\\runs\\mini")
    folder = Path("C:\\runs\\mini") if os.name != "nt" else tmp_path / "mini"
    made(folder / "v0", kind="model")
    assert resolve(f"{folder}:v0") == folder / "v0"
    if os.name != "nt":
        made(Path("a:v0"))
        assert resolve("a:v0") == Path("a:v0")
