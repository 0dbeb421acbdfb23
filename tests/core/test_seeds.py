"""Seeds: frozen values (a change would change every published result) and streams that do not touch each other."""

import itertools
import subprocess
import sys

from llamaherd.core.seeds import python_rng, seed_for, torch_rng


def test_values_are_frozen() -> None:
    assert seed_for(0) == 3456079177858693020
    assert seed_for(0, "reject", "v2", 7) == 3268027441268593492
    assert python_rng(1, "pairs").randrange(10**9) == 874544854
    assert torch_rng(1, "init").initial_seed() == seed_for(1, "init")


def test_they_fit_into_63_bits_and_differ() -> None:
    names = [(), ("a",), ("b",), ("a", "b"), ("b", "a"), ("ab",), ("a", 1), ("a", 2), ("a", 11), ("a", 1, 1)]
    values = [seed_for(seed, *name) for seed, name in itertools.product((0, 1, 10), names)]
    assert len(set(values)) == len(values)
    assert all(0 <= value < 2**63 for value in values)


def test_drawing_from_one_stream_leaves_the_others_alone() -> None:
    expected = [python_rng(0, "b").random(), float(torch_rng(0, "b").initial_seed())]
    python_rng(0, "a").random()
    torch_rng(0, "a").seed()
    assert [python_rng(0, "b").random(), float(torch_rng(0, "b").initial_seed())] == expected


def test_streams_look_independent() -> None:
    draws = [python_rng(0, "stream", index).random() for index in range(2000)]
    assert abs(sum(draws) / len(draws) - 0.5) < 0.03
    products = [(a - 0.5) * (b - 0.5) for a, b in itertools.pairwise(draws)]
    assert abs(sum(products) / len(products)) < 0.01


def test_another_process_draws_the_same() -> None:
    code = "from llamaherd.core.seeds import python_rng, seed_for; print(seed_for(5, 'é', 1), python_rng(5, 'x').random())"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert answer == [str(seed_for(5, "é", 1)), str(python_rng(5, "x").random())]
