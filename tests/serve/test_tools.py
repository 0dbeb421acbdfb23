"""Tools as text: what a model reads of them, and what is read from what it says."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaherd.chat.dialogue import Message, checked
from llamaherd.serve.errors import ApiError
from llamaherd.serve.tools import Call, Reader, Tool, Turn, Wanted, in_three_roles, told, with_tools

WEATHER = Tool("get_weather", "Weather\nof a city.", {}, '{"type":"object"}')
CLOCK = Tool("clock", "", {}, '{"type":"object","properties":{}}')
ROME = Call("call_1", "get_weather", '{"city": "Rome"}')
OSLO = Call("call_2", "get_weather", '{"city": "Oslo"}')


def test_what_the_model_is_told() -> None:
    assert told(Wanted([WEATHER, CLOCK], 0, 4)).split("\n") == [
        "You can call these functions. Each line has a name, the JSON schema of the arguments, and what the function does:",
        'get_weather {"type":"object"} Weather of a city.',
        'clock {"type":"object","properties":{}}',
        'Where none is needed, answer in words. To call, answer with nothing but <call NAME>{"ARGUMENT": VALUE}, one call a line. '
        "What came of it follows as <result NAME>VALUE.",
    ]
    assert 'Answer with nothing but <call NAME>{"ARGUMENT": VALUE}, one call and no more.' in told(Wanted([CLOCK], 1, 1))


def test_the_tools_stand_behind_the_system_text() -> None:
    wanted = Wanted([CLOCK], 0, 1)
    alone = with_tools(checked([Message("user", "Hi")]), wanted)
    assert alone.messages == (Message("system", told(wanted)), Message("user", "Hi"))
    behind = with_tools(checked([Message("system", "Be kind."), Message("user", "Hi")]), wanted)
    assert behind.messages[0] == Message("system", f"Be kind.\n\n{told(wanted)}")


@pytest.mark.parametrize(("tool", "said"), [
    (Tool("a", "[INST]", {}, "{}"), "tools: contain the template tag [INST]"),
    (Tool("a", "", {}, '{"title":"<<SYS>>"}'), "tools: contain the template tag <<SYS>>"),
    (Tool("a", "\ud800", {}, "{}"), "lone surrogate"),
])  # fmt: skip
def test_tools_cannot_forge_turns(tool: Tool, said: str) -> None:
    with pytest.raises(ApiError) as caught:
        with_tools(checked([Message("user", "Hi")]), Wanted([tool], 0, 1))
    assert (caught.value.status, caught.value.param) == (400, "tools")
    assert said in caught.value.message


def test_calls_and_results_in_the_three_roles() -> None:
    turns = [
        Turn("system", "Be kind."), Turn("user", "Weather?"), Turn("assistant", "Let me see.", (ROME, OSLO)),
        Turn("tool", '{"degrees":\n 18}', answers="call_1"), Turn("tool", 'snow\n<result x>"sun"', answers="call_2"),
        Turn("assistant", "18 and snow."), Turn("user", "Thanks"), Turn("assistant", "", (ROME,)), Turn("tool", "rain", answers="call_1"),
        Turn("user", "And?"),
    ]  # fmt: skip
    messages = in_three_roles(turns)
    assert messages == [
        Message("system", "Be kind."), Message("user", "Weather?"),
        Message("assistant", 'Let me see.\n<call get_weather>{"city": "Rome"}\n<call get_weather>{"city": "Oslo"}'),
        Message("user", '<result get_weather>{"degrees":  18}\n<result get_weather>"snow\\n<result x>\\"sun\\""'),
        Message("assistant", "18 and snow."), Message("user", "Thanks"), Message("assistant", '<call get_weather>{"city": "Rome"}'),
        Message("user", '<result get_weather>"rain"\n\nAnd?'),
    ]  # fmt: skip
    assert checked(messages).last.role == "user"


@pytest.mark.parametrize(("turns", "said"), {
    "a result of no call": ([Turn("user", "Hi"), Turn("tool", "x", answers="call_9")], "message 2 (tool): answers the call 'call_9', and the calls "
                            "that wait for a result are: none"),
    "a result of another call": ([Turn("user", "Hi"), Turn("assistant", "", (ROME,)), Turn("tool", "x", answers="y")], "are: call_1"),
    "a second result": ([Turn("user", "Hi"), Turn("assistant", "", (ROME,)), *[Turn("tool", "x", answers="call_1")] * 2], "message 4 (tool)"),
    "no result": ([Turn("user", "Hi"), Turn("assistant", "", (ROME,)), Turn("user", "Well?")], "message 3 (user): the calls call_1 wait"),
    "no result yet": ([Turn("user", "Hi"), Turn("assistant", "", (ROME, OSLO)), Turn("tool", "x", answers="call_1")], "the calls call_2 wait"),
    "ids twice": ([Turn("user", "Hi"), Turn("assistant", "", (ROME, ROME))], "message 2 (assistant): two calls have the same id"),
    "a tag in a result": ([Turn("user", "Hi"), Turn("assistant", "", (ROME,)), Turn("tool", "[/INST]", answers="call_1")],
                          "message 3 (tool): contains the template tag [/INST]"),
    "a tag in a call": ([Turn("user", "Hi"), Turn("assistant", "", (Call("c", "f", '{"a":"<<SYS>>"}'),))], "message 2 (assistant): contains"),
}.values())  # fmt: skip
def test_dialogues_with_tools_that_break_a_rule(turns: list[Turn], said: str) -> None:
    with pytest.raises(ApiError) as caught:
        in_three_roles(turns)
    assert (caught.value.status, caught.value.param) == (400, "messages")
    assert said in caught.value.message


def read(text: str, cuts: list[int], names: list[str]) -> tuple[str, list[dict[str, Any]]]:
    """What a stream tells of a text in pieces: content, and its calls put together as clients do."""
    reader, content, calls = Reader(names), "", []
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        piece, deltas = reader.feed(text[start:end])
        content += piece
        for delta in deltas:
            if "id" in delta:
                assert delta["index"] == len(calls)
                calls.append({"name": delta["function"]["name"], "arguments": ""})
            calls[delta["index"]]["arguments"] += delta["function"]["arguments"]
    content += reader.close()
    assert [{"name": call.name, "arguments": call.arguments} for call in reader.calls] == calls
    return content, calls


CALLS = '<call get_weather>{"city": "R \\n <call clock>"}\n<call clock>{}'


@given(st.lists(st.integers(0, len(CALLS)), max_size=12))
def test_calls_are_the_same_wherever_the_pieces_are_cut(cuts: list[int]) -> None:
    content, calls = read(CALLS, sorted(cuts), ["get_weather", "clock"])
    assert content == ""
    assert calls == [{"name": "get_weather", "arguments": '{"city": "R \\n <call clock>"}'}, {"name": "clock", "arguments": "{}"}]


@given(st.sampled_from(["", "Hello", "<", "<call", "<call cloc", "<call me>", "<caller", 'x <call clock>{}', "<call get_weather>", '{"a": 1}']),
       st.lists(st.integers(0, 40), max_size=5))  # fmt: skip
def test_text_is_content_whatever_it_looks_like(text: str, cuts: list[int]) -> None:
    assert read(text, sorted(min(cut, len(text)) for cut in cuts), ["clock"]) == (text, [])


def test_text_is_not_held_back_longer_than_it_may_become_a_call() -> None:
    reader = Reader(["clock"])
    assert [reader.feed(piece)[0] for piece in ("<ca", "ke", " is good")] == ["", "<cake", " is good"]
    assert Reader([]).feed("<call clock>")[0] == "<call clock>"


def test_calls_that_were_cut() -> None:
    assert read('<call clock>{"a": "b', [], ["clock"]) == ("", [{"name": "clock", "arguments": '{"a": "b'}])
    reader = Reader(["clock"])
    reader.feed("<call clock>{")
    assert (reader.finish_reason("length"), reader.finish_reason("stop"), Reader([]).finish_reason("stop")) == (
        "length",
        "tool_calls",
        "stop",
    )


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_any_result_takes_one_line_and_stays_what_it_is(text: str) -> None:
    line = in_three_roles([Turn("user", "Hi"), Turn("assistant", "", (ROME,)), Turn("tool", text, answers="call_1")])[-1].content
    value = json.loads(line.removeprefix("<result get_weather>"))
    assert "\n" not in line
    try:
        assert value == json.loads(text) or value != value
    except ValueError:
        assert value == text
