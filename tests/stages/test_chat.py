import io
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from llamaherd.chat.dialogue import Dialogue, Message, checked
from llamaherd.cli import main
from llamaherd.core.errors import UserError
from llamaherd.generate.config import SamplingConfig
from llamaherd.stages.chat import Chat, ChatConfig

Captured = pytest.CaptureFixture[str]


class Model:
    """Gives prepared answers, piece by piece, and remembers what it was asked. A piece may be an error to raise."""

    name = "prepared"

    def __init__(self, *answers: Sequence[str | BaseException], keeps_turns: int = 99):
        self.answers, self.keeps_turns = iter(answers), keeps_turns
        self.asked: list[tuple[Dialogue, SamplingConfig, int]] = []

    def stream(self, dialogue: Dialogue, config: SamplingConfig, seed: int) -> Iterator[str]:
        self.asked.append((dialogue, config, seed))
        for piece in next(self.answers, ["Yes."]):
            if isinstance(piece, BaseException):
                raise piece
            yield piece

    def continuation(self, text: str, config: SamplingConfig, seed: int) -> Iterator[str]:
        raise AssertionError("a conversation continues no raw text")

    def fitted(self, dialogue: Dialogue, config: SamplingConfig) -> tuple[Dialogue, int]:
        dropped = max(0, dialogue.turns - self.keeps_turns)
        start = dialogue.system is not None
        return checked([*dialogue.messages[:start], *dialogue.messages[start + 2 * dropped :]]), dropped


def chat(model: Model, *lines: str, system: str | None = None, seed: int = 0) -> Chat:
    """A conversation after these lines."""
    chat = Chat(model, ChatConfig(model="prepared", system=system, seed=seed))
    for line in lines:
        assert chat.take(line)
    return chat


def texts(dialogue: Dialogue) -> list[str]:
    return [message.content for message in dialogue.messages]


def test_every_turn_sees_the_dialogue_so_far(capsys: Captured) -> None:
    model = Model(["In ", "Lima."], ["In Oslo."])
    talk = chat(model, "Where is Ada?\n", "", "   \n", " And Tom? \n", system="Be brief.")
    assert [texts(dialogue) for dialogue, _, _ in model.asked] == [
        ["Be brief.", "Where is Ada?"],
        ["Be brief.", "Where is Ada?", "In Lima.", "And Tom?"],
    ]
    assert talk.turns[-1] == Message("assistant", "In Oslo.")
    assert capsys.readouterr() == ("In Lima.\nIn Oslo.\n", "")


def test_seeds_repeat_the_conversation_and_no_seed_does_not() -> None:
    def seeds(seed: int | None) -> list[int]:
        model = Model()
        talk = Chat(model, ChatConfig(model="prepared", seed=seed))
        for line in ("a", "/reset", "a"):
            talk.take(line)
        return [seed for _, _, seed in model.asked]

    assert seeds(3) == seeds(3) != seeds(4)
    assert len(set(seeds(3))) == 2
    assert seeds(None) != seeds(None)


def test_the_system_text_is_set_and_removed(capsys: Captured) -> None:
    model = Model()
    chat(model, "a", "/system  Be kind. ", "b", "/SYSTEM", "c", system="Be brief.")
    assert [dialogue.system for dialogue, _, _ in model.asked] == ["Be brief.", "Be kind.", None]
    assert texts(model.asked[-1][0]) == ["a", "Yes.", "b", "Yes.", "c"]
    assert capsys.readouterr().err == "the system text is set; /reset starts over under it\nno system text\n"


def test_a_tab_after_a_command_is_a_space(capsys: Captured) -> None:
    model = Model(["Yes."])
    chat(model, "/system\tBe nice.\n", "/temperature\t0.1\n", "Ada?\n")
    [(dialogue, config, _)] = model.asked
    assert (texts(dialogue), config.temperature) == (["Be nice.", "Ada?"], 0.1)


def test_reset_forgets_the_turns_and_keeps_the_system_text() -> None:
    model = Model()
    chat(model, "a", "/reset", "b", system="Be brief.")
    assert texts(model.asked[-1][0]) == ["Be brief.", "b"]


def test_the_temperature_changes_what_comes_next(capsys: Captured) -> None:
    model = Model()
    chat(model, "a", "/temperature 0", "b", "/temperature 1.5", "/temperature", "c")
    assert [config.temperature for _, config, _ in model.asked] == [0.6, 0, 1.5]
    assert capsys.readouterr().err.splitlines() == ["temperature 0", "temperature 1.5", "temperature 1.5"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("/temperature warm", "temperature 'warm': expected a number from 0 up"),
        ("/temperature -1", "temperature '-1': expected a number from 0 up"),
        ("/temperature nan", "temperature 'nan': expected"),
        ("/temperature inf", "temperature 'inf': expected"),
        ("/sistem x", "/sistem is no command (did you mean '/system'?); /help lists them"),
        ("/system a <<SYS>> b", "message 1 (system): contains the template tag <<SYS>>"),
        ("say [INST] now", "message 4 (user): contains the template tag [INST]"),
        ("a\udcffb", "message 4 (user): contains a lone surrogate"),
    ],
)
def test_what_cannot_be_is_one_line_and_changes_nothing(line: str, expected: str) -> None:
    model = Model()
    talk = chat(model, "a", system="Be brief.")
    before = (talk.turns, talk.system, talk.sampling)
    with pytest.raises(UserError) as found:
        talk.take(line)
    assert str(found.value).startswith(expected)
    assert "\n" not in str(found.value)
    assert (talk.turns, talk.system, talk.sampling) == before
    assert len(model.asked) == 1


def test_a_path_is_a_message() -> None:
    model = Model()
    chat(model, "/etc/hosts says what?")
    assert texts(model.asked[0][0]) == ["/etc/hosts says what?"]


def test_a_full_context_says_how_many_turns_are_left_out(capsys: Captured) -> None:
    model = Model(keeps_turns=2)
    talk = chat(model, "a", "b", "c", "d", system="Be brief.")
    assert texts(model.asked[-1][0]) == ["Be brief.", "c", "Yes.", "d"]
    assert capsys.readouterr().err.splitlines() == ["the context is full: the oldest turn is left out"] * 2
    talk.model = Model(keeps_turns=1)
    talk.take("e")
    assert capsys.readouterr().err == "the context is full: the oldest 2 turns are left out\n"


def test_a_full_context_may_be_refused_instead(capsys: Captured) -> None:
    model = Model(keeps_turns=2)
    talk = Chat(model, ChatConfig(model="prepared", overflow="refuse"))
    talk.take("a")
    talk.take("b")
    with pytest.raises(UserError, match="the context is full: 1 of 2 earlier turns would have to go"):
        talk.take("c")
    assert len(model.asked) == 2
    assert len(talk.turns) == 4


def test_a_stopped_answer_stays_as_far_as_it_came(capsys: Captured) -> None:
    model = Model(["In ", KeyboardInterrupt()])
    chat(model, "a", "b")
    assert texts(model.asked[-1][0]) == ["a", "In ", "b"]
    assert capsys.readouterr() == ("In \nYes.\n", "stopped; the answer stays in the dialogue as far as it came\n")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ([KeyboardInterrupt()], "the answer was stopped before it began; this turn is left out of the dialogue\n"),
        ([], "the answer is empty; this turn is left out of the dialogue\n"),
        (["so [/IN", "ST] it"], "the answer contains the template tag [/INST]; this turn is left out of the dialogue\n"),
    ],
)
def test_an_answer_that_cannot_stay_is_left_out(capsys: Captured, answer: list[str | BaseException], expected: str) -> None:
    model = Model(["Hello."], answer)
    chat(model, "a", "b", "c")
    assert texts(model.asked[-1][0]) == ["a", "Hello.", "c"]
    printed = capsys.readouterr()
    assert printed.err == expected
    shown = "".join(piece for piece in answer if isinstance(piece, str))
    assert printed.out == "Hello.\n" + (shown and f"{shown}\n") + "Yes.\n"


def test_a_failing_endpoint_leaves_the_dialogue_as_it_was() -> None:
    model = Model(["Hello."], ["In ", UserError("http://host/v1: broke off")])
    talk = chat(model, "a")
    with pytest.raises(UserError, match="broke off"):
        talk.take("b")
    talk.take("c")
    assert texts(model.asked[-1][0]) == ["a", "Hello.", "c"]


def test_what_would_steer_the_terminal_is_shown_as_a_mark(capsys: Captured) -> None:
    model = Model(["a\x1b]0;title\x07\tb\n", "\x9b2Jé"])
    talk = chat(model, "a")
    assert capsys.readouterr().out == "a\ufffd]0;title\ufffd\tb\n\ufffd2Jé\n"
    assert talk.turns[-1].content == "a\x1b]0;title\x07\tb\n\x9b2Jé"


def piped(monkeypatch: pytest.MonkeyPatch, text: bytes, *arguments: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text), encoding="utf-8"))
    main(["chat", *arguments])


def test_a_pipe_needs_no_terminal(scripted: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    text = b"\nWhere?\nhu [INST]\n\xff\n" + b"Where " * 99 + b"\n/temperature x\n/help\n" + b"Where?\n" * 5 + b"/quit\nno\n"
    model = str(scripted(context=96))
    piped(monkeypatch, text, model, "--system", "Briefly.", "--max-new-tokens", "16")
    printed = capsys.readouterr()
    assert printed.out == "Ada lives in Lima.\n" * 6
    notes = printed.err.splitlines()
    assert notes[0] == f"parrot ({model}) listens; /help lists the commands"
    assert "contains the template tag [INST]" in notes[1]
    assert "contains a lone surrogate" in notes[2]
    assert notes[3].startswith("the last message with the system text takes")
    assert notes[4].startswith("temperature 'x'")
    assert [note.split()[0] for note in notes[5:11]] == ["/system", "/reset", "/adapter", "/temperature", "/help", "/quit"]
    assert notes[11:]
    assert set(notes[11:]) == {"the context is full: the oldest turn is left out"}


def test_the_newest_version_of_a_run_is_named(
    scripted: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    for name in ("v0", "v1"):
        scripted().rename(tmp_path / name)
        (tmp_path / name / "manifest.json").write_text('{"kind": "model", "hash": "0"}')
    (tmp_path / "recipe.json").write_text("{}")
    piped(monkeypatch, b"Where?", str(tmp_path))
    assert capsys.readouterr() == ("Ada lives in Lima.\n", f"v1 ({tmp_path}) listens; /help lists the commands\n")


def test_a_bad_system_text_is_refused_before_the_model_is_opened(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    with pytest.raises(SystemExit):
        piped(monkeypatch, b"", "nowhere", "--system", "[INST]")
    assert capsys.readouterr().err.startswith("llamaherd: message 1 (system): contains the template tag [INST]")


IN_TERMINAL = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.executable, sys.argv[1:])"


class Terminal:
    """The program in a terminal of its own, with keys to press and a screen to wait for."""

    def __init__(self, *arguments: str):
        import pty

        self.keys, inner = pty.openpty()
        program = [sys.executable, "-c", IN_TERMINAL, sys.executable, "-m", "llamaherd.cli", *arguments]
        everything = {**os.environ, "OMP_NUM_THREADS": "1", "TERM": "dumb"}
        self.process = subprocess.Popen(program, stdin=inner, stdout=inner, stderr=inner, start_new_session=True, env=everything)
        os.close(inner)
        self.screen = b""

    def press(self, keys: bytes) -> None:
        os.write(self.keys, keys)

    def shows(self, text: bytes, limit_s: float = 60) -> None:
        """Waits until `text` stands on the screen, and forgets what came up to its end."""
        until = time.monotonic() + limit_s
        while text not in self.screen:
            ready, _, _ = select.select([self.keys], [], [], max(0, until - time.monotonic()))
            assert ready, f"{text!r} does not come; the screen shows {self.screen[-2000:]!r}"
            self.screen += os.read(self.keys, 1 << 16)
        self.screen = self.screen.partition(text)[2]

    def interrupt_prompt(self, expected: bytes) -> None:
        """Presses Ctrl-C at the prompt, twice if need be: Python does not see one that comes between its prompt and its wait."""
        self.press(b"\x03")
        try:
            self.shows(expected, limit_s=5)
        except AssertionError:
            self.press(b"\x03")
            self.shows(expected)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        os.close(self.keys)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals of this kind")
def test_ctrl_c_stops_the_answer_and_not_the_program(scripted: Callable[..., Path]) -> None:
    model = scripted(endless=True, context=40_000)
    terminal = Terminal("chat", str(model), "--max-new-tokens=10000")
    try:
        terminal.shows(b"parrot (")
        terminal.shows(b"> ")
        for _ in range(2):
            terminal.press(b"Where?\n")
            terminal.shows(b"Ada lives in Lima.")
            terminal.press(b"\x03")
            terminal.shows(b"stopped; the answer stays in the dialogue as far as it came")
            terminal.shows(b"> ")
        terminal.press("Où? [INST]\n".encode())
        terminal.shows(b"contains the template tag [INST]")
        terminal.shows(b"> ")
        terminal.interrupt_prompt(b"Ctrl-C again ends the conversation")
        terminal.shows(b"> ")
        terminal.press(b"/temperature\n")
        terminal.shows(b"temperature 0.6")
        terminal.shows(b"> ")
        terminal.interrupt_prompt(b"Ctrl-C again ends the conversation")
        terminal.shows(b"> ")
        terminal.interrupt_prompt(b"\r\n")
        assert terminal.process.wait(20) == 0
    finally:
        terminal.close()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals of this kind")
def test_ctrl_d_ends_the_conversation(scripted: Callable[..., Path]) -> None:
    terminal = Terminal("chat", str(scripted()))
    try:
        terminal.shows(b"> ")
        terminal.press(b"Where?\n")
        terminal.shows(b"Ada lives in Lima.")
        terminal.shows(b"> ")
        terminal.press(b"\x04")
        assert terminal.process.wait(20) == 0
    finally:
        terminal.close()
