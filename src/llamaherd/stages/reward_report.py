"""What a trained reward model is worth on any comparisons, by itself and beside others (paper.md section 5, tables 7, 8, 28 and 29)."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.artifacts import Artifact, building, model_path, open_artifact
from ..core.config import Config
from ..core.errors import UserError
from ..core.files import read_rows, write_json, write_rows, write_text
from ..data.inputs import described_by, parents_of
from ..data.records import Domain
from ..measures.calibration import sigmoid
from .common import Paths, data_files, declared_domain

if TYPE_CHECKING:
    from ..data.preferences import Counts
    from ..data.records import Preference
    from ..reward.model import RewardModel

Rows = list[dict[str, Any]]
NEEDED = ("id", "domain", "grade", "batch", "chosen_logit", "rejected_logit", "chosen_chars", "rejected_chars", "source", "agrees")
"""What a row of tested.jsonl has that this report reads."""


class RewardReportConfig(Config):
    """What is judged, by what."""

    model: Path
    """The reward model: a folder or RUN:NAME; also the folder of one that was trained as an adapter."""
    against: Paths = ()
    """Others to stand beside it on the same comparisons: other margins, an earlier version, the guard."""
    data: Paths = ()
    """Files of preferences, or folders that hold test.jsonl, each a test set of its own; empty: the comparisons that the models were tested
    on in training, as far as all of them were."""
    rated: Paths = ()
    """Files of dialogues whose last answer people rated: "rating" is a number, the higher the better."""
    domain: Domain | None = None
    """Which domain is its own; null: what the model's manifest says, helpfulness without one."""


def run(config: RewardReportConfig, out: Path, seed: int) -> Artifact:
    """Writes report.json, report.html and, of every model, rows.jsonl. Comparisons that are too long for a model, and unsafe answers chosen
    over safe ones, are left out and counted. Raises UserError."""
    from ..report.reward_page import reward_page
    from ..reward.report import agreement_report, reward_report

    folders = [model_path(path) for path in (config.model, *config.against)]
    domain = _domain(config, folders[0])
    names = _names(folders)
    files, rated_files = data_files(config.data, "test.jsonl"), data_files(config.rated, "dialogues.jsonl")
    parents = parents_of([*(described_by(folder) for folder in folders), *files, *rated_files])
    with building(out, kind="report", stage="reward_report", config=config, parents=parents, seed=seed) as place:
        if files or rated_files:
            rows, ratings, left_out = _scored(folders, names, domain, files, rated_files)
        else:
            rows, ratings, left_out = {name: _tested(folder) for name, folder in zip(names, folders, strict=True)}, {}, {}
            rows = _shared(rows)
        first, *others = names
        found = {
            "models": {name: reward_report(rows[name], domain, ratings.get(name, ())) for name in names},
            "agreement": {name: agreement_report(rows[first], rows[name]) for name in others}, "left_out": left_out,
        }  # fmt: skip
        write_json(place.folder / "report.json", found)
        write_text(place.folder / "report.html", reward_page(found))
        write_rows(place.folder / "rows.jsonl", [{"model": name, **row} for name in names for row in rows[name]])
        place.metrics.update(found)
    return open_artifact(out, "report")


def _domain(config: RewardReportConfig, folder: Path) -> Domain:
    declared: Any = declared_domain(folder)
    if config.domain and declared and declared != config.domain:
        raise UserError(f"{folder}: is a {declared} reward model, as its manifest says; leave out --domain={config.domain}")
    return config.domain or declared or "helpfulness"


def _names(folders: Sequence[Path]) -> list[str]:
    """What each model is called: its folder's name, with the folder above where two have the same. Raises UserError for one given twice."""
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise UserError("one model is given twice; --against takes others than --model")
    bare = [folder.resolve().name for folder in folders]
    return [name if bare.count(name) == 1 else f"{folder.resolve().parent.name}/{name}" for name, folder in zip(bare, folders, strict=True)]


def _tested(folder: Path) -> Rows:
    """The rows of the comparisons that a model was tested on when it was trained. Raises UserError when there are none."""
    file = folder / "tested.jsonl"
    if not file.is_file():
        raise UserError(f"{folder}: holds no tested.jsonl, so it was not trained by llamaherd; give comparisons with --data FILE")
    rows = [row for _, row in read_rows(file)]
    if not rows:
        raise UserError(f"{folder}: was tested on nothing; give comparisons with --data FILE")
    if missing := [name for name in NEEDED if name not in rows[0]]:
        raise UserError(f"{file}: has no {missing[0]}, an earlier version wrote it; give the comparisons with --data FILE")
    return rows


def _shared(rows: Mapping[str, Rows]) -> dict[str, Rows]:
    """Of each model the comparisons that all were tested on. Raises UserError when there is none."""
    ids = set.intersection(*({row["id"] for row in some} for some in rows.values()))
    if not ids:
        raise UserError(f"{', '.join(rows)}: were tested on no comparison in common; give comparisons with --data FILE")
    return {name: [row for row in some if row["id"] in ids] for name, some in rows.items()}


def _scored(
    folders: Sequence[Path], names: Sequence[str], domain: Domain, files: Sequence[Path], rated_files: Sequence[Path]
) -> tuple[dict[str, Rows], dict[str, list[tuple[float, float]]], dict[str, Any]]:
    """Rows and (rating, score) of each model, and what was left out: what contradicts itself, and by model what was too long."""
    from ..chat.dialogue import parse_dialogue
    from ..data.preferences import Counts
    from ..reward.model import RewardModel

    counts = Counts()
    read = {file: list(_preferences(file, domain, counts)) for file in files}
    rated = [
        (parse_dialogue(row, where, ends_with="assistant"), _rating(row, "rating", where))
        for file in rated_files for number, row in read_rows(file) for where in [f"{file} line {number}"]
    ]  # fmt: skip
    if not any(read.values()) and not rated:
        raise UserError(f"no comparison in {', '.join(map(str, files or rated_files))}; give a file with at least one")
    left_out: dict[str, Any] = {
        **counts.left_out,
        "unsafe_chosen_over_safe": sum(row.contradicts for some in read.values() for row, _ in some),
    }
    rows, ratings, left_out["too_long"] = {}, {}, {}
    for name, folder in zip(names, folders, strict=True):
        model = RewardModel.load(folder)
        rows[name], ratings[name], left_out["too_long"][name] = _of_model(model, read, rated)
    return rows, ratings, left_out


def _of_model(
    model: "RewardModel",
    read: "Mapping[Path, list[tuple[Preference, tuple[float | None, float | None]]]]",
    rated: Sequence[tuple[Any, float]],
) -> tuple[Rows, list[tuple[float, float]], int]:
    from ..reward.accuracy import comparison_rows
    from ..reward.pairs import fitting

    rows, ratings, dropped = list[dict[str, Any]](), list[tuple[float, float]](), 0
    for file, pairs in read.items():
        whole = [(row, people) for row, people in pairs if not row.contradicts]
        fit = set(map(id, fitting([row for row, _ in whole], model)))
        kept = [(row, people) for row, people in whole if id(row) in fit]
        dropped += len(whole) - len(kept)
        for row, (_, people) in zip(comparison_rows(model, [row for row, _ in kept]), kept, strict=True):
            rows.append({**row, "file": file.name})
            sides = zip(people, (row["chosen_logit"], row["rejected_logit"]), strict=True)
            ratings += [(rating, sigmoid(logit)) for rating, logit in sides if rating is not None]
    short = [(dialogue, rating) for dialogue, rating in rated if model.fits(dialogue)]
    ratings += zip((rating for _, rating in short), model.scores([dialogue for dialogue, _ in short]), strict=True)
    return rows, ratings, dropped + len(rated) - len(short)


def _preferences(file: Path, domain: Domain, counts: "Counts") -> "Iterator[tuple[Preference, tuple[float | None, float | None]]]":
    """The comparisons of a file, each with people's ratings of its answers where the row has "chosen_rating" and "rejected_rating"."""
    from ..data.preferences import comparisons_and_rows

    for preference, row, where in comparisons_and_rows(file, domain, counts):
        chosen, rejected = (_rating(row, key, where) if row.get(key) is not None else None for key in ("chosen_rating", "rejected_rating"))
        yield preference, (chosen, rejected)


def _rating(row: Mapping[str, Any], key: str, where: str) -> float:
    value = row.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
        raise UserError(f"{where}: {key!r} is {str(value)[:40]!r}; expected people's rating of the answer, a number")
    return float(value)


def headline(artifact: Artifact) -> str:
    """What came out, in one line."""
    models = artifact.metrics["models"]
    name, model = next(iter(models.items()))

    def percent(figure: Mapping[str, Any] | None) -> str:
        return "-" if figure is None or figure["value"] is None else f"{figure['value']:.0%}"

    length, unsafe, rated = model["length"], model["unsafe"], model["ratings"]
    compared = (
        f"{model['pairs']:,} comparisons, accuracy {percent(model['accuracy']['own']['all'])} (other domain {percent(model['accuracy']['other']['all'])}",
        f"taking the longer answer {percent(length['people_prefer_longer'])})",
        f"calibration error {percent(model['calibration']['expected_calibration_error'])}",
    )
    known = "-" if not rated or rated["correlation"]["value"] is None else f"{rated['correlation']['value']:.2f}"
    parts = [
        *(compared if model["pairs"] else ()),
        *([f"rank correlation with {rated['correlation']['n']:,} ratings {known}"] if rated else ()),
        *(f"{percent(one['recall'])} of unsafe answers below {threshold}" for threshold, one in unsafe.items()),
        *(f"chooses as {other} does in {percent(one['same_choice'])}" for other, one in artifact.metrics["agreement"].items()),
    ]
    dropped = artifact.metrics["left_out"]
    left_out = {**dropped, "too_long": dropped.get("too_long", {}).get(name, 0)}
    return ", ".join(parts + [f"{count:,} {reason.replace('_', ' ')}" for reason, count in left_out.items() if count])
