"""Adapters from the command line: trained, used beside their base, switched in a chat, merged."""

import io
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from llamaherd.cli import main
from llamaherd.core.files import write_rows


@pytest.fixture(scope="module")
def place(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Adapters that have learnt to say A and B, and the base."""
    folder = tmp_path_factory.mktemp("adapters")
    for letter in "AB":
        write_rows(
            folder / f"{letter}.jsonl", [{"text": f"### Human: {who}### Assistant: {letter}{letter}"} for who in ("Ada", "Ben", "Eva")]
        )
        main([
            "sft", "--model", str(tiny_folder / "v0"), "--data", str(folder / f"{letter}.jsonl"), "--out", str(folder / letter),
            "--steps=60", "--lora.r", "8", "--lora.alpha", "32", "--optimizer.lr=0.03", "--base.bits", "4",
        ])  # fmt: skip
    (folder / "base").symlink_to(tiny_folder / "v0")
    return folder


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def run(*arguments: str) -> str:
        capsys.readouterr()
        main([str(argument) for argument in arguments])
        return capsys.readouterr().out

    return run


ASK = ("--prompt", "Ada", "--temperature", "0", "--max-new-tokens", "8")


def test_one_adapter_answers(place: Path, printed: Callable[..., str]) -> None:
    base = printed("generate", place / "base", *ASK)
    for letter in "AB":
        expected = f"{letter}{letter}\n"
        assert base != expected
        assert printed("generate", place / letter, *ASK) == expected
        assert printed("generate", place / "base", *ASK, "--adapter", place / letter) == expected
        assert printed("generate", place / "base", *ASK, "--adapter", f"mine={place / letter}") == expected


def test_a_merged_model_answers_as_its_adapter(place: Path, printed: Callable[..., str], tmp_path: Path) -> None:
    said = printed("merge", place / "base", place / "A", tmp_path / "merged")
    assert said.startswith(f"{tmp_path / 'merged'}: merged into the dequantised base; log-probabilities drift by")
    assert printed("generate", tmp_path / "merged", *ASK) == "AA\n"


def test_a_chat_switches(place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    lines = b"Ada\n/reset\n/adapter two\nAda\n/adapter three\n/reset\n/adapter\n/quit\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines)))
    main([
        "chat", str(place / "base"), "--temperature", "0", "--max-new-tokens", "8",
        "--adapter", f"one={place / 'A'}", "--adapter", f"two={place / 'B'}",
    ])  # fmt: skip
    shown = capsys.readouterr()
    assert shown.out == "AA\nBB\n"
    assert "adapter two is at work" in shown.err
    assert "no adapter 'three'; there are one, two" in shown.err
    assert "no adapter is at work" in shown.err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["generate", "base", *ASK, "--adapter", "A", "--adapter", "B"], "one answer is by one adapter, chat switches between several"),
        (["generate", "http://127.0.0.1:9/v1#x", *ASK, "--adapter", "A"], "is an endpoint; an adapter needs the weights of its base"),
        (["generate", "base", *ASK, "--adapter", "x=absent"], "absent: no such folder"),
        (["generate", "base", *ASK, "--adapter", "base"], "holds no adapter_config.json"),
        (["chat", "base", "--adapter", "x=A", "--adapter", "x=B"], "two adapters are called 'x'"),
        (["merge", "base", "A", "out", "--into", "base", "--max-drift", "0"], "more than max_drift 0; the adapter was trained on the base in 4 bits"),
        (["merge", "base", "A", "out", "--into", "half"], "half"),
        (["sft", "--model=base", "--data=A.jsonl", "--out=out", "--base.bits=4"], "add --lora.r=16"),
        (["sft", "--model=base", "--data=A.jsonl", "--out=out", "--lora.r=0"], "lora.r: given 0"),
        (["sft", "--model=base", "--data=A.jsonl", "--out=out", "--lora.layers=[q_proj]"], "lora.layers"),
    ],
)  # fmt: skip
def test_one_line_each(
    place: Path, arguments: list[str], expected: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert expected in said
    assert not (place / "out").exists()


def test_help_names_the_settings_of_an_adapter(capsys: pytest.CaptureFixture[str]) -> None:
    main(["sft", "--help"])
    said = capsys.readouterr().out
    for setting in (
        "--lora.r=int",
        "--lora.alpha=float",
        "--base.bits=4|16|32",
        "--optimizer.kind=adamw|adamw-8bit",
        "--checkpointing=bool",
    ):
        assert setting in said
