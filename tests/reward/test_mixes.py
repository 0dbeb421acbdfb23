"""Mixes have the counts that section 5 states, whatever the data."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaherd.chat.dialogue import Message, checked
from llamaherd.core.errors import UserError
from llamaherd.data.records import Domain, Preference
from llamaherd.reward.mixes import assumed_safe, declared_mix, mix, mix_report, some_of, taken


def row(number: int, domain: Domain = "helpfulness", source: str = "ours", safe: tuple[Any, Any] = (None, None)) -> Preference:
    prompt = checked([Message("user", f"Question {number}")])
    return Preference(prompt, f"Good {number}", f"Bad {number}", "better", domain, *safe, source=source)


@given(own=st.integers(1, 40), other=st.integers(0, 40), share=st.sampled_from([0.0, 1 / 9, 0.5, 1.0, 3.0]), seed=st.integers(0, 9))
def test_the_mix_has_exact_counts(own: int, other: int, share: float, seed: int) -> None:
    rows = [row(number, "helpfulness" if number < own else "safety") for number in range(own + other)]
    mixed = mix(rows, "helpfulness", share, seed)
    counts = Counter(preference.domain for preference in mixed)
    assert counts["helpfulness"] == own
    assert counts["safety"] == min(other, round(share * own))
    assert mixed == [preference for preference in rows if preference in mixed], "in file order, none twice"
    assert mixed == mix(rows, "helpfulness", share, seed)


def test_the_papers_safety_mix_is_nine_to_one() -> None:
    rows = [row(number, "safety" if number < 900 else "helpfulness") for number in range(1800)]
    mixed = mix(rows, "safety", 1 / 9, 0)
    assert Counter(preference.domain for preference in mixed) == {"safety": 900, "helpfulness": 100}
    assert mix(rows, "safety", 1 / 9, 1) != mixed


def test_some_of_a_mix_in_its_order_the_fewer_among_the_more() -> None:
    rows = [row(number) for number in range(30)]
    few, more = some_of(rows, 5, 0), some_of(rows, 20, 0)
    assert (len(few), len(more)) == (5, 20)
    assert few == [preference for preference in more if preference in few]
    assert more == [preference for preference in rows if preference in more]
    assert few != some_of(rows, 5, 1)
    assert some_of(rows, None, 0) == some_of(rows, 30, 0) == some_of(rows, 99, 0) == rows


def made() -> list[Preference]:
    """Ours: 40 of helpfulness, 12 of safety; published: 30 of helpfulness (webgpt), 15 harmless ones (hh)."""
    kinds: list[tuple[int, Domain, str]] = [
        (40, "helpfulness", "ours"), (12, "safety", "ours"), (30, "helpfulness", "webgpt"), (15, "safety", "hh"),
    ]  # fmt: skip
    found = [row(100 * place + number, domain, source) for place, (count, domain, source) in enumerate(kinds) for number in range(count)]
    return sorted(found, key=lambda one: one.chosen)


OPEN = ("webgpt", "hh")


def counted(rows: list[Preference]) -> dict[tuple[str, str], int]:
    return dict(Counter((one.domain, one.source) for one in rows))


def test_the_papers_helpfulness_mix() -> None:
    """All own, and as many again uniformly from safety and open source: 40 of 57."""
    rows = made()
    mixed = declared_mix(rows, "helpfulness", "helpfulness", OPEN, None, 0)
    found = counted(mixed)
    assert found.pop(("helpfulness", "ours")) == 40
    assert sum(found.values()) == 40
    assert set(found) == {("safety", "ours"), ("helpfulness", "webgpt"), ("safety", "hh")}
    assert mixed == [one for one in rows if one in mixed], "in file order, none twice"
    drawn = [counted(declared_mix(rows, "helpfulness", "helpfulness", OPEN, None, seed))["helpfulness", "webgpt"] for seed in range(200)]
    assert sum(drawn) / 200 == pytest.approx(40 * 30 / 57, abs=0.6), "uniformly over what remains"


def test_the_papers_safety_mix() -> None:
    """All of safety, ours and the harmless published ones, nine to one with helpfulness."""
    found = counted(declared_mix(made(), "safety", "safety", OPEN, None, 0))
    assert (found["safety", "ours"], found["safety", "hh"]) == (12, 15)
    assert sum(count for (domain, _), count in found.items() if domain == "helpfulness") == 3
    all_of_it = counted(declared_mix(made(), "safety", "safety", OPEN, 100, 0))
    assert sum(all_of_it.values()) == 97, "never more than there is"


def test_helpfulness_pairs_that_are_labelled_safe_come_first_into_the_safety_mix() -> None:
    rows = [*made(), *(row(900 + number, safe=(True, True)) for number in range(2)), row(950, safe=(True, False))]
    mixed = declared_mix(rows, "safety", "safety", OPEN, None, 3)
    helpful = [one for one in mixed if one.domain == "helpfulness"]
    assert len(helpful) == 3
    assert sum(one.chosen_safe is True and one.rejected_safe is True for one in helpful) == 2
    assert mix_report(mixed, "safety")["safe_helpfulness"] == 2
    assert mix_report(mixed, "safety")["other"] == 3


@pytest.mark.parametrize(
    ("domain", "name", "expected"),
    [
        ("helpfulness", "own", {("helpfulness", "ours"): 40}),
        ("safety", "own", {("safety", "ours"): 12}),
        ("safety", "all", counted(made())),
        ("helpfulness", "open", {("helpfulness", "webgpt"): 30, ("safety", "hh"): 15}),
    ],
)
def test_the_other_mixes(domain: Domain, name: Any, expected: dict[tuple[str, str], int]) -> None:
    assert counted(declared_mix(made(), domain, name, OPEN, None, 0)) == expected


def test_sources_that_are_not_there() -> None:
    with pytest.raises(
        UserError, match=r"open_sources: no comparison has the source 'webgbt' \(did you mean 'webgpt'\?\); there are 'hh', 'ours'"
    ):
        declared_mix(made(), "helpfulness", "helpfulness", ("webgbt",), None, 0)
    with pytest.raises(UserError, match=r"shares: no comparison has the source 'our'"):
        taken(made(), {"our": 0.5}, 0)
    with pytest.raises(UserError, match=r"mix own: no safety comparison to train on; there are the sources 'hh'"):
        declared_mix([row(1, "safety", "hh")], "safety", "own", ("hh",), None, 0)
    with pytest.raises(UserError, match=r"mix open: no comparison of an open source \(none named\)"):
        declared_mix(made(), "safety", "open", (), None, 0)


@given(st.floats(0, 3), st.floats(0, 2), st.integers(0, 5))
def test_shares_of_a_source_and_of_a_domain(share: float, helpful: float, seed: int) -> None:
    rows = made()
    assert taken(rows, {}, seed) == rows
    found = counted(taken(rows, {"webgpt": share}, seed))
    assert found.get(("helpfulness", "webgpt"), 0) == 30 * int(share) + round(share % 1 * 30)
    assert found["helpfulness", "ours"] == 40
    found = counted(taken(rows, {"helpfulness": helpful}, seed))
    assert sum(count for (domain, _), count in found.items() if domain == "helpfulness") == 70 * int(helpful) + round(helpful % 1 * 70)
    assert sum(count for (domain, _), count in found.items() if domain == "safety") == 27


def test_what_nobody_labelled_may_be_taken_for_safe() -> None:
    rows = [row(1), row(2, safe=(False, True)), row(3, "safety"), row(4, safe=(None, False))]
    assert [(one.chosen_safe, one.rejected_safe) for one in assumed_safe(rows)] == [
        (True, True),
        (False, True),
        (None, None),
        (None, False),
    ]
