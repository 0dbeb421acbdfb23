"""The server as OpenAI's own client sees it: every parameter, whole and streamed, and what its errors become."""

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from tests.serve.conftest import Running

from llamaherd.assistant.local import Assistant
from llamaherd.chat.dialogue import Message, checked
from llamaherd.generate.config import SamplingConfig

ASKED = [{"role": "user", "content": "Where does Ada live?"}]


@pytest.fixture(scope="module")
def client(up: Running) -> Iterator[OpenAI]:
    with OpenAI(base_url=up.v1, api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def ask(client: OpenAI) -> Callable[..., Any]:
    """`ask(**settings)` for a whole answer of the model that ends its answers."""
    return lambda **settings: client.chat.completions.create(**{"model": "short", "messages": ASKED, **settings})


def assistant(up: Running, name: str = "short") -> Assistant:
    return up.service.models[name].worker.assistant


def in_process(up: Running, seed: int, name: str = "short", **sampling: Any) -> str:
    dialogue = checked([Message("user", "Where does Ada live?")])
    return assistant(up, name).answers([dialogue], SamplingConfig(**sampling), [seed])[0].text


def streamed(chunks: Any) -> dict[int, str]:
    """The text of each answer from its chunks, which have a role first."""
    texts: dict[int, str] = {}
    for chunk in chunks:
        for choice in chunk.choices:
            if choice.index not in texts:
                assert choice.delta.role == "assistant"
                texts[choice.index] = ""
            texts[choice.index] += choice.delta.content or ""
    return texts


def test_the_shape_of_a_whole_answer(ask: Callable[..., Any]) -> None:
    answer = ask(seed=1, max_completion_tokens=5)
    assert answer.id.startswith("chatcmpl-")
    assert (answer.object, answer.model) == ("chat.completion", "short")
    assert answer.system_fingerprint.startswith("fp_")
    (choice,) = answer.choices
    assert (choice.index, choice.message.role, choice.logprobs) == (0, "assistant", None)
    assert choice.finish_reason in ("stop", "length")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0}, {"temperature": 0.0}, {"temperature": 1.3}, {"top_p": 0.4, "temperature": 2}, {"top_k": 3, "temperature": 2},
        {"min_p": 0.2, "temperature": 2}, {"repetition_penalty": 1.4, "temperature": 0},
    ],
)  # fmt: skip
@pytest.mark.parametrize("seed", [0, 7, (1 << 63) - 1])
def test_sampling_is_that_of_the_engine(up: Running, ask: Callable[..., Any], settings: dict[str, float], seed: int) -> None:
    ours = {key: settings[key] for key in ("top_k", "min_p", "repetition_penalty") if key in settings}
    usual = {key: value for key, value in settings.items() if key not in ours}
    said = ask(**usual, extra_body=ours, seed=seed, max_tokens=12).choices[0].message.content
    assert said == in_process(up, seed, max_new_tokens=12, **settings)


def test_a_stream_adds_up_to_the_whole(up: Running, client: OpenAI, ask: Callable[..., Any]) -> None:
    for seed in range(6):
        settings = {"model": "short", "messages": ASKED, "seed": seed, "temperature": 1.5, "max_tokens": 30}
        whole = client.chat.completions.create(**settings)
        chunks = list(client.chat.completions.create(**settings, stream=True))
        assert streamed(chunks) == {0: whole.choices[0].message.content}
        assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason
        assert chunks[-1].choices[0].delta.content is None
        assert len({chunk.id for chunk in chunks}) == 1
    up.wait_empty()


def test_usage_comes_last_and_without_choices(client: OpenAI) -> None:
    settings = {"model": "short", "messages": ASKED, "seed": 3, "max_tokens": 9, "stream": True}
    *chunks, last = client.chat.completions.create(**settings, stream_options={"include_usage": True})
    assert last.choices == []
    assert last.usage == client.chat.completions.create(**{**settings, "stream": False}).usage.model_copy(
        update={"prompt_tokens_details": last.usage.prompt_tokens_details}
    )
    assert all(chunk.usage is None and "usage" in chunk.model_fields_set for chunk in chunks)
    plain = list(client.chat.completions.create(**settings, stream_options={"include_usage": False}))
    assert all(chunk.choices and "usage" not in chunk.model_fields_set for chunk in plain)


def test_several_answers_differ_and_the_first_is_the_one_alone(up: Running, client: OpenAI) -> None:
    settings = {"model": "short", "messages": ASKED, "seed": 11, "temperature": 2, "max_tokens": 14}
    alone = client.chat.completions.create(**settings).choices[0].message.content
    several = client.chat.completions.create(**settings, n=5)
    texts = [choice.message.content for choice in several.choices]
    assert [choice.index for choice in several.choices] == list(range(5))
    assert texts[0] == alone
    assert len(set(texts)) > 2
    assert streamed(client.chat.completions.create(**settings, n=5, stream=True)) == dict(enumerate(texts))
    assert several.usage.prompt_tokens == client.chat.completions.create(**settings).usage.prompt_tokens


def test_without_a_seed_answers_differ(client: OpenAI) -> None:
    said = {
        client.chat.completions.create(model="endless", messages=ASKED, temperature=5, max_tokens=8).choices[0].message.content
        for _ in range(4)
    }
    assert len(said) > 1


def test_lengths(up: Running, client: OpenAI) -> None:
    for name in ("max_tokens", "max_completion_tokens"):
        answer = client.chat.completions.create(model="endless", messages=ASKED, **{name: 7})  # type: ignore[call-overload]
        assert (answer.choices[0].finish_reason, answer.usage.completion_tokens) == ("length", 7)
    both = client.chat.completions.create(model="endless", messages=ASKED, max_tokens=4, max_completion_tokens=4)
    assert both.usage is not None
    assert both.usage.completion_tokens == 4
    with pytest.raises(openai.BadRequestError, match="max_tokens is 4 and max_completion_tokens is 5") as caught:
        client.chat.completions.create(model="endless", messages=ASKED, max_tokens=4, max_completion_tokens=5)
    assert caught.value.param == "max_completion_tokens"


def test_an_answer_ends_where_the_context_does(up: Running, client: OpenAI) -> None:
    context = assistant(up).model.config.context
    long = [{"role": "user", "content": "Ada lives in Lima. " * 180}]
    count = client.post("/chat/preview", body={"model": "endless", "messages": long}, cast_to=dict[str, Any])["count"]
    assert context - 700 < count < context
    answer = client.chat.completions.create(model="endless", messages=long, max_tokens=4096)  # type: ignore[arg-type]
    assert answer.usage is not None
    assert (answer.choices[0].finish_reason, answer.usage.total_tokens) == ("length", context)


def test_stop_texts_never_leak(up: Running, client: OpenAI) -> None:
    settings: dict[str, Any] = {"model": "endless", "messages": ASKED, "seed": 5, "max_tokens": 40}
    whole = client.chat.completions.create(**settings).choices[0].message.content
    for start in (0, 3, 10):
        for stop in (whole[start : start + 4], [whole[start : start + 4], "never said"], [whole[start : start + 1]]):
            cut = min(whole.find(text) for text in ([stop] if isinstance(stop, str) else stop) if text in whole)
            answer = client.chat.completions.create(**settings, stop=stop, logprobs=True)
            assert answer.choices[0].message.content == whole[:cut].strip()
            assert answer.choices[0].finish_reason == "stop"
            pieces = list(client.chat.completions.create(**settings, stop=stop, logprobs=True, stream=True))
            assert streamed(pieces) == {0: whole[:cut].strip()}
            told = [token.token for piece in pieces for token in (piece.choices[0].logprobs.content if piece.choices[0].logprobs else [])]
            assert told == [token.token for token in answer.choices[0].logprobs.content]
            assert sum(map(len, told[:-1])) <= cut + 1
    assert client.chat.completions.create(**settings, stop=None).choices[0].message.content == whole
    assert client.chat.completions.create(**settings, stop=[]).choices[0].message.content == whole


def test_log_probabilities_whole_and_streamed(up: Running, client: OpenAI) -> None:
    settings: dict[str, Any] = {"model": "endless", "messages": ASKED, "seed": 5, "max_tokens": 20, "logprobs": True, "top_logprobs": 4}
    choice = client.chat.completions.create(**settings).choices[0]
    tokens = choice.logprobs.content
    assert len(tokens) == 20
    assert b"".join(bytes(token.bytes) for token in tokens).decode().strip() == choice.message.content
    dialogue = checked([Message("user", "Where does Ada live?")])
    expected = assistant(up, "endless").answers([dialogue], SamplingConfig(max_new_tokens=20, top_log_probs=4), [5])[0].completion
    assert [token.logprob for token in tokens] == pytest.approx(expected.log_probs, abs=1e-4)
    for token, alternatives in zip(tokens, expected.alternatives, strict=True):
        assert [other.logprob for other in token.top_logprobs] == pytest.approx([value for _, value in alternatives], abs=1e-4)
        assert len({tuple(other.bytes or ()) for other in token.top_logprobs}) >= 3
    chunks = list(client.chat.completions.create(**settings, stream=True))
    again = [token for chunk in chunks if chunk.choices[0].logprobs for token in chunk.choices[0].logprobs.content]
    assert [token.token for token in again] == [token.token for token in tokens]
    assert client.chat.completions.create(**{**settings, "top_logprobs": None}).choices[0].logprobs.content[0].top_logprobs == []


def test_content_in_parts_developers_and_names(client: OpenAI, ask: Callable[..., Any]) -> None:
    parts = [{"type": "text", "text": "Where does "}, {"type": "text", "text": "Ada live?"}]
    plain = ask(seed=4, messages=[{"role": "system", "content": "Answer briefly."}, *ASKED])
    again = ask(seed=4, messages=[{"role": "developer", "content": "Answer briefly."}, {"role": "user", "content": parts, "name": "Eve"}])
    assert plain.choices[0].message.content == again.choices[0].message.content
    assert plain.usage.prompt_tokens == again.usage.prompt_tokens


def test_null_equals_absent_and_hints_change_nothing(ask: Callable[..., Any]) -> None:
    nothing = dict.fromkeys(("top_p", "stop", "n", "logit_bias", "response_format", "user", "max_tokens", "stream_options", "top_logprobs"))
    hints = {"user": "me", "store": False, "metadata": {"a": "b"}, "frequency_penalty": 0.0, "presence_penalty": 0, "logit_bias": {}}
    plain = ask(seed=2, max_completion_tokens=9).choices[0].message.content
    assert ask(seed=2, max_completion_tokens=9, extra_body=nothing).choices[0].message.content == plain
    assert ask(seed=2, max_completion_tokens=9, **hints).choices[0].message.content == plain


def test_an_answer_that_goes_on(up: Running, client: OpenAI) -> None:
    settings: dict[str, Any] = {"model": "endless", "temperature": 0, "extra_body": {"continue_final_message": True}}
    whole = client.chat.completions.create(model="endless", messages=ASKED, temperature=0, max_tokens=24)  # type: ignore[arg-type]
    text = whole.choices[0].message.content
    assert text is not None
    for begun in ("", "Ada lives", "Ada lives in "):
        messages = [*ASKED, {"role": "assistant", "content": begun}]
        more = client.chat.completions.create(messages=messages, max_tokens=8, **settings).choices[0].message.content
        ids = assistant(up, "endless").prompt_ids(checked([Message("user", "Where does Ada live?"), Message("assistant", begun)]))
        raw = client.completions.create(model="endless", prompt=ids, max_tokens=8, temperature=0).choices[0].text
        assert more == (raw.strip() if not begun or begun.endswith(" ") else raw.rstrip())
        assert streamed(client.chat.completions.create(messages=messages, max_tokens=8, stream=True, **settings)) == {0: more}
    assert client.chat.completions.create(
        messages=[*ASKED, {"role": "assistant", "content": ""}], max_tokens=24, **settings
    ).choices[0].message.content == text  # fmt: skip


def test_turns_are_left_out_only_where_that_was_allowed(up: Running, client: OpenAI) -> None:
    turn = [{"role": "user", "content": "Where does Ada live? " * 60}, {"role": "assistant", "content": "Ada lives in Lima. " * 60}]
    messages = [{"role": "system", "content": "Answer briefly."}, *turn * 4, *ASKED]
    with pytest.raises(openai.BadRequestError, match="tokens, and the model's context is 2048") as caught:
        client.chat.completions.create(model="short", messages=messages)  # type: ignore[arg-type]
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "messages")
    settings: dict[str, Any] = {
        "model": "short",
        "messages": messages,
        "max_tokens": 20,
        "seed": 1,
        "extra_body": {"overflow": "drop-turns"},
    }
    answer = client.chat.completions.create(**settings)
    dropped = answer.model_extra["llamaherd"]["dropped_turns"]
    assert 0 < dropped < 5
    chunks = list(client.chat.completions.create(**settings, stream=True))
    assert chunks[-1].model_extra["llamaherd"]["dropped_turns"] == dropped
    shorter = {**settings, "messages": [messages[0], *messages[1 + 2 * dropped :]]}
    assert client.chat.completions.create(**shorter).choices[0].message.content == answer.choices[0].message.content
    assert client.chat.completions.create(**shorter).model_extra["llamaherd"] == {"dropped_turns": 0}


def test_models(up: Running, client: OpenAI) -> None:
    listed = {model.id: model for model in client.models.list()}
    assert set(listed) == {"short", "endless"}
    assert listed["short"].model_extra["max_model_len"] == 2048
    assert client.models.retrieve("short") == listed["short"]
    with pytest.raises(openai.NotFoundError, match="no model 'shirt' \\(did you mean 'short'\\?\\)"):
        client.models.retrieve("shirt")


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"n": 0}, "n", "greater than or equal to 1"), ({"n": 1000000}, "n", "at most 16 answers"), ({"n": True}, "n", "integer"),
    ({"temperature": -1}, "temperature", "greater than or equal to 0"), ({"temperature": "hot"}, "temperature", "valid number"),
    ({"temperature": 1e-310}, "temperature", "at least 0.0001"), ({"extra_body": {"repetition_penalty": 1e-9}}, "repetition_penalty", "0.01"),
    ({"top_p": 0}, "top_p", "greater than 0"), ({"max_tokens": 0}, "max_tokens", "at least one token"),
    ({"max_tokens": 10**9}, "max_tokens", "at most 4096"), ({"max_completion_tokens": 10**9}, "max_completion_tokens", "at most 4096"),
    ({"stop": [str(number) for number in range(17)]}, "stop", "at most 16"), ({"stop": ""}, "stop", "empty text"),
    ({"stop": "x" * 257}, "stop", "at most 256"), ({"logit_bias": {"5": 1}}, "logit_bias", "not supported"),
    ({"frequency_penalty": 0.5}, "frequency_penalty", "not supported"),
    ({"logit_bias": {"5": 1}, "extra_body": {"reasoning": {}}}, "logit_bias", "; reasoning: is not supported"), ({"extra_body": {"temprature": 1}}, "temprature", "did you mean 'temp"),
    ({"top_logprobs": 2}, "top_logprobs", "asks for logprobs"), ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "less than or equal to 20"),
    ({"stream_options": {"include_usage": True}}, "stream_options", "for streams"), ({"messages": []}, "messages", "at least 1"),
    ({"seed": 1 << 63}, "seed", "less than"), ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages", "text"),
    ({"extra_body": {"continue_final_message": True}}, "messages", "continue_final_message"),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "param", "said"), REFUSED)
def test_what_cannot_be_honoured_is_refused_by_name(ask: Callable[..., Any], settings: dict[str, Any], param: str, said: str) -> None:
    with pytest.raises(openai.BadRequestError, match=said) as caught:
        ask(**settings)
    assert caught.value.param is not None
    assert caught.value.param.startswith(param)
    assert caught.value.type == "invalid_request_error"


@pytest.mark.parametrize(("content", "said"), [
    ("", "message 1 \\(user\\): is empty"), (" \n\t", "is empty"), ("a\0b", "NUL"), ("[INST]", "template tag \\[INST\\]"),
    ("x <</SYS>>", "template tag <</SYS>>"),
])  # fmt: skip
def test_dialogues_keep_their_rules(ask: Callable[..., Any], content: str, said: str) -> None:
    with pytest.raises(openai.BadRequestError, match=said) as caught:
        ask(messages=[{"role": "user", "content": content}])
    assert caught.value.param == "messages"


@pytest.mark.parametrize("role", ["system", "assistant", "user"])
@pytest.mark.parametrize("tag", ["[INST]", "[/INST]", "<<SYS>>", "<</SYS>>"])
def test_tags_are_refused_in_every_role(ask: Callable[..., Any], role: str, tag: str) -> None:
    messages = [{"role": name, "content": tag if name == role else "Hello."} for name in ("system", "user", "assistant", "user")]
    with pytest.raises(openai.BadRequestError, match=f"message .* \\({role}\\): contains the template tag"):
        ask(messages=messages)


def test_wrong_roles(ask: Callable[..., Any]) -> None:
    with pytest.raises(openai.BadRequestError, match="expected assistant here"):
        ask(messages=ASKED * 2)
    with pytest.raises(openai.BadRequestError, match="a prompt ends with a user message"):
        ask(messages=[*ASKED, {"role": "assistant", "content": "In Lima."}])


def test_errors_become_the_clients_own(client: OpenAI, up: Running) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="gpt-4", messages=ASKED)  # type: ignore[arg-type]
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model="short", input="a")
    up.service.state = "draining"
    try:
        with pytest.raises(openai.InternalServerError) as ending:
            client.chat.completions.create(model="short", messages=ASKED)  # type: ignore[arg-type]
        assert ending.value.status_code == 503
        assert int(ending.value.response.headers["Retry-After"]) > 0
    finally:
        up.service.state = "ready"


def test_a_full_queue_is_a_rate_limit(serve: Callable[..., Any], talkers: Any) -> None:
    with serve(models=[str(talkers / "endless")], limits={"waiting": 2}) as up:
        client = OpenAI(base_url=up.v1, api_key="x", max_retries=0)
        settings: dict[str, Any] = {"model": "endless", "messages": ASKED}
        with client.chat.completions.create(**settings, n=2, stream=True, max_tokens=2000) as stream:
            next(iter(stream))
            with pytest.raises(openai.RateLimitError) as busy:
                client.chat.completions.create(**settings)
            assert busy.value.response.headers["Retry-After"]


def test_an_answer_beyond_its_deadline(serve: Callable[..., Any], talkers: Any) -> None:
    with serve(models=[str(talkers / "endless")], limits={"deadline_s": 0.2}) as up:
        client = OpenAI(base_url=up.v1, api_key="x", max_retries=0)
        with pytest.raises(openai.InternalServerError) as late:
            client.chat.completions.create(model="endless", messages=ASKED, n=16, max_tokens=2000)  # type: ignore[arg-type]
        assert (late.value.status_code, late.value.code) == (504, "deadline")
        with pytest.raises(openai.APIError, match="longer than"):
            list(client.chat.completions.create(model="endless", messages=ASKED, n=16, max_tokens=2000, stream=True))  # type: ignore[call-overload]
        up.wait_empty()


def test_the_asynchronous_client(up: Running) -> None:
    async def talk() -> tuple[list[str], str]:
        async with AsyncOpenAI(base_url=up.v1, api_key="none") as client:
            settings: dict[str, Any] = {"model": "short", "messages": ASKED, "temperature": 2, "max_tokens": 12}
            answers = await asyncio.gather(*(client.chat.completions.create(**settings, seed=seed) for seed in range(8)))
            stream = await client.chat.completions.create(**settings, seed=0, stream=True)
            pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]
            return [answer.choices[0].message.content or "" for answer in answers], "".join(pieces)

    answers, pieces = asyncio.run(talk())
    assert answers == [in_process(up, seed, temperature=2, max_new_tokens=12) for seed in range(8)]
    assert pieces == answers[0]


def test_the_exact_prompt(up: Running, client: OpenAI) -> None:
    messages = [{"role": "system", "content": "Answer briefly."}, *ASKED, {"role": "assistant", "content": "Lima."}, *ASKED]
    shown = client.post("/chat/preview", body={"model": "short", "messages": messages}, cast_to=dict[str, Any])
    assert shown["prompt"] == (
        "<s>[INST] <<SYS>>\nAnswer briefly.\n<</SYS>>\n\nWhere does Ada live? [/INST] Lima. </s><s>[INST] Where does Ada live? [/INST]"
    )
    dialogue = checked([Message(one["role"], one["content"]) for one in messages])  # type: ignore[arg-type]
    assert [token["id"] for token in shown["tokens"]] == assistant(up).prompt_ids(dialogue)
    assert (shown["count"], shown["context"], shown["room"]) == (len(shown["tokens"]), 2048, 2048 - len(shown["tokens"]))
    assert json.dumps(shown["tokens"][0]) == '{"id": 1, "piece": "<s>", "text": "<s>"}'
