import math
from itertools import pairwise

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from llamaherd.generate.sampling import choose

PROBABILITIES = [0.05, 0.4, 0.1, 0.25, 0.2]


def choices(probabilities: list[float], temperature: float, top_p: float, draws: int) -> list[int]:
    """What evenly spaced draws from [0, 1) choose."""
    uniform = (torch.arange(draws) + 0.5) / draws
    logits = torch.tensor(probabilities).log().expand(draws, -1)
    return choose(logits, temperature, top_p, uniform).tolist()


def nucleus_of_the_reference(probabilities: list[float], top_p: float) -> dict[int, float]:
    """Meta's rule in plain words: from the likeliest on, a token stays while what comes before it is at most top_p."""
    before, kept = 0.0, {}
    for token in sorted(range(len(probabilities)), key=lambda token: -probabilities[token]):
        if before > top_p:
            break
        kept[token] = probabilities[token]
        before += probabilities[token]
    return {token: value / sum(kept.values()) for token, value in kept.items()}


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [
        (0.01, {1}),
        (0.39, {1}),
        (0.41, {1, 3}),
        (0.64, {1, 3}),
        (0.66, {1, 3, 4}),
        (0.86, {1, 3, 4, 2}),
        (0.96, {0, 1, 2, 3, 4}),
        (1.0, {0, 1, 2, 3, 4}),
    ],
)
def test_nucleus_on_hand_worked_probabilities(top_p: float, kept: set[int]) -> None:
    assert set(choices(PROBABILITIES, 1.0, top_p, 1000)) == kept


def test_the_token_that_reaches_top_p_exactly_is_not_the_last() -> None:
    halves = [0.5, 0.25, 0.125, 0.125]  # exact in binary: the third stands before 0.75, which is not above top_p
    assert set(choices(halves, 1.0, 0.75, 1000)) == {0, 1, 2}


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=12), st.floats(0.05, 1))
def test_shares_are_those_of_the_reference(weights: list[float], top_p: float) -> None:
    probabilities = [weight / sum(weights) for weight in weights]
    expected = nucleus_of_the_reference(probabilities, top_p)
    ordered = sorted(probabilities, reverse=True)
    edges = [sum(ordered[:index]) for index in range(len(ordered))]
    assume(all(abs(edge - top_p) > 1e-5 for edge in edges))  # else rounding may decide either way
    assume(all(more == less or more - less > 1e-5 for more, less in pairwise(ordered)))  # or make a tie of what is none
    chosen = choices(probabilities, 1.0, top_p, 2000)
    assert set(chosen) <= set(expected)
    for token, share in expected.items():
        assert chosen.count(token) / 2000 == pytest.approx(share, abs=0.002)


def test_temperature_sharpens() -> None:
    powers = [value ** (1 / 0.5) for value in PROBABILITIES]
    chosen = choices(PROBABILITIES, 0.5, 1.0, 4000)
    for token, power in enumerate(powers):
        assert chosen.count(token) / 4000 == pytest.approx(power / sum(powers), abs=0.001)


@pytest.mark.parametrize("temperature", [0.0, 1e-30, 1e-38])
def test_no_temperature_is_greedy(temperature: float) -> None:
    logits = torch.tensor([[3.0, 80.0, 79.0], [-50.0, -60.0, -49.0]])
    for top_p in (0.5, 1.0):
        assert choose(logits, temperature, top_p, torch.tensor([0.0, 0.9999999])).tolist() == [1, 2]


def test_tokens_without_probability_are_never_taken() -> None:
    logits = torch.tensor([-math.inf, 0.0, -math.inf, 0.0, -math.inf]).expand(3, -1)
    largest = math.nextafter(1, 0)
    for top_p in (0.99, 1.0):
        assert choose(logits, 1.0, top_p, torch.tensor([0.0, 0.5, largest])).tolist()[0] == 1
        assert set(choose(logits, 1.0, top_p, torch.tensor([0.0, 0.5, largest])).tolist()) == {1, 3}


def test_frequencies_match_probabilities() -> None:
    draws = 20_000
    uniform = torch.rand(draws, generator=torch.Generator().manual_seed(0))
    chosen = choose(torch.tensor(PROBABILITIES).log().expand(draws, -1), 1.0, 0.999999, uniform)
    observed = torch.bincount(chosen, minlength=5)
    expected = torch.tensor(PROBABILITIES) * draws
    chi_squared = ((observed - expected) ** 2 / expected).sum().item()
    assert chi_squared < 18.47  # 99.9% point for 4 degrees of freedom


def chosen_from_a_full_sort(logits: torch.Tensor, top_p: float, uniform: torch.Tensor) -> torch.Tensor:
    ordered, ids = torch.softmax(logits - logits.amax(-1, keepdim=True), dim=-1).sort(dim=-1, descending=True, stable=True)
    kept = ordered.masked_fill(ordered.cumsum(-1) - ordered > top_p, 0.0).cumsum(-1)
    found = (kept <= uniform[:, None] * kept[:, -1:]).sum(-1)
    return ids.gather(-1, found[:, None])[:, 0]


@pytest.mark.parametrize("vocabulary", [30, 700, 2048])
@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.95, 0.999])
def test_few_sorted_tokens_choose_as_a_full_sort_does(vocabulary: int, top_p: float) -> None:
    """From all mass on one token to flat rows; steps of 1/2 in the logits make many tokens equal."""
    generator = torch.Generator().manual_seed(vocabulary)
    logits = torch.randn(400, vocabulary, generator=generator) * torch.logspace(-1, 1.3, 400)[:, None]
    uniform = torch.rand(400, generator=generator)
    for values in (logits, (logits * 2).round() / 2, logits.relu()):
        assert choose(values, 1.0, top_p, uniform).equal(chosen_from_a_full_sort(values, top_p, uniform))
