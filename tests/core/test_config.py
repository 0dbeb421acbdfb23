"""Settings: all problems at once, strict types, YAML as written by people, overrides laid over defaults."""

from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field, ValidationError, model_validator

from llamaherd.core.config import Config, ConfigError, build, describe, dump, flat, load, merged, parse_overrides, read_yaml
from llamaherd.core.errors import UserError, did_you_mean


class Inner(Config):
    lr: float = Field(3e-4, gt=0)
    """Step size."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Two decays."""


class Middle(Config):
    inner: Inner = Inner(lr=0.5)
    """Nested twice."""
    rounds: int = 2
    """How often."""


class Source(Config):
    path: Path
    """A file."""
    weight: float = 1.0
    """Its share."""


class Outer(Config):
    steps: int = Field(10, ge=1)
    """How many."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Which."""
    inner: Inner = Inner()
    """Nested."""
    middle: Middle = Middle(inner=Inner(lr=0.25, betas=(0.1, 0.2)), rounds=5)
    """A default that differs from the defaults of its class."""
    sources: dict[str, Source] = Field(default_factory=dict)
    """Named parts."""
    extra: Inner | None = None
    """May be absent."""
    names: tuple[str, ...] = ()
    """Several."""
    stop: bool = False
    """Early."""

    @model_validator(mode="after")
    def _even(self) -> "Outer":
        if self.steps == 13:
            raise ValueError("given 13 steps, expected a luckier number")
        return self


def problems(values: dict[str, object], source: str = "") -> list[str]:
    with pytest.raises(ConfigError) as caught:
        build(Outer, values, source)
    return caught.value.problems


def yaml_file(folder: Path, text: str) -> Path:
    path = folder / "settings.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_every_problem_is_listed_at_once_with_its_dotted_name() -> None:
    found = problems(
        {
            "step": 3,
            "steps": 0,
            "schedule": "linear",
            "inner": {"lr": "fast", "beta": 1},
            "sources": {"web": {"wieght": 2}},
            "stop": 1,
        },
        "mine.yaml",
    )
    assert sorted(found) == [
        "mine.yaml: inner.beta: unknown setting (did you mean 'betas'?)",
        'mine.yaml: inner.lr: given "fast", expected a valid number',
        "mine.yaml: schedule: given \"linear\", expected 'cosine' or 'constant'",
        "mine.yaml: sources.web.path: is needed and was not given",
        "mine.yaml: sources.web.wieght: unknown setting (did you mean 'weight'?)",
        "mine.yaml: step: unknown setting (did you mean 'steps'?)",
        "mine.yaml: steps: given 0, expected greater than or equal to 1",
        "mine.yaml: stop: given 1, expected a valid boolean",
    ]


def test_the_message_counts_its_problems() -> None:
    with pytest.raises(ConfigError, match=r"^steps: "):
        build(Outer, {"steps": 0})
    with pytest.raises(ConfigError, match=r"^2 problems in the settings:\n"):
        build(Outer, {"steps": 0, "stop": 0})


@pytest.mark.parametrize("value", ["3", 3.5, True, None, [3]])
def test_an_integer_takes_nothing_but_an_integer(value: object) -> None:
    assert len(problems({"steps": value})) == 1


def test_a_number_takes_an_integer_but_not_text_or_truth() -> None:
    assert build(Outer, {"inner": {"lr": 1}}).inner.lr == 1.0
    assert len(problems({"inner": {"lr": "1"}})) == 1
    assert len(problems({"inner": {"lr": True}})) == 1


@pytest.mark.parametrize("text", [".nan", ".inf", "-.inf"])
def test_not_a_number_and_infinity_are_refused_by_name(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(Outer, yaml_file(tmp_path, f"inner: {{lr: {text}}}"))
    assert [problem.split(": ")[1:2] for problem in caught.value.problems] == [["inner.lr"]]
    assert text.replace(".", "") in caught.value.problems[0]


def test_a_problem_of_a_whole_group_is_told_without_python_words() -> None:
    assert problems({"steps": 13}) == ["settings: given 13 steps, expected a luckier number"]


def test_nested_dict_and_tuple_fields() -> None:
    values = {"sources": {"web": {"path": "a/b"}}, "extra": {"lr": 1}, "names": ["x", "y"], "inner": {"betas": [0, 1]}}
    config = build(Outer, values)
    assert config.sources["web"] == Source(path=Path("a/b"))
    assert config.extra == Inner(lr=1)
    assert config.names == ("x", "y")
    assert config.inner.betas == (0.0, 1.0)
    assert "inner.betas.1" in problems({"inner": {"betas": [0]}})[0]


def test_settings_are_frozen_and_survive_a_dump() -> None:
    config = build(Outer, {"sources": {"web": {"path": "a"}}, "names": ["x"]})
    with pytest.raises(ValidationError):
        config.steps = 3  # type: ignore[misc]
    assert build(Outer, dump(config)) == config


def test_partial_nested_settings_keep_the_rest_of_their_fields_default() -> None:
    assert build(Outer, {"middle": {"rounds": 1}}).middle == Middle(inner=Inner(lr=0.25, betas=(0.1, 0.2)), rounds=1)
    assert build(Outer, {"middle": {"inner": {"lr": 1}}}).middle == Middle(inner=Inner(lr=1, betas=(0.1, 0.2)), rounds=5)
    assert problems({"middle": {"inner": {"lrr": 1}}}) == ["middle.inner.lrr: unknown setting (did you mean 'lr'?)"]


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-4", 1e-4), ("1E4", 1e4), ("-2.5e+3", -2500.0), ("+.5", 0.5), ("1.", 1.0), ("1_000.5", 1000.5), ("7", 7),
     ("2026-01-02", "2026-01-02"), ("1_000", 1000), ("-0", 0), ("+7", 7), ("0x10", 16),
     ("1:30", "1:30"), ("010", "010"), ("0b11", "0b11"), ("-1:30:00", "-1:30:00"), ("1:30.5", "1:30.5"), ("e4", "e4"), ("1e", "1e"), ("true", True), ("null", None)],
)  # fmt: skip
def test_numbers_in_yaml_are_what_people_mean(tmp_path: Path, text: str, value: object) -> None:
    found = read_yaml(yaml_file(tmp_path, f"x: {text}"))["x"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 3\n", r"line 1: not valid YAML: key 'a' stands twice"),
        ("a:\n  b: 1\n  b: 2\n", r"line 2: not valid YAML: key 'b' stands twice"),
        ("a: 1\nb: [1, 2\nc: 3\n", r"line 3: not valid YAML"),
        ("- a\n- b\n", r"holds a list; expected a mapping"),
        ("word", r"holds a str; expected a mapping"),
        ("a: !!python/object:os.system x", r"line 1: not valid YAML"),
        ("? [1, 2]\n: x\n", r"line 1: not valid YAML"),
        (f"a: 1\nseed: {'9' * 5000}", r"line 2: not valid YAML: '9{40}' cannot be read as int$"),
        (f"seed: 0x{'9' * 5000}", r"not valid YAML: it cannot be written as JSON"),
        (f"a: {'[' * 3000}", r"not valid YAML: it is nested too deeply"),
        ("seed: &a [*a]", r"not valid YAML: it cannot be written as JSON \(Circular reference detected\)"),
        ("a: !!bool maybe", r"line 1: not valid YAML: 'maybe' cannot be read as bool"),
        ("a: !!timestamp soon", r"line 1: not valid YAML: 'soon' cannot be read as timestamp"),
        ("a: !!int x", r"line 1: not valid YAML: 'x' cannot be read as int"),
        ("? !!timestamp 2026-01-02\n: x", r"not valid YAML"),
        ("a: \x07", r"not valid YAML"),
    ],
    ids=range(16),
)
def test_bad_yaml_names_file_line_and_reason(tmp_path: Path, text: str, said: str) -> None:
    path = yaml_file(tmp_path, text)
    with pytest.raises(UserError, match=said) as caught:
        read_yaml(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", ["9" * 5000, "[" * 3000, "&a [*a]", "!!bool maybe", "1:30", "010"], ids=lambda value: value[:12])
def test_an_override_that_is_no_value_stays_text_and_is_refused_as_such(value: str) -> None:
    with pytest.raises(ConfigError, match=r"^steps: given .{1,90}, expected a valid integer$"):
        load(Outer, None, [f"--steps={value}"])


@pytest.mark.parametrize("depth", [60, 150, 250, 400, 900])
def test_any_depth_of_lists_is_refused_in_one_line(tmp_path: Path, depth: int) -> None:
    with pytest.raises(UserError, match=r"^[^\n]{1,500}$"):
        load(Outer, yaml_file(tmp_path, f"steps: {'[' * depth}{']' * depth}"))


def test_yaml_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_yaml(tmp_path / "absent.yaml")
    with pytest.raises(UserError, match="cannot be read"):
        read_yaml(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9")
    with pytest.raises(UserError, match="cannot be read"):
        read_yaml(tmp_path / "latin.yaml")
    assert read_yaml(yaml_file(tmp_path, "# nothing but this\n")) == {}


def test_overrides_in_both_forms() -> None:
    tokens = ["--a.b=1e-4", "--warm-up", "3", "--flag", "--offset", "-1", "--names=[x, y]", "--text", "a # b", "--empty="]
    assert parse_overrides(tokens) == {
        "a.b": 1e-4, "warm_up": 3, "flag": True, "offset": -1, "names": ["x", "y"], "text": "a # b", "empty": None,
    }  # fmt: skip


@pytest.mark.parametrize(("text", "value"), [("'5'", "5"), ('"a # b"', "a # b"), ("You are: [", "You are: ["), ("a 'b'", "a 'b'")])
def test_text_in_an_override_is_kept_whole(text: str, value: str) -> None:
    assert parse_overrides([f"--x={text}"]) == {"x": value}


@pytest.mark.parametrize("tokens", [["x"], ["-x", "1"], ["--"], ["--=1"], ["--a..b=1"], ["--a", "1", "2"]])
def test_what_is_no_override_is_refused(tokens: list[str]) -> None:
    with pytest.raises(UserError, match="settings are given as"):
        parse_overrides(tokens)


def test_overrides_lie_over_the_file(tmp_path: Path) -> None:
    path = yaml_file(tmp_path, "steps: 5\ninner: {lr: 0.1, betas: [0.5, 0.6]}\n")
    config = load(Outer, path, ["--inner.lr=1e-4", "--sources.web.path=x", "--stop"])
    assert (config.steps, config.inner, config.stop) == (5, Inner(lr=1e-4, betas=(0.5, 0.6)), True)
    assert config.sources["web"].path == Path("x")


def test_merging_changes_neither_side() -> None:
    base, over = {"a": {"b": 1}, "n": None}, {"a.c": 2, "n.x": 3}
    assert merged(base, over) == {"a": {"b": 1, "c": 2}, "n": {"x": 3}}
    assert (base, over) == ({"a": {"b": 1}, "n": None}, {"a.c": 2, "n.x": 3})


def test_an_override_below_a_plain_value_is_refused() -> None:
    base = {"pretrain": {"model": "tiny", "sizes": [1]}, "seed": 0}
    with pytest.raises(ConfigError) as caught:
        merged(base, {"pretrain.model.dim": 64, "pretrain.sizes.0": 2, "seed.a.b": 1, "pretrain.steps": 3})
    assert caught.value.problems == [
        'pretrain.model.dim: pretrain.model is "tiny", which has no settings of its own; give the whole of pretrain.model as a mapping',
        "pretrain.sizes.0: pretrain.sizes is [1], which has no settings of its own; give the whole of pretrain.sizes as a mapping",
        "seed.a.b: seed is 0, which has no settings of its own; give the whole of seed as a mapping",
    ]
    assert merged(base, {"pretrain.model": {"dim": 64}})["pretrain"]["model"] == {"dim": 64}


def test_description_names_type_default_and_meaning() -> None:
    rows = {name: (default, meaning) for name, default, meaning in describe(Outer)}
    assert rows["--steps=int"] == ("10", "How many.")
    assert rows["--schedule=cosine|constant"] == ('"cosine"', "Which.")
    assert rows["--inner.lr=float"] == ("0.0003", "Step size.")
    assert rows["--middle.inner.lr=float"] == ("0.25", "Step size.")
    assert rows["--middle.rounds=int"] == ("5", "How often.")
    assert rows["--names=list of str"] == ("[]", "Several.")
    assert rows["--extra=null"] == ("null", "May be absent.")
    assert rows["--extra.lr=float"] == ("0.0003", "Step size.")
    assert {name: default for name, default, _ in describe(Source)}["--path=Path"] == "needed"


def test_suggestions_are_made_for_near_names_only() -> None:
    assert did_you_mean("stpes", ["steps", "lr"]) == " (did you mean 'steps'?)"
    assert did_you_mean("temperature", ["steps", "lr"]) == ""


def test_merging_leaves_nested_overrides_as_they_are() -> None:
    base, over = {"a": {"b": 1}}, {"c": {"d": 1}, "c.d": 2, "a.b": 3}
    assert merged(base, over) == {"a": {"b": 3}, "c": {"d": 2}}
    assert (base, over) == ({"a": {"b": 1}}, {"c": {"d": 1}, "c.d": 2, "a.b": 3})


def test_nested_settings_by_dotted_names() -> None:
    nested = {"a": {"b": {"c": 1}, "d": None}, "e": [{"f": 2}], "g": {}}
    assert flat(nested) == {"a.b.c": 1, "a.d": None, "e": [{"f": 2}], "g": {}}
    assert merged({}, flat(nested)) == nested
