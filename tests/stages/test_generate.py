import io
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from llamaherd.assistant.local import Assistant
from llamaherd.assistant.open import open_assistant
from llamaherd.chat.dialogue import Message, checked, parse_dialogue
from llamaherd.cli import main
from llamaherd.core.files import write_rows
from llamaherd.generate.config import SamplingConfig
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


def test_a_history_is_what_the_prompt_goes_on_with(tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    turns = [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "In Lima."}]
    shared = [{"from": "human", "value": "Where?"}, {"from": "gpt", "value": "In Lima."}]
    write_rows(tmp_path / "ours.jsonl", [{"messages": [{"role": "system", "content": "Ada"}, *turns]}])
    write_rows(tmp_path / "theirs.jsonl", [{"conversations": shared}])
    asked = ["generate", str(tiny_folder / "v0"), "--prompt", "And now?", "--max-new-tokens", "12"]
    main([*asked, "--history", str(tmp_path / "ours.jsonl")])
    main([*asked, "--history", str(tmp_path / "theirs.jsonl"), "--system", "Ada"])
    first, second = capsys.readouterr().out.splitlines()
    dialogue = checked([Message("system", "Ada"), *parse_dialogue({"messages": turns}).messages, Message("user", "And now?")])
    config = SamplingConfig(max_new_tokens=12)
    assert first == second == "".join(open_assistant(str(tiny_folder / "v0")).stream(dialogue, config, 0))


def test_a_history_that_is_too_long_is_refused_or_loses_its_oldest_turns(
    parrot: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    turn = [{"role": "user", "content": "Where? " * 30}, {"role": "assistant", "content": "There."}]
    write_rows(tmp_path / "long.jsonl", [{"messages": turn * 4}])
    asked = [str(parrot), "--prompt", "Where?", "--history", str(tmp_path / "long.jsonl")]
    assert "the model's context is 256" in refused(capsys, *asked)
    main(["generate", *asked, "--overflow", "drop-turns"])
    said = capsys.readouterr()
    assert said.out == "Ada lives in Lima.\n"
    assert re.fullmatch(r"the context is full: the oldest \d turns are left out\n", said.err)


def test_histories_that_cannot_be(parrot: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    turns = [{"role": "system", "content": "Ada"}, {"role": "user", "content": "Where?"}, {"role": "assistant", "content": "Here."}]
    write_rows(tmp_path / "two.jsonl", [{"messages": turns}] * 2)
    write_rows(tmp_path / "one.jsonl", [{"messages": turns}])
    write_rows(tmp_path / "open.jsonl", [{"messages": turns[:2]}])
    asked = [str(parrot), "--prompt", "x", "--history"]
    assert "has 2 dialogues; --history takes a file with one" in refused(capsys, *asked, str(tmp_path / "two.jsonl"))
    assert "has a system text of its own" in refused(capsys, *asked, str(tmp_path / "one.jsonl"), "--system", "y")
    assert "open.jsonl line 1" in refused(capsys, *asked, str(tmp_path / "open.jsonl"))
    assert "--history has no place in a --raw prompt" in refused(capsys, *asked, str(tmp_path / "one.jsonl"), "--raw")


def test_an_invariant_answer_is_that_of_a_full_batch(tiny_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place, config = str(tiny_folder / "v0"), SamplingConfig(temperature=1.5, max_new_tokens=20)
    main(["generate", place, "--prompt", "Where?", "--temperature", "1.5", "--max-new-tokens", "20", "--invariant"])
    said = capsys.readouterr().out
    model = Assistant.load(place, invariant=True)
    asked = [checked([Message("user", text)]) for text in ("Where?", "Ada lives in", "Lima? " * 5)]
    assert model.answers(asked, config, [0, 1, 2])[0].text == said.strip()
