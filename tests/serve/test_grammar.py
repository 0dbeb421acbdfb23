"""What a constrained sequence can say: with random choices among what is allowed, always JSON of the schema."""

import asyncio
import json
import random
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamaherd.core.errors import UserError
from llamaherd.serve.config import GrammarConfig
from llamaherd.serve.errors import ApiError
from llamaherd.serve.grammar import Grammars, Matching, Unless, json_grammar
from llamaherd.serve.schema import check_schema
from llamaherd.tokenizer.sentencepiece import TextStream, Tokenizer

LIMITS = GrammarConfig()
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer", "minimum": 0, "maximum": 150}},
    "required": ["name", "age"],
}


def awaited(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


@pytest.fixture(scope="module")
def make_grammars(tokenizer: Tokenizer) -> Iterator[Callable[..., Grammars]]:
    made = []

    def make(tokenizer: Tokenizer = tokenizer, **settings: Any) -> Grammars:
        made.append(Grammars(tokenizer, (tokenizer.eos_id, tokenizer.bos_id), GrammarConfig(**settings)))
        return made[-1]

    yield make
    for grammars in made:
        grammars.close()


@pytest.fixture(scope="module")
def grammars(make_grammars: Callable[..., Grammars]) -> Grammars:
    return make_grammars()


def following(grammars: Grammars, schema: Any) -> Matching:
    matching: Matching = awaited(grammars.matching(json_grammar(check_schema(schema, LIMITS, "schema")), 1, "schema"))[0]
    return matching


def said(matching: Any, tokenizer: Tokenizer, seed: int, most_tokens: int = 3000) -> str | None:
    """What random choices among the allowed say, as a stream tells it; None when that had no end."""
    choices, stream, text = random.Random(seed), TextStream(tokenizer), ""
    for _ in range(most_tokens):
        allowed = matching.allowed().nonzero()[:, 0].tolist()
        id = choices.choice(allowed)
        matching.take(id)
        if id in (tokenizer.eos_id, tokenizer.bos_id):
            return text + stream.close()
        text += stream.feed(id)
    return None


def begun(matching: Matching, tokenizer: Tokenizer, text: str) -> Matching:
    """After bytes of a text, which have to be allowed."""
    for byte in text.encode():
        matching.take(next(id for id in range(tokenizer.vocab_size) if tokenizer.byte(id) == byte))
    return matching


def ends(matching: Matching, tokenizer: Tokenizer) -> bool:
    allowed = matching.allowed()
    assert bool(allowed[tokenizer.eos_id]) == bool(allowed[tokenizer.bos_id])
    return bool(allowed[tokenizer.eos_id])


names = st.text(min_size=1, max_size=4)
small: st.SearchStrategy[Any] = st.one_of(
    st.builds(lambda most: {"type": "string", "maxLength": most}, st.integers(0, 5)),
    st.builds(lambda low, more: {"type": "integer", "minimum": low, "maximum": low + more}, st.integers(-999, 999), st.integers(0, 999)),
    st.sampled_from([{"type": "boolean"}, {"type": "null"}, {"type": "string", "format": "date"}, {"type": "string", "pattern": "^[a-c]{1,4}$"}]),
    st.builds(lambda values: {"enum": values}, st.lists(st.one_of(names, st.integers(-9, 9), st.none()), min_size=1, max_size=4)),
    st.builds(lambda value: {"const": value}, st.one_of(names, st.lists(names, max_size=2))),
)  # fmt: skip


def larger(parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    objects = st.builds(
        lambda properties, asked: {"type": "object", "properties": properties, "required": [name for name in properties if name in asked]},
        st.dictionaries(names, parts, max_size=3), st.lists(names, max_size=3),
    )  # fmt: skip
    arrays = st.builds(lambda items, low: {"type": "array", "items": items, "minItems": low, "maxItems": low + 2}, parts, st.integers(0, 2))
    return st.one_of(objects, arrays, st.builds(lambda some: {"anyOf": some}, st.lists(parts, min_size=1, max_size=2)))


@settings(max_examples=30)
@given(schema=st.recursive(small, larger, max_leaves=6), seed=st.integers(0, 1 << 32))
def test_random_choices_are_json_of_the_schema(grammars: Grammars, tokenizer: Tokenizer, schema: Any, seed: int) -> None:
    try:
        check = jsonschema_rs.Draft202012Validator(schema)
    except ValueError:  # names that no schema can hold
        return
    text = said(following(grammars, schema), tokenizer, seed)
    assert text is not None
    assert check.is_valid(json.loads(text.strip())), text
    text.encode()


@pytest.mark.parametrize("seed", range(5))
def test_the_released_tokenizer(make_grammars: Callable[..., Grammars], llama2: Tokenizer, seed: int) -> None:
    text = said(following(make_grammars(llama2), PERSON), llama2, seed)
    assert text is not None
    assert jsonschema_rs.Draft202012Validator(PERSON).is_valid(json.loads(text.strip()))


def test_the_space_of_the_format_may_stand_before_and_after(make_grammars: Callable[..., Grammars], llama2: Tokenizer) -> None:
    grammars = make_grammars(llama2)
    for text in ('{"name": "Ada", "age": 3}', '{"name": "Ada", "age": 3} '):
        matching = following(grammars, PERSON)
        for id in llama2.encode(text):
            assert matching.allowed()[id], (text, llama2.piece(id))
            matching.take(id)
        assert ends(matching, llama2)
    assert not matching.allowed()[llama2.encode("x")[-1]]


@pytest.mark.parametrize("text", ['{"name":"a","age":1}', '{"name": "a", "age": 1}'])
def test_the_end_is_allowed_exactly_when_the_text_is_complete(grammars: Grammars, tokenizer: Tokenizer, text: str) -> None:
    for cut in range(len(text)):
        assert not ends(begun(following(grammars, PERSON), tokenizer, text[:cut]), tokenizer)
    assert ends(begun(following(grammars, PERSON), tokenizer, text), tokenizer)


@pytest.mark.parametrize("text", [
    '{"age":1,"name":"a"}', '{"name":"a","age":01}', '{"name":"a","age":1.5}', '{"name":"a","age":151}', '{"name":"a","age":1,"x":2}',
    '{"name":"a\nb"', '{"name":"\\ud800"', '{"name":"123456789"', '{   "name"', '{\n', '{"name": "a",\n', '  {', '{"name":"a","age":1}  ', "[", "x",
])  # fmt: skip
def test_what_is_no_beginning_of_the_json_is_not_allowed(grammars: Grammars, tokenizer: Tokenizer, text: str) -> None:
    with pytest.raises(UserError, match="cannot go on in the form asked for"):
        begun(following(grammars, PERSON), tokenizer, text)


def test_control_ids_the_unknown_piece_and_halves_of_characters_never_come(grammars: Grammars, tokenizer: Tokenizer) -> None:
    matching = begun(following(grammars, {"type": "string"}), tokenizer, '"')
    allowed = matching.allowed()
    assert allowed.shape == (tokenizer.vocab_size,)
    assert not allowed[tokenizer.unk_id]
    matching = begun(matching, tokenizer, "é"[:0])
    matching.take(next(id for id in range(tokenizer.vocab_size) if tokenizer.byte(id) == 0xC3))
    bytes_next = {tokenizer.byte(id) for id in matching.allowed().nonzero()[:, 0].tolist()}
    assert bytes_next == set(range(0x80, 0xC0))


@pytest.mark.parametrize(("schema", "said"), {
    "a reference to nothing": ({"$ref": "#/$defs/none"}, "Pointer '/$defs/none' does not exist"),
    "a type that is none": ({"type": "strnig"}, "Invalid type: strnig"),
    "nothing is valid": ({"type": "integer", "minimum": 5, "maximum": 4}, "minimum (5) is greater than maximum (4)"),
    "looking around": ({"type": "string", "pattern": "^(?=a)b"}, "look-around"),
    "no regular expression": ({"type": "string", "pattern": "("}, "unclosed group"),
    "either, not both": ({"oneOf": [{"type": "string"}, {"type": "string", "maxLength": 5}]}, "oneOf constraints are not supported"),
    "many joined": ({"allOf": [{"anyOf": [{"properties": {f"{a}{b}": {}}, "required": [f"{a}{b}"]} for a in range(6)]} for b in range(9)]},
                    "schema too large"),
}.values())  # fmt: skip
def test_what_does_not_compile_is_said_without_the_grammar(grammars: Grammars, schema: Any, said: str) -> None:
    start = time.monotonic()
    with pytest.raises(ApiError) as caught:
        following(grammars, schema)
    assert caught.value.status == 400
    assert caught.value.message.startswith("schema: ")
    assert said in caught.value.message
    assert "%" not in caught.value.message
    assert time.monotonic() - start < LIMITS.compile_s


def test_what_compiles_but_cannot_be_followed_fails_within_bounds(grammars: Grammars, tokenizer: Tokenizer) -> None:
    many = {"anyOf": [{"type": "object", "properties": {f"{a} {b}": {"pattern": f"{a}.*{b}"} for b in range(10)}} for a in range(100)]}
    matching, start = following(grammars, many), time.monotonic()
    with pytest.raises(UserError, match="cannot go on in the form asked for: .* max is"):
        said(matching, tokenizer, 0)
    assert time.monotonic() - start < LIMITS.compile_s


def test_recursive_schemas(grammars: Grammars, tokenizer: Tokenizer) -> None:
    tree = {
        "$defs": {"n": {"type": "object", "properties": {"v": {"type": "boolean"}, "kids": {"type": "array", "items": {"$ref": "#/$defs/n"}}},
                        "required": ["v", "kids"]}},
        "$ref": "#/$defs/n",
    }  # fmt: skip
    texts = [text for seed in range(10) if (text := said(following(grammars, tree), tokenizer, seed)) is not None]
    assert texts
    assert all(jsonschema_rs.Draft202012Validator(tree).is_valid(json.loads(text)) for text in texts)


def test_sequences_of_one_grammar_follow_their_own_texts(grammars: Grammars, tokenizer: Tokenizer) -> None:
    grammar = json_grammar(check_schema(PERSON, LIMITS, "x"))
    first, second, third = awaited(grammars.matching(grammar, 3, "x"))
    begun(first, tokenizer, '{"name"')
    begun(second, tokenizer, '{"name":"a","age":1}')
    assert not ends(first, tokenizer)
    assert ends(second, tokenizer)
    assert said(third, tokenizer, 1) == said(following(grammars, PERSON), tokenizer, 1)


def test_only_the_last_used_grammars_are_kept_and_in_memory_alone(make_grammars: Callable[..., Grammars]) -> None:
    grammars = make_grammars(kept=3)
    texts = [json_grammar({"const": number}) for number in range(5)]
    for text in [*texts[:3], texts[0], *texts[3:]]:
        awaited(grammars.matching(text, 1, "x"))
    assert list(grammars._compiled) == [texts[0], *texts[3:]]


def test_a_compiler_that_takes_too_long_is_not_waited_for(make_grammars: Callable[..., Grammars], monkeypatch: pytest.MonkeyPatch) -> None:
    grammars = make_grammars(compile_s=0.05)
    monkeypatch.setattr(grammars, "_matching", lambda *_: time.sleep(0.3))

    async def ask() -> float:
        loop, longest = asyncio.get_running_loop(), 0.0
        asked = asyncio.create_task(grammars.matching("", 1, "the schema"))
        while not asked.done():
            before = loop.time()
            await asyncio.sleep(0)
            longest = max(longest, loop.time() - before)
        with pytest.raises(ApiError, match="the schema: not compiled within 0.05 s"):
            await asked
        return longest

    assert awaited(ask()) < 0.05


def test_free_until_it_begins_as_said(grammars: Grammars, tokenizer: Tokenizer) -> None:
    def after(text: str) -> Unless:
        one: Unless = awaited(grammars.unless('start: / ?/ "<call " ("a" | "b") ">"', "<call ", 1, "x"))[0]
        begun(one, tokenizer, text)  # type: ignore[arg-type]
        return one

    for free in ("", "Hello", "<", "<cal", "<caller", "  <call "):
        assert after(free).allowed() is None, free
    allowed = after(" <call ").allowed()
    assert allowed is not None
    assert {tokenizer.byte(id) for id in allowed.nonzero()[:, 0].tolist()} - {None} == {ord("a"), ord("b")}
    with pytest.raises(UserError):
        after("<call c")
