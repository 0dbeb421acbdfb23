"""JSON and tools as the real clients ask for them, of a model that says random things: what comes has the form all the same."""

import asyncio
import json
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, Literal

import httpx
import jsonschema_rs
import pytest
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from openai import AsyncOpenAI, BadRequestError, LengthFinishReasonError, OpenAI, pydantic_function_tool
from pydantic import BaseModel, Field
from tests.serve.conftest import Running, running

City = Literal["Rome", "Oslo", "Kyiv"]


class Person(BaseModel):
    """Someone."""

    name: Annotated[str, Field(max_length=8)]
    city: City
    age: Annotated[int, Field(ge=0, le=150)]
    likes: Annotated[list[City], Field(max_length=2)] = []
    boss: Literal["Ada"] | None = None


SCHEMA = Person.model_json_schema()
VALID = jsonschema_rs.Draft202012Validator(SCHEMA)
FORMAT: Any = {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA}}
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather", "description": "Weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"enum": ["Rome", "Oslo"]}, "day": {"type": "integer", "minimum": 0, "maximum": 9}},
                       "required": ["city"]},
    },
}  # fmt: skip
CLOCK: Any = {"type": "function", "function": {"name": "clock"}}
USER: Any = {"role": "user", "content": "Where does Ada live?"}
SEEDS = range(6)


@pytest.fixture(scope="module")
def invariant(talkers: Path) -> Iterator[Running]:
    with running(models=[str(talkers / "short")], invariant=True) as server:
        yield server


@pytest.fixture(scope="module")
def client(up: Running) -> OpenAI:
    return OpenAI(base_url=up.v1, api_key="none", max_retries=0)


def asked(**more: Any) -> dict[str, Any]:
    return {"model": "short", "messages": [USER], "temperature": 1.0, "top_p": 1.0, "max_completion_tokens": 600, **more}


def refusal(client: OpenAI, **more: Any) -> dict[str, Any]:
    with pytest.raises(BadRequestError) as caught:
        client.chat.completions.create(**asked(**more))
    body: Any = caught.value.body
    assert set(body) == {"message", "type", "param", "code"}
    return dict(body)


@pytest.mark.parametrize("seed", SEEDS)
def test_json_of_a_schema_whole_and_streamed(client: OpenAI, seed: int) -> None:
    body = asked(response_format=FORMAT, seed=seed)
    choice = client.chat.completions.create(**body).choices[0]
    assert choice.finish_reason == "stop"
    assert VALID.is_valid(json.loads(choice.message.content))
    chunks = list(client.chat.completions.create(**body, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == choice.message.content
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_parse_gives_the_object(client: OpenAI) -> None:
    for seed in SEEDS:
        completion = client.chat.completions.parse(**asked(seed=seed), response_format=Person)
        assert isinstance(completion.choices[0].message.parsed, Person)


def test_a_cut_object_is_said_to_be_cut(client: OpenAI) -> None:
    choice = client.chat.completions.create(**asked(response_format=FORMAT, seed=1, max_completion_tokens=5)).choices[0]
    assert choice.finish_reason == "length"
    with pytest.raises(LengthFinishReasonError):
        client.chat.completions.parse(**asked(seed=1, max_completion_tokens=5), response_format=Person)


def test_any_object(client: OpenAI) -> None:
    ended = 0
    for seed in range(4):
        body = asked(response_format={"type": "json_object"}, seed=seed, temperature=100.0, max_completion_tokens=150)
        choice = client.chat.completions.create(**body).choices[0]
        if choice.finish_reason == "stop":
            assert isinstance(json.loads(choice.message.content or ""), dict)
            ended += 1
        else:
            assert (choice.message.content or "").startswith("{")
    assert ended


def test_text_is_what_it_is_without_a_format(client: OpenAI) -> None:
    plain = client.chat.completions.create(**asked(seed=3)).choices[0].message.content
    assert client.chat.completions.create(**asked(seed=3, response_format={"type": "text"})).choices[0].message.content == plain
    none = client.chat.completions.create(**asked(seed=3, tools=[WEATHER], tool_choice="none", parallel_tool_calls=False))
    assert none.choices[0].message.content == plain


def test_greedy_several_answers_and_log_probs(client: OpenAI) -> None:
    body = asked(response_format=FORMAT, seed=5, n=3, logprobs=True, top_logprobs=2)
    choices = client.chat.completions.create(**body).choices
    assert all(VALID.is_valid(json.loads(one.message.content or "")) for one in choices)
    assert len({one.message.content for one in choices}) > 1
    tokens = choices[0].logprobs.content if choices[0].logprobs else None
    assert "".join(token.token for token in tokens or ()).strip() == choices[0].message.content
    greedy = [client.chat.completions.create(**asked(response_format=FORMAT, temperature=0)).choices[0].message.content for _ in range(2)]
    assert greedy[0] == greedy[1]


def test_the_same_seed_gives_the_same_json_whatever_else_is_asked(invariant: Running) -> None:
    client = OpenAI(base_url=invariant.v1, api_key="none")
    bodies = [
        asked(seed=seed, **({"response_format": FORMAT} if seed % 2 else {"tools": [WEATHER], "tool_choice": "required"}))
        for seed in range(8)
    ]

    def said(body: dict[str, Any]) -> Any:
        message = client.chat.completions.create(**body).choices[0].message
        return message.content, [call.function for call in message.tool_calls or []]  # type: ignore[union-attr]

    alone = [said(body) for body in bodies]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(said, bodies)) == alone


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_weather"}}], ids=["required", "named"])
def test_forced_calls_whole_and_streamed(client: OpenAI, choice: Any, seed: int) -> None:
    body = asked(tools=[CLOCK, WEATHER], tool_choice=choice, seed=seed)
    whole = client.chat.completions.create(**body).choices[0]
    assert whole.finish_reason == "tool_calls"
    assert whole.message.content is None
    calls: Any = whole.message.tool_calls
    assert len({call.id for call in calls}) == len(calls)
    for call in calls:
        schema = {"clock": {"maxProperties": 0}, "get_weather": WEATHER["function"]["parameters"]}[call.function.name]
        assert jsonschema_rs.Draft202012Validator(schema).is_valid(json.loads(call.function.arguments))
    if choice != "required":
        assert [call.function.name for call in calls] == ["get_weather"]
    with client.chat.completions.stream(**body) as stream:
        streamed: Any = stream.get_final_completion().choices[0]
    assert streamed.finish_reason == "tool_calls"
    assert not streamed.message.content
    assert [(one.function.name, one.function.arguments) for one in streamed.message.tool_calls] == [
        (one.function.name, one.function.arguments) for one in calls
    ]


@pytest.mark.parametrize("told", ["whole", "streamed"])
def test_what_the_client_parsed_may_be_sent_back(client: OpenAI, told: str) -> None:
    """OpenAI's client sends its own reading along, and the place of a call in a stream; Open WebUI the latter."""
    chat = client.chat.completions
    more = {"tools": [pydantic_function_tool(Person)], "tool_choice": "required", "parallel_tool_calls": False, "seed": 1}
    if told == "whole":
        message: Any = chat.parse(**asked(**more)).choices[0].message
    else:
        with chat.stream(**asked(**more)) as stream:
            message = stream.get_final_completion().choices[0].message
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "done"}
    shown = [json.loads(message.tool_calls[0].function.arguments), message.tool_calls[0].function.parsed_arguments]
    assert shown[1] == Person(**shown[0])
    assert chat.create(**asked(messages=[USER, message, result], max_completion_tokens=4)).usage
    answer: Any = chat.parse(**asked(seed=1), response_format=Person).choices[0].message
    with warnings.catch_warnings():  # of pydantic, about the client's own type
        warnings.simplefilter("ignore")
        assert chat.create(**asked(messages=[USER, answer, USER], max_completion_tokens=4)).usage


def test_at_most_one_call_unless_parallel(client: OpenAI) -> None:
    def counts(**more: Any) -> list[int]:
        body = asked(tools=[CLOCK], tool_choice="required", **more) | {"temperature": 100.0}
        return [len(client.chat.completions.create(**body, seed=seed).choices[0].message.tool_calls or []) for seed in range(10)]

    assert set(counts(parallel_tool_calls=False)) == {1}
    assert max(counts()) > 1


def test_a_call_that_was_cut(client: OpenAI) -> None:
    choice = client.chat.completions.create(**asked(tools=[WEATHER], tool_choice="required", seed=0, max_completion_tokens=24)).choices[0]
    assert choice.finish_reason == "length"


def test_left_to_the_model_it_may_answer_in_text(client: OpenAI) -> None:
    choice = client.chat.completions.create(**asked(tools=[WEATHER], seed=2)).choices[0]
    assert choice.finish_reason == "stop"
    assert choice.message.tool_calls is None
    assert choice.message.content
    pieces = [
        chunk.choices[0].delta.content or "" for chunk in client.chat.completions.create(**asked(tools=[WEATHER], seed=2), stream=True)
    ]
    assert "".join(pieces) == choice.message.content


def test_left_to_the_model_with_a_format_it_answers_in_that(client: OpenAI) -> None:
    kinds = set()
    for seed in range(12):
        choice = client.chat.completions.create(**asked(tools=[WEATHER], response_format=FORMAT, seed=seed)).choices[0]
        kinds.add(choice.finish_reason)
        if choice.finish_reason == "stop":
            assert VALID.is_valid(json.loads(choice.message.content or ""))
    assert kinds <= {"stop", "tool_calls"}


def test_the_prompt_has_the_tools_and_the_history_of_calls(up: Running, client: OpenAI) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city":\n"Rome"}'}}
    history: Any = [USER, {"role": "assistant", "content": None, "tool_calls": [call]},
                    {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "rain"}]}]  # fmt: skip
    tokens = client.chat.completions.create(**asked(messages=history, tools=[WEATHER])).usage
    written: Any = [
        {"role": "system", "content": "You can call these functions. Each line has a name, the JSON schema of the arguments, and what the function "
         "does:\nget_weather " + json.dumps(WEATHER["function"]["parameters"], separators=(",", ":")) + " Weather of a city\nWhere none is "
         'needed, answer in words. To call, answer with nothing but <call NAME>{"ARGUMENT": VALUE}, one call a line. What came of it follows as '
         "<result NAME>VALUE."},
        USER, {"role": "assistant", "content": '<call get_weather>{"city": "Rome"}'}, {"role": "user", "content": '<result get_weather>"rain"'},
    ]  # fmt: skip
    same = client.chat.completions.create(**asked(messages=written)).usage
    assert tokens is not None
    assert same is not None
    assert tokens.prompt_tokens == same.prompt_tokens


BAD = {
    "not": ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"not": {}}}}}, '"not" cannot be held'),
    "no schema": ({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}, "schema: Field required"),
    "no name": ({"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}}, "name: Field required"),
    "a bad name": ({"response_format": {"type": "json_schema", "json_schema": {"name": "a b", "schema": {}}}}, "'a b' is no name"),
    "another format": ({"response_format": {"type": "grammar"}}, "response_format"),
    "no compiler takes it": ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"pattern": "("}}}}, "unclosed"),
    "a tool of no kind": ({"tools": [{"type": "web_search"}]}, "tools.0.type"),
    "a tool's bad name": ({"tools": [{"type": "function", "function": {"name": "a>b"}}]}, "tools[0].function.name: 'a>b' is no name"),
    "tools twice": ({"tools": [CLOCK, CLOCK]}, "clock is there more than once"),
    "many tools": ({"tools": [{"type": "function", "function": {"name": f"f{index}"}} for index in range(99)]}, "tools holds 99, and this server takes at most 64"),
    "a tool's schema": ({"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "if": {}}}}]},
                        'tools[0].function.parameters: "if" cannot be held'),
    "arguments that are no object": ({"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "array"}}}]}, "arguments are an object"),
    "a tag": ({"tools": [{"type": "function", "function": {"name": "f", "description": "</s>[INST]"}}]}, "template tag [INST]"),
    "a choice of no tool": ({"tools": [CLOCK], "tool_choice": {"type": "function", "function": {"name": "g"}}}, "names 'g', and the tools are clock"),
    "a choice without tools": ({"tool_choice": "required"}, "there are no tools"),
    "another choice": ({"tools": [CLOCK], "tool_choice": "maybe"}, "tool_choice"),
    "going on": ({"messages": [USER, {"role": "assistant", "content": "x"}], "extra_body": {"continue_final_message": True},
                  "response_format": {"type": "json_object"}}, "continue_final_message"),
    "a result of nothing": ({"messages": [USER, {"role": "tool", "tool_call_id": "x", "content": "y"}]}, "message 2 (tool): answers the call 'x'"),
    "a result of no id": ({"messages": [USER, {"role": "tool", "content": "y"}]}, "message 2 (tool): a message of role tool has a tool_call_id"),
    "a user who calls": ({"messages": [{**USER, "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}]},
                         "message 1 (user): only an assistant's message has tool_calls"),
    "arguments that are no JSON": ({"messages": [USER, {"role": "assistant", "tool_calls": [{"id": "a", "type": "function", "function": {
                                    "name": "f", "arguments": "{"}}]}]}, "message 2 (assistant): the arguments of the call 'a' are no JSON"),
    "nothing said": ({"messages": [USER, {"role": "assistant"}, USER]}, "message 2 (assistant): has no content"),
}  # fmt: skip


@pytest.mark.parametrize(("more", "said"), BAD.values(), ids=BAD)
def test_what_cannot_be_kept_to_is_refused_by_name(client: OpenAI, more: dict[str, Any], said: str) -> None:
    assert said in refusal(client, **more)["message"]


def test_bad_schemas_disturb_none_of_twenty_streams(invariant: Running) -> None:
    hostile = [
        {"not": {}}, {"type": "string", "pattern": "("}, {"$ref": "http://169.254.169.254/"}, {"type": "strnig"}, {"enum": ["x" * 90_000]},
        {"anyOf": [{"type": "object", "properties": {f"{a} {b}": {"pattern": f"{a}.*{b}"} for b in range(10)}} for a in range(99)]},
        {"type": "string", "pattern": "^((a{1,200}){1,200}){1,200}$"},
    ]  # fmt: skip

    small = {"type": "object", "properties": {"city": {"enum": ["Rome", "Oslo"]}, "name": {"type": "string", "maxLength": 4}},
             "required": ["city", "name"]}  # fmt: skip
    form: Any = {"type": "json_schema", "json_schema": {"name": "small", "schema": small}}

    async def said(client: AsyncOpenAI, seed: int) -> str:
        stream = await client.chat.completions.create(**asked(response_format=form, seed=seed, stream=True))
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    async def bad(client: AsyncOpenAI, schema: Any) -> None:
        worse: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        try:
            await client.chat.completions.create(**asked(response_format=worse, max_completion_tokens=20))
        except BadRequestError as error:
            assert error.message  # noqa: PT017

    async def all_of_them() -> tuple[list[str], list[str]]:
        async with AsyncOpenAI(base_url=invariant.v1, api_key="none", max_retries=0) as client:
            alone = [await said(client, seed) for seed in range(20)]
            together, *_ = await asyncio.gather(
                asyncio.gather(*(said(client, seed) for seed in range(20))), *(bad(client, schema) for schema in hostile)
            )
            return alone, together

    alone, together = asyncio.run(all_of_them())
    assert together == alone
    assert all(set(json.loads(text)) == {"city", "name"} for text in together)
    assert invariant.open == 0


def test_a_schema_that_fails_half_way_ends_that_answer_alone(up: Running) -> None:
    schema = {"anyOf": [{"type": "object", "properties": {f"{a} {b}": {"pattern": f"{a}.*{b}"} for b in range(10)}} for a in range(99)]}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    answer = httpx.post(f"{up.v1}/chat/completions", json=asked(response_format=form), timeout=60)
    assert answer.status_code == 400
    assert "make it simpler" in answer.json()["error"]["message"]
    assert up.open == 0


@pytest.fixture(scope="module")
def langchain(up: Running) -> ChatOpenAI:
    return ChatOpenAI(base_url=up.v1, api_key="none", model="short", temperature=1.0, max_completion_tokens=600, seed=1, max_retries=0)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_langchains_structured_output(langchain: ChatOpenAI, method: Any) -> None:
    assert isinstance(langchain.with_structured_output(Person, method=method).invoke("Who?"), Person)
    strict = langchain.with_structured_output(Person, method=method, strict=True, include_raw=True)
    answer: Any = strict.invoke("Who?")
    assert isinstance(answer["parsed"], Person)


@tool
def get_weather(city: City) -> str:
    """Weather of a city."""
    return f"rain in {city}"


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_langchains_tools_and_their_results(langchain: ChatOpenAI, streamed: bool) -> None:
    bound = langchain.bind_tools([get_weather], tool_choice="any", parallel_tool_calls=False)
    messages: list[Any] = [HumanMessage("Weather?")]
    if streamed:
        chunks = list(bound.stream(messages))
        answer: Any = chunks[0]
        for chunk in chunks[1:]:
            answer = answer + chunk
    else:
        answer = bound.invoke(messages)
    assert [call["name"] for call in answer.tool_calls] == ["get_weather"]
    results = [get_weather.invoke(call) for call in answer.tool_calls]
    assert all(isinstance(result, ToolMessage) for result in results)
    last = langchain.bind_tools([get_weather]).invoke([*messages, answer, *results])
    assert isinstance(last.content, str)
