"""Recipes: names, files, overrides, and what cannot work together."""

import pytest

from llamaherd.core.config import ConfigError
from llamaherd.core.errors import UserError
from llamaherd.recipe.checks import problems
from llamaherd.recipe.config import load_recipe, packaged


@pytest.fixture
def recipe_file(tmp_path):
    def write(text: str) -> str:
        (tmp_path / "other.yaml").write_text(text, "utf-8")
        return str(tmp_path / "other.yaml")

    return write


@pytest.mark.parametrize("name", ["miniature", "tiny"])
def test_packaged_recipes_work_together(name):
    assert name in packaged()
    assert problems(load_recipe(name)) == []


def test_a_typo_lists_the_names():
    with pytest.raises(
        UserError, match=r"tyny: no recipe of that name \(did you mean 'tiny'\?\) and no such file; there are .*miniature.*tiny"
    ):
        load_recipe("tyny")


def test_a_file_with_overrides(recipe_file):
    file = recipe_file("seed: 4\nsft: {epochs: 3}\n")
    recipe = load_recipe(file, ["--sft.optimizer.lr=1e-4", "--seed", "5"])
    assert (recipe.seed, recipe.sft.epochs, recipe.sft.optimizer.lr) == (5, 3.0, 1e-4)


def test_anchors_and_merge_keys(recipe_file):
    recipe = load_recipe(recipe_file(
        "early: &a {epochs: 0.5, optimizer: &o {lr: 1e-3, clip: 2}}\n"
        "sft: &b {<<: *a, epochs: 4}\n"
        "tune: {<<: *b, optimizer: {<<: *o, lr: 2e-3}}\n"
    ))  # fmt: skip
    assert (recipe.early.epochs, recipe.sft.epochs, recipe.tune.epochs) == (0.5, 4, 4)
    assert (recipe.sft.optimizer.lr, recipe.tune.optimizer.lr, recipe.tune.optimizer.clip) == (1e-3, 2e-3, 2)


def test_all_wrong_settings_are_listed_at_once(recipe_file):
    file = recipe_file("sft: {epochs: two, batchrows: 3}\npretrain: {optimizer: {lrr: 1}}\n")
    overrides = ["--reject.k=0", "--foo=1", "--ppo.ppo.batch=10", "--ppo.ppo.mini_batch=4", "--world.ghost_turns=[5,2]", "--ghost_after=0"]
    with pytest.raises(ConfigError) as caught:
        load_recipe(file, [*overrides, "--collect.temperatures=[-1,1]"])
    expected = {
        'sft.epochs: given "two", expected a valid number',
        "sft.batchrows: unknown setting (did you mean 'batch_rows'?)",
        "pretrain.optimizer.lrr: unknown setting (did you mean 'lr'?)",
        "reject.k: given 0, expected greater than or equal to 1",
        "foo: unknown setting",
        "ppo.ppo: batch 10 is not a multiple of mini_batch 4",
        "world.ghost_turns: given [5, 2], expected the least and the most turns, such as [3, 12]",
        "ghost_after: given 0, expected greater than or equal to 1",
        "collect.temperatures.0: given -1, expected greater than or equal to 0",
    }
    assert set(caught.value.problems) == expected


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["--pretrain.row_tokens=600"], "pretrain: row_tokens is 600 and the model's context 512"),
        (["--pretrain.model={vocab_size: 300}"], "pretrain: model.vocab_size is 300 and the tokenizer has"),
        (["--early.row_tokens=513"], "early.row_tokens: given 513, expected at most the model's context, 512"),
        (["--tune.row_tokens=2000"], "tune.row_tokens: given 2000"),
        (["--ppo.ppo.max_new_tokens=512"], "ppo.ppo.max_new_tokens: given 512, which leaves no room for a prompt"),
        (["--evaluate.sampling.max_new_tokens=512"], "evaluate.sampling.max_new_tokens: given 512"),
        (["--evaluate.ghost_sampling.max_new_tokens=512"], "evaluate.ghost_sampling.max_new_tokens: given 512"),
        (["--evaluate.ghost_turns=[1,90]"], "evaluate.ghost_turns: 90 turns never fit"),
        (["--world.ghost_turns=[90,91]"], "world.ghost_turns: 90 turns never fit"),
        (["--shards.weights.wiki=2"], "shards.weights: no source wiki; the miniature's are encyclopedia"),
        (["--corpus.filters.block_list=mine.txt"], "corpus.filters.block_list: a recipe's is the miniature's own"),
        (["--claims.temperatures.prompts=9999"], "claims.temperatures: 9999 different test prompts asked for"),
        (["--claims.temperatures.max_new_tokens=512"], "claims.temperatures.max_new_tokens: given 512, which leaves no room"),
        (["--evaluate.borderline_prompts=9999"], "evaluate, borderline: 9999 different test prompts asked for"),
        (["--world.world.people=4", "--world.world.unasked_people=1", "--evaluate.people_prompts=999"], "evaluate, people: 999 different"),
    ],
)
def test_what_stages_ask_of_each_other(overrides, expected):
    (problem,) = problems(load_recipe("tiny", overrides))
    assert problem.startswith(expected)


def test_problems_of_several_stages_come_together():
    found = problems(load_recipe("tiny", ["--sft.row_tokens=513", "--evaluate.people_prompts=9999", "--shards.weights.wiki=2"]))
    assert [problem.split(":")[0] for problem in found] == ["sft.row_tokens", "shards.weights", "evaluate, people"]
