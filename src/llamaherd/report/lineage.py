"""How each version came about: what was collected with which models, which reward models judged, what it was trained on, and how it
compares with the one before. All of it is read from manifests and rows.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from ..data.lineage import answers_by_model, win_shares
from ..data.records import DOMAINS, GRADES
from ..measures.intervals import Figure, effect, win_rate
from .effects import helpfulness, rewards, violations
from .folder import RunFolder, dig

Row = dict[str, Any]
EVEN = 0.5
"""The share of a version that is as good as the one before."""
NO_SCORE = -1.0
"""Below every probability: an answer that no reward model can read loses to any that one can."""

MADE = ("dialogues", "trained_tokens", "steps", "iterations", "published_iteration", "kl")
"""What a training's manifest says of how much it did, as far as its stage measures it."""

Scores = Callable[[RunFolder, str], Mapping[str, float]]
JUDGES: Mapping[str, Mapping[str, Scores]] = {
    "judge": {
        "helpfulness": lambda run, version: helpfulness(run, version),
        "safety": lambda run, version: {prompt: -value for prompt, value in violations(run, version).items()},
    },
    "reward models": {
        "helpfulness": lambda run, version: rewards(run, version, NO_SCORE, domain="helpfulness"),
        "safety": lambda run, version: rewards(run, version, NO_SCORE, domain="safety"),
    },
}
"""Who judged all versions' answers to the same test prompts (the judge is the oracle where there is one), and what each prompt's
answer is worth to them."""


def judges(run: RunFolder) -> dict[str, Mapping[str, Scores]]:
    """JUDGES by what they are called in this run."""
    return {run.judge if name == "judge" else name: domains for name, domains in JUDGES.items()}


def win_share(first: Mapping[str, float], second: Mapping[str, float]) -> Figure | None:
    """How often the second is above the first, over the prompts that both have, ties counted half; None without any."""
    both = [name for name in first if name in second]
    return win_rate([first[name] for name in both], [second[name] for name in both]) if both else None


def lineage(run: RunFolder) -> list[Row]:
    """For each version, oldest first: `name`, `trained` (each training that made it), `judged_by` (reward models), `collected` (what was new
    for these), `compared` (with the version before, and where PPO made it with what it was before that), `regressions` (where it lost).
    """
    found, known = [], set[str]()
    for version in (name for name in run.versions if name != run.rejection):
        trained = [_training(run, name) for name in _trainings(run, version)]
        judges = list(dict.fromkeys(judge for training in trained for judge in training.pop("judges")))
        batches = [name for judge in judges for name in _inputs(run, judge, "preferences") if name not in known]
        known |= set(batches)
        compared = [_compared(run, version, before) for before in _before(run, version)]
        found.append({
            "name": version, "trained": trained, "judged_by": [_judge(run, name) for name in judges],
            "collected": [_collected(run, name) for name in dict.fromkeys(batches)], "compared": compared,
            "regressions": [f"{one['with']}: {place}" for one in compared for place in one["lost"]],
        })  # fmt: skip
    return found


def _name(run: RunFolder, given: Any) -> str | None:
    """The artifact of this run that a setting's path names, or in whose folder the file lies that it names."""
    path = PurePosixPath(str(given).replace("\\", "/"))
    names = (path.name.rpartition(":")[2], path.parent.name)
    return next((name for name in names if name in run.artifacts), None)


def _setting(run: RunFolder, name: str, key: str) -> Any:
    return dig(run.artifacts[name].manifest, "config", key)


def _inputs(run: RunFolder, name: str, kind: str) -> list[str]:
    """The parents of an artifact that are of a kind, in the order of its manifest."""
    parents = [found for parent in run.artifacts[name].manifest.get("parents", {}) if (found := _name(run, parent))]
    return [parent for parent in parents if run.artifacts[parent].kind == kind]


def _trainings(run: RunFolder, version: str) -> list[str]:
    """The models between what a version's making started from and itself, itself last: before PPO there was a tuning."""
    chain, numbered = [version], {name for name in run.versions if name != run.rejection}
    while (start := _name(run, _setting(run, chain[0], "model"))) and start not in numbered:
        if start in chain or dig(run.artifacts[start].manifest, "stage") not in ("sft", "ppo"):
            break
        chain.insert(0, start)
    return chain


def _training(run: RunFolder, name: str) -> Row:
    """One training: where it started, from which files, and which reward models had a say in it."""
    artifact = run.artifacts[name]
    files = _setting(run, name, "data") or _setting(run, name, "prompts") or []
    shares = _setting(run, name, "shares") or [1.0] * len(files)
    data = [_file(run, str(file), float(share)) for file, share in zip(files, shares, strict=False)]
    samples = [one["artifact"] for one in data if one["artifact"] and run.artifacts[one["artifact"]].kind == "samples"]
    return {
        "name": name, "stage": artifact.manifest.get("stage"), "from": _name(run, _setting(run, name, "model")), "data": data,
        **{key: artifact.metrics[key] for key in MADE if key in artifact.metrics},
        "judges": [judge for one in samples for judge in _inputs(run, one, "reward-model")] + _inputs(run, name, "reward-model"),
    }  # fmt: skip


def _file(run: RunFolder, given: str, share: float) -> Row:
    """`artifact` and `file`, its `rows`, the `share` of them that was taken, and of sampled answers how many each version gave (`pool`)."""
    name, file = _name(run, given), PurePosixPath(given.replace("\\", "/")).name
    rows = run.count(name, file) if name else None
    pool = run.metric(name, "pool") if name else None
    return {"artifact": name, "file": file, "rows": rows, "share": share} | ({"pool": pool} if pool else {})


def _judge(run: RunFolder, name: str) -> Row:
    """A reward model: its domain, whose trunk it has, how many pairs of which batches it learned from, how often it is right."""
    return {
        "name": name, "domain": run.metric(name, "domain"), "from": _name(run, _setting(run, name, "model")),
        "pairs": run.metric(name, "pairs"), "batches": _inputs(run, name, "preferences"), "accuracy": run.metric(name, "accuracy", "own", "all"),
    }  # fmt: skip


def _comparisons(run: RunFolder, name: str) -> list[Row]:
    return [row for file in ("preferences.jsonl", "test.jsonl") for row in run.rows(name, file)]


def _published(run: RunFolder, name: str) -> Row:
    """Comparisons of others, as `_collected` tells of a batch; who answered there is not told apart."""
    train, test = ([row for domain in DOMAINS for row in run.rows(name, f"{domain}{part}.jsonl")] for part in ("", "-test"))
    domains, grades = Counter(str(row.get("domain")) for row in train + test), Counter(row.get("grade") for row in train + test)
    left_out = sum((Counter(reasons) for reasons in (run.metric(name, "left_out") or {}).values()), Counter[str]())
    return {
        "name": name, "comparisons": len(train) + len(test), "test": len(test), "domains": dict(sorted(domains.items())),
        "grades": {grade: grades[grade] for grade in GRADES}, "answered": [], "dropped": dict(left_out),
    }  # fmt: skip


def _collected(run: RunFolder, name: str) -> Row:
    """A batch: who answered at which temperatures, how many comparisons of which domain and grade, what was left out."""
    if run.real:
        return _published(run, name)
    rows = _comparisons(run, name)
    domains, grades = Counter(str(row.get("domain")) for row in rows), Counter(row.get("grade") for row in rows)
    return {
        "name": name, "comparisons": len(rows), "test": len(run.rows(name, "test.jsonl")), "domains": dict(sorted(domains.items())),
        "grades": {grade: grades[grade] for grade in GRADES}, "answered": answers_by_model(rows), "dropped": run.metric(name, "dropped") or {},
    }  # fmt: skip


def _before(run: RunFolder, version: str) -> Iterator[str]:
    """What a version is held against: the one before, and what PPO made it of."""
    earlier = [name for name in run.versions if name != run.rejection]
    place = earlier.index(version)
    if place:
        yield earlier[place - 1]
    elif early := next((name for name in _rivals(run, version)), None):
        yield early
    if version == run.last and run.rejection in run.artifacts:
        yield run.rejection


def _rivals(run: RunFolder, version: str) -> Iterator[str]:
    """The older models that answered beside this one in later batches."""
    for name, artifact in run.artifacts.items():
        if artifact.kind == "preferences" and _name(run, _setting(run, name, "newest")) == version:
            yield str(_name(run, _setting(run, name, "previous")))


def _compared(run: RunFolder, version: str, before: str) -> Row:
    """Shares that the version won against an older one: `comparisons` of the next batch, by domain; on the same test prompts those of the
    `oracle` (or `judge`) and of the last `reward models`. Ties count half. `lost`: where the whole interval is below one half.
    """
    shares: dict[str, dict[str, Figure]] = {}
    for name, artifact in run.artifacts.items():
        rivals = {_name(run, _setting(run, name, key)) for key in ("newest", "previous")} if artifact.kind == "preferences" else set()
        if {version, before} <= rivals:
            shares["comparisons"] = win_shares(_comparisons(run, name), version)
    for judge, domains in judges(run).items():
        found = {domain: won for domain, values in domains.items() if (won := win_share(values(run, before), values(run, version)))}
        shares |= {judge: found} if found else {}
    lost = [
        f"{judge}, {domain}"
        for judge, domains in shares.items()
        for domain, won in domains.items()
        if effect(won, "below", EVEN) == "shown"
    ]
    return {"with": before, **{key.replace(" ", "_"): value for key, value in shares.items()}, "lost": lost}
