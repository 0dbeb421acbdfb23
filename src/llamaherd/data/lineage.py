"""What comparisons say of the models that answered: which gave how many answers, and how often each of two won."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ..measures.intervals import Figure, rate
from .records import DOMAINS

Row = Mapping[str, Any]


def win_shares(rows: Sequence[Row], newest: str) -> dict[str, Figure]:
    """How often `newest` won of its comparisons with another model: of all, and of each domain that has any."""
    between = [
        row for row in rows
        if row.get("chosen_model") and row.get("rejected_model") and row["chosen_model"] != row["rejected_model"]
        and newest in (row["chosen_model"], row["rejected_model"])
    ]  # fmt: skip
    groups = {"all": between} | {domain: [row for row in between if row.get("domain") == domain] for domain in DOMAINS}
    return {
        name: rate(sum(row["chosen_model"] == newest for row in some), len(some)) for name, some in groups.items() if some or name == "all"
    }


def answers_by_model(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """`model`, `temperature`, number of `answers` and how many of them `won`, for each model and temperature that answered."""
    given: Counter[tuple[str | None, float | None]] = Counter()
    won: Counter[tuple[str | None, float | None]] = Counter()
    for row in rows:
        for side in ("chosen", "rejected"):
            key = (row.get(f"{side}_model"), row.get(f"{side}_temperature"))
            given[key] += 1
            won[key] += side == "chosen"
    order = sorted(given, key=lambda key: (str(key[0]), -1.0 if key[1] is None else key[1]))
    return [{"model": model, "temperature": at, "answers": given[model, at], "won": won[model, at]} for model, at in order]
