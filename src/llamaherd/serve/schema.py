"""JSON schemas of strangers: what is held of them, and what is refused by name because it would not be."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from .config import GrammarConfig
from .errors import ApiError

OF_MANY = ("anyOf", "oneOf", "allOf", "prefixItems")
OF_ONE = ("items", "additionalProperties")
OF_NAMED = ("properties", "patternProperties", "$defs", "definitions")
HELD = frozenset({
    *OF_MANY, *OF_ONE, *OF_NAMED, "type", "enum", "const", "$ref", "required", "minProperties", "maxProperties", "minItems", "maxItems",
    "minLength", "maxLength", "pattern", "format", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf",
})  # fmt: skip
ANNOTATIONS = frozenset({
    "title", "description", "default", "examples", "example", "deprecated", "readOnly", "writeOnly", "$comment", "$schema",
    "discriminator", "contentEncoding", "contentMediaType",
})  # fmt: skip
"""What says nothing about which values are valid."""
FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"})
FORMATS_OF_NUMBERS = frozenset({"int32", "int64", "float", "double"})
"""OpenAPI's names of machine types, which are annotations too."""

COUNTS = frozenset({"minProperties", "maxProperties", "minItems", "maxItems", "minLength", "maxLength"})
SHAPES = (
    (frozenset(OF_NAMED), dict, "an object of schemas by name"),
    (frozenset({*OF_MANY, "required", "enum"}), list, "a list"),
    (COUNTS, int, "a whole number"),
)

Place = tuple[str | int, ...]


def check_schema(schema: Any, limits: GrammarConfig, where: str) -> dict[str, Any]:
    """The schema as it is compiled. `where` names the field it came in. Raises ApiError for what is no schema, too large, or not held."""
    if isinstance(schema, bool):
        schema = {} if schema else _refuse(where, (), "false allows nothing at all")
    if not isinstance(schema, dict):
        _refuse(where, (), f"expected a JSON schema, an object, got {type(schema).__name__}")
    try:
        size = len(json.dumps(schema, ensure_ascii=False).encode())
    except UnicodeEncodeError:
        _refuse(where, (), "holds a lone surrogate, which is not valid Unicode text; remove it")
    except RecursionError:
        _refuse(where, (), f"nested deeper than {limits.schema_depth}; make it flatter, or name parts in $defs")
    if size > limits.schema_bytes:
        _refuse(where, (), f"the schema has {size} bytes, and at most {limits.schema_bytes} are taken")
    for place, part in _parts(schema):
        if len(place) > limits.schema_depth:
            _refuse(where, place, f"nested deeper than {limits.schema_depth}; make it flatter, or name parts in $defs")
        _check_part(part, where, place)
    if not _ends(schema, _ended(schema)):
        _refuse(where, (), "no answer is ever complete, since something required holds itself; make it optional, or allow null beside it")
    return _closed(schema)


def _refuse(where: str, place: Place, why: str) -> Any:
    at = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place[:8])
    raise ApiError(400, f"{where}{at[:200]}: {why}", where, "invalid_schema")


def _parts(schema: Any) -> Iterator[tuple[Place, Any]]:
    """Every schema within a schema with the way to it, itself first."""
    waiting: list[tuple[Place, Any]] = [((), schema)]
    while waiting:
        place, part = waiting.pop()
        yield place, part
        if not isinstance(part, dict):
            continue
        for key, value in part.items():
            if key in OF_NAMED and isinstance(value, dict):
                waiting += [((*place, key, name), one) for name, one in value.items()]
            elif key in OF_MANY and isinstance(value, list):
                waiting += [((*place, key, index), one) for index, one in enumerate(value)]
            elif key in OF_ONE:
                waiting.append(((*place, key), value))


def _check_part(part: Any, where: str, place: Place) -> None:
    if isinstance(part, bool):
        return
    if not isinstance(part, dict):
        _refuse(where, place, f"expected a schema, an object or true or false, got {type(part).__name__}")
    unknown = [key for key in part if key not in HELD and key not in ANNOTATIONS and not (key.startswith("x-") and key != "x-guidance")]
    if unknown:
        named = ", ".join(json.dumps(key[:40]) for key in unknown[:5])
        _refuse(where, place, f"{named} cannot be held by the answer; leave it out. What can: {', '.join(sorted(HELD))}")
    for keys, kind, what in SHAPES:
        for key in part.keys() & keys:
            if not isinstance(part[key], kind) or isinstance(part[key], bool):
                _refuse(where, place, f"{key} is {json.dumps(part[key])[:40]}; expected {what}")
    reference = part.get("$ref", "#")
    if not (isinstance(reference, str) and reference.startswith("#")):
        _refuse(where, place, "$ref leads elsewhere, and nothing is fetched; put the schema in $defs and write #/$defs/NAME")
    form = part.get("format")
    if form is not None and form not in FORMATS and not (form in FORMATS_OF_NUMBERS and part.get("type") != "string"):
        _refuse(where, place, f"format {json.dumps(form)[:40]} cannot be held; there are {', '.join(sorted(FORMATS))}")
    if not all(isinstance(name, str) for name in part.get("required", [])):
        _refuse(where, place, "required is a list of names")
    if part.get("minProperties", 0) > len(part.get("required", [])) + 1:
        _refuse(where, place, "minProperties beyond the required ones cannot be held, since keys that are not named may repeat")


def _ended(schema: dict[str, Any]) -> set[str]:
    """The references to parts of which some value is finite."""
    references = {part["$ref"] for _, part in _parts(schema) if isinstance(part, dict) and "$ref" in part}
    ended: set[str] = set()
    while more := {one for one in references - ended if _ends(_found(schema, one), ended)}:
        ended |= more
    return ended


def _found(schema: Any, reference: str) -> Any:
    """What a reference leads to; where that is nothing the compiler says so."""
    part = schema
    for step in reference.removeprefix("#").split("/")[1:]:
        name = unquote(step).replace("~1", "/").replace("~0", "~")
        if isinstance(part, list) and name.isdecimal() and int(name) < len(part):
            part = part[int(name)]
        else:
            part = part.get(name) if isinstance(part, dict) else None
    return part


def _ends(part: Any, ended: set[str]) -> bool:
    """Whether some value of a schema is finite, if those are of which `ended` holds the references; yes where it is not clear."""
    if not isinstance(part, dict):
        return part is not False
    if "$ref" in part and part["$ref"] not in ended:
        return False
    joined = [_ends(one, ended) for one in part.get("allOf", [])]
    either = [_ends(one, ended) for one in (*part.get("anyOf", []), *part.get("oneOf", []))]
    if not all(joined) or (either and not any(either)):
        return False
    if part.keys() & {"const", "enum"}:
        return True
    types = part.get("type")
    return any(_ends_as(part, one, ended) for one in (types if isinstance(types, list) else [types]))


def _ends_as(part: Mapping[str, Any], kind: Any, ended: set[str]) -> bool:
    if kind == "object":
        return all(_ends(part.get("properties", {}).get(name), ended) for name in part.get("required", []))
    if kind == "array":
        first, fewest = part.get("prefixItems", []), part.get("minItems", 0)
        return all(_ends(one, ended) for one in first[:fewest]) and (fewest <= len(first) or _ends(part.get("items"), ended))
    return True


def _closed(schema: dict[str, Any]) -> dict[str, Any]:
    """The same schema where objects have no keys but those it names, unless it says otherwise: what satisfies this satisfies it too.

    Left as it is when it joins schemas, since then one part may name what the other does not.
    """
    if any(isinstance(part, dict) and _joins(part) for _, part in _parts(schema)):
        return schema
    copy: dict[str, Any] = json.loads(json.dumps(schema))
    for _, part in _parts(copy):
        if isinstance(part, dict) and _names_all(part):
            part["additionalProperties"] = False
    return copy


def _joins(part: Mapping[str, Any]) -> bool:
    if "allOf" in part or "oneOf" in part:
        return True
    beside = part.keys() & HELD - {"$ref", "anyOf", "$defs", "definitions"}
    return bool(part.keys() & {"$ref", "anyOf"} and beside) or {"$ref", "anyOf"} <= part.keys()


def _names_all(part: Mapping[str, Any]) -> bool:
    open_ended = part.keys() & {"additionalProperties", "patternProperties", "minProperties"}
    return "properties" in part and not open_ended and all(name in part["properties"] for name in part.get("required", []))


def first_words(error: str) -> str:
    """What a compiler says, without the grammar and the states behind it."""
    said = re.split(r"\n +\d+ \| |<state>|<backtrace>|<non-verbose|; consider", error)[0]
    return " ".join(re.sub(r"at \d+\(\d+\): |failed to compile JSON schema: ", "", said).split())[:300]
