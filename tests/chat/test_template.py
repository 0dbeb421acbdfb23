from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2.sandbox import ImmutableSandboxedEnvironment

from llamaherd.chat.dialogue import TAGS, Dialogue, Message, Trained, checked, tag_in
from llamaherd.chat.template import (
    CHAT_TEMPLATE,
    Rendered,
    encode_continued,
    encode_dialogue,
    encode_prompt,
    message_spans,
    pair_texts,
    read_answer,
)
from llamaherd.tokenizer.sentencepiece import SPACE, Tokenizer

contents = st.one_of(st.text(max_size=12), st.sampled_from([" a ", "\n b\n\n", "1 2  3", "<s>", "</s> x", "é😀", "\u00a0c\u3000"]))
contents = contents.filter(lambda text: text.strip() != "" and tag_in(text) is None)


@st.composite
def dialogues(draw: st.DrawFn) -> Dialogue:
    """Dialogues that end with an answer."""
    system = draw(st.none() | contents)
    messages = [] if system is None else [Message("system", system)]
    for _ in range(draw(st.integers(1, 3))):
        messages += [Message("user", draw(contents)), Message("assistant", draw(contents | st.just("")))]
    return checked(messages)


def talk(*texts: str, system: str | None = None, trained: Trained = "all") -> Dialogue:
    """User and assistant in turn."""
    head = [] if system is None else [Message("system", system)]
    return checked([*head, *(Message("assistant" if index % 2 else "user", text) for index, text in enumerate(texts))], trained)


def shown(rendered: Rendered) -> tuple[str, str]:
    marks = {1: "{", 2: "}"}
    return "".join(marks.get(id) or chr(id) for id in rendered.ids), "".join(map(str, rendered.mask))


def test_one_turn(letters: Any):
    text, mask = shown(encode_dialogue(talk("Hi", "Yo"), letters))
    assert text == "{[INST] Hi [/INST] Yo }"
    assert mask == "00000000000000000011111"


def test_the_space_around_messages_goes(letters: Any):
    text, mask = shown(encode_dialogue(talk(" \n Hi  you\t", "\n Yo \n"), letters))
    assert text == "{[INST] Hi  you [/INST] Yo }"
    assert mask == "0" * 23 + "11111"


def test_system_text_is_folded_before_the_space_goes(letters: Any):
    text, _ = shown(encode_dialogue(talk("  Hi ", "Yo", system=" Be brief.\n"), letters))
    assert text == "{[INST] <<SYS>>\n Be brief.\n\n<</SYS>>\n\n  Hi [/INST] Yo }"


def test_an_empty_system_text_is_still_one(letters: Any):
    assert pair_texts(talk("Hi", system="")) == ["[INST] <<SYS>>\n\n<</SYS>>\n\nHi [/INST]"]


def test_many_turns(letters: Any):
    text, mask = shown(encode_dialogue(talk("a", "b", "c", "d", system="S"), letters))
    assert text == "{[INST] <<SYS>>\nS\n<</SYS>>\n\na [/INST] b }{[INST] c [/INST] d }"
    assert mask == "0" * 37 + "1111" + "0" * 17 + "1111"


def test_only_the_last_answer_is_trained_where_it_says_so(letters: Any):
    everything, last = (encode_dialogue(talk("a", "b", "c", "d", trained=which), letters) for which in ("all", "last"))
    assert last.ids == everything.ids
    assert shown(last)[1] == "0" * 17 + "0000" + "0" * 17 + "1111"


def test_where_every_message_stands(letters: Any):
    """The space before a message is its own, tags are nobody's."""
    dialogue = talk("a", "b b", "<<c", "d", system="S.")
    text, _ = shown(encode_dialogue(dialogue, letters))
    spans = [(role, text[start:end]) for role, start, end in message_spans(dialogue, letters)]
    assert spans == [("system", "S."), ("user", "a"), ("assistant", " b b"), ("user", " <<c"), ("assistant", " d")]


@given(dialogues())
def test_messages_stand_in_order_inside_their_pairs(tokenizer: Tokenizer, dialogue: Dialogue):
    rendered = encode_dialogue(dialogue, tokenizer)
    spans = message_spans(dialogue, tokenizer)
    assert [role for role, _, _ in spans] == [message.role for message in dialogue.messages]
    ends = [place for _, start, end in spans for place in (start, end)]
    assert ends == sorted(ends)
    answers = {place for role, start, end in spans if role == "assistant" for place in range(start, end)}
    assert all(rendered.mask[place] for place in answers)
    prompts = {place for role, start, end in spans if role != "assistant" for place in range(start, end)}
    assert not any(rendered.mask[place] for place in prompts)


def test_an_empty_answer_keeps_its_two_spaces(letters: Any):
    text, mask = shown(encode_dialogue(talk("a", ""), letters))
    assert text == "{[INST] a [/INST]  }"
    assert mask == "0" * 17 + "111"


def test_a_prompt_stops_where_the_answer_begins(letters: Any):
    ids = encode_prompt(talk("a", " b ", " c "), letters)
    assert shown(Rendered(ids, []))[0] == "{[INST] a [/INST] b }{[INST] c [/INST]"


def test_a_wrong_end_is_our_own_mistake(letters: Any):
    with pytest.raises(AssertionError):
        encode_dialogue(talk("a"), letters)
    with pytest.raises(AssertionError):
        encode_prompt(talk("a", "b"), letters)


def by_metas_formula(dialogue: Dialogue, tokenizer: Tokenizer) -> list[int]:
    """Section 14, stated a second time."""
    messages = dialogue.to_row()["messages"]
    if messages[0]["role"] == "system":
        messages[1]["content"] = "<<SYS>>\n" + messages[0]["content"] + "\n<</SYS>>\n\n" + messages[1]["content"]
        del messages[0]
    ids = []
    while messages:
        user = messages.pop(0)["content"].strip()
        if messages:
            answer = messages.pop(0)["content"].strip()
            ids += [1, *tokenizer.encode("[INST] " + user + " [/INST] " + answer + " "), 2]
        else:
            ids += [1, *tokenizer.encode("[INST] " + user + " [/INST]")]
    return ids


@given(dialogue=dialogues())
def test_ids_follow_the_formula(tokenizer: Tokenizer, dialogue: Dialogue):
    rendered = encode_dialogue(dialogue, tokenizer)
    assert rendered.ids == by_metas_formula(dialogue, tokenizer)
    assert encode_prompt(dialogue.prompt, tokenizer) == by_metas_formula(dialogue.prompt, tokenizer)
    assert len(rendered.mask) == len(rendered.ids)


@given(dialogue=dialogues())
def test_prompt_is_a_prefix_and_the_trained_rest_is_the_answer(tokenizer: Tokenizer, dialogue: Dialogue):
    rendered = encode_dialogue(dialogue, tokenizer)
    prompt = encode_prompt(dialogue.prompt, tokenizer)
    assert rendered.ids[: len(prompt)] == prompt
    assert rendered.mask[len(prompt) - 1] == 0
    assert set(rendered.mask[len(prompt) :]) == {1}
    assert read_answer(rendered.ids[len(prompt) :], tokenizer) == dialogue.last.content.strip().replace("\u2581", " ").strip()


@given(dialogue=dialogues())
def test_forged_symbols_never_begin_a_turn(tokenizer: Tokenizer, dialogue: Dialogue):
    ids = encode_dialogue(dialogue, tokenizer).ids
    assert ids.count(1) == ids.count(2) == dialogue.turns


def test_ids_of_the_released_tokenizer(llama2: Tokenizer):
    prompt = [1, 518, 25580, 29962, 15043, 518, 29914, 25580, 29962]
    assert encode_prompt(talk("Hello"), llama2) == prompt
    rendered = encode_dialogue(talk("Hello", "Hello"), llama2)
    assert rendered == Rendered([*prompt, 15043, 29871, 2], [0] * 9 + [1, 1, 1])


def jinja(messages: list[dict[str, str]]) -> str:
    """As transformers renders it."""

    def raise_exception(message: str) -> None:
        raise ValueError(message)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = raise_exception
    return environment.from_string(CHAT_TEMPLATE).render(messages=messages, bos_token="<s>", eos_token="</s>")


@given(dialogue=dialogues())
def test_the_jinja_twin_says_the_same(dialogue: Dialogue):
    pairs = [f"<s>{text}</s>" for text in pair_texts(dialogue)]
    assert jinja(dialogue.to_row()["messages"]) == "".join(pairs)
    *earlier, last = [f"<s>{text}</s>" for text in pair_texts(dialogue.prompt)]
    assert jinja(dialogue.prompt.to_row()["messages"]) == "".join(earlier) + last.removesuffix("</s>")


@pytest.mark.parametrize("roles", ["au", "uu", "uaa", "us", "s", "ssu", "sau", "ux", ""])
def test_the_jinja_twin_refuses_wrong_roles(roles: str):
    names = {"s": "system", "u": "user", "a": "assistant", "x": "tool"}
    with pytest.raises(ValueError, match="roles go|at least one user"):
        jinja([{"role": names[role], "content": "text"} for role in roles])


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_the_jinja_twin_refuses_tags(tag: str, place: int):
    messages = talk("u", "a", system="s").to_row()["messages"]
    messages[place]["content"] += tag
    with pytest.raises(ValueError, match=f"message {place + 1} contains the template tag"):
        jinja(messages)


def test_an_answer_that_goes_on_stands_open(letters: Any):
    begun = checked([*talk("one", "1", "two").messages, Message("assistant", "so far ")])
    assert "".join(map(letters.piece, encode_continued(begun, letters))) == "<s>[INST] one [/INST] 1 </s><s>[INST] two [/INST] so far"
    nothing = checked([Message("user", "one"), Message("assistant", " ")])
    assert encode_continued(nothing, letters) == encode_prompt(nothing.prompt, letters)
    with pytest.raises(AssertionError):
        encode_continued(talk("one"), letters)


@given(dialogue=dialogues())
def test_what_goes_on_is_the_pair_before_its_last_space_and_end(tokenizer: Tokenizer, dialogue: Dialogue):
    whole = encode_dialogue(dialogue, tokenizer).ids
    begun = encode_continued(dialogue, tokenizer)
    if dialogue.last.content.strip():
        assert begun == whole[: len(begun)]
        assert "".join(map(tokenizer.piece, whole[len(begun) :])) == f"{SPACE}</s>"
    else:
        assert begun == encode_prompt(dialogue.prompt, tokenizer)
