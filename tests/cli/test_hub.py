"""The hub on the command line; and that nothing else ever looks for a network."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.core.loopback import TOKEN, LoopbackHub

from llamaherd.data.hub import name_of

NAME = "owner/tiny"


@pytest.fixture
def model(tiny_folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (tiny_folder / "v0").iterdir()}


def test_download_says_what_comes_and_what_came(hub: LoopbackHub, model, command, tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)
    hub.add(f"models/{NAME}", {**model, "pytorch_model.bin": b"x"})
    outcome = command("download", NAME)
    assert outcome.code == 0
    assert outcome.out.startswith("models/tiny: 8 files, ")
    assert "left out: pytorch_model.bin" in outcome.err
    assert f"{NAME} at commit {'a' * 40}: 8 files, " in outcome.err
    assert "hash agrees; 0 bytes left" in outcome.err
    answered = command("generate", "models/tiny", "--raw", "--prompt", "", "--temperature", "0", "--max-new-tokens", "4")
    assert answered.code == 0
    assert command("download", NAME, "--include", "*.bin", "--out", "more").code == 0
    assert (tmp_path / "more" / "pytorch_model.bin").is_file()


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"status": {"api": [401]}}, f"{NAME}: needs a token (401)"),
        ({"status": {"HEAD config.json": [403]}, "code": "GatedRepo"}, f"{NAME}: is gated (403): accept its licence at "),
        ({"status": {"api": [404]}}, f"{NAME}: no such model repository"),
        ({"status": {"model.safetensors": [500]}}, f"{NAME}: the hub fails (500)"),
        ({"etags": {"model.safetensors": "f" * 64}}, "model.safetensors: the hub gives two hashes for it"),
    ],
)
def test_refusals_are_one_line_and_leave_nothing(hub, model, refused, tmp_path, how, said) -> None:  # type: ignore[no-untyped-def]
    hub.add(f"models/{NAME}", model, **how)
    assert refused("download", NAME, "--out", tmp_path / "out").startswith(said)
    assert not list(tmp_path.glob("out*"))


def test_a_killed_download_goes_on_where_it_was(hub: LoopbackHub, model, command, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    size = len(model["model.safetensors"])
    repo = hub.add(f"models/{NAME}", model, cut={"model.safetensors": [size // 2, 0]})
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-m", "llamaherd.cli", "download", NAME, "--out", str(out)], env={**os.environ}, stderr=subprocess.DEVNULL
    )
    end = time.monotonic() + 60
    while len(hub.ranges("model.safetensors")) < 4 and time.monotonic() < end:  # asked twice, each time by way of the redirect
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not out.exists()
    repo.cut.clear()
    hub.asked.clear()
    assert command("download", NAME, "--out", out).code == 0
    assert set(hub.ranges("model.safetensors")) == {f"bytes={size // 2}-"}
    assert (out / "model.safetensors").read_bytes() == model["model.safetensors"]
    assert not list(tmp_path.glob("out.*"))


def test_upload_says_what_goes(hub, workshop, command, refused, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    assert refused("upload", workshop.folder / "chat", NAME).startswith(f"{NAME}: sending needs a token")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert refused("upload", workshop.folder / "chat", NAME, "--public", "--private").startswith("--public and --private are given")
    outcome = command("upload", workshop.folder / "chat", NAME)
    assert outcome.code == 0
    assert outcome.out == f"{hub.address}/models/{NAME}/commit/{'c' * 40}\n"
    assert f"to the new private model repository {NAME}" in outcome.err
    assert hub.repos[f"models/{NAME}"].private
    assert refused("upload", workshop.folder / "corpus", "owner/data").endswith(
        "write its card first (what it is, from what it was made, what it is for)"
    )


def test_tuning_on_data_by_name_notes_the_commit(hub, workshop, command, tmp_path) -> None:  # type: ignore[no-untyped-def]
    rows = (workshop.folder / "dialogues.jsonl").read_bytes()
    half = rows[: rows.index(b"\n", len(rows) // 2) + 1]
    hub.add("datasets/owner/talks", {"train-001.jsonl": half, "train-002.jsonl": rows[len(half) :], "test.jsonl": b"oops", "load.py": b""})
    arguments = ("--epochs=1", "--row_tokens=128", "--batch_rows=4")
    outcome = command("sft", "--model", workshop.folder / "base", "--data", "hub:owner/talks", "--out", tmp_path / "tuned", *arguments)
    assert outcome.code == 0, outcome
    manifest = json.loads((tmp_path / "tuned" / "manifest.json").read_text())
    noted = {parent.get("hub") for parent in manifest["parents"].values()} - {None}
    assert noted == {f"hub:owner/talks@{'a' * 40}/train-00{part}.jsonl" for part in (1, 2)}
    assert manifest["metrics"]["dialogues"] == len(rows.splitlines())
    hub.repos.clear()
    again = f"--data=[{','.join(sorted(noted))}]"
    assert command("sft", "--model", workshop.folder / "base", again, "--out", tmp_path / "again", *arguments).code == 0
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (tmp_path / "tuned" / "model.safetensors").read_bytes()


def test_other_commands_read_data_by_name(hub, workshop, command, refused, tmp_path) -> None:  # type: ignore[no-untyped-def]
    rows = {name: (workshop.folder / f"{name}.jsonl").read_bytes() for name in ("dialogues", "documents")}
    hub.add("datasets/owner/talks", {"dialogues.jsonl": rows["dialogues"]})
    hub.add("datasets/owner/texts", {"texts.jsonl": rows["documents"]})
    hub.add("datasets/owner/two", {"p-001.jsonl": rows["documents"], "p-002.jsonl": rows["documents"]})
    scored = command("score", workshop.folder / "help", "hub:owner/talks")
    assert scored.out == command("score", workshop.folder / "help", workshop.folder / "dialogues.jsonl").out
    assert json.loads(command("data", "stats", "hub:owner/texts").out)["documents"] > 0
    hub.add(
        "datasets/owner/hh",
        {"train.jsonl": b'{"chosen": "\\n\\nHuman: Hi\\n\\nAssistant: Yes.", "rejected": "\\n\\nHuman: Hi\\n\\nAssistant: No."}\n'},
    )
    assert command("data", "preferences", "hub:owner/hh", "--domain=helpfulness", "--out", tmp_path / "hh.jsonl").code == 0
    assert json.loads((tmp_path / "hh.jsonl").read_text())["source"] == "owner/hh"
    assert command("data", "show", "hub:owner/texts", "--model", workshop.folder / "chat", "--limit", "1").code == 0
    assert command("data", "build", "--documents=hub:owner/texts", "--out", tmp_path / "corpus").code == 0
    parents = json.loads((tmp_path / "corpus" / "manifest.json").read_text())["parents"]
    assert [parent["hub"] for parent in parents.values()] == [f"hub:owner/texts@{'a' * 40}/texts.jsonl"]
    assert (
        "is 2 files; this command reads one, such as hub:owner/two/p-001.jsonl"
        in command("data", "show", "hub:owner/two", "--model", "x").err
    )
    assert "`llamaherd download owner/tiny` fetches it first" in refused("chat", f"hub:{NAME}")
    assert name_of(workshop.folder / "dialogues.jsonl") is None


def test_no_other_command_looks_for_a_network(workshop, command, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    assert workshop.outbound == []
    tried: list[object] = []
    monkeypatch.setattr(socket.socket, "connect", lambda self, address: tried.append(address))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *address, **_: tried.append(address))
    folder = workshop.folder
    assert command("score", folder / "help", folder / "dialogues.jsonl").code == 0
    assert command("generate", folder / "chat", "--prompt", "Where?", "--max-new-tokens", "4").code == 0
    assert command("data", "stats", folder / "documents.jsonl").code == 0
    assert command("data", "show", folder / "dialogues.jsonl", "--model", folder / "chat").code == 0
    for verb in ("chat", "download", "upload", "sft", "run"):
        assert command(verb, "--help").code == 0
    assert tried == []


def test_help_and_offline_commands_do_not_even_load_the_library() -> None:
    code = (
        "import sys; from llamaherd.cli import main; import llamaherd.stages.sft, llamaherd.stages.download, llamaherd.stages.upload\n"
        "main(['download', '--help'])\n"
        "sys.exit('huggingface_hub' in sys.modules or 'httpx2' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
