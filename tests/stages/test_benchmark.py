"""Benchmarks as a stage: figures of own files and of the public ones, what is missing, what is drawn."""

from pathlib import Path
from typing import Any

import pytest

from llamaherd.core.artifacts import Artifact
from llamaherd.core.config import build
from llamaherd.core.errors import UserError
from llamaherd.core.files import read_json, read_rows, write_rows
from llamaherd.stages import benchmark

ROWS = {
    "piqa": {"query": "Question: Where?\n", "choices": ["Lima", "Oslo or Rome"], "gold": 1},
    "lambada": {"context": "Ada lives in Oslo. Ben lives in", "continuation": "Oslo"},
    "winogrande": {"context_options": ["Ada lives in", "Ben lives in"], "continuation": "Lima.", "gold": 0},
}


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder of one's own with a file for each task, and held-out documents."""
    folder = tmp_path / "own"
    for task, row in ROWS.items():
        write_rows(folder / f"{task}.jsonl", [row] * 12)
    stories = [f"Ada met Ben. It was day {day}. They went to Lima. Then it rained. They slept for {day} days." for day in range(8)]
    held_out = [{"text": text, "source": "tinystories"} for text in stories]
    write_rows(
        folder / "held-out.jsonl", [*held_out, {"text": "Max lives in Kyiv. " * 40, "source": "facts"}, {"text": " ", "source": "facts"}]
    )
    return folder


def run(tiny_folder: Path, own: Path, out: Path, **values: Any) -> Artifact:
    given = {"model": str(tiny_folder / "v0"), "data": str(own), "held_out": str(own)} | values
    return benchmark.run(build(benchmark.BenchmarkConfig, given), out, 0)


def test_figures_and_rows_of_every_item(tiny_folder: Path, own: Path, tmp_path: Path) -> None:
    tasks = "bits-per-byte,stories,piqa,lambada,winogrande"
    done = run(tiny_folder, own, tmp_path / "out", tasks=tasks)
    report = read_json(done.path / "evaluation.json")
    assert (done.kind, report["few_shot"], list(report["tasks"])) == (
        "evaluation", 0, ["bits-per-byte", "stories", "lambada", "piqa", "winogrande"],
    )  # fmt: skip
    found = report["tasks"]
    assert found["bits-per-byte"]["documents"] == 9
    assert (found["bits-per-byte"]["blank"], found["bits-per-byte"]["in_windows"]) == (1, 1)
    assert set(found["bits-per-byte"]["by_source"]) == {"tinystories", "facts"}
    assert (found["stories"]["items"], found["stories"]["chance"], found["stories"]["too_short"]) == (8, 0.25, 0)
    assert (found["piqa"]["items"], found["piqa"]["chance"], found["piqa"]["majority"]) == (12, 0.5, 1.0)
    assert found["lambada"]["chance"] == 1.0, "who always says Oslo is always right"
    assert found["winogrande"]["accuracy"]["value"] in (0.0, 1.0), "twelve times the same question"
    assert found["piqa"]["verdict"] in ("above chance", "below chance")
    rows = [row for _, row in read_rows(done.path / "rows.jsonl")]
    assert [row["task"] for row in rows] == ["bits-per-byte"] * 9 + ["stories"] * 8 + ["lambada"] * 12 + ["piqa"] * 12 + ["winogrande"] * 12
    assert rows[-1]["item"] == "winogrande.jsonl 12"
    assert done.metrics == found
    assert f"piqa {found['piqa']['accuracy']['value']:.3f} (" in benchmark.headline(done)
    assert "held-out.jsonl" in " ".join(done.manifest["parents"])


def test_neither_chunks_nor_batches_nor_the_seed_matter(tiny_folder: Path, own: Path, tmp_path: Path) -> None:
    settings = {"tasks": "stories,bits-per-byte", "most": 5}
    one = run(tiny_folder, own, tmp_path / "one", **settings)
    other = run(tiny_folder, own, tmp_path / "other", **settings, chunk_items=2, batch_tokens=50)
    ours, theirs = ([row for _, row in read_rows(done.path / "rows.jsonl")] for done in (one, other))
    assert len(ours) == 5 + 1 + 5, "five stories, all facts, and five stories to tell apart"
    for mine, their in zip(ours, theirs, strict=True):
        assert mine.get("item") == their.get("item")
        assert mine.get("log_probs", [mine.get("nats")]) == pytest.approx(their.get("log_probs", [their.get("nats")]), abs=1e-3)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"tasks": "piqa,lambada", "data": "{own}/piqa.jsonl"}, r"piqa\.jsonl: one file, and 2 tasks that read one \(piqa, lambada\)"),
        ({"tasks": "choices"}, r"task choices: needs --data FILE, rows as docs/evaluation.md shows, or a folder with choices\.jsonl"),
        ({"tasks": "boolq"}, r"own: 1 public files are absent.*llm_foundry/boolq.jsonl.gz: from github.com/mosaicml/llm-foundry"),
        ({"tasks": "stories", "held_out": []}, "task stories: needs --held-out FILE, documents that the model was not trained on"),
        ({"tasks": "piqa", "data": "{own}/lambada.jsonl"}, r'lambada\.jsonl line 1: expected "choices"'),
        ({"tasks": "bits-per-byte", "held_out": "{own}/piqa.jsonl"}, r'piqa\.jsonl line 1: expected "text", the document'),
        ({"tasks": "bits-per-byte", "held_out": "{own}/blank.jsonl"}, r"no document in .*blank\.jsonl; give a file with at least one"),
    ],
)
def test_what_cannot_be_measured_is_said_before_work_starts(
    values: dict[str, Any], problem: str, tiny_folder: Path, own: Path, tmp_path: Path
) -> None:
    write_rows(own / "blank.jsonl", [{"text": "\n"}])
    given = {key: value.format(own=own) if isinstance(value, str) else value for key, value in values.items()}
    with pytest.raises(UserError, match=f"(?s){problem}"):
        run(tiny_folder, own, tmp_path / "out", **given)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.partial").exists()


def test_one_file_for_one_task(tiny_folder: Path, own: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "mine.jsonl", [{"query": "Ada lives in", "choices": ["Lima", "Oslo", "Rome", "Kyiv"], "gold": 3}] * 3)
    done = run(tiny_folder, own, tmp_path / "out", tasks="choices", data=str(tmp_path / "mine.jsonl"))
    assert (done.metrics["choices"]["chance"], done.metrics["choices"]["items"]) == (0.25, 3)
    assert "accuracy_per_character" in done.metrics["choices"]


@pytest.mark.parametrize("task", list(benchmark.PUBLIC))
def test_the_public_items_are_read(task: Any, data: Path) -> None:
    from llamaherd.evaluation.benchmarks import read_items

    items = read_items(task, data / benchmark.PUBLIC[task])
    assert len(items) >= 100
    assert len({item.name for item in items}) == len(items)
