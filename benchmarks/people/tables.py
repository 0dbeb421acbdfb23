"""The figures as Markdown, for results.md and for docs/results.md."""

from collections.abc import Mapping
from typing import Any

from llamaherd.core.progress import clock
from llamaherd.measures.intervals import Figure

from .figures import DOMAIN_NAMES

JUDGES = {
    "chat": "reward model", "chat-other": "reward model of the other domain", "fresh": "reward model from random weights",
    "words": "bag of words", "length": "length, longer or shorter as in training", "longer": "longer answer",
}  # fmt: skip


def percent(one: Figure | None) -> str:
    """`61.2 (58.7 to 63.6)`, or a dash."""
    if one is None or one["value"] is None or one["low"] is None or one["high"] is None:
        return "-"
    return f"{100 * one['value']:.1f} ({100 * one['low']:.1f} to {100 * one['high']:.1f})"


def _rows(heading: list[str], rows: list[list[str]]) -> list[str]:
    return ["", f"| {' | '.join(heading)} |", "|" + "---|" * len(heading), *(f"| {' | '.join(row)} |" for row in rows)]


def table(found: Mapping[str, Any]) -> str:
    """What results.json holds, for people; what has not been measured yet has a dash."""
    domains, models = found["domains"], found["models"]
    left_out = sum(found["data"]["left_out_comparisons"].values())
    lines = [_foundation(models)] if "base" in models else ["The base model is not finished."]
    lines.append(
        f"{found['data']['comparisons']:,} comparisons, {left_out} left out since they are none, at most {models['too_long']} of a fold's too "
        f"long; {models['artifacts']} artifacts took {clock(models['process_seconds'])} of processes with their threads."
    )
    if settings := found["settings"]:
        taken = {one["arm"]: one for one in settings["tried"] if one["candidate"] == settings["chosen"][one["arm"]]}
        lines += [f"{JUDGES[arm].capitalize()}: rate {one['lr']:g}, {one['epochs']:g} epochs." for arm, one in taken.items()]
    names = [f"{DOMAIN_NAMES[domain]}, {one['comparisons']:,} comparisons" for domain, one in domains.items()]
    accuracy = [[title, *(percent(one["accuracy"].get(judge)) for one in domains.values())] for judge, title in JUDGES.items()]
    accuracy += [
        ["chance", *("50.0" for _ in domains)],
        ["the paper's reward models", *(f"{100 * one['paper']:.1f}" for one in domains.values())],
    ]
    lines += _rows(["agrees with people, %", *names], accuracy)
    pairs = dict.fromkeys(name for one in domains.values() for name in one["differences"])
    if pairs:
        rows = [[_against(name), *(percent(one["differences"].get(name)) for one in domains.values())] for name in pairs]
        lines += _rows(["difference on the same comparisons, points", *names], rows)
        lines += _rows(["reward model, chosen answer is ... the other", *names], _lengths(domains))
        lines += _rows(["reward model", *names], _bias(domains))
        lines += _rows(["reward model is so sure: how often it agrees", *names], _sure(domains))
    return "\n".join(lines) + "\n"


def _foundation(models: Mapping[str, Any]) -> str:
    base, shards, tokenizer = models["base"], models["shards"], models["tokenizer"]
    return (
        f"{base['parameters']:,} parameters, {tokenizer['vocab_size']:,} pieces, {base['epochs'] * shards['tokens'] / 1e6:.1f} of "
        f"{shards['tokens'] / 1e6:.1f} million tokens read, loss {base['loss']:.2f} nats a token."
    )


def _against(name: str) -> str:
    ours, _, other = name.partition(" over ")
    return f"{JUDGES[ours]} over {JUDGES[other]}"


def _lengths(domains: Mapping[str, Any]) -> list[list[str]]:
    names = dict.fromkeys(name for one in domains.values() for name in one["by_length"].get("chat", {}))
    return [[name, *(percent(one["by_length"].get("chat", {}).get(name)) for one in domains.values())] for name in names]


def _bias(domains: Mapping[str, Any]) -> list[list[str]]:
    return [
        ["prefers the longer answer", *(percent(one["prefers_longer"].get("chat")) for one in domains.values())],
        ["expected calibration error, points", *(percent(one["calibration"].get("chat", {}).get("error")) for one in domains.values())],
        ["accuracy less the paper's, points", *(percent(one["beyond_paper"].get("chat")) for one in domains.values())],
    ]


def _sure(domains: Mapping[str, Any]) -> list[list[str]]:
    bins: list[list[Any]] = [one["calibration"].get("chat", {}).get("bins", []) for one in domains.values()]
    most = max(bins, key=len)
    return [
        [f"{100 * one['low']:.0f} to {100 * one['high']:.0f}%", *(percent(of[place]["rate"]) if of else "-" for of in bins)]
        for place, one in enumerate(most)
    ]
