"""Forms that answers keep to: `response_format`, `tools` and what goes with them, from the body to the constraint and back."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from ...generate.constraint import Constraint
from ..config import GrammarConfig
from ..errors import ApiError
from ..grammar import Grammars, json_grammar
from ..schema import check_schema
from ..tools import OPENING, Call, Reader, Tool, Wanted, calls_grammar, one_line, told
from .fields import MOST_ITEMS

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
ANY_OBJECT = {"type": "object"}


class Part(BaseModel):
    """A part of a body. Null equals absent here too."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, raw: Any) -> Any:
        return {key: value for key, value in raw.items() if value is not None} if isinstance(raw, dict) else raw


class Function(Part):
    """A function that the client has."""

    name: str
    """Letters, digits, `_` and `-`, at most 64."""
    description: str = ""
    """For the model to read."""
    parameters: dict[str, Any] = {}
    """The JSON schema of its arguments."""
    strict: bool = False
    """The schema is kept to in any case."""


class FunctionTool(Part):
    type: Literal["function"]
    function: Function


class FunctionName(Part):
    name: str


class FunctionChoice(Part):
    """This one, and no text."""

    type: Literal["function"]
    function: FunctionName


class JsonSchema(Part):
    name: str
    description: str = ""
    schema_: dict[str, Any] | bool = Field(alias="schema")
    strict: bool = False
    """The schema is kept to in any case."""


class TextFormat(Part):
    type: Literal["text"]


class JsonFormat(Part):
    type: Literal["json_object"]


class SchemaFormat(Part):
    type: Literal["json_schema"]
    json_schema: JsonSchema


class CalledFunction(Part):
    name: str
    arguments: str
    """JSON text."""
    parsed_arguments: JsonValue = None
    """Passed over: OpenAI's client keeps beside a call what it read of it, and sends that back."""


class ToolCall(Part):
    """A call that an assistant made earlier."""

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction
    index: int | None = None
    """Passed over: whoever put a call together from a stream may send its place back."""

    def read(self, where: str) -> Call:
        """Raises ApiError when it is none that a model here can have made."""
        if not NAME.fullmatch(self.function.name):
            raise ApiError(400, f"{where}: {_name_rule(self.function.name)}", "messages")
        try:
            json.loads(self.function.arguments)
        except (ValueError, RecursionError):
            raise ApiError(400, f"{where}: the arguments of the call {self.id!r:.80} are no JSON text", "messages") from None
        return Call(self.id, self.function.name, one_line(self.function.arguments))


class Formed(BaseModel):
    """The fields of a chat request that say which form its answer has."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)

    response_format: Annotated[TextFormat | JsonFormat | SchemaFormat, Field(discriminator="type")] | None = None
    """`json_object`: JSON, an object. `json_schema`: JSON of this schema. The model is told nothing of it, so say it in a message."""
    tools: Annotated[list[FunctionTool], Field(fail_fast=True, max_length=MOST_ITEMS)] = []
    """Functions that the model may ask the client to call."""
    tool_choice: Literal["none", "auto", "required"] | FunctionChoice = "auto"
    """Whether it may call (`auto`), must not, must, or must call this one."""
    parallel_tool_calls: bool = True
    """Whether an answer may hold several calls."""


@dataclass(frozen=True)
class Form:
    """What was asked of an answer's form: calls of tools, JSON of a schema, either, or nothing."""

    wanted: Wanted | None = None
    schema: dict[str, Any] | None = None
    where: str = ""
    """The field that asked for it."""

    async def constraints(self, grammars: Grammars, count: int) -> Sequence[Constraint | None]:
        """For each of `count` answers. Raises ApiError."""
        if self.wanted and self.wanted.least == 0 and self.schema is None:
            return await grammars.unless(calls_grammar(self.wanted), OPENING, count, self.where)
        if self.wanted:
            text = self.schema if self.wanted.least == 0 else None
            return await grammars.matching(calls_grammar(self.wanted, text), count, self.where)
        if self.schema is not None:
            return await grammars.matching(json_grammar(self.schema), count, self.where)
        return [None] * count

    def reader(self) -> Reader:
        """For one answer."""
        return Reader(self.wanted.names if self.wanted else [])


def form_of(body: Formed, limits: GrammarConfig) -> Form:
    """Takes as long as looking through schemas does, so in a thread. Raises ApiError for what cannot be kept to."""
    schema = _schema(body, limits)
    wanted = _wanted(body, limits)
    where = "response_format" if wanted is None else "tools" if schema is None else "tools, response_format"
    return Form(wanted, schema, where if wanted or schema is not None else "")


def _schema(body: Formed, limits: GrammarConfig) -> dict[str, Any] | None:
    asked = body.response_format
    if isinstance(asked, SchemaFormat):
        if not NAME.fullmatch(asked.json_schema.name):
            raise ApiError(400, f"response_format.json_schema.name: {_name_rule(asked.json_schema.name)}", "response_format")
        return check_schema(asked.json_schema.schema_, limits, "response_format.json_schema.schema")
    return ANY_OBJECT if isinstance(asked, JsonFormat) else None


def _wanted(body: Formed, limits: GrammarConfig) -> Wanted | None:
    choice = body.tool_choice
    if not body.tools:
        if choice not in ("auto", "none"):
            raise ApiError(400, "tool_choice asks for a call, and there are no tools", "tool_choice")
        return None
    if len(body.tools) > limits.tools:
        raise ApiError(400, f"tools holds {len(body.tools)}, and this server takes at most {limits.tools}", "tools")
    tools = [_tool(one.function, f"tools[{index}].function", limits) for index, one in enumerate(body.tools)]
    names = [tool.name for tool in tools]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ApiError(400, f"tools: {', '.join(sorted(twice))} is there more than once", "tools")
    size = len(told(Wanted(tools, 0, 1)).encode("utf-8", "surrogatepass"))
    if size > limits.tools_bytes:
        raise ApiError(400, f"tools take {size} bytes as the model reads them, and at most {limits.tools_bytes} are taken", "tools")
    if choice == "none":
        return None
    most = limits.calls if body.parallel_tool_calls else 1
    if not isinstance(choice, FunctionChoice):
        return Wanted(tools, int(choice == "required"), most)
    if choice.function.name not in names:
        there = ", ".join(names)
        raise ApiError(400, f"tool_choice names {choice.function.name!r:.80}, and the tools are {there:.400}", "tool_choice")
    return Wanted([tools[names.index(choice.function.name)]], 1, 1)


def _tool(function: Function, where: str, limits: GrammarConfig) -> Tool:
    if not NAME.fullmatch(function.name):
        raise ApiError(400, f"{where}.name: {_name_rule(function.name)}", "tools")
    raw = function.parameters or {"type": "object", "properties": {}}
    schema = check_schema(raw, limits, f"{where}.parameters")
    if schema.get("type", "object") != "object":
        raise ApiError(400, f'{where}.parameters: arguments are an object; expected "type": "object"', "tools")
    if "$ref" not in schema:
        schema = {"type": "object", **schema}
    return Tool(function.name, function.description, schema, json.dumps(raw, ensure_ascii=False, separators=(",", ":")))


def _name_rule(name: str) -> str:
    return f"{name!r:.80} is no name; expected at most 64 of the letters a-z and A-Z, digits, _ and -"
