"""Academic benchmarks on a model of any size, without the chat format, and held-out text in bits per byte (paper.md section 13)."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field

from ..core.artifacts import Artifact, building, model_path, open_artifact
from ..core.chunks import in_chunks
from ..core.config import Config
from ..core.errors import UserError
from ..core.files import ROWS_SUFFIXES, write_json, write_rows
from ..data.inputs import described_by, parents_of
from ..data.public.sources import public_files, public_folder
from .common import Paths, data_files

if TYPE_CHECKING:
    from ..data.documents import Document
    from ..evaluation.benchmarks import Item

Task = Literal[
    "bits-per-byte", "stories", "lambada", "boolq", "piqa", "arc-easy", "arc-challenge", "hellaswag", "openbookqa", "winogrande", "copa",
    "choices", "continuations",
]  # fmt: skip
FOUNDRY = "benchmarks/llm_foundry"
PUBLIC: dict[Task, str] = {
    "lambada": f"{FOUNDRY}/lambada_openai.jsonl.gz",
    "boolq": f"{FOUNDRY}/boolq.jsonl.gz",
    "piqa": f"{FOUNDRY}/piqa.jsonl.gz",
    "arc-easy": f"{FOUNDRY}/arc_easy.jsonl.gz",
    "arc-challenge": f"{FOUNDRY}/arc_challenge.jsonl.gz",
    "hellaswag": "benchmarks/hellaswag/hellaswag_val_sample.jsonl.gz",
    "openbookqa": f"{FOUNDRY}/openbook_qa.jsonl.gz",
    "winogrande": f"{FOUNDRY}/winogrande.jsonl.gz",
    "copa": f"{FOUNDRY}/copa.jsonl.gz",
}
"""Where each task's items are in the folder of public data."""
OWN: tuple[Task, ...] = ("choices", "continuations")
"""Tasks for files of one's own alone."""
HELD_OUT: tuple[Task, ...] = ("bits-per-byte", "stories")
"""Tasks on held-out documents."""
TASKS: tuple[Task, ...] = get_args(Task)
DEFAULT: tuple[Task, ...] = tuple(task for task in TASKS if task not in OWN)
Rows = list[dict[str, Any]]
DOCUMENTS = "held-out.jsonl"
"""In an artifact of held-out documents."""


def _as_tasks(value: Any) -> Any:
    return tuple(value.split(",")) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value


class BenchmarkSettings(Config):
    """What is asked, and how much of it at a time."""

    tasks: Annotated[tuple[Task, ...], BeforeValidator(_as_tasks), Field(min_length=1)] = DEFAULT
    """What is measured; choices and continuations are for files of one's own."""
    most: int | None = Field(None, ge=1)
    """Items of each task (of bits-per-byte: documents of each source), drawn once and for all models alike; null: all."""
    subset_seed: int = 0
    """Draws those items, and the endings that each story is told apart from."""
    batch_tokens: int = Field(4096, ge=1)
    """Tokens read at a time; a longer item is read by itself."""
    chunk_items: int = Field(128, ge=1)
    """Items between two saved states."""


class BenchmarkConfig(BenchmarkSettings):
    """Settings and inputs."""

    model: Path
    """A base or chat model: a folder, RUN or RUN:VERSION. Either is asked without the chat format."""
    data: Path | None = None
    """Folder of public data (null: LLAMAHERD_DATA), a folder with TASK.jsonl, or one file of rows for a single task."""
    held_out: Paths = ()
    """Files of documents that the model was not trained on, for bits-per-byte (all sources) and stories (source tinystories)."""


def run(config: BenchmarkConfig, out: Path, seed: int) -> Artifact:
    """Writes evaluation.json (figures with intervals, chance and verdict) and rows.jsonl (every item). Raises UserError.

    Nothing is drawn by `seed`: what is asked does not depend on who is asked, nor when.
    """
    from ..checkpoints.quantized import load_for_inference
    from ..core.device import best_device
    from ..evaluation.benchmarks import TASKS as FORMS
    from ..evaluation.benchmarks import bits_figures, document_rows, figures, scored

    folder = model_path(config.model)
    files, documents_files = files_of(config.tasks, config.data), _document_files(config)
    documents, blank = _documents(documents_files, config)
    items, left_out = _items(config, files, documents)
    parents = parents_of([described_by(folder), *files.values(), *documents_files])
    with building(out, kind="evaluation", stage="benchmark", config=config, parents=parents, seed=seed) as place:
        model, tokenizer = load_for_inference(folder, best_device())
        report: dict[str, Any] = {"model": folder.name, "few_shot": 0, "tasks": {}}
        rows: Rows = []

        def gathered(task: Task, asked: Sequence[Any], work: Callable[[Sequence[Any]], Rows]) -> Rows:
            found = in_chunks(place.state / task, asked, config.chunk_items, lambda chunk, _: work(chunk))
            rows.extend({"task": task, **row} for row in found)
            return found

        for task in (task for task in TASKS if task in config.tasks):
            if task == "bits-per-byte":
                asked = _each_source(documents, config)
                found = gathered(task, asked, lambda chunk: document_rows(model, tokenizer, chunk, config.batch_tokens))
                report["tasks"][task] = bits_figures(found) | {"blank": blank}
            else:
                found = gathered(task, items[task], lambda chunk: scored(model, tokenizer, chunk, config.batch_tokens))
                normalised = task == "stories" or FORMS[task].normalised
                report["tasks"][task] = figures(items[task], found, normalised) | left_out.get(task, {})
        write_json(place.folder / "evaluation.json", report)
        write_rows(place.folder / "rows.jsonl", rows)
        place.metrics.update(report["tasks"])
    return open_artifact(out, "evaluation")


def files_of(asked: Sequence[Task], data: Path | None) -> dict[Task, Path]:
    """The file of each task that reads one. Raises UserError that names those that are absent and whence they come."""
    tasks = [task for task in asked if task not in HELD_OUT]
    if not tasks:
        return {}
    if data is not None and data.is_file():
        if len(tasks) > 1:
            raise UserError(f"{data}: one file, and {len(tasks)} tasks that read one ({', '.join(tasks)}); give a folder or one task")
        return {tasks[0]: data}
    if own := [task for task in tasks if task in OWN and (data is None or _own_file(data, task) is None)]:
        raise UserError(f"task {own[0]}: needs --data FILE, rows as docs/evaluation.md shows, or a folder with {own[0]}.jsonl")
    folder = public_folder(data)
    found = {task: file for task in tasks if (file := _own_file(folder, task))}
    public = {task: PUBLIC[task] for task in tasks if task not in found}
    there = public_files(folder, public.values())
    return {task: found[task] if task in found else there[public[task]] for task in tasks}


def _own_file(folder: Path, task: Task) -> Path | None:
    return next((file for suffix in ROWS_SUFFIXES if (file := folder / f"{task}{suffix}").is_file()), None)


def _document_files(config: BenchmarkConfig) -> list[Path]:
    wanted = [task for task in config.tasks if task in HELD_OUT]
    if wanted and not config.held_out:
        raise UserError(f"task {wanted[0]}: needs --held-out FILE, documents that the model was not trained on")
    return data_files(config.held_out, DOCUMENTS) if wanted else []


def _documents(files: Sequence[Path], config: BenchmarkConfig) -> "tuple[list[Document], int]":
    """The held-out documents, and how many more are blank."""
    from ..data.documents import read_documents

    found = list(read_documents(files))
    documents = [document for document in found if document.text.strip()]
    if files and not documents:
        raise UserError(f"no document in {', '.join(map(str, files))}; give a file with at least one that is not blank")
    return documents, len(found) - len(documents)


def _each_source(documents: "Sequence[Document]", config: BenchmarkConfig) -> "list[Document]":
    """All documents, or so many of each source."""
    from ..evaluation.benchmarks import drawn

    sources = sorted({document.source for document in documents})
    by_source = ([document for document in documents if document.source == source] for source in sources)
    return [one for source, found in zip(sources, by_source, strict=True) for one in drawn(found, config.most, config.subset_seed, source)]


def _items(
    config: BenchmarkConfig, files: dict[Task, Path], documents: "Sequence[Document]"
) -> "tuple[dict[Task, list[Item]], dict[Task, dict[str, int]]]":
    """What each task asks, and what it left out before asking. Raises UserError for a row of another form, by file and line."""
    from ..evaluation.benchmarks import drawn, read_items, story_items

    found, left_out = {task: read_items(task, file) for task, file in files.items()}, dict[Task, dict[str, int]]()
    if "stories" in config.tasks:
        found["stories"], short = story_items(documents, config.subset_seed)
        left_out["stories"] = {"too_short": short}
    return {task: drawn(items, config.most, config.subset_seed, task) for task, items in found.items()}, left_out


def headline(artifact: Artifact) -> str:
    """What came out, in one line."""
    parts = []
    for task, found in artifact.metrics.items():
        figure = found["bits_per_byte" if task == "bits-per-byte" else "accuracy"]
        if figure["value"] is None:
            parts.append(f"{task} nothing measured")
            continue
        against = f", {found['verdict']} of {found['chance']:.3f}" if "chance" in found else ""
        parts.append(f"{task} {figure['value']:.3f} ({figure['low']:.3f} to {figure['high']:.3f}{against})")
    return "; ".join(parts)
