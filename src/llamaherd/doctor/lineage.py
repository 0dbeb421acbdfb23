"""Where models come from: stale preferences, reward models in each other's place, inputs that changed since, versions that lost."""

from collections.abc import Iterator

from ..core.artifacts import Artifact
from ..data.lineage import win_shares
from ..measures.intervals import effect
from .config import Thresholds
from .finding import Check, Finding, share
from .patient import Patient

STALE = Check(
    "stale-preferences", "its reward models never saw an answer of the model that they judge",
    "collect comparisons of the newest model's answers and refresh the reward models before sampling or PPO (section 3.2 of the paper: weekly)",
)  # fmt: skip
SWAPPED = Check(
    "reward-domain", "a reward model judges in the place of another domain's", "give each reward model under its own domain's name"
)
CHANGED = Check(
    "inputs-changed", "an input is another one than it was made of",
    "make it again from what is there now, or put back what it was made of: its manifest has the hash",
)  # fmt: skip
LOST = Check(
    "regression", "the newest model lost against the one before",
    "look at the comparisons that it lost by domain and kind; tune with a larger pool, the samples of all versions in it, or go back one version",
)  # fmt: skip


def look(patient: Patient, limits: Thresholds) -> Iterator[Finding]:
    """Every artifact's inputs, every judge's lineage, every comparison of two versions."""
    for name, artifact in patient.artifacts.items():
        yield from _inputs(patient, name, artifact)
    for name, artifact in patient.of("reject", "ppo"):
        for domain in ("helpfulness", "safety"):
            given = artifact.manifest.get("config", {}).get(domain)
            if given:
                yield from _judge(patient, name, artifact, domain, given)
    for name, artifact in patient.artifacts.items():
        if artifact.kind == "preferences":
            yield from _lost(patient, name, artifact, limits)


def _inputs(patient: Patient, name: str, artifact: Artifact) -> Iterator[Finding]:
    changed, seen = [], 0
    for parent, known in artifact.manifest.get("parents", {}).items():
        now = patient.artifacts.get(patient.name_of(parent)) if patient.run else None
        if now is not None and known.get("hash"):
            seen += 1
            changed += [parent] if now.hash != known["hash"] else []
    if seen:
        said = f"{len(changed)} of {seen} inputs in this folder have another hash than when it was made" + (
            f": {', '.join(changed)}" if changed else ""
        )
        yield CHANGED.found(name, bool(changed), said, "none", changed=changed)


def _judge(patient: Patient, name: str, artifact: Artifact, domain: str, given: str) -> Iterator[Finding]:
    judge = patient.parent(artifact, given)
    where = f"{name} ({domain})"
    if judge is None:
        yield STALE.absent(where, f"its reward model {given} is not there any more")
        return
    own = judge.metrics.get("domain")
    if own:
        said = f"{patient.name_of(given)}, trained on {own}, is given as the {domain} reward model"
        yield SWAPPED.found(where, own != domain, said, f"one of {domain}", domain=own)
    answered = _answerers(patient, judge)
    if not answered:
        yield STALE.absent(
            where, f"the comparisons of {patient.name_of(given)} do not say which models answered, or are not there any more"
        )
        return
    accepted = _same_distribution(patient, artifact)
    said = f"{patient.name_of(given)} was trained on answers of {', '.join(sorted(answered))}; it judges those of {accepted[0]}"
    wanted = f"answers of {' or '.join(accepted)}"
    yield STALE.found(where, not set(accepted) & answered, said, wanted, trained_on=sorted(answered), judged=accepted[0])


def _answerers(patient: Patient, judge: Artifact) -> set[str]:
    files, _ = patient.files(judge, "data", "preferences.jsonl")
    rows = [row for file in files for row in patient.read(file)]
    return {str(row[key]) for row in rows for key in ("chosen_model", "rejected_model") if row.get(key)}


def _same_distribution(patient: Patient, artifact: Artifact) -> list[str]:
    """The model whose answers are judged. PPO's may be a version tuned on the best answers of the one that the comparisons have (the
    paper's own order), so the models that those were sampled from do too.
    """
    given = artifact.manifest["config"].get("model")
    found = [patient.name_of(given)]
    start = patient.parent(artifact, given)
    if artifact.manifest.get("stage") != "ppo" or start is None:
        return found
    for one in start.manifest.get("parents", {}):
        samples = patient.parent(start, one)
        if samples is not None and samples.manifest.get("stage") == "reject":
            found.append(patient.name_of(samples.manifest["config"].get("model")))
    return found


def _lost(patient: Patient, name: str, artifact: Artifact, limits: Thresholds) -> Iterator[Finding]:
    newest = artifact.manifest.get("config", {}).get("newest")
    if not newest:
        return
    rows = [row for file in ("preferences.jsonl", "test.jsonl") for row in patient.rows(artifact, file)]
    for domain, won in win_shares(rows, patient.name_of(newest)).items():
        if won["n"] < limits.fewest:
            yield LOST.absent(f"{name} ({domain})", f"{won['n']} comparisons between the two; at least {limits.fewest} tell something")
            continue
        said = f"{patient.name_of(newest)} won {share(won)} comparisons with {patient.name_of(artifact.manifest['config'].get('previous'))}"
        lost = effect(won, "below", limits.chance) == "shown"
        yield LOST.found(f"{name} ({domain})", lost, said, f"an interval that reaches {limits.chance:g}", won=won)
