from collections import Counter

import pytest

from llamaherd.core.config import ConfigError, build
from llamaherd.core.seeds import python_rng
from llamaherd.data.records import GRADES, parse_prompt
from llamaherd.miniature.annotator import AnnotatorConfig, NoisyAnnotator, agreement
from llamaherd.miniature.answers import reference_answer
from llamaherd.miniature.oracle import Oracle
from llamaherd.miniature.prompts import helpfulness_prompts, safety_prompts

BREAD = parse_prompt({"messages": [{"role": "user", "content": "How do I bake bread?"}]}).dialogue
BIKE = parse_prompt({"messages": [{"role": "user", "content": "How do I steal a bike?"}]}).dialogue
PLAIN, POLITE = "To bake bread, you need flour, water and yeast.", "Of course! To bake bread, you need flour, water and yeast."


@pytest.fixture
def exact(world):
    return NoisyAnnotator(Oracle(world), AnnotatorConfig(noise=0, label_noise=0))


@pytest.fixture
def noisy(world):
    return NoisyAnnotator(Oracle(world))


def mixed_pairs(world, rows, qualities):
    """Two different answers to each prompt, both of qualities drawn from the same few."""
    rng = python_rng(0, "test", "pairs")
    for row in rows:
        first, second = (reference_answer(world, row, rng.choice(qualities), draw) for draw in (0, 1))
        if first != second:
            yield parse_prompt(row).dialogue, (first, second)


@pytest.mark.parametrize(
    ("answers", "chosen", "grade"),
    [
        ((POLITE, "nails"), 0, "significantly"), (("nails", POLITE), 1, "significantly"),
        ((POLITE, "flour, water, yeast"), 0, "better"),
        ((PLAIN, POLITE), 1, "slightly"), ((PLAIN, PLAIN.replace("To", "So to")), 0, "negligibly"),
    ],
)  # fmt: skip
def test_grades_by_hand(exact, answers, chosen, grade):
    choice = exact.compare(BREAD, answers, "helpfulness", python_rng(0))
    assert (choice.chosen, choice.grade, choice.safe) == (chosen, grade, None)


def test_domains_pull_apart(exact):
    """The same two answers: the helpful annotator takes the one that complies, the safe one the refusal."""
    answers = ("To steal a bike, you need crowbar, van and darkness.", "I cannot help with that.")
    assert exact.compare(BIKE, answers, "helpfulness", python_rng(0)).chosen == 0
    choice = exact.compare(BIKE, answers, "safety", python_rng(0))
    assert (choice.chosen, choice.grade, choice.safe) == (1, "significantly", (False, True))


def test_noise_is_of_the_declared_size(noisy):
    """A difference of one standard deviation is read rightly by Phi(1) = .841 of the annotators."""
    pairs = [(BREAD, (POLITE, PLAIN))] * 4000
    assert agreement(noisy, pairs) == pytest.approx(0.841, abs=0.02)
    assert agreement(noisy, [(BREAD, (PLAIN, PLAIN.replace("To", "So to")))] * 4) == 0.5


def test_labels_are_wrong_at_the_declared_rate(noisy):
    rng = python_rng(1)
    labels = [noisy.compare(BIKE, ("crowbar", "I cannot help with that."), "safety", rng).safe for _ in range(4000)]
    assert sum(first for first, _ in labels) / 4000 == pytest.approx(0.03, abs=0.01)
    assert sum(not second for _, second in labels) / 4000 == pytest.approx(0.03, abs=0.01)


@pytest.mark.parametrize("draw", [helpfulness_prompts, safety_prompts])
def test_agreement_with_the_noiseless_self(world, noisy, exact, draw):
    qualities = ("plain", "good", "terse") if draw is helpfulness_prompts else ("plain", "terse", "refusal", "bare refusal")
    pairs = list(mixed_pairs(world, draw(world, 400, 0, "tune"), qualities))
    domain = "safety" if draw is safety_prompts else "helpfulness"
    assert 0.65 <= agreement(noisy, pairs, domain) <= 0.9
    assert agreement(noisy, pairs, domain) == agreement(noisy, pairs, domain)
    ties = sum(exact.difference(*pair, domain) == 0 for pair in pairs)
    assert agreement(exact, pairs, domain) == pytest.approx(1 - ties / len(pairs) / 2)
    rng = python_rng(2)
    grades = Counter(noisy.compare(*pair, domain, rng).grade for pair in pairs)
    assert set(grades) == set(GRADES)


def test_cuts_in_order():
    with pytest.raises(ConfigError, match="rise in this order"):
        build(AnnotatorConfig, {"slightly": 0.4})
