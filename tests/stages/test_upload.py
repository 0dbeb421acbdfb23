"""A folder to the hub: whole, with its card, private unless said otherwise, and nothing besides."""

import json
from pathlib import Path

import pytest
from tests.core.loopback import TOKEN, LoopbackHub

from llamaherd.core.artifacts import Kind, building
from llamaherd.core.config import Config, build
from llamaherd.core.errors import UserError
from llamaherd.stages.download import DownloadConfig
from llamaherd.stages.download import run as download
from llamaherd.stages.upload import run

NAME = "me/tiny"


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch, hub: LoopbackHub) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)


def made(folder: Path, kind: Kind, files: dict[str, bytes]) -> Path:
    with building(folder, kind=kind, stage="test", config=Config(), parents={}, seed=0) as place:
        for name, content in files.items():
            (place.folder / name).write_bytes(content)
    return folder


@pytest.fixture
def model(tiny_folder: Path, tmp_path: Path) -> Path:
    files = {path.name: path.read_bytes() for path in (tiny_folder / "v0").iterdir()}
    return made(tmp_path / "v0", "model", {**files, "README.md": b"---\nlibrary_name: transformers\n---\n# It\n"})


def test_a_model_goes_with_its_card_and_comes_back_the_same(hub: LoopbackHub, model: Path, tmp_path: Path) -> None:
    said: list[str] = []
    assert run(str(model), NAME, False, said.append) == f"{hub.address}/models/{NAME}/commit/{'c' * 40}"
    there = hub.repos[f"models/{NAME}"]
    assert there.private
    assert there.files == {path.name: path.read_bytes() for path in model.iterdir()}
    assert said[0].startswith(f"{model} to the new private model repository {NAME} at {hub.address}: {len(there.files)} files, ")
    assert {line.split()[0] for line in said[1:]} == set(there.files)
    back = download(build(DownloadConfig, {"repository": NAME}), tmp_path / "back", print)
    ours = json.loads((model / "manifest.json").read_text())
    assert back.hash == ours["hash"]
    assert back.manifest["published"] == ours


def test_public_only_when_said(hub: LoopbackHub, model: Path) -> None:
    run(str(model), NAME, True, print)
    assert not hub.repos[f"models/{NAME}"].private
    with pytest.raises(UserError, match=f"{NAME}: is there and public; without --public it does not change that"):
        run(str(model), NAME, False, print)
    hub.repos[f"models/{NAME}"].private = True
    with pytest.raises(UserError, match=f"{NAME}: is there and private; --public does not change that"):
        run(str(model), NAME, True, print)


def test_data_goes_to_a_data_set(hub: LoopbackHub, tmp_path: Path) -> None:
    folder = made(tmp_path / "data", "dialogues", {"dialogues.jsonl": b"{}\n", "README.md": b"# Data"})
    run(str(folder), NAME, False, print)
    assert set(hub.repos[f"datasets/{NAME}"].files) == {"dialogues.jsonl", "README.md", "manifest.json"}


def test_an_edited_card_goes_and_what_is_there_from_before_is_named(hub: LoopbackHub, model: Path) -> None:
    hub.add(f"models/{NAME}", {"old.safetensors": b"x", ".gitattributes": b""}, private=True)
    (model / "README.md").write_text("# Better")
    (model / "LICENSE").write_text("terms")
    said: list[str] = []
    run(str(model), NAME, False, said.append)
    assert hub.repos[f"models/{NAME}"].files["README.md"] == b"# Better"
    assert said[-1] == "the repository holds from before: old.safetensors; remove there what is not wanted"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / "manifest.json").unlink(), "no manifest.json there"),
        (lambda folder: (folder / "README.md").unlink(), "holds no README.md; write its card first"),
        (lambda folder: (folder / "optimizer.pt").write_bytes(b"x"), "holds optimizer.pt, which its manifest does not list; move it away"),
        (lambda folder: (folder / "w.partial").mkdir() or (folder / "w.partial" / "x").write_bytes(b"x"), "holds w.partial/x, which"),
        (lambda folder: (folder / ".env").write_bytes(b"x"), "holds .env, which"),
        (lambda folder: (folder / "link").symlink_to("/etc/passwd"), "holds link, which"),
        (lambda folder: (folder / "config.json").unlink(), "lacks config.json, which its manifest lists"),
        (lambda folder: (folder / "config.json").write_bytes(b"{}"), "config.json: is not as its manifest says; it is damaged"),
        (
            lambda folder: (folder / "manifest.json").write_text('{"kind": "report", "hash": ""}'),
            "is of kind 'report'; upload sends model,",
        ),
        (lambda folder: (folder / "manifest.json").write_text('{"kind": "model", "hash": ""}'), "lists no files"),
    ],
)
def test_a_folder_that_is_not_whole_is_not_sent(hub: LoopbackHub, model: Path, spoil, said: str) -> None:  # type: ignore[no-untyped-def]
    spoil(model)
    with pytest.raises(UserError, match="^[^\n]*$") as refused:
        run(str(model), NAME, False, print)
    assert said in str(refused.value)
    assert hub.asked == []


def test_no_token(hub: LoopbackHub, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(
        UserError, match=f"^{NAME}: sending needs a token with write access: make one at {hub.address}/settings/tokens, then "
    ):
        run(str(model), NAME, False, print)
    assert hub.asked == []


@pytest.mark.parametrize(
    ("status", "said"), [(403, "the token has no right to write there"), (401, "the token is not accepted"), (500, "fails")]
)
def test_no_right(hub: LoopbackHub, model: Path, status: int, said: str) -> None:
    hub.add("models/x/y", {}, status={"write": [status]})
    with pytest.raises(UserError, match=rf"^{NAME}: .*{said}.*\({status}\)|^{NAME}: .*{said} \({status}\)") as refused:
        run(str(model), NAME, False, print)
    assert "\n" not in str(refused.value)


def test_what_did_not_arrive_is_said(hub: LoopbackHub, model: Path) -> None:
    hub.add(f"models/{NAME}", {}, private=True, ignored={"tokenizer.model"})
    with pytest.raises(UserError, match=f"{NAME}: tokenizer.model did not arrive as sent; give the command again"):
        run(str(model), NAME, False, print)


def test_a_mirror_without_trees_is_compared_by_names(hub: LoopbackHub, model: Path) -> None:
    repo = hub.add(f"models/{NAME}", {}, private=True, tree=False)
    run(str(model), NAME, False, print)
    assert set(repo.files) == {path.name for path in model.iterdir()}
    said: list[str] = []
    hub.add(f"models/{NAME}", {}, private=True, status={"api": [200, 401]})
    run(str(model), NAME, False, said.append)
    assert said[-1].startswith(f"sent; what arrived could not be compared: {NAME}: the token is not accepted (401)")
