import io
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from llamaherd.cli import main
from llamaherd.tokenizer.sentencepiece import Tokenizer

Scripted = Callable[..., Path]


@pytest.fixture(scope="module")
def parrot(scripted: Scripted) -> Path:
    return scripted()


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line on standard error of a command that prints nothing else."""
    with pytest.raises(SystemExit) as ended:
        main(["generate", *arguments])
    printed = capsys.readouterr()
    assert ended.value.code == 2
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    return printed.err.removeprefix("llamaherd: ").rstrip("\n")


def test_the_answer_alone_is_printed(parrot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["generate", str(parrot), "--prompt", "Where does Ada live?", "--system", "Answer briefly."])
    assert capsys.readouterr() == ("Ada lives in Lima.\n", "")


def test_an_answer_ends_before_a_stop_text(parrot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for stops, expected in ((["zz", "in L"], "Ada lives"), (["-x", "a lives"], "Ad"), (["Where"], "Ada lives in Lima.")):
        given = [word for stop in stops for word in ("--stop", stop)]
        main(["generate", str(parrot), "--prompt", "Where does Ada live?", "--top-k", "1", "--min-p", "0.5", *given])
        assert capsys.readouterr() == (f"{expected}\n", "")


def test_raw_text_is_continued_without_the_format(parrot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["generate", str(parrot), "--raw", "--prompt", ""])
    main(["generate", str(parrot), "--raw", "--prompt", "[INST] Where? [/INST]"])
    from_begin, from_text = capsys.readouterr().out.splitlines()
    assert from_begin.strip() == from_text.strip() == "Ada lives in Lima."


def test_length_is_limited(scripted: Scripted, capsys: pytest.CaptureFixture[str]) -> None:
    model = scripted(endless=True)
    main(["generate", str(model), "--prompt", "Where?", "--max-new-tokens", "100"])
    text = capsys.readouterr().out
    assert text.count("Ada lives in Lima.") > 3
    assert abs(len(Tokenizer.load(model).encode(text)) - 100) <= 2  # the spaces around an answer are not printed


def test_temperature_zero_and_equal_seeds_repeat(tiny_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def said(**options: object) -> str:
        main(
            [
                "generate",
                str(tiny_folder / "v0"),
                "--prompt",
                "Where?",
                "--max-new-tokens=20",
                *(f"--{name}={value}" for name, value in options.items()),
            ]
        )
        return capsys.readouterr().out

    assert said(temperature=0, seed=1) == said(temperature=0, seed=2)
    assert said(temperature=2, seed=-1) == said(temperature=2, seed=-1)
    assert len({said(temperature=2, seed=seed) for seed in range(4)}) == 4


def test_a_prompt_longer_than_the_context_is_one_line_with_both_numbers(parrot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, str(parrot), "--prompt", "Where? " * 300)
    assert "256" in line
    assert any(int(word) > 300 for word in line.split() if word.isdigit())


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--prompt", "a [/INST] b"], "--prompt: message 1 (user): contains the template tag [/INST]"),
        (["--prompt", "x", "--system", "<<SYS>>"], "--prompt: message 1 (system): contains the template tag <<SYS>>"),
        (["--prompt", "  "], "--prompt: message 1 (user): is empty"),
        (["--prompt", "x", "--raw", "--system", "y"], "--system has no place in a --raw prompt"),
    ],
)
def test_prompts_that_cannot_be(parrot: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str) -> None:
    assert refused(capsys, str(parrot), *arguments).startswith(expected)


def test_a_terminal_that_lacks_a_character_gets_its_number(scripted: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    main(["generate", str(scripted("Adaù.")), "--prompt", "Where?"])
    terminal.flush()
    assert terminal.buffer.getvalue() == b"Ada\\xf9.\n"  # type: ignore[attr-defined]


def test_a_missing_model_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no such folder" in refused(capsys, str(tmp_path / "nowhere"), "--prompt", "x")
