"""What several stages do alike: read inputs given as files or artifacts, write a chat model."""

import json
import math
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import WrapValidator

from ..core.artifacts import METRICS, Workplace, resolve
from ..core.errors import UserError
from ..core.files import write_text
from ..data.hub import files_of, is_hub

if TYPE_CHECKING:
    from ..assistant.local import Assistant
    from ..checkpoints.peft import AdapterFiles
    from ..data.records import Prompt
    from ..model.transformer import Trunk
    from ..tokenizer.sentencepiece import Tokenizer


def _as_paths(value: Any, _: Any) -> Any:
    # Wraps the validator of tuples without using it: in strict JSON mode that one takes nothing that was made here.
    items = [value] if isinstance(value, (str, Path)) else value
    if not isinstance(items, (list, tuple)) or not all(isinstance(item, (str, Path)) for item in items):
        raise ValueError(f"given {json.dumps(value, default=str)}, expected a path or a list of paths")
    return tuple(map(Path, items))


def _as_some_paths(value: Any, _: Any) -> Any:
    if not (paths := _as_paths(value, _)):
        raise ValueError("expected at least one path")
    return paths


Paths = Annotated[tuple[Path, ...], WrapValidator(_as_paths)]
"""One path or a list of them."""
SomePaths = Annotated[tuple[Path, ...], WrapValidator(_as_some_paths)]
"""At least one path."""


def data_file(path: Path, name: str) -> Path:
    """`path` itself if it is a file, else the file `name` of an artifact folder or RUN:NAME. Raises UserError."""
    if path.is_file():
        return path
    if not path.is_dir() and ":" not in path.name:
        raise UserError(f"{path}: no such file or folder; expected a file of rows, a folder that holds {name}, or RUN:NAME")
    folder = resolve(path)
    if not (folder / name).is_file():
        raise UserError(f"{folder}: holds no {name}; give a file or a folder that holds one")
    return folder / name


def data_files(paths: Iterable[Path], name: str) -> list[Path]:
    """The files behind several paths, see `data_file`; `hub:OWNER/NAME` stands for those of a data set. Raises UserError."""
    return [file for path in paths for file in (files_of(path, name) if is_hub(path) else [data_file(path, name)])]


def plain_files(paths: Iterable[Path], name: str) -> list[Path]:
    """Paths as they are, and the files that `hub:OWNER/NAME` stands for. Raises UserError."""
    return [file for path in paths for file in (files_of(path, name) if is_hub(path) else [path])]


def rows_file(path: Path) -> Path:
    """`path`, or the one file that `hub:OWNER/NAME/FILE` stands for. Raises UserError."""
    if not is_hub(path):
        return path
    files = files_of(path, "")
    if len(files) > 1:
        raise UserError(f"{path}: is {len(files)} files; this command reads one, such as {path}/{files[0].name}")
    return files[0]


def prompts_of(files: Sequence[Path], *assistants: "Assistant", optional: bool = False) -> "list[Prompt]":
    """The prompts of all files, for these models to answer.

    Raises UserError for a bad row, for a prompt that fills the context, and (unless `optional`) when there is none at all.
    """
    from ..data.records import read_prompts

    prompts = []
    for file in files:
        for number, prompt in enumerate(read_prompts(file), 1):
            for assistant in assistants:
                assistant.demand_room(prompt.dialogue, f"{file}: prompt {number}")
            prompts.append(prompt)
    if not prompts and not optional:
        raise UserError(f"no prompt in {', '.join(map(str, files))}; give a file with at least one")
    return prompts


def finish_model(place: Workplace, model: "Trunk", tokenizer: "Tokenizer", title: str, facts: Mapping[str, Any]) -> None:
    """Writes the model folder with its card and the metrics of its training."""
    from ..checkpoints.card import Task, model_card
    from ..checkpoints.huggingface import HuggingFaceFiles
    from ..model.transformer import Scorer

    HuggingFaceFiles(model, tokenizer).save(place.folder)
    shutil.copyfile(place.log, place.folder / METRICS)
    parameters = sum(weight.numel() for weight in model.parameters())
    task: Task = "text-classification" if isinstance(model, Scorer) else "text-generation"
    write_text(place.folder / "README.md", model_card(title, task, model.config, parameters, place.made, facts))


def finish_adapter(place: Workplace, files: "AdapterFiles", tokenizer: "Tokenizer", title: str, facts: Mapping[str, Any]) -> None:
    """Writes an adapter's folder with its tokenizer, its card and the metrics of its training."""
    from ..checkpoints.card import adapter_card
    from ..checkpoints.tokenizer_json import write_tokenizer_files

    files.save(place.folder)
    write_tokenizer_files(tokenizer, place.folder, files.model.config.context)
    shutil.copyfile(place.log, place.folder / METRICS)
    parameters = sum(weight.numel() for weight in files.model.parameters() if weight.requires_grad)
    write_text(place.folder / "README.md", adapter_card(title, files.base, files.config, parameters, place.made, facts))


def sigmoid(logit: float) -> float:
    """1 / (1 + exp(-logit)), written so that no exponential overflows."""
    small = math.exp(-abs(logit))
    return 1 / (1 + small) if logit >= 0 else small / (1 + small)
