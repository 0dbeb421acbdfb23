"""The recipe on real text: what its steps read, and what is refused before the first of them."""

import re
from pathlib import Path
from typing import Any

import pytest

from llamaherd.core.config import ConfigError, dump
from llamaherd.core.errors import UserError
from llamaherd.core.files import write_json
from llamaherd.recipe.chain import chain, sample_prompts
from llamaherd.recipe.checks import problems
from llamaherd.recipe.claims.run import run_claims
from llamaherd.recipe.config import MiniatureRecipe, PublicRecipe, load_recipe, recipe_of
from llamaherd.recipe.forecast import work
from llamaherd.recipe.public import FILES
from llamaherd.recipe.run import begun, run_recipe
from llamaherd.recipe.schedule import needs
from llamaherd.recipe.steps import Step

RUN = Path("runs/x")
NAMES = ("real-small", "real-smoke", "real-gpu")


def made(*overrides: str, name: str = "real-smoke") -> dict[str, Step]:
    return {step.name: step for step in chain(load_recipe(name, overrides), RUN)}


def inputs(step: Step) -> set[str]:
    return set(needs(step, RUN))


def silent(line: str) -> None:
    raise AssertionError(f"nothing was to be said: {line}")


@pytest.mark.parametrize("versions", [1, 2, 4])
@pytest.mark.parametrize("ghost_after", [1, 3])
def test_every_step_reads_earlier_steps_only(versions: int, ghost_after: int) -> None:
    recipe, seen = load_recipe("real-small", [f"--versions={versions}", f"--ghost_after={ghost_after}"]), set[str]()
    for step in chain(recipe, RUN):
        assert inputs(step) <= seen, step.name
        assert step.name not in seen
        assert work(step, recipe) > 0
        seen.add(step.name)
    assert {f"v{n}" for n in range(versions + 1)} <= seen
    assert ("ghost" in seen) == ("distilled" in seen) == (ghost_after < versions)


def test_the_steps_of_two_versions() -> None:
    """Every artifact that the recipe promises, and what each of them is made of."""
    expected: dict[str, set[str]] = {
        "texts": set(), "comparisons": set(), "prompts": {"texts", "comparisons"}, "corpus": {"texts"}, "tokenizer": {"corpus", "texts"},
        "shards": {"corpus", "tokenizer"}, "base": {"shards"}, "v0": {"base", "texts"}, "judge": {"v0", "comparisons"},
        "v1-helpfulness": {"v0", "comparisons"}, "v1-safety": {"v0", "comparisons"},
        "v1-samples": {"v0", "v1-helpfulness", "v1-safety", "prompts", "judge"},
        "v1-best-of": {"v0", "v1-helpfulness", "v1-safety", "prompts", "judge"}, "v1": {"v0", "texts", "v1-samples"},
        "ghost": {"v1", "prompts"}, "distilled": {"v1", "v1-safety", "prompts", "judge"},
        "v2-samples": {"v1", "v1-samples", "v1-helpfulness", "v1-safety", "prompts", "judge"},
        "v2-best-of": {"v1", "v1-helpfulness", "v1-safety", "prompts", "judge"},
        "v2-rejection": {"v0", "texts", "v2-samples", "ghost", "distilled"},
        "v2": {"v2-rejection", "v1-helpfulness", "v1-safety", "prompts", "judge"},
        **{f"{name}-evaluation": {name, "prompts", "judge"} for name in ("v0", "v1", "v2-rejection", "v2")},
        **{
            f"{name}-rewards": {name, f"{name}-evaluation", "v1-helpfulness", "v1-safety", "prompts", "judge"}
            for name in ("v0", "v1", "v2-rejection", "v2")
        },
        **{f"{name}-wins": {name, "v0", "judge", "prompts"} for name in ("v1", "v2-rejection", "v2")},
        **{f"{name}-benchmarks": {name, "texts"} for name in ("base", "v0", "v2")},
    }  # fmt: skip
    assert {name: inputs(step) for name, step in made().items()} == expected


def test_nothing_of_the_tests_or_of_the_judge_is_trained_on() -> None:
    steps = made()
    for name, step in steps.items():
        config: Any = step.config
        if step.stage in ("sft", "reward", "reject", "ppo", "ghost", "distill"):
            read = [*getattr(config, "data", ()), *(getattr(config, "prompts", None) or ()), *getattr(config, "scripts", ())]
            assert not [path for path in read if "test" in path.name or path.parent.name == "test"], name
            assert (RUN / "comparisons" / "judge.jsonl" in read) == (name == "judge")
    tested: Any = steps["v1-safety"].config
    assert [path.name for path in tested.test] == ["helpfulness-test.jsonl", "safety-test.jsonl"]
    assert [path.name for path in tested.data] == ["helpfulness.jsonl", "safety.jsonl"]


def test_all_versions_are_asked_and_judged_alike() -> None:
    steps = made()
    for kind in ("evaluation", "rewards"):
        settings = [steps[f"{version}-{kind}"].config.model_dump() for version in ("v0", "v1", "v2-rejection", "v2")]
        assert len({str({**values, "model": None, "answers": None, "tasks": None}) for values in settings}) == 1
        assert all("people" not in values["tasks"] for values in settings), "people whom only a world's documents name"
    assert [name for name, step in steps.items() if "ghost" in getattr(step.config, "tasks", ())] == [
        "v1-evaluation", "v2-rejection-evaluation", "v2-evaluation",
    ]  # fmt: skip


def test_pretraining_is_what_takes_longest() -> None:
    recipe = load_recipe("real-small")
    costs = {step.name: work(step, recipe) for step in chain(recipe, RUN)}
    assert max(costs, key=lambda name: costs[name]) == "base"
    assert 1000 < sum(costs.values()) < 4 * 3600


def test_folders_of_ones_own_stand_in_for_what_is_taken(tmp_path: Path) -> None:
    """With all three of them no public file is read, unless a benchmark asks for one."""
    overrides = [f"--own.{name}={tmp_path / name}" for name in FILES]
    recipe = load_recipe("real-smoke", [*overrides, "--benchmark.tasks=bits-per-byte"])
    assert [problem.split(":")[0] for problem in problems(recipe)] == ["own.texts", "own.comparisons", "own.prompts"]
    for name, files in FILES.items():
        for file in files:
            (tmp_path / name / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / file).touch()
    assert problems(recipe) == []
    (tmp_path / "prompts" / "ghost.jsonl").unlink()
    [problem] = problems(recipe)
    assert problem == f"own.prompts: {tmp_path / 'prompts'} lacks ghost.jsonl; docs/real-small.md says what each holds"
    steps = {step.name: step for step in chain(recipe, RUN)}
    assert not steps.keys() & {"texts", "comparisons", "prompts"}
    assert inputs(steps["corpus"]) == set()
    corpus: Any = steps["corpus"].config
    assert corpus.documents == (tmp_path / "texts" / "documents.jsonl",)
    assert sample_prompts(recipe, RUN).is_relative_to(tmp_path / "prompts")


@pytest.mark.parametrize("name", NAMES)
def test_packaged_recipes_work_together(name: str, data: Path) -> None:
    assert data.is_dir()
    assert problems(load_recipe(name)) == []


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["--shards.weights.wiki=2"], "shards.weights: no source wiki; those that are read are wikitext, tinystories, c4"),
        (["--tune.row_tokens=2000"], "tune.row_tokens: given 2000, expected at most the model's context, 512"),
        (["--reject.max_new_tokens=512"], "reject.max_new_tokens: given 512, which leaves no room"),
        (["--evaluate.ghost_turns=[1,90]"], "evaluate.ghost_turns: 90 turns never fit"),
        (["--tokenizer.vocab_size=2048"], "pretrain: model.vocab_size is 1024 and the tokenizer has 2048 pieces"),
        (["--corpus.filters.block_list=hosts.txt"], "corpus.filters.block_list: hosts.txt is no file"),
    ],
)
def test_what_stages_ask_of_each_other(overrides: list[str], expected: str, data: Path) -> None:
    assert data.is_dir()
    [problem] = problems(load_recipe("real-smoke", overrides))
    assert problem.startswith(expected)


def test_public_files_that_are_absent_are_named_with_whence_they_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is written, and all at once."""
    monkeypatch.delenv("LLAMAHERD_DATA", raising=False)
    out = tmp_path / "out"
    with pytest.raises(ConfigError, match=r"^no folder of public data: set LLAMAHERD_DATA .*docs/real-small\.md"):
        run_recipe(load_recipe("real-small"), out, silent)
    with pytest.raises(ConfigError, match=r"nowhere: no such folder of public data"):
        run_recipe(load_recipe("real-small", [f"--data={tmp_path / 'nowhere'}"]), out, silent)
    with pytest.raises(ConfigError) as caught:
        run_recipe(load_recipe("real-small", [f"--data={tmp_path}"]), out, silent)
    for problem in caught.value.problems:
        assert re.match(rf"{tmp_path}: \d+ public files are absent; get them as docs/real-small\.md says", problem)
        assert len(problem.splitlines()) == 1 + int(problem.split()[1])
    lines = [line for problem in caught.value.problems for line in problem.splitlines()[1:]]
    for file in ("pretrain/c4_demo.jsonl.gz", "preference/hh_rlhf_helpful_base_test.jsonl.gz", "benchmarks/llm_foundry/piqa.jsonl.gz"):
        assert any(re.match(rf"  {re.escape(file)}: from github\.com/\S+, \S+", line) for line in lines), file
    assert not out.exists()


def test_the_kind_is_told_by_a_key() -> None:
    assert isinstance(recipe_of({}), MiniatureRecipe)
    assert isinstance(recipe_of({"kind": "miniature"}), MiniatureRecipe)
    assert isinstance(recipe_of({"kind": "public"}), PublicRecipe)
    for wrong in ("pubic", 3, ["public"]):
        with pytest.raises(UserError, match=r"^kind: given .*, expected miniature or public"):
            recipe_of({"kind": wrong})
    with pytest.raises(ConfigError, match="world: unknown setting"):
        recipe_of({"kind": "public", "world": {"documents": 3}})


def test_a_recipe_that_was_written_is_read_again(tmp_path: Path) -> None:
    recipe = load_recipe("real-small", ["--seed=3"])
    write_json(tmp_path / "recipe.json", dump(recipe))
    assert load_recipe(str(tmp_path / "recipe.json")) == recipe
    assert begun(recipe, tmp_path, frozenset())
    with pytest.raises(UserError, match=r"with other settings.*\n  versions: was 2, is now 3$"):
        begun(recipe.model_copy(update={"versions": 3}), tmp_path, frozenset())
    with pytest.raises(UserError, match=r'\n  kind: was "public", is now null'):
        begun(load_recipe("tiny"), tmp_path, frozenset())


def test_claims_need_the_oracle(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="claims are held against a recipe of the miniature, whose oracle knows what is true") as refused:
        run_claims(load_recipe("real-small"), [0], tmp_path / "out", silent)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out").exists()
