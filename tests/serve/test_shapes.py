"""What the OpenAPI page and docs/serve.md say is what the server does."""

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import BaseModel
from tests.serve.conftest import Running

from llamaherd.serve.api import shapes
from llamaherd.serve.api.chat import ChatBody
from llamaherd.serve.api.completions import CompletionBody
from llamaherd.serve.api.fields import HINTS, NEUTRAL, Sampled
from llamaherd.serve.api.tokens import DetokenizeBody, TokenizeBody

HTTP = httpx.Client(timeout=120, limits=httpx.Limits(max_connections=None), trust_env=False)
"""One for all: to make a client takes longer than to ask."""

PAGE = (Path(__file__).parents[2] / "docs" / "serve.md").read_text(encoding="utf-8")
TALK = [{"role": "user", "content": "Where does Ada live?"}]
OURS = (
    "/v1/chat/completions",
    "/v1/chat/preview",
    "/v1/completions",
    "/v1/models",
    "/v1/models/{name}",
    "/tokenize",
    "/detokenize",
    "/tokenizer_info",
    "/health",
)


def section(title: str) -> str:
    found = re.search(rf"^### {title}$(.*?)(?=^### |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1]


@pytest.mark.parametrize(
    ("title", "body", "inherited"),
    [
        ("Sampling, in chat and completions", Sampled, None), ("Chat", ChatBody, Sampled), ("Completions", CompletionBody, Sampled),
        ("Tokens", TokenizeBody, None), ("Tokens", DetokenizeBody, None),
    ],
)  # fmt: skip
def test_the_tables_list_every_field_with_its_default(title: str, body: type[BaseModel], inherited: type[BaseModel] | None) -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) ?\|", section(title), re.MULTILINE))
    fields = {name: field for name, field in body.model_fields.items() if inherited is None or name not in inherited.model_fields}
    for name, field in fields.items():
        if title == "Tokens" and name == "model":
            continue
        assert rows[name] == ("" if field.is_required() else json.dumps(field.default)), name
        assert field.description, name
    known = {*fields, "max_tokens"} | ({*TokenizeBody.model_fields, *DetokenizeBody.model_fields} if title == "Tokens" else set())
    assert set(rows) <= known


def test_what_is_passed_over_or_accepted_at_one_value_is_listed() -> None:
    for name in HINTS:
        assert f"`{name}`" in PAGE
    for name, values in NEUTRAL.items():
        if name != "parallel_tool_calls":
            assert f"`{name}` {json.dumps(values[0])}" in PAGE, name


def test_every_route_is_listed(up: Running) -> None:
    schema = HTTP.get(f"{up.url}/openapi.json").json()
    listed = set(re.findall(r"^\| `(?:GET|POST) (\S+)`", PAGE, re.MULTILINE))
    assert {path.replace("{name:path}", "{name}") for path in schema["paths"]} >= set(OURS)
    assert listed >= set(OURS)
    for path in OURS:
        for operation in schema["paths"][path].values():
            assert operation["description"]
            assert "422" not in operation["responses"]
            assert "$ref" in operation["responses"]["200"]["content"]["application/json"]["schema"]
    assert all(field["description"] for field in schema["components"]["schemas"]["ChatBody"]["properties"].values())


CHAT = {"model": "short", "messages": TALK, "max_tokens": 9, "seed": 1}


@pytest.mark.parametrize(
    ("path", "body", "shape"),
    [
        ("/v1/chat/completions", CHAT, shapes.ChatCompletion),
        ("/v1/chat/completions", {**CHAT, "logprobs": True, "top_logprobs": 3, "n": 2, "overflow": "drop-turns"}, shapes.ChatCompletion),
        ("/v1/completions", {"model": "short", "prompt": ["Ada", "Ben"], "seed": 1}, shapes.Completed),
        ("/v1/completions", {"model": "short", "prompt": [1, 300], "echo": True, "logprobs": 2, "max_tokens": 0}, shapes.Completed),
        ("/v1/chat/preview", CHAT, shapes.Preview), ("/tokenize", {"prompt": "Ada"}, shapes.Tokenized),
        ("/tokenize", {"messages": TALK, "return_token_strs": True}, shapes.Tokenized), ("/detokenize", {"tokens": [1, 300]}, shapes.Detokenized),
        ("/v1/models", None, shapes.Models), ("/v1/models/short", None, shapes.Model), ("/health", None, shapes.Health),
        ("/tokenizer_info", None, shapes.TokenizerInfo), ("/v1/completions", {}, shapes.Error), ("/v1/models/none", None, shapes.Error),
        ("/v1/chat/completions", {**CHAT, "nothing": 1}, shapes.Error), ("/nowhere", None, shapes.Error), ("/tokenize", None, shapes.Error),
    ],
)  # fmt: skip
def test_answers_have_the_shapes_that_are_told(up: Running, path: str, body: Any, shape: type[BaseModel]) -> None:
    response = HTTP.get(up.url + path) if body is None else HTTP.post(up.url + path, json=body)
    shape.model_validate(response.json(), strict=True)
    assert response.is_success == (shape is not shapes.Error)


@pytest.mark.parametrize(
    ("path", "body", "shape"),
    [
        ("/v1/chat/completions", {**CHAT, "logprobs": True, "n": 2, "overflow": "drop-turns"}, shapes.ChatChunk),
        ("/v1/completions", {"model": "short", "prompt": ["Ada"], "echo": True, "logprobs": 1}, shapes.Completed),
    ],
)
def test_chunks_have_the_shapes_that_are_told(up: Running, path: str, body: dict[str, Any], shape: type[BaseModel]) -> None:
    for usage in (False, True):
        lines = HTTP.post(up.url + path, json={**body, "stream": True, "stream_options": {"include_usage": usage}}).text.split("\n\n")
        *chunks, done, rest = lines
        assert (done, rest) == ("data: [DONE]", "")
        told = [json.loads(chunk.removeprefix("data: ")) for chunk in chunks]
        for chunk in told:
            shape.model_validate(chunk, strict=True)
        assert (told[-1]["choices"] == []) == usage
