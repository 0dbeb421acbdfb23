"""What models answered: cut off, all alike, or less and less different."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from ..measures.diversity import self_bleu
from ..measures.intervals import FEWEST, mean, rate
from .config import Thresholds
from .finding import Check, Finding, high, low, share
from .patient import Patient, Row

END = Check(
    "answers-end", "its answers are cut off",
    "raise max_new_tokens or tune on shorter answers; if nearly none ends, the end of sequence was not trained: look at tuning-end, and at the data's own ends",
)  # fmt: skip
ALIKE = Check(
    "answers-alike", "its answers are all alike",
    "raise the temperature or stop the training before it earlier: the best of K equal answers is no choice, and tuning on them narrows the next version further",
)  # fmt: skip
SHRUNK = Check(
    "answers-shrunk", "it gives far fewer different answers than when it began", "as for answers-alike; and look which answer the reward models are in love with"
)  # fmt: skip
SAMPLED_PROMPTS = 20
"""Prompts whose answers are compared run by run of words, which takes time."""


def look(patient: Patient, limits: Thresholds) -> Iterator[Finding]:
    """Sampled candidates, judged answers, and the answers that PPO kept."""
    for name, artifact in patient.of("reject"):
        rows = patient.rows(artifact, "samples.jsonl")
        if not rows:
            if artifact.manifest.get("config", {}).get("prompts"):  # else best-of-N is judged, and nothing kept for tuning
                yield END.absent(name, "nothing in samples.jsonl")
            continue
        candidates = [one for row in rows for one in row["candidates"]]
        yield _ends(name, sum(one.get("unusable") == "unfinished" for one in candidates), len(candidates), limits)
        yield _alike(name, [[str(one["text"]) for one in row["candidates"]] for row in rows], limits)
    for name, artifact in patient.of("evaluate"):
        asked = [
            row for row in patient.rows(artifact, "rows.jsonl") if row.get("mode") == "sampled" and isinstance(row.get("finished"), bool)
        ]
        if asked:
            yield _ends(name, sum(not row["finished"] for row in asked), len(asked), limits)
            yield _alike(name, [[str(row["answer"])] for row in asked], limits)
    for name, artifact in patient.of("ppo"):
        yield from _kept(name, patient.rows(artifact, "sampled.jsonl"), limits)


def _ends(name: str, unfinished: int, count: int, limits: Thresholds) -> Finding:
    found = rate(unfinished, count)
    never = low(found) > limits.never_ends
    said = f"{share(found)} answers are unfinished" + (": they never end" if never else "")
    return END.found(
        name, low(found) > limits.unfinished, said, f"an interval that reaches {limits.unfinished:g}", unfinished=found, never_ends=never
    )


def _alike(name: str, groups: Sequence[Sequence[str]], limits: Thresholds) -> Finding:
    """`groups`: the answers to each prompt."""
    everything = Counter(text.strip() for group in groups for text in group)
    if everything.total() < limits.fewest:
        return ALIKE.absent(name, f"{everything.total()} answers; at least {limits.fewest} tell something")
    text, times = everything.most_common(1)[0]
    most = rate(times, everything.total())
    several = [group for group in groups if len(group) > 1]
    said = f"the most frequent answer is {share(most)} ({text[:40]!r})"
    numbers: dict[str, Any] = {"most_frequent": most}
    wrong = len(groups) > 1 and low(most) > limits.same
    if several:
        new = mean([(len({text.strip() for text in group}) - 1) / (len(group) - 1) for group in several])
        bleu = mean([self_bleu(group) for group in several[:SAMPLED_PROMPTS]])
        said += f"; of the further answers to a prompt {new['value']:.2f} are new, Self-BLEU {bleu['value']:.2f}"
        wrong = wrong or high(new) < limits.distinct
        numbers |= {"new": new, "self_bleu": bleu}
    wanted = f"no answer surely above {limits.same:g} of all, and {limits.distinct:g} new ones among the further answers to a prompt"
    return ALIKE.found(name, wrong, said, wanted, **numbers)


def _kept(name: str, rows: Sequence[Row], limits: Thresholds) -> Iterator[Finding]:
    """The answers that PPO kept: those of its first quarter of iterations against those of its last."""
    by_iteration: dict[int, list[str]] = {}
    for row in rows:
        by_iteration.setdefault(int(row.get("iteration") or row.get("step") or 0), []).append(str(row.get("answer")).strip())
    points = [by_iteration[key] for key in sorted(by_iteration)]
    part = max(1, len(points) // 4)
    first, last = ([text for some in chosen for text in some] for chosen in (points[:part], points[-part:]))
    if len(points) < 2 or min(len(first), len(last)) < FEWEST:
        yield SHRUNK.absent(name, f"{len(last)} kept answers of its last quarter of iterations; at least {FEWEST} tell something")
        return
    before, after = (len(set(some)) / len(some) for some in (first, last))
    alike = self_bleu(last)
    said = f"of {len(first)} answers {before:.2f} were different at the start, of {len(last)} {after:.2f} at the end, whose Self-BLEU is {alike:.2f}"
    yield SHRUNK.found(
        name,
        after < min(before / 2, limits.same),
        said,
        "more than half as many as at the start",
        before=before,
        after=after,
        self_bleu=alike,
    )
