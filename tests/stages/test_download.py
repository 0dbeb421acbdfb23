"""A model of the hub in a folder: chosen, fetched, looked at, published when whole."""

import hashlib
import json
from pathlib import Path

import pytest
from tests.core.loopback import LoopbackHub

from llamaherd.checkpoints.huggingface import load_model
from llamaherd.core.artifacts import find_artifact, hash_of
from llamaherd.core.config import build
from llamaherd.core.errors import UserError
from llamaherd.stages.convert import ConvertConfig
from llamaherd.stages.convert import run as convert
from llamaherd.stages.download import DownloadConfig, default_out, headline, run

NAME = "owner/tiny"


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def downloaded(out: Path, said: list[str] | None = None, **settings):  # type: ignore[no-untyped-def]
    return run(build(DownloadConfig, {"repository": NAME, **settings}), out, (said if said is not None else []).append)


@pytest.fixture
def model(tiny_folder: Path) -> dict[str, bytes]:
    return files_in(tiny_folder / "v0")


def test_a_model_comes_whole_with_every_hash_and_where_it_is_from(hub: LoopbackHub, model: dict[str, bytes], tmp_path: Path) -> None:
    hub.add(f"models/{NAME}", {**model, "LICENSE.txt": b"terms", ".gitattributes": b"x"})
    artifact = downloaded(tmp_path / "out")
    expected = {**model, "LICENSE.txt": b"terms"}
    assert {name: content for name, content in files_in(artifact.path).items() if name != "manifest.json"} == expected
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in expected.items()}
    assert artifact.manifest["files"] == digests
    assert (artifact.kind, artifact.hash) == ("model", hash_of(["model", digests]))
    assert (artifact.manifest["hub"], artifact.manifest["endpoint"]) == (f"hub:{NAME}@{'a' * 40}", hub.address)
    assert artifact.manifest["config"] == {"repository": NAME, "revision": "main", "include": []}
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == ["out"]
    assert load_model(artifact.path)[0].config.dim == 16
    assert headline(artifact).endswith("every hash agrees; a Llama model, 12,848 parameters")


def test_a_reward_model_is_known_as_one(hub: LoopbackHub, tiny_folder: Path, tmp_path: Path) -> None:
    hub.add(f"models/{NAME}", files_in(tiny_folder / "safety"))
    assert downloaded(tmp_path / "out").kind == "reward-model"


def test_one_copy_of_the_weights_comes_and_the_others_are_named(hub: LoopbackHub, model: dict[str, bytes], tmp_path: Path) -> None:
    more = {
        "pytorch_model.bin": b"pickle", "pytorch_model.bin.index.json": b"{}", "consolidated.00.pth": b"pickle", "params.json": b"{}",
        "modeling.py": b"code", "onnx/model.onnx": b"x", "model.fp16.safetensors": b"copy", "tiny.gguf": b"x",
    }  # fmt: skip
    hub.add(f"models/{NAME}", {**model, **more})
    said: list[str] = []
    artifact = downloaded(tmp_path / "out", said)
    assert {path.name for path in artifact.path.iterdir()} == {*model, "params.json", "manifest.json"}
    left_out = next(line for line in said if line.startswith("left out"))
    assert left_out == (
        "left out: pytorch_model.bin, pytorch_model.bin.index.json, consolidated.00.pth, modeling.py, onnx/model.onnx, "
        "model.fp16.safetensors, tiny.gguf (24 bytes); --include PATTERN fetches such files too"
    )
    artifact = downloaded(tmp_path / "more", include=["*.bin", "onnx/*"])
    assert (artifact.path / "pytorch_model.bin").read_bytes() == b"pickle"
    assert (artifact.path / "onnx" / "model.onnx").read_bytes() == b"x"
    assert artifact.manifest["files"]["onnx/model.onnx"] == hashlib.sha256(b"x").hexdigest()


def test_sharded_weights_come_as_their_index_names_them(hub: LoopbackHub, model: dict[str, bytes], tmp_path: Path) -> None:
    from safetensors.torch import load, save

    tensors = sorted(load(model["model.safetensors"]).items())
    parts = {f"model-0000{part + 1}-of-00002.safetensors": dict(tensors[part::2]) for part in range(2)}
    index = json.dumps({"metadata": {}, "weight_map": {key: name for name, part in parts.items() for key in part}}).encode()
    shards = {name: save(part) for name, part in parts.items()} | {"model.safetensors.index.json": index}
    rest = {name: content for name, content in model.items() if name != "model.safetensors"}
    repo = hub.add(f"models/{NAME}", {**rest, **shards, "consolidated.safetensors": b"copy"})
    assert downloaded(tmp_path / "out").kind == "model"
    assert not (tmp_path / "out" / "consolidated.safetensors").exists()
    del repo.files["model-00002-of-00002.safetensors"]
    artifact = downloaded(tmp_path / "half")
    assert artifact.kind == "download"
    assert "half/model-00002-of-00002.safetensors: is named in" in headline(artifact)


def test_metas_own_format(hub: LoopbackHub, tiny_folder: Path, tmp_path: Path) -> None:
    convert(ConvertConfig(model=tiny_folder / "v0", to="meta"), tmp_path / "meta")
    names = ("params.json", "tokenizer.model", "consolidated.00.pth")
    files = {name: (tmp_path / "meta" / name).read_bytes() for name in names} | {"checklist.chk": b"c"}
    repo = hub.add(f"models/{NAME}", files)
    artifact = downloaded(tmp_path / "out")
    assert {path.name for path in artifact.path.iterdir()} == {*files, "manifest.json"}
    assert artifact.kind == "model"
    repo.files["consolidated.00.pth"] = b"torn"
    artifact = downloaded(tmp_path / "torn")
    assert artifact.kind == "download"
    assert "consolidated.00.pth" in headline(artifact)


def test_an_adapter(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.add(f"models/{NAME}", {"adapter_config.json": b"{}", "adapter_model.safetensors": b"x", "README.md": b"# It"})
    assert downloaded(tmp_path / "out").kind == "adapter"


def test_another_architecture_comes_as_it_is_and_is_said_before_the_weights(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.add(f"models/{NAME}", {"config.json": b'{"model_type": "gpt2"}', "model.safetensors": b"x" * 1000})
    said: list[str] = []
    artifact = downloaded(tmp_path / "out", said)
    assert artifact.kind == "download"
    early = next(number for number, line in enumerate(said) if "though llamaherd cannot load it" in line and "'gpt2'" in line)
    assert early < next(number for number, line in enumerate(said) if line.startswith("model.safetensors"))
    assert "not a model that llamaherd loads: out/config.json: not a Llama 2 architecture" in headline(artifact)


def test_pickles_alone_are_not_fetched_unless_named(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.add(f"models/{NAME}", {"config.json": b"{}", "pytorch_model.bin": b"pickle"})
    with pytest.raises(
        UserError, match=r"owner/tiny: holds no weights that llamaherd reads .* but config.json, pytorch_model.bin; --include"
    ):
        downloaded(tmp_path / "out")
    with pytest.raises(UserError, match=r"owner/tiny: no file is named \*.gguf; it holds config.json, pytorch_model.bin"):
        downloaded(tmp_path / "out", include=["*.gguf"])
    assert (downloaded(tmp_path / "out", include=["*.bin"]).path / "pytorch_model.bin").is_file()


def test_what_stops_leaves_no_folder_and_is_taken_up(hub: LoopbackHub, model: dict[str, bytes], tmp_path: Path) -> None:
    repo = hub.add(f"models/{NAME}", model, cut={"model.safetensors": [10_000, 0, 0, 0, 0]})
    out = tmp_path / "out"
    with pytest.raises(UserError):
        downloaded(out)
    assert not out.exists()
    hub.add("models/owner/other", model)
    with pytest.raises(UserError, match=r"out.partial holds something else that was begun there"):
        run(build(DownloadConfig, {"repository": "owner/other"}), out, print)
    repo.cut.clear()
    repo.files = {**model, "README.md": b"# Newer"}
    repo.commit = "b" * 40
    hub.asked.clear()
    artifact = downloaded(out)
    assert set(hub.ranges("model.safetensors")) == {"bytes=10000-"}
    assert artifact.manifest["hub"].endswith("b" * 40)
    assert (out / "README.md").read_bytes() == b"# Newer"
    assert not (tmp_path / "out.partial").exists()


def test_a_file_that_a_later_commit_dropped_does_not_stay(hub: LoopbackHub, model: dict[str, bytes], tmp_path: Path) -> None:
    repo = hub.add(f"models/{NAME}", {**model, "old.json": b"{}"}, cut={"model.safetensors": [10_000, 0, 0, 0, 0]})
    with pytest.raises(UserError):
        downloaded(tmp_path / "out")
    repo.cut.clear()
    repo.files, repo.commit = model, "b" * 40
    assert not (downloaded(tmp_path / "out").path / "old.json").exists()


def test_what_llamaherd_published_keeps_its_manifest_inside_the_new_one(hub: LoopbackHub, model: dict[str, bytes], tmp_path: Path) -> None:
    theirs = {"kind": "model", "hash": "h", "stage": "sft", "files": {}}
    hub.add(f"models/{NAME}", {**model, "manifest.json": json.dumps(theirs).encode()})
    artifact = downloaded(tmp_path / "out")
    assert artifact.manifest["published"] == theirs
    assert artifact.manifest["stage"] == "download"
    assert "manifest.json" not in artifact.manifest["files"]


def test_refusals_leave_nothing(hub: LoopbackHub, model: dict[str, bytes], tmp_path: Path) -> None:
    hub.add(f"models/{NAME}", model, status={"HEAD model.safetensors": [403]}, code="GatedRepo")
    with pytest.raises(UserError, match="is gated"):
        downloaded(tmp_path / "out")
    hub.add(f"models/{NAME}", {**model, "../evil.json": b"{}"})
    with pytest.raises(UserError, match="would leave its folder"):
        downloaded(tmp_path / "out")
    assert not list(tmp_path.iterdir())
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="exists already"):
        downloaded(tmp_path / "out")
    assert find_artifact(tmp_path / "out") is None


def test_a_model_without_a_place_goes_to_models() -> None:
    assert default_out("meta-llama/Llama-2-7b-hf") == Path("models/Llama-2-7b-hf")
    with pytest.raises(UserError, match="OWNER/NAME"):
        default_out("../x")
