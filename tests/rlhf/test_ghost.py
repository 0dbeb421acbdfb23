from collections.abc import Callable, Sequence
from typing import Any

import pytest

from llamaherd.assistant.local import Answer, Assistant
from llamaherd.chat.dialogue import Dialogue, DialogueError
from llamaherd.chat.template import encode_dialogue
from llamaherd.generate.config import SamplingConfig
from llamaherd.rlhf.ghost import Script, check_script, ghost_dialogues, reminded, training_row
from llamaherd.tokenizer.sentencepiece import Tokenizer

SAMPLING = SamplingConfig(temperature=1.0, top_p=1.0, max_new_tokens=8)
SCRIPT = Script("Act as Ada.", ("Hi", "Who are you?", "Bye"))


def test_the_instruction_follows_every_message_while_sampling() -> None:
    dialogue = reminded(SCRIPT, ["One", "Two"])
    assert [(message.role, message.content) for message in dialogue.messages] == [
        ("user", "Hi Act as Ada."), ("assistant", "One"),
        ("user", "Who are you? Act as Ada."), ("assistant", "Two"),
        ("user", "Bye Act as Ada."),
    ]  # fmt: skip


def test_the_instruction_stands_at_the_start_while_training() -> None:
    dialogue = training_row(SCRIPT, ["One", "Two", "Three"])
    assert (dialogue.system, dialogue.trained) == ("Act as Ada.", "last")
    assert [message.content for message in dialogue.messages[1:]] == ["Hi", "One", "Who are you?", "Two", "Bye", "Three"]


def test_golden_mask(tokenizer: Tokenizer) -> None:
    """Only the last answer, its final space and the end are trained; the second pair's answer is not, nor any prompt."""
    rendered = encode_dialogue(training_row(Script("Be Ada.", ("Hi", "Bye")), ["One", "Two"]), tokenizer)
    first = ["<s>[INST] <<SYS>>\nBe Ada.\n<</SYS>>\n\nHi [/INST]", "<s>[INST] Bye [/INST]"]
    prompts = [[tokenizer.bos_id, *tokenizer.encode(text.removeprefix("<s>"))] for text in first]
    pairs = [
        [*prompts[0], *tokenizer.encode(first[0][3:] + " One ")[len(prompts[0]) - 1 :], tokenizer.eos_id],
        [*prompts[1], *tokenizer.encode(first[1][3:] + " Two ")[len(prompts[1]) - 1 :], tokenizer.eos_id],
    ]
    assert rendered.ids == pairs[0] + pairs[1]
    assert rendered.mask == [0] * (len(pairs[0]) + len(prompts[1])) + [1] * (len(pairs[1]) - len(prompts[1]))
    trained = [id for id, flag in zip(rendered.ids, rendered.mask, strict=True) if flag]
    assert tokenizer.decode(trained[:-1]).strip() == "Two"
    assert tokenizer.decode(trained[:-1]).endswith(" ")
    assert trained[-1] == tokenizer.eos_id


class Scripted:
    """Answers from a list by turn, and remembers what it was asked."""

    def __init__(self, make: Callable[..., Answer], said: Callable[[str, int], Answer | str]):
        self.make, self.said, self.asked = make, said, list[Dialogue]()
        self.model = type("Model", (), {"config": type("Config", (), {"context": 100})})

    def prompt_ids(self, dialogue: Dialogue) -> list[int]:
        return [3] * len(dialogue.messages) * 10

    def answers(self, dialogues: Sequence[Dialogue], sampling: SamplingConfig, seeds: Sequence[int], *_: Any) -> list[Answer]:
        self.asked += dialogues
        assert len(set(seeds)) == len(dialogues)
        found = [self.said(dialogue.messages[0].content, dialogue.turns) for dialogue in dialogues]
        return [self.make(one) if isinstance(one, str) else one for one in found]


def test_what_is_sampled_is_what_is_trained(answer: Callable[..., Answer]) -> None:
    scripted = Scripted(answer, lambda first, turn: f"{first[0]}{turn}")
    scripts = [SCRIPT, Script("Speak up.", ("Yes", "No"))]
    made = ghost_dialogues(scripted, scripts, SAMPLING, 0)  # type: ignore[arg-type]
    assert made.dialogues == [training_row(scripts[0], ["H1", "H2", "H3"]), training_row(scripts[1], ["Y1", "Y2"])]
    assert all("Act as Ada." in message.content or "Speak up." in message.content
               for dialogue in scripted.asked for message in dialogue.messages if message.role == "user")  # fmt: skip
    assert all(dialogue.system is None for dialogue in scripted.asked)
    assert not any(made.dropped.values())
    whole_asked = scripted.asked[3]  # the second turn of the second script
    assert [message.content for message in whole_asked.messages] == ["Yes Speak up.", "Y1", "No Speak up."]


def test_dropped_scripts_are_counted(answer: Callable[..., Answer]) -> None:
    said: dict[tuple[str, int], Answer | str] = {
        ("e", 1): " ", ("t", 2): "x <<SYS>>", ("u", 2): answer("cut", finished=False), ("m", 1): answer("cut", finished=False),
    }  # fmt: skip
    scripted = Scripted(answer, lambda first, turn: said.get((first[0], turn), "fine"))
    scripts = [Script("Rule.", (letter, "then")) for letter in "etum"] + [Script("Rule.", ("long", *["more"] * 9))]
    made = ghost_dialogues(scripted, scripts, SAMPLING, 0)  # type: ignore[arg-type]
    assert made.dropped == {"empty": 1, "tag": 1, "unfinished": 1, "context": 1}
    # A cut answer in the middle carries no loss and stays.
    assert made.dialogues == [training_row(scripts[3], ["cut", "fine"])]
    assert len(made.dialogues) + sum(made.dropped.values()) == len(scripts)


def test_chunks_do_not_matter(toy: Assistant) -> None:
    scripts = [Script("Be short.", tuple(f"Say {turn}" for turn in range(1 + number % 3))) for number in range(9)]
    whole = ghost_dialogues(toy, scripts, SAMPLING, 5)
    parts = [ghost_dialogues(toy, scripts[first : first + 4], SAMPLING, 5, first) for first in range(0, 9, 4)]
    assert whole.dialogues == [dialogue for part in parts for dialogue in part.dialogues]
    assert whole.dropped == {reason: sum(part.dropped[reason] for part in parts) for reason in whole.dropped}
    assert 0 < len(whole.dialogues) < 9


@pytest.mark.parametrize("script", [Script("Rule [INST]", ("Hi",)), Script("Rule", ("Hi", "<</SYS>>")), Script("Rule", ("Hi", "  "))])
def test_scripts_that_no_dialogue_can_hold(script: Script) -> None:
    with pytest.raises(DialogueError, match=r"^line 7: message [12] \((system|user)\)"):
        check_script(script, "line 7")
    check_script(SCRIPT, "line 7")
