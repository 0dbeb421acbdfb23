"""Settings: YAML, then dotted overrides, into frozen typed models; every problem is listed at once.

    SftConfig <- sft.yaml <- --optimizer.lr=1e-4 --batch 32

A config class stands beside the code that uses it, and importing it never imports torch.
"""

import ast
import inspect
import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from .errors import UserError, did_you_mean

C = TypeVar("C", bound="Config")


class Config(BaseModel):
    """Base of all settings: frozen, typed, unknown keys refused, no NaN or infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)
    renamed: ClassVar[Mapping[str, str]] = {}
    """What a setting is called here, by the names it had in earlier versions or has in other projects."""


class ConfigError(UserError):
    """All problems of one set of settings, one per line in `problems`."""

    def __init__(self, problems: Sequence[str]):
        self.problems = list(problems)
        listed = "".join(f"\n  {problem}" for problem in self.problems)
        super().__init__(self.problems[0] if len(self.problems) == 1 else f"{len(self.problems)} problems in the settings:{listed}")


class _Loader(yaml.SafeLoader):
    """Numbers as in YAML 1.2, decimal or `0x10`: `1e-4` is a float, `1:30` and `010` are text; no duplicate keys."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, KeyError, AttributeError):  # what PyYAML lets through: thousands of digits, `!!bool maybe`
            kind = node.tag.rpartition(":")[2]
            raise yaml.constructor.ConstructorError(
                None, None, f"{str(node.value)[:40]!r} cannot be read as {kind}", node.start_mark
            ) from None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"key {twice[0]!r} stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag.rpartition(":")[2] not in ("int", "float", "timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(?:\d[\d_]*\.\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?|\d[\d_]*[eE][-+]?\d+|\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    list("-+0123456789."),
)
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F]+)$"), list("-+0123456789"))


def _parsed(text: str) -> Any:
    """What YAML makes of a text. Raises yaml.YAMLError, also for values that settings cannot hold, such as `&a [*a]`."""
    try:
        value = yaml.load(text, Loader=_Loader)
        json.dumps(value, default=str)  # settings are JSON later, and circles are found here
    except RecursionError:
        raise yaml.YAMLError("it is nested too deeply") from None
    except (ValueError, TypeError) as error:
        raise yaml.YAMLError(f"it cannot be written as JSON ({error})") from None
    return value


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file (empty file: no settings). Raises UserError with file, line and reason."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; --config takes a YAML file of settings") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a YAML file of settings: {error}") from None
    try:
        value = _parsed(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        reason = " ".join(str(getattr(error, "problem", None) or error).split())
        raise UserError(f"{path}{where}: not valid YAML: {reason}") from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise UserError(f"{path}: holds a {type(value).__name__}; expected a mapping of settings such as `seed: 0`")
    return value


def parse_overrides(tokens: Sequence[str]) -> dict[str, Any]:
    """`["--a.b=1e-4", "--c", "x", "--flag"]` -> `{"a.b": 1e-4, "c": "x", "flag": True}`. Raises UserError."""
    found: dict[str, Any] = {}
    rest = list(tokens)
    while rest:
        token = rest.pop(0)
        if not token.startswith("--") or token == "--":
            raise UserError(f"{token!r} is not understood here; settings are given as --name=value or --a.b=value")
        key, equals, value = token[2:].partition("=")
        if not equals:
            value = rest.pop(0) if rest and not rest[0].startswith("--") else "true"
        key = key.replace("-", "_")
        if not all(key.split(".")):
            raise UserError(f"{token!r}: the name before '=' is incomplete; settings are given as --a.b=value")
        if key in found:
            raise UserError(f"--{key} is given twice; a setting that takes several values is given as --{key}=[a,b]")
        found[key] = _value(value)
    return found


def _value(text: str) -> Any:
    """YAML's reading of one value; text that stands without quotes stays as it is, whatever `#` or spaces it holds."""
    try:
        value = _parsed(text)
    except yaml.YAMLError:
        return text
    return text if isinstance(value, str) and text[:1] not in ("'", '"') else value


def merged(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with dotted overrides laid over it; neither is changed. Raises ConfigError for an override below a plain value."""
    result: dict[str, Any] = json.loads(json.dumps(base, default=str))
    problems = []
    for dotted, value in overrides.items():
        *parents, last = dotted.split(".")
        place = result
        for depth, parent in enumerate(parents, 1):
            if place.get(parent) is None:
                place[parent] = {}
            place = place[parent]
            if not isinstance(place, dict):  # a preset's name, say, whose other settings would be lost without a word
                above = ".".join(parents[:depth])
                problems.append(
                    f"{dotted}: {above} is {_shown(place)}, which has no settings of its own; give the whole of {above} as a mapping"
                )
                break
        else:
            place[last] = deepcopy(value)
    if problems:
        raise ConfigError(problems)
    return result


def flat(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Nested settings as one mapping of dotted names, which is what `merged` lays over others."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= flat(value, f"{above}{name}.") if isinstance(value, Mapping) and value else {above + name: value}
    return found


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _config_class(annotation: Any) -> type[Config] | None:
    """The Config inside an annotation such as `X`, `X | None`, `dict[str, X]`, `tuple[X, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, Config):
        return annotation
    return next((found for part in get_args(annotation) if (found := _config_class(part))), None)


def _hint(cls: type[Config], location: Sequence[int | str]) -> str:
    """What to give in place of an unknown name at this place."""
    current: type[Config] | None = cls
    for part in location[:-1]:
        if current is not None and part in current.model_fields:
            current = _config_class(current.model_fields[str(part)].annotation)
    name = str(location[-1])
    if current is None:
        return ""
    return f"; it is called {current.renamed[name]} here" if name in current.renamed else did_you_mean(name, current.model_fields)


def _sentence(cls: type[Config], error: Mapping[str, Any], texts: Mapping[str, str]) -> str:
    location = [part for part in error["loc"] if part != "[key]"]
    name = ".".join(map(str, location)) or "settings"
    if error["type"] == "extra_forbidden":
        return f"{name}: unknown setting{_hint(cls, error['loc'])}"
    if error["type"] == "missing":
        return f"{name}: is needed and was not given"
    reason = error["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    reason = reason.removeprefix("Input should be ")
    given = error.get("input")
    if error["type"] in ("value_error", "assertion_error"):
        return f"{name}: {reason}"
    return f"{name}: given {texts.get(name, _shown(given))}, expected {reason}"


def _default(field: FieldInfo) -> Any:
    return None if field.is_required() else field.get_default(call_default_factory=True)


def _over_defaults(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Lays partial nested settings over the default of their field, which may differ from their class's own defaults."""
    result = dict(given)
    for name, default in defaults.items():
        if isinstance(default, Config) and isinstance(values := given.get(name), Mapping):
            result[name] = dump(default) | _over_defaults(values, dict(default))
    return result


def build(cls: type[C], values: Mapping[str, Any], source: str = "") -> C:
    """Checks plain values against `cls`. Raises ConfigError that lists every problem, each with its dotted name."""

    def plain(value: Any, name: str, texts: dict[str, str]) -> Any:
        if isinstance(value, Mapping):
            return {str(key): plain(item, f"{name}.{key}" if name else str(key), texts) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(item, f"{name}.{index}", texts) for index, item in enumerate(value)]
        if isinstance(value, float) and not math.isfinite(value):
            texts[name] = str(value)  # JSON has no NaN: keep the name for the message
            return str(value)
        if isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value):
            raise ConfigError([f"{name}: is not valid Unicode text; give it as UTF-8"])
        return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)

    texts: dict[str, str] = {}
    values = _over_defaults(values, {name: _default(field) for name, field in cls.model_fields.items()})
    try:
        # JSON mode is strict about types (no true for 1, no "3" for 3) yet takes lists and paths.
        return cls.model_validate_json(json.dumps(plain(values, "", texts)), strict=True)
    except ValidationError as error:
        prefix = f"{source}: " if source else ""
        raise ConfigError([prefix + _sentence(cls, item, texts) for item in error.errors()]) from None


def load(cls: type[C], file: Path | None = None, overrides: Sequence[str] = ()) -> C:
    """Settings from a YAML file, then `--a.b=c` tokens. Raises UserError."""
    return build(cls, merged(read_yaml(file) if file else {}, parse_overrides(overrides)), str(file) if file else "")


def dump(config: Config) -> dict[str, Any]:
    """Plain JSON values of a config, as written into manifests."""
    return config.model_dump(mode="json")


def _type_name(annotation: Any) -> str:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _type_name(get_args(annotation)[0])
    if origin is Literal:
        return "|".join(map(str, get_args(annotation)))
    if origin is not None and (origin is Union or origin.__name__ == "UnionType"):
        return "|".join(_type_name(part) for part in get_args(annotation))
    if annotation is type(None):
        return "null"
    if origin in (tuple, list):
        return f"list of {_type_name(get_args(annotation)[0])}"
    return getattr(annotation, "__name__", str(annotation))


def describe(cls: type[Config], prefix: str = "", defaults: Config | None = None) -> list[tuple[str, str, str]]:
    """(`--a.b=TYPE`, default, meaning) for every setting, nested ones with dotted names, for `--help`.

    `defaults`: an instance whose values are shown in place of those of the class.
    """
    rows: list[tuple[str, str, str]] = []
    meanings = _meanings(cls)
    for name, field in cls.model_fields.items():
        default = getattr(defaults, name) if defaults else _default(field)
        if isinstance(field.annotation, type) and issubclass(field.annotation, Config):
            rows += describe(field.annotation, f"{prefix}{name}.", default)
            continue
        optional = next((part for part in get_args(field.annotation) if isinstance(part, type) and issubclass(part, Config)), None)
        if optional and type(None) in get_args(field.annotation):
            rows.append((f"--{prefix}{name}=null", json.dumps(default, default=_plain_default), meanings.get(name, "")))
            rows += describe(optional, f"{prefix}{name}.", default)
            continue
        text = "needed" if field.is_required() and not defaults else json.dumps(default, default=_plain_default)
        rows.append((f"--{prefix}{name}={_type_name(field.annotation)}", text, meanings.get(name, "")))
    return rows


def _meanings(cls: type[Config]) -> dict[str, str]:
    """The text under each setting, its own or that of the class that it comes from."""
    found: dict[str, str] = {}
    for one in reversed(cls.__mro__):
        if issubclass(one, Config):
            found |= _texts_in(one.__module__).get(one.__qualname__, {})
    return found


@cache
def _texts_in(module: str) -> dict[str, dict[str, str]]:
    """By class, the text under each setting of a module. Pydantic would read every class's source whenever it is imported, which took
    half of the time that a command needs to start; so it is read when somebody asks for help.
    """
    found: dict[str, dict[str, str]] = {}
    for node in ast.parse(inspect.getsource(sys.modules[module])).body:
        if isinstance(node, ast.ClassDef):
            found[node.name] = {
                setting.target.id: inspect.cleandoc(text.value.value)
                for setting, text in pairwise(node.body)
                if isinstance(setting, ast.AnnAssign) and isinstance(setting.target, ast.Name)
                and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) and isinstance(text.value.value, str)
            }  # fmt: skip
    return found


def _plain_default(value: Any) -> Any:
    return dump(value) if isinstance(value, Config) else str(value)
