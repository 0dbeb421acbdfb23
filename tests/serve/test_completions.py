"""Raw texts and ids over HTTP: what follows them, and with `echo` how likely they are themselves."""

from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
import torch
from openai import OpenAI
from tests.serve.conftest import Running

from llamaherd.assistant.local import Assistant
from llamaherd.tokenizer.sentencepiece import SPACE

TEXT = "Ada lives in Lima.\nBen lives in Öslo \U0001f999."


@pytest.fixture(scope="module")
def client(up: Running) -> Iterator[OpenAI]:
    with OpenAI(base_url=up.v1, api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def assistant(up: Running) -> Assistant:
    return up.service.models["endless"].worker.assistant


@pytest.fixture(scope="module")
def complete(client: OpenAI) -> Any:
    return lambda prompt, **settings: client.completions.create(**{"model": "endless", "prompt": prompt, "temperature": 0, **settings})


def own_log_probs(assistant: Assistant, ids: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        return assistant.model(torch.tensor([ids]))[0].float().log_softmax(-1)


def test_a_text_goes_on(complete: Any, assistant: Assistant) -> None:
    ids = [assistant.tokenizer.bos_id, *assistant.tokenizer.encode(TEXT)]
    answer = complete(TEXT)
    assert (answer.object, answer.choices[0].finish_reason, answer.usage.completion_tokens) == ("text_completion", "length", 16)
    assert answer.usage.prompt_tokens == len(ids)
    assert complete(ids).choices[0].text == answer.choices[0].text
    assert complete(ids[1:]).choices[0].text == complete(TEXT, extra_body={"add_special_tokens": False}).choices[0].text
    assert complete(TEXT, max_tokens=5).usage.completion_tokens == 5
    told = complete(TEXT, logprobs=0).choices[0].logprobs
    assert "".join(told.tokens) == answer.choices[0].text
    assert told.text_offset[0] == 0


def test_a_space_between_text_and_completion_is_said(complete: Any, assistant: Assistant) -> None:
    texts = [complete(TEXT, seed=seed, temperature=3, max_tokens=6, logprobs=0).choices[0] for seed in range(12)]
    assert any(one.text.startswith(" ") for one in texts)
    assert all(one.text.startswith(" ") == one.logprobs.tokens[0].startswith(" ") for one in texts)
    spaced = next(one for one in texts if one.text.startswith(" "))
    seed = texts.index(spaced)
    cut = complete(TEXT, seed=seed, temperature=3, max_tokens=6, stop=spaced.text[:2])
    assert (cut.choices[0].text, cut.choices[0].finish_reason) == ("", "stop")
    assert "".join(assistant.tokenizer.piece(id) for id in assistant.tokenizer.encode(spaced.text)).startswith(SPACE)


def test_several_prompts_and_answers(complete: Any) -> None:
    prompts = ["Ada lives", "Ben", "Where does Max live?"]
    settings = {"n": 2, "seed": 3, "temperature": 2, "max_tokens": 7}
    answer = complete(prompts, **settings)
    assert [choice.index for choice in answer.choices] == list(range(6))
    texts = [choice.text for choice in answer.choices]
    assert texts == [choice.text for prompt in prompts for choice in complete(prompt, **settings).choices]
    streamed = dict.fromkeys(range(6), "")
    for chunk in complete(prompts, **settings, stream=True, stream_options={"include_usage": True}):
        for choice in chunk.choices:
            streamed[choice.index] += choice.text
        last = chunk
    assert list(streamed.values()) == texts
    assert last.usage.completion_tokens == answer.usage.completion_tokens == 42


@pytest.mark.parametrize("stream", [False, True])
def test_echo_tells_how_likely_the_prompt_is(complete: Any, assistant: Assistant, stream: bool) -> None:
    ids = [assistant.tokenizer.bos_id, *assistant.tokenizer.encode(TEXT)]
    answer = complete([ids, ids[:7]], echo=True, logprobs=3, max_tokens=2, stream=stream)
    text, tokens, log_probs, top, offsets = "", [], [], [], []
    for chunk in answer if stream else [answer]:
        for choice in chunk.choices:
            if choice.index == 0:
                text += choice.text
                tokens += choice.logprobs.tokens
                log_probs += choice.logprobs.token_logprobs
                top += choice.logprobs.top_logprobs
                offsets += choice.logprobs.text_offset
    assert len(tokens) == len(log_probs) == len(top) == len(offsets) == len(ids) + 2
    assert (log_probs[0], top[0]) == (None, None)
    expected = own_log_probs(assistant, ids)
    assert log_probs[1 : len(ids)] == pytest.approx([expected[place, id].item() for place, id in enumerate(ids[1:])], abs=1e-4)
    for place, told in enumerate(top[1 : len(ids)]):
        assert sorted(told.values(), reverse=True)[:3] == pytest.approx(expected[place].topk(3).values.tolist(), abs=1e-4)
        assert log_probs[place + 1] in told.values()
        assert 3 <= len(told) <= 4
    assert text.startswith(TEXT)
    assert offsets[: len(ids)] == sorted(offsets[: len(ids)])
    for token, offset in zip(tokens, offsets, strict=True):
        assert token.startswith("<") or text.startswith(token.lstrip() if offset == 0 else token, offset)


def test_scoring_alone_makes_no_token(complete: Any) -> None:
    for stream in (False, True):
        answer = complete(TEXT, echo=True, logprobs=1, max_tokens=0, stream=stream)
        chunks = list(answer) if stream else [answer]
        assert "".join(chunk.choices[0].text for chunk in chunks) == TEXT
        assert chunks[-1].choices[0].finish_reason == "length"
    plain = complete(TEXT, echo=True, logprobs=1, max_tokens=0)
    assert plain.usage.completion_tokens == 0
    assert plain.usage.prompt_tokens == len(plain.choices[0].logprobs.tokens)
    assert complete(TEXT, echo=True, max_tokens=0).choices[0].logprobs is None


def test_the_token_that_ends_a_text_is_told(client: OpenAI, up: Running) -> None:
    answers = [client.completions.create(model="short", prompt="Ada lives", seed=seed, max_tokens=100, logprobs=1) for seed in range(9)]
    choices = [answer.choices[0] for answer in answers if answer.choices[0].text.isascii()]
    assert len(choices) > 3
    for choice in choices:
        assert choice.finish_reason == "stop"
        assert choice.logprobs is not None
        assert choice.logprobs.tokens is not None
        assert choice.logprobs.tokens[-1] in ("</s>", "<s>")
        assert "".join(choice.logprobs.tokens[:-1]) == choice.text


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("", "is empty; \\[1\\]"), ([], "empty list"), ([[]], "is empty"), (["a", ""], "prompt 2 is empty"), ([1, 99999], "99999 is no id of this"),
        ([[1], [-4]], "prompt 2: -4 is no id"), ("a\0", "NUL"), ([1, "a"], "valid"), (["a", 1], "valid"), (None, "required"),
        (["a"] * 129, "prompt holds 129, and this server takes at most 128"), ([1] * 2048, "has 2048 tokens, and the model's context is 2048"),
        ([1] * 5000, "has 5000 tokens"), ("Ada " * 3000, "tokens, and the model's context is 2048"), ("a" * 1000000, "1000000 characters"),
    ],
)  # fmt: skip
def test_prompts_that_are_none(complete: Any, prompt: Any, said: str) -> None:
    with pytest.raises(openai.BadRequestError, match=said) as caught:
        complete(prompt)
    assert caught.value.param is not None
    assert caught.value.param.startswith("prompt")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"max_tokens": 0}, "asks for nothing"), ({"suffix": "x"}, "suffix"), ({"best_of": 2}, "best_of"), ({"logprobs": 21}, "logprobs"),
        ({"logprobs": True}, "logprobs"), ({"n": 17}, "at most 16"), ({"logit_bias": {"1": 2}}, "logit_bias"),
    ],
)  # fmt: skip
def test_what_cannot_be_honoured_is_refused_by_name(complete: Any, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(openai.BadRequestError, match=said):
        complete("Ada", **settings)


def test_more_sequences_than_the_queue_has_room_for(complete: Any) -> None:
    with pytest.raises(openai.BadRequestError, match="128 prompts with 16 answers each are more than"):
        complete(["a"] * 128, n=16)


def test_neutral_values_are_accepted(complete: Any) -> None:
    settings = {"suffix": None, "best_of": 1, "presence_penalty": 0, "logit_bias": {}, "user": "me"}
    assert complete("Ada", **settings).choices[0].text == complete("Ada").choices[0].text


def test_spaces_alone_are_a_text(complete: Any) -> None:
    assert complete("  ", echo=True, max_tokens=1).choices[0].text.startswith("  ")


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("completions", {"prompt": ["x", [5]]}, "prompt"), ("completions", {"prompt": "x", "stop": [1]}, "stop"), ("completions", {}, "prompt"),
        ("chat/completions", {"messages": [{"content": "x"}]}, "messages.0.role"),
        ("chat/completions", {"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages.0.content"),
        ("chat/completions", {"messages": [{"role": "user", "content": "x"}], "tool_choice": {"type": "x"}}, "tool_choice"),
        ("chat/completions", {"messages": [{"role": "user", "content": "x", "audio": 1}]}, "messages.0.audio"),
    ],
)  # fmt: skip
def test_a_complaint_names_the_field_as_it_was_given(up: Running, path: str, body: dict[str, Any], param: str) -> None:
    refused = httpx.post(f"{up.v1}/{path}", json={"model": "short", **body})
    error = refused.json()["error"]
    assert (refused.status_code, error["param"]) == (400, param)
    assert error["message"].startswith(f"{param}: ")


def test_a_body_that_is_missing(up: Running) -> None:
    refused = httpx.post(f"{up.v1}/completions", headers={"Content-Type": "application/json"})
    assert (refused.status_code, refused.json()["error"]["message"]) == (400, "the body: Field required")
