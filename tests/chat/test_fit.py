from typing import Any

import pytest

from llamaherd.chat.dialogue import Dialogue, Message, checked
from llamaherd.chat.fit import fit_prompt
from llamaherd.chat.template import encode_prompt
from llamaherd.core.errors import UserError


@pytest.fixture
def dialogue() -> Dialogue:
    roles = ("system", "user", "assistant", "user", "assistant", "user")
    return checked([Message(role, text) for role, text in zip(roles, ("S", "one", "1", "two", "2", "three"))])


def test_what_fits_is_left_alone(dialogue: Dialogue, letters: Any):
    length = len(encode_prompt(dialogue, letters))
    assert fit_prompt(dialogue, letters, length) == (dialogue, 0)


def test_the_oldest_turns_go_and_the_system_text_stays(dialogue: Dialogue, letters: Any):
    length = len(encode_prompt(dialogue, letters))
    kept, dropped = fit_prompt(dialogue, letters, length - 1)
    assert dropped == 1
    assert [message.content for message in kept.messages] == ["S", "two", "2", "three"]
    shorter = len(encode_prompt(kept, letters))
    kept, dropped = fit_prompt(dialogue, letters, shorter - 1)
    assert dropped == 2
    assert [message.content for message in kept.messages] == ["S", "three"]


def test_without_system_text(letters: Any):
    dialogue = checked([Message("user", "one"), Message("assistant", "1"), Message("user", "two")])
    kept, dropped = fit_prompt(dialogue, letters, 20)
    assert (kept, dropped) == (checked([Message("user", "two")]), 1)


def test_a_last_message_that_is_too_long_is_refused_with_both_numbers(dialogue: Dialogue, letters: Any):
    # {[INST] <<SYS>>\nS\n<</SYS>>\n\nthree [/INST]: 1 + 7 + 8 + 1 + 1 + 8 + 2 + 5 + 8
    assert fit_prompt(dialogue, letters, 41)[1] == 2
    with pytest.raises(UserError, match="the last message with the system text takes 41 tokens, and there is room for 40"):
        fit_prompt(dialogue, letters, 40)
