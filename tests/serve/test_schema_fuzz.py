"""Case 23: whatever is sent, the answer is of 2xx or 4xx, in the shape that the OpenAPI page tells, and the server goes on.

LLAMAHERD_FUZZ_S: so many seconds the slow test searches further.
"""

import http.client
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from schemathesis.specs.openapi import checks
from tests.serve.conftest import Running

from llamaherd.serve.api import shapes
from llamaherd.serve.app import ROUTERS
from llamaherd.serve.page.routes import router as page

CHECKS: list[Any] = [
    schemathesis.checks.not_a_server_error, checks.status_code_conformance, checks.content_type_conformance,
    checks.response_headers_conformance, checks.response_schema_conformance,
]  # fmt: skip
SOUGHT = settings(deadline=None, database=None, suppress_health_check=list(HealthCheck), phases=[Phase.explicit, Phase.generate])
"""What is found is told as it is: to make it smaller takes minutes."""
PATIENCE_S = 30.0
EXAMPLES = 3
TALK = [{"role": "user", "content": "Where does Ada live?"}]
TREE = "0a1b2c3d-0000-4000-8000-00000000000a"
NODE = "0a1b2c3d-0000-4000-8000-00000000000b"
SCHEMA = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object", "properties": {"b": {"type": "integer"}}}}}
SENSE: dict[str, list[Any]] = {
    "model": ["short", "endless"], "messages": [TALK], "n": [1, 3], "max_tokens": [1, 9, None], "max_completion_tokens": [None], "stop": ["a"],
    "seed": [1], "top_logprobs": [None], "prompt": ["Ada", ["Ada", "Ben"], [1, 300]], "logprobs": [None], "response_format": [None, SCHEMA],
    "tools": [[]], "tool_choice": ["auto"], "stream_options": [None], "tokens": [[1, 300]], "texts": [["*a*"]], "input": ["Hi.", None],
    "parent": [None, NODE], "id": [TREE, NODE], "role": ["user"], "leaf": [NODE, None],
}  # fmt: skip
"""Values that are taken: what is drawn at random seldom comes as far as a model."""


@pytest.fixture(scope="module")
def fuzzed(serve: Callable[..., Any], talkers: Path, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Chat models, guard, rewards and store."""
    with serve(
        models=[str(talkers / "short"), str(talkers / "endless")], rewards=[str(tiny_folder / "helpfulness")],
        guard={"model": str(tiny_folder / "safety"), "threshold": 0.05}, limits={"new_tokens": 64, "silence_s": 5},
        state=str(tmp_path_factory.mktemp("fuzzed")),
    ) as up:  # fmt: skip
        yield up


@pytest.fixture(scope="module")
def page_of(fuzzed: Running) -> Any:
    """The OpenAPI page, for schemathesis."""
    return schemathesis.openapi.from_url(f"{fuzzed.url}/openapi.json")


def demand_sound(status: int, media_type: str, body: bytes) -> None:
    """An answer, or an error in the one envelope that is nobody's but the client's fault."""
    assert status < 500, (status, body[:500])
    if status >= 400:
        assert b"Traceback" not in body
        error = shapes.Error.model_validate_json(body, strict=True).error
        assert error.message
        assert "\n" not in error.message
    elif media_type.startswith("text/event-stream"):
        lines = [line for line in body.decode().split("\n") if line.startswith("data: ")]
        assert lines[-1] == "data: [DONE]"
        told = [json.loads(line[6:]) for line in lines[:-1]]
        assert not [one for one in told if one.get("error", {}).get("type") == "server_error"]


def demand_well(up: Running) -> None:
    """Nothing is left open, and everything still works."""
    up.wait_empty(PATIENCE_S)
    for model in ("short", "endless"):
        status, _, body = sent(up, "POST", "/v1/chat/completions", json.dumps({"model": model, "messages": TALK, "max_tokens": 3}).encode())
        assert status == 200, body
    assert up.service.health == "ready"


def sent(up: Running, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, str, bytes]:
    """(status, media type, body) of the answer to a request of these bytes."""
    connection = http.client.HTTPConnection("127.0.0.1", up.port, timeout=PATIENCE_S)
    try:
        connection.request(method, path, body, {**({"Content-Type": "application/json"} if body is not None else {}), **headers})
        answer = connection.getresponse()
        return answer.status, answer.headers.get("Content-Type", ""), answer.read()
    finally:
        connection.close()


def tame(case: Case, draw: Callable[[Any], Any]) -> None:
    """Puts what is taken in the place of some of what was drawn."""
    if isinstance(case.body, dict):
        for key in case.body.keys() & SENSE.keys():
            if draw(st.integers(0, 3)):
                case.body[key] = draw(st.sampled_from(SENSE[key]))
    for key, value in (("id", TREE), ("node", NODE), ("name", "short")):
        if key in (case.path_parameters or {}) and draw(st.booleans()):
            case.path_parameters[key] = value


def fuzz(up: Running, operation: Any, mode: GenerationMode, number: int, examples: int, ends: float = float("inf")) -> None:
    """Sends so many cases for one operation."""

    @seed(number)
    @settings(SOUGHT, max_examples=examples)
    @given(case=operation.as_strategy(generation_mode=mode), data=st.data())
    def found(case: Case, data: st.DataObject) -> None:
        if time.monotonic() > ends:
            return
        tame(case, data.draw)
        if "{id}" in operation.path:
            sent(up, "POST", "/api/conversations", json.dumps({"id": TREE}).encode())
            node = {"id": NODE, "role": "user", "content": "Hi."}
            sent(up, "POST", f"/api/conversations/{TREE}/nodes", json.dumps(node).encode())
        answer = case.call(base_url=up.url, timeout=PATIENCE_S)
        demand_sound(answer.status_code, answer.headers.get("content-type", [""])[0], answer.content)
        case.validate_response(answer, checks=CHECKS)

    try:
        found()
    except Unsatisfiable:
        assert mode == GenerationMode.NEGATIVE, "only where any text is right can nothing wrong be made"
        assert not operation.body
    except AssertionError as error:
        raise AssertionError(f"{operation.method.upper()} {operation.path}: {error}") from error


def operations(schema: Any, mode: GenerationMode) -> list[Any]:
    """All of them; where nothing is taken, nothing wrong can be sent."""
    found = [one.ok() for one in schema.get_all_operations()]
    return [one for one in found if mode == GenerationMode.POSITIVE or len(one.body) or len(one.query) or len(one.path_parameters)]


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_every_operation_with_data_of_the_schema_and_against_it(fuzzed: Running, page_of: Any, mode: GenerationMode) -> None:
    found = operations(page_of, mode)
    assert len(found) >= (25 if mode == GenerationMode.POSITIVE else 15)
    for operation in found:
        fuzz(fuzzed, operation, mode, 23, EXAMPLES)
    demand_well(fuzzed)


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_every_operation_for_long(fuzzed: Running, page_of: Any) -> None:
    ends, number = time.monotonic() + float(os.environ.get("LLAMAHERD_FUZZ_S", "3600")), 0
    while time.monotonic() < ends:
        for mode in GenerationMode:
            for operation in operations(page_of, mode):
                fuzz(fuzzed, operation, mode, number, 30, ends)
        number += 1
        demand_well(fuzzed)


def test_every_route_is_on_the_page_or_part_of_the_chat_page(page_of: Any) -> None:
    routes = {(method, route.path) for router in ROUTERS for route in router.routes for method in route.methods}  # type: ignore[attr-defined]
    told = {(one.ok().method.upper(), one.ok().path) for one in page_of.get_all_operations()}
    hidden = {(method, route.path) for route in page.routes for method in route.methods}  # type: ignore[attr-defined]
    hidden.add(("HEAD", "/health"))  # GET without its body
    assert {(method, path.replace("{name:path}", "{name}")) for method, path in routes - hidden} == told
    assert {path for _, path in hidden} == {"/", "/static/{name}", "/health"}


# What no schema says

WRONG = [
    "NaN", "Infinity", "-Infinity", "1e400", "-1", "-0.0", "1.5", "0.1e-400", "9" * 60, "9" * 5000, "1e22", "null", "true", "[]", "{}", '""', '"\\u0000"',
    '"\\ud800"', '"\\udfff\\ud800"', '"\\ud83d\\ude00"', '"</s><s>[INST]"', '"<0x0A>\\u2581"', '"\\u202e"', '" "', '"\\r\\n\\u001b[31m"', "[[[[[]]]]]", '{"": {}}',
    '[null]', '[1, "a", {}]', '{"type": 1}', '"../../etc/passwd"', '"http://169.254.169.254/"', "1, 2", '"', "{", "]", "\u00e9", "0x10", "01", "'a'", "undefined",
]  # fmt: skip
"""Pieces of JSON, or of what is none."""
BODIES: list[tuple[str, str, dict[str, Any]]] = [
    ("POST", "/v1/chat/completions", {
        "model": "short", "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": [{"type": "text", "text": "Hi."}]}],
        "max_tokens": 3, "temperature": 1.0, "top_p": 0.9, "top_k": 5, "min_p": 0.1, "repetition_penalty": 1.1, "seed": 1, "stop": ["a"], "n": 2,
        "logprobs": True, "top_logprobs": 2, "overflow": "refuse", "continue_final_message": False, "stream": True,
        "stream_options": {"include_usage": True},
    }),
    ("POST", "/v1/chat/completions", {
        "model": "short", "max_tokens": 5, "tool_choice": "auto", "parallel_tool_calls": True, "tools": [{"type": "function", "function": {
            "name": "f", "description": "d", "parameters": {"type": "object", "properties": {"a": {"type": "string"}}}, "strict": True}}],
        "messages": [*TALK, {"role": "assistant", "content": None, "tool_calls": [
            {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}, {"role": "tool", "tool_call_id": "c", "content": "1"}],
    }),
    ("POST", "/v1/chat/completions", {"model": "endless", "messages": TALK, "max_tokens": 5, "response_format": {
        "type": "json_schema", "json_schema": {"name": "a", "strict": True, "schema": {
            "type": "object", "properties": {"a": {"type": "array", "items": {"enum": [1, "b"]}, "maxItems": 3}, "c": {"$ref": "#/$defs/d"}},
            "required": ["a"], "additionalProperties": False, "$defs": {"d": {"type": "string", "pattern": "^a+$", "maxLength": 4}}}}}}),
    ("POST", "/v1/chat/preview", {"model": "short", "messages": TALK}),
    ("POST", "/v1/completions", {"model": "short", "prompt": ["Ada", "Ben"], "echo": True, "logprobs": 1, "max_tokens": 2, "add_special_tokens": True}),
    ("POST", "/v1/completions", {"model": "short", "prompt": [[1, 300], [1]], "max_tokens": 2, "stream": True}),
    ("POST", "/tokenize", {"model": "short", "prompt": "Ada", "add_special_tokens": True, "return_token_strs": True}),
    ("POST", "/tokenize", {"messages": TALK}), ("POST", "/detokenize", {"model": "short", "tokens": [1, 300]}),
    ("POST", "/v1/moderations", {"model": "safety", "input": ["Hi.", "Ho."]}), ("POST", "/v1/moderations", {"messages": TALK}),
    ("POST", "/v1/rewards", {"model": "helpfulness", "dialogues": [{"messages": [*TALK, {"role": "assistant", "content": "In Rome."}]}]}),
    ("POST", "/api/render", {"texts": ["*a*", "```py\nx\n```", "$x$"]}),
    ("POST", "/api/conversations", {"id": TREE, "title": "t", "settings": {"a": 1}}),
    ("POST", f"/api/conversations/{TREE}/nodes", {"id": NODE, "parent": None, "role": "user", "content": "Hi.", "model": "short", "meta": {"a": 1}}),
    ("PATCH", f"/api/conversations/{TREE}", {"title": "u", "settings": {}, "leaf": NODE}),
    ("PATCH", f"/api/conversations/{TREE}/nodes/{NODE}", {"content": "Ho.", "meta": {}}),
    ("POST", "/api/import", {"format": "llamaherd-conversations", "version": 1, "exported_s": 1.0, "conversations": [
        {"id": TREE, "title": "t", "settings": {}, "created_s": 1.0, "updated_s": 1.0, "leaf": NODE, "nodes": [
            {"id": NODE, "parent": None, "role": "user", "content": "Hi.", "model": None, "created_s": 1.0, "meta": {}}]}]}),
    ("POST", "/api/import", {"messages": [*TALK, {"role": "assistant", "content": "In Rome."}]}),
]  # fmt: skip
HEADERS = [
    {"Content-Type": "text/plain"}, {"Content-Type": "application/x-www-form-urlencoded"}, {"Content-Type": "multipart/form-data; boundary=a"},
    {"Content-Type": ""}, {"Content-Type": "application/json; charset=utf-16"}, {"Content-Encoding": "gzip"}, {"Accept": "text/html"}, {"Expect": "100-continue"},
    {"X-HTTP-Method-Override": "DELETE"}, {"Range": "bytes=0-1"}, {"Authorization": "Bearer \xff"}, {"Cookie": "llamaherd-1=\x00"[:-1]}, {"If-None-Match": '"'},
]  # fmt: skip


@st.composite
def spoiled(draw: Callable[[Any], Any], value: Any) -> str:
    """JSON of a value in which one place holds something else, or stands twice, or is not there."""
    places: list[tuple[Any, ...]] = []

    def walk(one: Any, place: tuple[Any, ...]) -> None:
        places.append(place)
        for key, part in one.items() if isinstance(one, dict) else enumerate(one) if isinstance(one, list) else ():
            walk(part, (*place, key))

    walk(value, ())
    wanted, how, piece = draw(st.sampled_from(places)), draw(st.integers(0, 4)), draw(st.sampled_from(WRONG))

    def written(one: Any, place: tuple[Any, ...]) -> str:
        if place == wanted and how <= 2:
            return piece
        if isinstance(one, dict):
            pairs = [(json.dumps(key), written(part, (*place, key))) for key, part in one.items()]
            if place == wanted:
                pairs += pairs[:1] if how == 3 else [(json.dumps(draw(st.text())), piece)]
            return "{" + ", ".join(f"{key}: {said}" for key, said in pairs) + "}"
        if isinstance(one, list):
            return "[" + ", ".join(written(part, (*place, index)) for index, part in enumerate(one)) + "]"
        return json.dumps(one)

    return written(value, ())


def spoil(up: Running, number: int, examples: int) -> None:
    @seed(number)
    @settings(SOUGHT, max_examples=examples)
    @given(st.data())
    def found(data: st.DataObject) -> None:
        method, path, value = data.draw(st.sampled_from(BODIES))
        body = data.draw(spoiled(value)).encode("utf-8", "surrogatepass")
        how = data.draw(st.integers(0, 7))
        headers: dict[str, str] = {}
        if how == 0:
            body = body[: data.draw(st.integers(0, len(body)))]
        elif how == 1:
            place = data.draw(st.integers(0, len(body)))
            body = body[:place] + data.draw(st.binary(min_size=1, max_size=4)) + body[place:]
        elif how == 2:
            headers = data.draw(st.sampled_from(HEADERS))
        elif how == 3:
            body = body.decode("utf-8", "replace").encode(data.draw(st.sampled_from(["utf-16", "utf-32-le", "utf-8-sig", "utf-7"])))
        demand_sound(*sent(up, method, path, body, **headers))

    found()


def test_bodies_that_no_schema_would_make(fuzzed: Running) -> None:
    sent(fuzzed, "POST", "/api/conversations", json.dumps({"id": TREE}).encode())
    spoil(fuzzed, 23, 150)
    demand_well(fuzzed)


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_bodies_that_no_schema_would_make_for_long(fuzzed: Running) -> None:
    ends, number = time.monotonic() + float(os.environ.get("LLAMAHERD_FUZZ_S", "3600")), 0
    while time.monotonic() < ends:
        spoil(fuzzed, number, 500)
        number += 1
    demand_well(fuzzed)


NAMES = [
    "..", "%2e%2e", "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "..%5c..%5cwindows", "%00", "a%00b", "%ff%fe", "%ed%a0%80", "con", "nul.txt", "C:%5c", "%252e%252e", "%0d%0aX:y",
    "~", "*", "%7b%7d", "a" * 5000, "%F0%9F%A6%99", ";", "%3f", "%23", "", ".", "%20", "..;/", "short%00", "short/..", "./short", "%2fetc%2fpasswd",
]  # fmt: skip


def test_names_in_paths_and_queries(fuzzed: Running) -> None:
    """Case 30: only what is known by a name is found by it."""
    for name in NAMES:
        for path in (
            f"/v1/models/{name}", f"/static/{name}", f"/api/conversations/{name}", f"/api/conversations/{name}/export",
            f"/api/conversations/{TREE}/nodes/{name}",
        ):  # fmt: skip
            for method in ("GET", "DELETE") if "/api" in path else ("GET",):
                status, media_type, body = sent(fuzzed, method, path)
                demand_sound(status, media_type, body)
                assert not 200 <= status < 300 or path in ("/v1/models/", "/api/conversations/"), (path, body[:200])
        for query in (
            f"/api/conversations?query={name}",
            f"/api/conversations?before={name}",
            f"/tokenizer_info?model={name}",
            f"/v1/models?{name}",
        ):
            demand_sound(*sent(fuzzed, "GET", query))
    demand_well(fuzzed)
