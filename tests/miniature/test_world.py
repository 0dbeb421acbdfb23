import os
import subprocess
import sys

import pytest

from llamaherd.core.config import ConfigError, build
from llamaherd.miniature import vocabulary
from llamaherd.miniature.attacks import FRAMES, INSIST, OPENINGS
from llamaherd.miniature.constraints import all_constraints
from llamaherd.miniature.language import LANGUAGES, english, language_of, misspelled, translated, words
from llamaherd.miniature.preprompts import all_preprompts
from llamaherd.miniature.world import KINDS, World, WorldConfig

EVERYTHING = """
import hashlib, json
from llamaherd.miniature import constraints, demonstrations, documents, preprompts, prompts, world
w = world.World()
parts = [w.facts, w.unasked, list(documents.documents(w, 800, 3)), demonstrations.demonstrations(w, 200, 3)]
parts += [prompts.fixed_sample_prompts(w), prompts.safety_prompts(w, 100, 3, "test")]
parts += [repr(constraints.constraint_dialogues(w, 50, 3, "train")), repr(preprompts.preprompts(w, 3))]
print(hashlib.sha256(json.dumps(parts).encode()).hexdigest())
"""


def test_the_same_in_every_process():
    def digest(hash_seed):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        return subprocess.run([sys.executable, "-c", EVERYTHING], env=environment, capture_output=True, text=True, check=True).stdout

    assert digest("1") == digest("2") != ""


def test_another_seed_is_another_world(world):
    assert World(WorldConfig(seed=1)).facts != world.facts
    assert World(WorldConfig()).facts == world.facts


def test_sizes_and_splits(world):
    config = world.config
    assert len(world.asked) == config.people - config.unasked_people
    assert not set(world.asked) & set(world.unasked)
    assert len(world.held_out["borderline"]) == config.unseen_borderline
    assert len(world.trained["borderline"]) >= 40
    for category in vocabulary.HARMFUL:
        held_out = [task for task in world.held_out["harmful"] if task.category == category]
        assert len(held_out) == config.unseen_harmful
    assert {task.people for task in world.held_out["facts"]} == {"unasked"}
    assert {task.people for task in world.trained["facts"]} == {"asked", None}
    assert set(world.tasks) == set(KINDS)


@pytest.mark.parametrize("values", [{"people": 3}, {"people": 8, "unasked_people": 8}, {"borderline_topics": 5, "unseen_borderline": 5}])
def test_impossible_sizes(values):
    with pytest.raises(ConfigError):
        build(WorldConfig, values)


def test_every_answer_can_be_told_apart(world):
    """Topics differ in their nouns, harmful nouns are of no harmless topic, questions and misspellings of no two tasks."""
    howto = [task for kind in ("howto", "borderline", "harmful") for task in world.tasks[kind]]
    assert all(len(set(task.right)) == 3 for task in howto)
    assert len({frozenset(task.right) for task in howto}) == len(howto)
    harmless = {noun for kind in ("howto", "borderline") for task in world.tasks[kind] for noun in task.right}
    assert not harmless & world.harmful_nouns
    questions = [question for tasks in world.tasks.values() for task in tasks for question in task.questions]
    spellings = {*questions, *(misspelled(question) for question in questions)}
    assert len(set(questions)) == len(questions)
    assert set(world.by_question) == spellings
    assert all(world.by_question[question][0].questions.count(question) == 1 for question in questions)
    assert all(misspelled(question) != question for question in questions)


def test_names_and_insults_stand_for_nothing_else(world):
    lists = [*vocabulary.ATTRIBUTES.values(), *vocabulary.CITY_ATTRIBUTES.values(), vocabulary.COLORS]
    constrained = [constraint.value for constraint in all_constraints() if constraint.kind != "language"]
    values = [value for items in lists for value in items] + constrained + list(world.people)
    assert len({value.lower() for value in values}) == len(values)
    assert not ({value.lower() for value in constrained} | vocabulary.INSULTS) & world.nouns


def test_toy_languages_are_read_back(world):
    questions = [question for tasks in world.tasks.values() for task in tasks for question in task.questions]
    safety = all_preprompts()
    texts = [*questions, *INSIST, *OPENINGS, *safety.generic, *(frame for frames in FRAMES.values() for frame in frames)]
    for language in LANGUAGES:
        for text in texts:
            assert english(translated(text, language), language) == text
            assert not text or language_of(translated(text, language)) == language
    assert all(language_of(text) is None for text in texts)
    assert not any(word.endswith(language.lower()) for text in texts for word in words(text) for language in LANGUAGES)
    assert translated("Anna has 3 cats.", "Zo") == "Annazo haszo 3 catszo."


def test_misspelling_swaps_two_inner_letters():
    assert misspelled("How do I steal a bike?") == "How do I setal a bkie?"
    assert misspelled("kill the pain") == "klil the pian"
