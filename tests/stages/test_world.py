from pathlib import Path
from typing import Any

import pytest

from llamaherd.core.artifacts import Artifact
from llamaherd.core.config import ConfigError, build
from llamaherd.core.files import read_rows
from llamaherd.data.documents import read_documents
from llamaherd.data.records import read_dialogues, read_prompts
from llamaherd.stages import world

SIZES = {
    "documents": 40, "dialogues": 12, "versions": 2, "helpfulness_pairs": 10, "safety_pairs": 9, "rejection_prompts": 10,
    "ppo_prompts": 5, "held_out_prompts": 4, "best_of_prompts": 3, "ghost_dialogues": 6, "ghost_turns": [2, 3], "distilled_prompts": 7,
    "harmless_prompts": 8, "distilled_tests": 6,
}  # fmt: skip


def run(out: Path, seed: int = 0, **values: Any) -> Artifact:
    return world.run(build(world.WorldStageConfig, SIZES | values), out, seed)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return run(tmp_path_factory.mktemp("world") / "world")


def rows(made: Artifact, name: str) -> list[dict[str, Any]]:
    return [row for _, row in read_rows(made.path / name)]


def test_every_file_reads_back_and_is_counted(made: Artifact) -> None:
    counts = made.metrics["counts"]
    assert counts == {file.name: len(rows(made, file.name)) for file in made.path.glob("*.jsonl")}
    assert counts["v1-helpfulness.jsonl"] == counts["v2-helpfulness.jsonl"] == 10
    assert len(read_dialogues(made.path / "demonstrations.jsonl")) == 12
    assert len(list(read_documents([made.path / "documents.jsonl"]))) == 40
    prompts = [name for name in counts if name not in ("documents.jsonl", "demonstrations.jsonl", "ghost.jsonl")]
    assert sum(len(read_prompts(made.path / name)) for name in prompts) + 6 == sum(counts.values()) - 52
    assert world.headline(made) == f"40 documents, 12 demonstrations, {sum(counts.values()) - 52} prompts"
    hosts = (made.path / "blocked-hosts.txt").read_text().split()
    assert hosts


def test_shares_of_safety_prompts(made: Artifact) -> None:
    rejection = rows(made, "v1-rejection.jsonl")
    assert all(row["kind"] != "harmful" for row in rejection[:6])
    assert len(rejection) == 10
    assert any(row["safety"] for row in rejection[6:])
    assert not any(row["safety"] for row in rows(made, "harmless.jsonl"))
    assert all(row["safety"] for name in ("distil.jsonl", "distil-test.jsonl") for row in rows(made, name))


def test_versions_get_fresh_prompts(made: Artifact) -> None:
    first, second = ([row["messages"] for row in rows(made, f"v{version}-helpfulness.jsonl")] for version in (1, 2))
    assert first != second


def test_half_of_the_preprompts_name_the_risk(made: Artifact) -> None:
    distilled = rows(made, "distil.jsonl")
    assert all(row["preprompt"] for row in distilled)
    about = ["about" in row["preprompt"] for row in distilled]
    assert about == [index % 2 == 1 for index in range(7)]


def test_scripts_have_the_turns_asked_for(made: Artifact) -> None:
    assert {len(row["users"]) for row in rows(made, "ghost.jsonl")} == {2, 3}


def test_tests_never_meet_what_is_trained_on(made: Artifact) -> None:
    """By their wording, or, where a held-out topic is asked about, by the topic."""
    trained = {
        row["messages"][-1]["content"] for row in rows(made, "demonstrations.jsonl") + rows(made, "distil.jsonl") + rows(made, "ppo.jsonl")
    }
    for name in ("best-of.jsonl", "distil-test.jsonl", "held-out.jsonl"):
        assert not {row["messages"][-1]["content"] for row in rows(made, name) if len(row["messages"]) == 1} & trained
    assert all(row["seen"] is False or row["attack"] not in ("plain",) for row in rows(made, "distil-test.jsonl"))
    assert all(row["seen"] for name in ("distil.jsonl", "ppo.jsonl", "v1-safety.jsonl") for row in rows(made, name))


def test_the_seed_decides(made: Artifact, tmp_path: Path) -> None:
    assert run(tmp_path / "again").hash == made.hash
    assert run(tmp_path / "other", seed=1).hash != made.hash


def test_impossible_worlds(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ghost_turns: given \[3, 2\], expected the least and the most turns"):
        run(tmp_path / "world", ghost_turns=[3, 2])
    assert not (tmp_path / "world").exists()
