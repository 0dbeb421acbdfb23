"""What is said of JSON schemas that are none, or that an answer cannot be held to."""

from typing import Any

import pytest

from llamaherd.serve.config import GrammarConfig
from llamaherd.serve.errors import ApiError
from llamaherd.serve.schema import check_schema, first_words

LIMITS = GrammarConfig()


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


REFUSED = {
    "no schema": ([1], "x: expected a JSON schema, an object, got list"),
    "nothing is allowed": (False, "x: false allows nothing at all"),
    "not": ({"not": {}}, 'x: "not" cannot be held'),
    "several": ({"type": "array", "items": {"uniqueItems": True, "contains": {}}}, 'x.items: "uniqueItems", "contains" cannot be held'),
    "conditions": ({"properties": {"a": {"if": {}, "then": {}}}}, 'x.properties.a: "if", "then" cannot be held'),
    "of OpenAPI": ({"nullable": True}, '"nullable" cannot be held'),
    "misspelt": ({"type": "string", "maxlength": 3}, '"maxlength" cannot be held'),
    "settings of the library": ({"x-guidance": {"lenient": True}}, '"x-guidance" cannot be held'),
    "an old tuple": ({"items": [{}, {}]}, "x.items: expected a schema, an object or true or false, got list"),
    "the rest of an old tuple": ({"additionalItems": False}, '"additionalItems" cannot be held'),
    "an anchor": ({"anyOf": [{}, {"$anchor": "a"}]}, 'x.anyOf[1]: "$anchor" cannot be held'),
    "elsewhere": ({"$ref": "http://169.254.169.254/x"}, "x: $ref leads elsewhere, and nothing is fetched"),
    "a file": ({"$ref": "file:///etc/passwd"}, "nothing is fetched"),
    "a format": ({"type": "string", "format": "idn-email"}, 'x: format "idn-email" cannot be held; there are date,'),
    "a number's format for text": ({"type": "string", "format": "int32"}, 'format "int32" cannot be held'),
    "keys that may repeat": ({"type": "object", "required": ["a"], "minProperties": 3}, "minProperties beyond the required ones"),
    "counts that are none": ({"type": "object", "minProperties": "2"}, 'x: minProperties is "2"; expected a whole number'),
    "properties that are none": ({"properties": [1]}, "x: properties is [1]; expected an object of schemas by name"),
    "required that is none": ({"required": "a"}, 'x: required is "a"; expected a list'),
    "required of no names": ({"required": [1]}, "x: required is a list of names"),
    "a surrogate": ({"enum": ["\ud800"]}, "x: holds a lone surrogate"),
    "a reference to itself": ({"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}, "x: no answer is ever complete"),
    "an endless chain": ({"type": "object", "properties": {"n": {"$ref": "#"}}, "required": ["n"]}, "x: no answer is ever complete"),
    "endless lists": (
        {"$defs": {"a/b": {"type": "array", "items": {"$ref": "#/$defs/a~1b"}, "minItems": 1}}, "$ref": "#/$defs/a~1b"},
        "x: no answer is ever complete",
    ),
    "deep": (nested(100), "nested deeper than 64"),
    "very deep": (nested(900), "nested deeper than 64"),
    "large": ({"enum": ["x" * 100] * 1000}, "bytes, and at most 65536 are taken"),
}


@pytest.mark.parametrize(("schema", "said"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_held_is_refused_by_name(schema: Any, said: str) -> None:
    with pytest.raises(ApiError) as caught:
        check_schema(schema, LIMITS, "x")
    assert caught.value.status == 400
    assert said in caught.value.message
    assert len(caught.value.message) < 600


def test_annotations_and_names_that_look_like_keywords_are_taken() -> None:
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema", "title": "T", "description": "d", "x-order": 1, "type": "object",
        "properties": {"not": {"type": "integer", "format": "int32"}, "if": {"enum": [{"not": 1}], "default": {"if": 2}}},
        "additionalProperties": {"type": "string", "format": "date"},
    }  # fmt: skip
    assert check_schema(schema, LIMITS, "x") == schema
    assert check_schema(True, LIMITS, "x") == {}


def test_objects_have_the_keys_that_they_name_unless_they_say_otherwise() -> None:
    inner = {"type": "object", "properties": {"a": {}}, "required": ["a"]}
    closed = {**inner, "additionalProperties": False}
    assert check_schema(inner, LIMITS, "x") == closed
    assert check_schema({"$defs": {"n": inner}, "$ref": "#/$defs/n"}, LIMITS, "x") == {"$defs": {"n": closed}, "$ref": "#/$defs/n"}
    assert check_schema({"anyOf": [inner, {"type": "null"}]}, LIMITS, "x") == {"anyOf": [closed, {"type": "null"}]}
    assert "additionalProperties" not in inner, "what the client sent is left as it is"


@pytest.mark.parametrize("schema", [
    {"type": "object"},
    {"type": "object", "properties": {"a": {}}, "additionalProperties": True},
    {"type": "object", "properties": {"a": {}}, "patternProperties": {"^b": {}}},
    {"type": "object", "properties": {"a": {}}, "required": ["b"]},
    {"allOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}}]},
    {"oneOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}}]},
    {"$ref": "#/$defs/n", "properties": {"b": {}}, "$defs": {"n": {"properties": {"a": {}}}}},
], ids=str)  # fmt: skip
def test_open_and_joined_objects_stay_open(schema: dict[str, Any]) -> None:
    assert check_schema(schema, LIMITS, "x") == schema


@pytest.mark.parametrize("schema", [
    {"type": "object", "properties": {"n": {"$ref": "#"}}, "additionalProperties": False},
    {"type": "object", "properties": {"n": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}, "required": ["n"], "additionalProperties": False},
    {"type": ["object", "null"], "properties": {"n": {"$ref": "#"}}, "required": ["n"], "additionalProperties": False},
    {"type": "array", "items": {"$ref": "#"}},
    {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"type": "integer"}}},
], ids=str)  # fmt: skip
def test_what_holds_itself_but_can_end_is_taken(schema: dict[str, Any]) -> None:
    assert check_schema(schema, LIMITS, "x") == schema


def test_the_words_of_the_compiler_without_what_is_behind_them() -> None:
    assert first_words('at 3(7): failed to compile JSON schema: Unimplemented keys: ["not"]\n   1 | %llguidance {}\n') == (
        'Unimplemented keys: ["not"]'
    )
    assert first_words("lexer error: too many <state> Tokens: secret") == "lexer error: too many"
