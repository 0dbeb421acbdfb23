import time
from typing import Any

import pytest

from llamaherd.chat.dialogue import Dialogue, Message, checked
from llamaherd.chat.fit import demand_possible, encode_open, fit_prompt
from llamaherd.chat.template import encode_prompt
from llamaherd.core.errors import UserError
from llamaherd.tokenizer.sentencepiece import Tokenizer


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


def plain_fit(dialogue: Dialogue, tokenizer: Any, limit: int) -> int | None:
    """Turn by turn from the oldest on, each time encoded whole."""
    system, rest = dialogue.messages[: dialogue.system is not None], dialogue.messages[dialogue.system is not None :]
    for dropped in range(dialogue.turns):
        if len(encode_open(checked((*system, *rest[2 * dropped :])), tokenizer)) <= limit:
            return dropped
    return None


@pytest.mark.parametrize("system", [None, "", "Answer briefly, and in one word where that will do."])
@pytest.mark.parametrize("ends", ["user", "assistant"])
def test_as_many_turns_stay_as_there_is_room_for(system: str | None, ends: str, tokenizer: Tokenizer):
    texts = ["Where does Ada live? " * count for count in (1, 9, 2, 1, 1, 30, 1, 2, 1, 5, 1)]
    messages = [Message("assistant" if place % 2 else "user", text) for place, text in enumerate(texts)][: 11 if ends == "user" else 10]
    dialogue = checked([Message("system", system), *messages] if system is not None else messages)
    for limit in range(20, len(encode_open(dialogue, tokenizer)) + 3):
        expected = plain_fit(dialogue, tokenizer, limit)
        if expected is None:
            with pytest.raises(UserError, match="takes [0-9]+ tokens, and there is room for"):
                fit_prompt(dialogue, tokenizer, limit)
        else:
            assert fit_prompt(dialogue, tokenizer, limit)[1] == expected


def test_thousands_of_turns_are_fitted_at_once(tokenizer: Tokenizer):
    turn = (Message("user", "Where does Ada live?"), Message("assistant", "Ada lives in Lima." * 200))
    dialogue = checked((*turn * 2000, Message("user", "And Ben?")))
    started = time.perf_counter()
    _, dropped = fit_prompt(dialogue, tokenizer, 100)
    assert dropped == 2000
    assert time.perf_counter() - started < 1


def test_what_can_never_fit_is_refused_unread(letters: Any):
    with pytest.raises(UserError, match="the prompt takes at least 200000 tokens, and there is room for 4096; shorten it"):
        demand_possible(checked([Message("user", "a" * 200_000)]), letters, 4096, "the prompt")
    demand_possible(checked([Message("user", "a" * 100_000)]), letters, 4096, "the prompt")
