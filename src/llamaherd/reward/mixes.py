"""Which comparisons a reward model learns from: the mixes of section 5 by their names, and how much of each source goes into them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from ..core.errors import UserError, did_you_mean
from ..core.seeds import python_rng
from ..data.mixture import copies_of
from ..data.records import DOMAINS, Domain, Preference

MixName = Literal["own", "all", "helpfulness", "safety", "open"]
REST_SHARES: dict[str, float] = {"helpfulness": 1.0, "safety": 1 / 9}
"""Comparisons of the rest for each one that is taken in any case: as many again, and a tenth of the whole (section 5)."""


def mix(preferences: Sequence[Preference], domain: Domain, other_share: float, seed: int) -> list[Preference]:
    """All comparisons of the model's own domain, and of the other one `other_share` times as many as own (at most all), in file order.

    Section 5: the helpfulness model sees as much other data as own, the safety model a tenth of helpfulness data.
    """
    own = [index for index, preference in enumerate(preferences) if preference.domain == domain]
    other = [index for index, preference in enumerate(preferences) if preference.domain != domain]
    wanted = min(len(other), round(other_share * len(own)))
    kept = sorted(own + python_rng(seed, "mix", domain).sample(other, wanted))
    return [preferences[index] for index in kept]


def declared_mix(
    preferences: Sequence[Preference], domain: Domain, name: MixName, open_sources: Sequence[str], rest_share: float | None, seed: int
) -> list[Preference]:
    """A mix by its name, in file order. `open_sources`: those that were not collected for this model, but published by others.

    own: the collected comparisons of the model's domain. all: everything. open: what others published, of either domain.
    helpfulness: all collected comparisons of helpfulness, and `rest_share` times as many drawn uniformly from everything else.
    safety: all of safety, collected and published, and `rest_share` times as many of helpfulness, those first whose answers are both
    labelled safe: without such the gate learns to fire on harmless prompts.
    Raises UserError for an open source without comparisons, and for a mix that comes out empty.
    """
    sources = sorted({preference.source for preference in preferences})
    for source in open_sources:
        _demand_known(source, sources, "open_sources")
    own, rest = list[int](), list[int]()
    for index, preference in enumerate(preferences):
        is_open, is_own = preference.source in open_sources, preference.domain == domain
        taken = {"own": is_own and not is_open, "all": True, "open": is_open, "helpfulness": is_own and not is_open, "safety": is_own}[name]
        (own if taken else rest).append(index)
    if not own:
        what = f"comparison of an open source ({', '.join(open_sources) or 'none named'})" if name == "open" else f"{domain} comparison"
        raise UserError(f"mix {name}: no {what} to train on; there are the sources {', '.join(map(repr, sources))}, see open_sources")
    share = REST_SHARES.get(name, 0.0) if rest_share is None else rest_share
    python_rng(seed, "mix", name).shuffle(rest)
    if name == "safety":
        rest.sort(key=lambda index: not safe_pair(preferences[index]))
    return [preferences[index] for index in sorted(own + rest[: round(share * len(own))])]


def safe_pair(preference: Preference) -> bool:
    """Whether both answers are labelled safe."""
    return preference.chosen_safe is True and preference.rejected_safe is True


def taken(preferences: Sequence[Preference], shares: Mapping[str, float], seed: int) -> list[Preference]:
    """Each comparison as often as the shares of its source and of its domain say (0.5: half of them, seeded; 2: twice), in file order.

    Raises UserError for a name that is neither a domain nor the source of any.
    """
    sources = [preference.source for preference in preferences]
    for name in shares:
        if name not in DOMAINS:
            _demand_known(name, sorted(set(sources)), "shares")
    by_source = {name: share for name, share in shares.items() if name not in DOMAINS}
    found = _repeated(preferences, copies_of(sources, by_source, seed))
    domains: list[str] = [preference.domain for preference in found]
    by_domain = {name: share for name, share in shares.items() if name in domains}
    return _repeated(found, copies_of(domains, by_domain, seed))


def _repeated(preferences: Sequence[Preference], copies: Sequence[int]) -> list[Preference]:
    return [preference for preference, count in zip(preferences, copies, strict=True) for _ in range(count)]


def _demand_known(name: str, sources: Sequence[str], setting: str) -> None:
    if name not in sources:
        raise UserError(
            f"{setting}: no comparison has the source {name!r}{did_you_mean(name, sources)}; there are {', '.join(map(repr, sources))}"
        )


def assumed_safe(preferences: Sequence[Preference]) -> list[Preference]:
    """Answers of helpfulness comparisons that nobody labelled, labelled safe."""
    return [
        replace(preference, chosen_safe=True, rejected_safe=True)
        if preference.domain == "helpfulness" and preference.chosen_safe is preference.rejected_safe is None
        else preference
        for preference in preferences
    ]


def some_of(preferences: Sequence[Preference], most: int | None, seed: int) -> list[Preference]:
    """At most `most` of them in their order, None for all; those of a smaller number are among those of a larger one."""
    order = list(range(len(preferences)))
    python_rng(seed, "some").shuffle(order)
    return [preferences[index] for index in sorted(order[:most])]


def mix_report(preferences: Sequence[Preference], domain: Domain) -> dict[str, Any]:
    """What a mix came out as: counts by domain and by source, and of helpfulness pairs that are labelled safe."""
    sources = sorted({preference.source for preference in preferences})
    return {
        "own": sum(preference.domain == domain for preference in preferences),
        "other": sum(preference.domain != domain for preference in preferences),
        "by_source": {source: sum(preference.source == source for preference in preferences) for source in sources},
        "safe_helpfulness": sum(preference.domain == "helpfulness" and safe_pair(preference) for preference in preferences),
    }
