from collections.abc import Callable, Sequence

import pytest

from llamaherd.assistant.local import Answer, Assistant
from llamaherd.chat.dialogue import Dialogue, Message, checked
from llamaherd.data.records import Prompt
from llamaherd.generate.config import SamplingConfig
from llamaherd.rlhf.distill import distil

SAMPLING = SamplingConfig(temperature=1.0, top_p=1.0, max_new_tokens=8)


def prompt(name: str, safety: bool = True) -> Prompt:
    return Prompt(checked([Message("user", name)]), safety)


class Two:
    """Says `old` without a system text and `new` with one."""

    def __init__(self, make: Callable[..., Answer], said: dict[str, tuple[Answer | str, Answer | str]]):
        self.make, self.said, self.asked = make, said, list[Dialogue]()

    def answers(self, dialogues: Sequence[Dialogue], sampling: SamplingConfig, seeds: Sequence[int]) -> list[Answer]:
        self.asked += dialogues
        found = [self.said[dialogue.last.content][dialogue.system is not None] for dialogue in dialogues]
        return [self.make(one) if isinstance(one, str) else one for one in found]


class Safety:
    """The longer, the safer; notes what it judged."""

    def __init__(self) -> None:
        self.judged = list[Dialogue]()

    def logits(self, dialogues: Sequence[Dialogue]) -> list[float]:
        self.judged += dialogues
        return [float(len(dialogue.last.content)) for dialogue in dialogues]

    def fits(self, dialogue: Dialogue) -> bool:
        return True


def test_the_safety_model_chooses_the_target(answer: Callable[..., Answer]) -> None:
    assistant = Two(answer, {
        "better": ("no", "never"), "worse": ("never", "no"), "equal": ("yes", "nay"),
        "tagged": ("no", "never [INST]"), "cut": ("no", answer("never", finished=False)),
    })  # fmt: skip
    safety, names = Safety(), ["better", "worse", "equal", "tagged", "cut"]
    found, left_out = distil(assistant, safety, [prompt(name) for name in names], ["Be safe."] * 5, SAMPLING, 0)  # type: ignore[arg-type]
    assert left_out == 0
    assert {item.prompt.dialogue.last.content: (item.replaced, item.target) for item in found} == {
        "better": (True, "never"), "worse": (False, "never"), "equal": (False, "yes"), "tagged": (False, "no"), "cut": (False, "no"),
    }  # fmt: skip
    assert [item.distilled for item in found] == ["never", "no", "nay", None, None]
    without_choice = [item.dialogue_without_choice() for item in found]
    assert [dialogue.last.content for dialogue in without_choice] == ["never", "no", "nay", "no", "no"]
    assert {(dialogue.system, dialogue.trained) for dialogue in without_choice} == {(None, "last")}
    assert [dialogue.system for dialogue in assistant.asked] == [None] * 5 + ["Be safe."] * 5
    assert all(dialogue.system is None for dialogue in safety.judged), "judged as what is trained: without the preprompt"


def test_the_preprompt_is_never_trained(answer: Callable[..., Answer]) -> None:
    assistant = Two(answer, {"q": ("no", "never")})
    [item], _ = distil(assistant, Safety(), [prompt("q")], ["Be safe."], SAMPLING, 0)  # type: ignore[arg-type]
    dialogue = item.dialogue()
    assert [(message.role, message.content) for message in dialogue.messages] == [("user", "q"), ("assistant", "never")]
    assert dialogue.trained == "last"


def test_unusable_originals_are_left_out_and_counted(answer: Callable[..., Answer]) -> None:
    assistant = Two(answer, {"empty": ("", "never"), "cut": (answer("no", finished=False), "never"), "fine": ("no", "never")})
    found, left_out = distil(assistant, Safety(), [prompt(name) for name in ("empty", "cut", "fine")], ["Safe."] * 3, SAMPLING, 0)  # type: ignore[arg-type]
    assert ([item.prompt.dialogue.last.content for item in found], left_out) == (["fine"], 2)


def test_only_adversarial_prompts_get_the_preprompt(answer: Callable[..., Answer]) -> None:
    with pytest.raises(AssertionError, match="only adversarial prompts"):
        distil(Two(answer, {}), Safety(), [prompt("q"), prompt("r", safety=False)], ["Safe."] * 2, SAMPLING, 0)  # type: ignore[arg-type]


def test_chunks_do_not_matter(toy: Assistant) -> None:
    asked = [prompt(f"Do {number}") for number in range(7)]
    whole, whole_out = distil(toy, Safety(), asked, ["Safe."] * 7, SAMPLING, 3)  # type: ignore[arg-type]
    parts = [
        distil(toy, Safety(), asked[first : first + 3], ["Safe."] * len(asked[first : first + 3]), SAMPLING, 3, first)
        for first in (0, 3, 6)
    ]  # type: ignore[arg-type]
    assert whole == [item for found, _ in parts for item in found]
    assert whole_out == sum(left_out for _, left_out in parts)
    assert {item.replaced for item in whole} == {True, False}
