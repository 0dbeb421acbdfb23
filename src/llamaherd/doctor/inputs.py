"""What models were trained and tested on: prompts on both sides, annotators that guess, batches unlike the ones before."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..core.artifacts import Artifact, hash_of
from ..core.errors import UserError
from ..data.records import DOMAINS, GRADES
from ..measures.intervals import Figure, rate
from .config import Thresholds
from .finding import Check, Finding, low, share
from .patient import Patient, Row
from .rewards import comparisons_of

LEAK = Check(
    "leak", "it is tested on prompts that it was trained on",
    "take the test prompts out of the training data (all rows of one prompt on one side) and train again; until then its test figures say nothing",
)  # fmt: skip
GUESSING = Check(
    "annotators", "annotators agree no more than by chance",
    "rewrite the guidelines, ask about clearer pairs, or leave out annotators who agree with nobody; no reward model can be better than they",
)  # fmt: skip
DRIFT = Check(
    "grades", "a batch is graded unlike the ones before",
    "look whether guidelines, annotators or the sampling temperatures changed; if answers became much closer, sample the two from models further apart",
)  # fmt: skip

TESTED = {"ppo": ("prompts", "held_out"), "reject": ("prompts", "judged_prompts"), "distill": ("prompts", "test")}
"""Which settings of a stage name prompts to train on, and prompts to test on."""


def look(patient: Patient, limits: Thresholds) -> Iterator[Finding]:
    """Leaks in every stage that tests, then the batches of preferences."""
    for name, artifact in patient.of("reward"):
        yield _reward_leak(patient, name, artifact, limits)
    for name, artifact in patient.of(*TESTED):
        yield from _prompt_leak(patient, name, artifact, limits)
    for name, artifact in patient.of("evaluate"):
        yield from _evaluation_leak(patient, name, artifact, limits)
    yield from _batches(patient, limits)


def _key(messages: Iterable[Mapping[str, Any]]) -> str:
    """The same for prompts that differ in case and spaces only."""
    return hash_of([[one.get("role"), " ".join(str(one.get("content")).casefold().split())] for one in messages])


def _prompts(patient: Patient, files: Sequence[Path]) -> list[str]:
    return [_key(row["messages"]) for file in files for row in patient.read(file) if isinstance(row.get("messages"), list)]


def _held(name: str, trained: Iterable[str], tested: Sequence[str], limits: Thresholds, what: str) -> Finding:
    known = set(trained)
    both = sum(one in known for one in tested)
    found = rate(both, len(tested))
    said = f"{both:,} of {len(tested):,} {what} are among its {len(known):,} training prompts"
    return LEAK.found(name, bool(tested) and both / len(tested) > limits.leak, said, f"at most {limits.leak:.0%}", both=found)


def _reward_leak(patient: Patient, name: str, artifact: Artifact, limits: Thresholds) -> Finding:
    try:
        rows = comparisons_of(patient, artifact)
    except UserError as error:
        return LEAK.absent(name, str(error))
    tested = {str(row.get("id")) for row in patient.rows(artifact, "tested.jsonl")}
    keys = {key: _key(row.prompt.to_row()["messages"]) for key, row in rows.items()}
    files, missing = patient.files(artifact, "data", "preferences.jsonl")
    if missing or not tested & set(rows):
        return LEAK.absent(name, f"{', '.join(missing) or 'the texts of its test comparisons'}: not there any more")
    test_files = patient.files(artifact, "test", "test.jsonl")[0]
    trained = _prompts(patient, files) if test_files else [key for row, key in keys.items() if row not in tested]
    return _held(name, trained, [keys[row] for row in sorted(tested & set(keys))], limits, "prompts of test comparisons")


def _prompt_leak(patient: Patient, name: str, artifact: Artifact, limits: Thresholds) -> Iterator[Finding]:
    stage = str(artifact.manifest["stage"])
    (files, missing), (tests, missing_tests) = (patient.files(artifact, key, "prompts.jsonl") for key in TESTED[stage])
    if missing or missing_tests:
        yield LEAK.absent(name, f"{', '.join([*missing, *missing_tests])}: not there any more")
    elif files and tests:
        yield _held(name, _prompts(patient, files), _prompts(patient, tests), limits, "test prompts")
    elif stage == "ppo" and files:
        said = "no held-out prompts were given: the first batch of the training prompts chose the policy and stopped it"
        yield LEAK.found(name, True, said, "prompts of their own (held_out)", held_out=0)


def _evaluation_leak(patient: Patient, name: str, artifact: Artifact, limits: Thresholds) -> Iterator[Finding]:
    """Prompts of an evaluation among those that its model was trained on; ids are hashes of a prompt's messages."""
    model = patient.parent(artifact, artifact.manifest.get("config", {}).get("model"))
    tested = {str(row.get("id")) for row in patient.rows(artifact, "rows.jsonl") if row.get("task") not in ("ghost", "samples", "rewards")}
    trained: set[str] = set()
    seen: set[Path] = set()
    try:
        # A policy has learned what it began from.
        while tested and model is not None and model.path not in seen and model.manifest.get("stage") in ("sft", "ppo"):
            seen.add(model.path)
            key, file = ("data", "dialogues.jsonl") if model.manifest["stage"] == "sft" else ("prompts", "prompts.jsonl")
            for one in patient.files(model, key, file)[0]:
                trained |= _ids(patient, one)
            model = patient.parent(model, model.manifest.get("config", {}).get("model"))
    except UserError as error:
        yield LEAK.absent(name, str(error))
        return
    if trained:
        yield _held(name, trained, sorted(tested), limits, "prompts of the evaluation")


def _ids(patient: Patient, file: Path) -> set[str]:
    """Of the prompts in a file of prompts, or of dialogues."""
    if ("ids", file) not in patient.cache:
        rows = patient.read(file)
        if rows and _is_prompt(rows[0]):
            asked = [row["messages"] for row in rows]
        else:
            asked = [dialogue.prompt.to_row()["messages"] for dialogue, _ in patient.dialogues(file)]
        patient.cache["ids", file] = {hash_of(messages)[:16] for messages in asked}
    found: set[str] = patient.cache["ids", file]
    return found


def _is_prompt(row: Row) -> bool:
    messages = row.get("messages")
    return isinstance(messages, list) and bool(messages) and messages[-1].get("role") == "user"


def _batches(patient: Patient, limits: Thresholds) -> Iterator[Finding]:
    """Each folder of preferences on its own, and its grades against all those before it."""
    before: dict[str, Counter[str]] = {domain: Counter() for domain in DOMAINS}
    for name, artifact in patient.artifacts.items():
        if artifact.kind != "preferences":
            continue
        rows = [row for file in ("preferences.jsonl", "test.jsonl") for row in patient.rows(artifact, file)]
        yield from _agreement(name, artifact, rows, limits)
        for domain in DOMAINS:
            for batch, grades in _graded(rows, domain).items():
                if before[domain]:
                    yield _drift(f"{name} ({batch}, {domain})" if batch else f"{name} ({domain})", before[domain], grades, limits)
                before[domain] += grades


def _graded(rows: Sequence[Row], domain: str) -> dict[str, Counter[str]]:
    found: dict[str, Counter[str]] = {}
    for row in rows:
        if row.get("domain") == domain and row.get("grade") in GRADES:
            found.setdefault(str(row.get("batch") or ""), Counter())[str(row["grade"])] += 1
    return found


def _agreement(name: str, artifact: Artifact, rows: Sequence[Row], limits: Thresholds) -> Iterator[Finding]:
    """Of annotators with their noiseless selves where the miniature knows it, else of two who judged the same pair."""
    known: Mapping[str, Mapping[str, Figure]] = artifact.metrics.get("agreement") or {}
    figures: dict[str, tuple[Figure, str]] = {
        domain: (one["all"], "choices are as without noise") for domain, one in known.items() if one.get("all")
    }
    figures = figures or {"": (_between(rows), "choices of two annotators on the same pair agree")}
    for domain, (found, said) in figures.items():
        where = f"{name} ({domain})" if domain else name
        if found["n"] < limits.fewest:
            yield GUESSING.absent(where, f"{found['n']} comparisons of which agreement is known; at least {limits.fewest} tell something")
        else:
            wanted = f"an interval above {limits.chance:.2f}, which is chance"
            yield GUESSING.found(where, low(found) <= limits.chance, f"{share(found)} {said}", wanted, agreement=found)


def _between(rows: Sequence[Row]) -> Figure:
    """Neighbouring judgements of one pair by different annotators: how often they chose the same answer."""
    pairs: dict[str, list[tuple[str, str]]] = {}
    for row in rows:
        answers = sorted(str(row.get(key)).strip() for key in ("chosen", "rejected"))
        pairs.setdefault(hash_of([row.get("messages"), answers]), []).append((str(row.get("annotator")), str(row.get("chosen")).strip()))
    found = [mine == theirs for judged in pairs.values() for (one, mine), (other, theirs) in pairwise(judged) if one != other]
    return rate(sum(found), len(found))


def _drift(name: str, before: Counter[str], now: Counter[str], limits: Thresholds) -> Finding:
    if min(before.total(), now.total()) < limits.fewest:
        return DRIFT.absent(
            name, f"{now.total()} graded comparisons after {before.total()}; at least {limits.fewest} of each tell something"
        )
    shares = {grade: (before[grade] / before.total(), now[grade] / now.total()) for grade in GRADES}
    moved = sum(abs(later - earlier) for earlier, later in shares.values()) / 2
    together = {grade: (before[grade] + now[grade]) / (before.total() + now.total()) for grade in GRADES}
    chi2 = sum(
        (some[grade] - some.total() * together[grade]) ** 2 / (some.total() * together[grade])
        for some in (before, now) for grade in GRADES if together[grade]
    )  # fmt: skip
    said = ", ".join(f"{grade} {earlier:.2f} to {later:.2f}" for grade, (earlier, later) in shares.items())
    said = f"{moved:.2f} of the comparisons moved to another grade than before (chi-square {chi2:.1f}): {said}"
    wanted = f"at most {limits.grades_moved:g}, or a chi-square below {limits.grades_chi2:g}"
    return DRIFT.found(name, moved > limits.grades_moved and chi2 > limits.grades_chi2, said, wanted, moved=moved, chi2=chi2)
