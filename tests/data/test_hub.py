"""Data sets by name: which files are meant, where they lie, and how a run names exactly what it read."""

import gzip
import hashlib
import json
from pathlib import Path

import pytest
from tests.core.loopback import LoopbackHub

from llamaherd.core.errors import UserError
from llamaherd.core.files import read_rows
from llamaherd.data.hub import files_of, name_of
from llamaherd.data.inputs import parents_of

NAME = "owner/talks"
ROW = b'{"messages": []}\n'
COMMIT = "a" * 40


def named(inside: str = "", name: str = "dialogues.jsonl") -> list[str]:
    return [path.as_posix().partition("/files/")[2] for path in files_of(Path(f"hub:{NAME}{inside}"), name)]


def test_a_file_comes_to_the_cache_under_its_commit(hub: LoopbackHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packed = gzip.compress(ROW)
    hub.add(f"datasets/{NAME}", {"data/talks.jsonl.gz": packed, "README.md": b"# It", "talks.py": b"raise SystemExit"})
    [path] = files_of(Path(f"hub:{NAME}"), "dialogues.jsonl")
    assert path == tmp_path / "cache" / "datasets" / "owner" / "talks" / COMMIT / "files" / "data" / "talks.jsonl.gz"
    assert list(read_rows(path)) == [(1, {"messages": []})]
    assert f"hub:{NAME} is data/talks.jsonl.gz of hub:{NAME}@{COMMIT} in" in capsys.readouterr().err
    assert [file for _, file, _ in hub.asked if file.endswith((".py", ".md"))] == []
    assert name_of(path) == f"hub:{NAME}@{COMMIT}/data/talks.jsonl.gz"
    assert name_of(tmp_path / "talks.jsonl") is None


def test_a_manifest_names_the_commit(hub: LoopbackHub) -> None:
    hub.add(f"datasets/{NAME}", {"talks.jsonl": ROW})
    [parent] = parents_of(files_of(Path(f"hub:{NAME}"), "")).values()
    digest = hashlib.sha256(ROW).hexdigest()
    assert parent.manifest == {"kind": "file", "hash": digest, "hub": f"hub:{NAME}@{COMMIT}/talks.jsonl"}


FILES = ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet", "data/test-00000-of-00001.parquet"]
BY_FOLDER = ["harmless/train.jsonl.gz", "harmless/test.jsonl.gz", "helpful/train.jsonl.gz", "helpful/test.jsonl.gz"]
MEANT = [
    (["talks.jsonl"], "", ["talks.jsonl"]),
    (FILES, "", FILES[:2]),
    (FILES, "/train", FILES[:2]),
    (FILES, "/test", FILES[2:]),
    (FILES, "/data", FILES[:2]),
    (FILES, "/data/test", FILES[2:]),
    (FILES, "/data/test-00000-of-00001.parquet", FILES[2:]),
    (["best_replies_eval.jsonl", "best_replies_train.jsonl"], "", ["best_replies_train.jsonl"]),
    (["best_replies_eval.jsonl", "best_replies_train.jsonl"], "/eval", ["best_replies_eval.jsonl"]),
    (["dialogues.jsonl", "prompts.jsonl", "manifest.json"], "", ["dialogues.jsonl"]),
    (BY_FOLDER, "/helpful", ["helpful/train.jsonl.gz"]),
    (BY_FOLDER, "/helpful/test", ["helpful/test.jsonl.gz"]),
    (["en/c4-train.00000-of-01024.json.gz", "en/c4-validation.00000-of-00008.json.gz"], "", ["en/c4-train.00000-of-01024.json.gz"]),
    (["part-0001.jsonl.zst", "part-0002.jsonl.zst"], "", ["part-0001.jsonl.zst", "part-0002.jsonl.zst"]),
]


@pytest.mark.parametrize(("held", "inside", "meant"), MEANT)
def test_which_files_are_meant(hub: LoopbackHub, held: list[str], inside: str, meant: list[str]) -> None:
    hub.add(f"datasets/{NAME}", dict.fromkeys(held, ROW))
    assert named(inside) == meant


@pytest.mark.parametrize(
    ("held", "inside", "said"),
    [
        (
            BY_FOLDER,
            "",
            "could be harmless/train.jsonl.gz, helpful/train.jsonl.gz; add one of them to the name, as in hub:owner/talks/harmless/",
        ),
        (BY_FOLDER, "/train", "could be harmless/train.jsonl.gz, helpful/train.jsonl.gz; add"),
        (["a.jsonl", "b.jsonl"], "", "could be a.jsonl, b.jsonl; add one of them"),
        (["train.jsonl", "train.parquet"], "", "could be train.jsonl, train.parquet; add one of them"),
        (FILES, "/dev", "no such file of rows, folder or split; there is data/train-#.parquet, data/test-#.parquet"),
        (["talks.py", "talks.csv"], "", "holds no file of rows (.jsonl, .jsonl.gz"),
        (["talks.py", "a.jsonl"], "/talks.py", "no such file of rows, folder or split; there is a.jsonl"),
    ],
)
def test_what_could_mean_several_things_or_nothing_is_refused(hub: LoopbackHub, held: list[str], inside: str, said: str) -> None:
    hub.add(f"datasets/{NAME}", dict.fromkeys(held, ROW))
    with pytest.raises(UserError, match="^[^\n]*$") as refused:
        named(inside)
    assert str(refused.value).startswith(f"hub:{NAME}{inside}: {said}")
    assert not hub.ranges(held[0])


def test_a_commit_that_is_here_needs_no_network_and_is_looked_at_again(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    repo = hub.add(f"datasets/{NAME}", {"train.jsonl": ROW, "test.jsonl": ROW * 2})
    [path] = files_of(Path(f"hub:{NAME}"), "")
    repo.commit, repo.files = "b" * 40, {"train.jsonl": ROW * 3}
    hub.asked.clear()
    assert named(f"@{COMMIT}") == ["train.jsonl"]
    assert hub.asked == []
    path.write_bytes(ROW[:-2] + b"?\n")
    repo.commit, repo.files = COMMIT, {"train.jsonl": ROW, "test.jsonl": ROW * 2}
    assert named(f"@{COMMIT}") == ["train.jsonl"]
    assert path.read_bytes() == ROW
    assert named(f"@{COMMIT}/test") == ["test.jsonl"]
    repo.commit = "b" * 40
    assert f"hub:{NAME}@{'b' * 40}" in str(name_of(files_of(Path(f"hub:{NAME}"), "")[0]))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert named(f"@{COMMIT}/test") == ["test.jsonl"]
    with pytest.raises(UserError, match="cannot be reached"):
        named()


@pytest.mark.parametrize("text", ["hub:", "hub:owner", "hub:owner/", "hub:a b/c", "hub:../x", "hub:owner/..", "hub:owner/x@"])
def test_names_that_are_none(hub: LoopbackHub, text: str) -> None:
    with pytest.raises(UserError, match="expected hub:OWNER/NAME|expected a repository as OWNER/NAME"):
        files_of(Path(text), "")
    assert hub.asked == []


def test_a_broken_connection_is_taken_up_by_the_next_run(hub: LoopbackHub) -> None:
    rows = b"".join(json.dumps({"text": str(number)}).encode() + b"\n" for number in range(5000))
    repo = hub.add(f"datasets/{NAME}", {"talks.jsonl": rows}, cut={"talks.jsonl": [20_000, 0, 0, 0, 0]})
    with pytest.raises(UserError):
        named()
    repo.cut.clear()
    hub.asked.clear()
    assert named() == ["talks.jsonl"]
    assert hub.ranges("talks.jsonl") == ["bytes=20000-"]
