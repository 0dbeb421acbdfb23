from pathlib import Path

import pytest

from llamaherd.core.artifacts import Artifact
from llamaherd.core.config import ConfigError, build
from llamaherd.core.errors import UserError
from llamaherd.data.public.comparisons import LABELLED, SETS, first_message
from llamaherd.data.records import DOMAINS, Preference, read_preferences
from llamaherd.stages import comparisons


def run(data: Path, out: Path, seed: int = 0, **values: object) -> Artifact:
    return comparisons.run(build(comparisons.ComparisonsConfig, {"data": str(data), **values}), out, seed)


@pytest.fixture(scope="module")
def made(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return run(data, tmp_path_factory.mktemp("comparisons") / "out")


def rows(made: Artifact) -> dict[str, list[Preference]]:
    return {name: read_preferences(made.path / name) for name in made.metrics["counts"]}


def test_every_file_reads_back_and_every_row_of_the_sets_is_accounted_for(made: Artifact) -> None:
    files = rows(made)
    assert {name: len(own) for name, own in files.items()} == made.metrics["counts"]
    assert set(files) == {"helpfulness.jsonl", "safety.jsonl", "helpfulness-test.jsonl", "safety-test.jsonl", "judge.jsonl"}
    assert made.metrics["comparisons"] == sum(map(len, files.values()))
    left_out = {name: sum(reasons.values()) for name, reasons in made.metrics["left_out"].items()}
    kept = {name: sum(found.get(name, 0) for found in made.metrics["sources"].values()) for name in SETS}
    read = {"hh-helpful": 1786, "webgpt": 680, "pandalm": 739, "hh-harmless": 1713, LABELLED: 2814}
    assert read == {name: left_out[name] + kept[name] * (2 if name == LABELLED else 1) for name in SETS}
    assert comparisons.headline(made).startswith(f"{made.metrics['comparisons']:,} comparisons: ")


def test_no_two_parts_share_a_first_message(made: Artifact) -> None:
    files = rows(made)
    asked = {name: {first_message(row) for row in own} for name, own in files.items()}
    tested = asked["helpfulness-test.jsonl"] | asked["safety-test.jsonl"]
    trained = asked["helpfulness.jsonl"] | asked["safety.jsonl"]
    assert not tested & trained
    assert not asked["judge.jsonl"] & (tested | trained)


def test_domains_sources_and_grades(made: Artifact) -> None:
    files = rows(made)
    for domain in DOMAINS:
        for name in (f"{domain}.jsonl", f"{domain}-test.jsonl"):
            assert {row.domain for row in files[name]} == {domain}
        assert {row.source for row in files[f"{domain}-test.jsonl"]} == {name for name in SETS if SETS[name][1] == domain}
    assert {row.domain for row in files["judge.jsonl"]} == {"helpfulness"}
    assert LABELLED not in {row.source for row in files["safety.jsonl"]}, "its questions are prompts of the evaluation"
    graded = [row for row in files["helpfulness-test.jsonl"] if row.grade]
    assert {row.source for row in graded} == {"webgpt", "pandalm"}
    assert len({row.grade for row in graded}) == 4
    assert 0.2 < len(files["judge.jsonl"]) / sum(len(files[name]) for name in files if not name.startswith("safety")) < 0.3


def test_few_of_each_domain_and_the_same_from_the_same_seed(data: Path, tmp_path: Path) -> None:
    first, again, other = (run(data, tmp_path / name, seed, most=60) for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    assert first.hash == again.hash != other.hash
    assert first.metrics["comparisons"] == 120
    assert first.metrics["not_taken"] > 4000


def test_problems_are_told_before_anything_is_written(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"test 0.5 and judge 0.5 leave nothing to train on"):
        build(comparisons.ComparisonsConfig, {"test": 0.5, "judge": 0.5})
    with pytest.raises(UserError, match="5 public files are absent") as raised:
        run(tmp_path, tmp_path / "out")
    assert all(file in str(raised.value) for file, _ in SETS.values())
    with pytest.raises(UserError, match=r"no comparison is left for .* raise most, or the shares of test and judge"):
        run(data, tmp_path / "few", most=20, test=0.01, judge=0.01)
    assert list(tmp_path.iterdir()) == []
