"""How the work of a run is spread over its steps, for the time left: the factors are from runs of the packaged recipes on a CPU."""

from ..stages.pretrain import shape
from .chain import Step
from .config import RecipeConfig

_TURN_TOKENS = 40
"""A question with its answer, roughly; only the proportions between steps matter."""
_SECONDS_PER_WEIGHT = 4e-11
"""Of pretraining, for each token and weight."""
_LEAST_S = 0.05
"""What starting and writing any step costs."""


def work(step: Step, recipe: RecipeConfig) -> float:
    """Expected seconds of a step on one core."""
    world, tests = recipe.world, recipe.evaluate
    if step.stage in ("world", "corpus", "tokenizer", "shards"):
        return _LEAST_S + world.documents * (2e-4 if step.stage == "corpus" else 2e-5)
    weight_s = _SECONDS_PER_WEIGHT * shape(recipe.pretrain, recipe.tokenizer.vocab_size).parameters
    if step.stage == "pretrain":
        return _LEAST_S + weight_s * 3.0 * recipe.pretrain.steps * recipe.pretrain.batch_rows * recipe.pretrain.row_tokens
    obedience = 2 * tests.ghost_dialogues * max(tests.ghost_turns)
    turns = {
        "sft": 2.0 * _tuned_rows(step, recipe) if step.stage == "sft" else 0.0,
        "collect": 15.0 * (world.helpfulness_pairs + world.safety_pairs),
        "reward": 1.2 * _pair_rows(step, recipe) if step.stage == "reward" else 0.0,
        "reject": 8.0 * world.rejection_prompts * recipe.reject.k,
        "ppo": 30.0 * recipe.ppo.ppo.iterations * recipe.ppo.ppo.batch,
        "ghost": 5.0 * world.ghost_dialogues * sum(world.ghost_turns),
        "distill": 50.0 * world.distilled_prompts,
        "evaluate": 2.0 * (tests.helpfulness_prompts + tests.safety_prompts)
        if step.name.endswith("-rewards")
        else 20.0 * (2 * tests.helpfulness_prompts + tests.safety_prompts + tests.borderline_prompts + tests.people_prompts + obedience),
    }
    return _LEAST_S + weight_s * turns[step.stage] * _TURN_TOKENS


def _version(step: Step) -> int:
    return int(step.name[1:].partition("-")[0])


def _tuned_rows(step: Step, recipe: RecipeConfig) -> float:
    version = _version(step)
    if version == 0:
        return 3.0 * recipe.world.dialogues * (recipe.early if step.name == "v0-early" else recipe.sft).epochs
    if recipe.tune.steps:
        return recipe.tune.steps * recipe.tune.batch_rows * (recipe.tune.row_tokens or 4096) / _TURN_TOKENS
    rows = recipe.demonstrations_share * recipe.world.dialogues + version * recipe.world.rejection_prompts
    if version > recipe.ghost_after:
        rows += recipe.world.ghost_dialogues * 4 + recipe.world.distilled_prompts + recipe.world.harmless_prompts
    return 3.0 * rows * recipe.tune.epochs


def _pair_rows(step: Step, recipe: RecipeConfig) -> float:
    helpfulness = step.name.endswith("helpfulness")
    own = recipe.world.helpfulness_pairs if helpfulness else recipe.world.safety_pairs
    settings = recipe.helpfulness if helpfulness else recipe.safety
    return 3.0 * settings.epochs * 2 * _version(step) * own * (1 + settings.other_share) * 0.8
