"""What several stages do alike: read inputs given as files or artifacts, write a chat model."""

import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, WrapValidator

from ..core.artifacts import METRICS, Workplace, find_artifact, model_path, resolve
from ..core.errors import UserError
from ..core.files import write_text
from ..data.hub import files_of, is_hub

if TYPE_CHECKING:
    from ..assistant.local import Assistant
    from ..chat.dialogue import Dialogue
    from ..checkpoints.card import Task
    from ..checkpoints.peft import AdapterFiles
    from ..checkpoints.source import Source
    from ..data.records import Domain, Judge, Prompt
    from ..miniature.world import WorldConfig
    from ..model.transformer import Trunk
    from ..reward.combine import Rewards
    from ..reward.model import RewardModel
    from ..tokenizer.sentencepiece import Tokenizer


def _as_paths(value: Any, _: Any) -> Any:
    # Wraps the validator of tuples without using it: in strict JSON mode that one takes nothing that was made here.
    # As the command line gives several: a,b. A file whose name has a comma is itself.
    text = value.split(",") if isinstance(value, str) and not os.path.exists(value) else [value]
    items = text if isinstance(value, (str, Path)) else value
    if not isinstance(items, (list, tuple)) or not all(isinstance(item, (str, Path)) for item in items):
        raise ValueError(f"given {json.dumps(value, default=str)}, expected a path or a list of paths")
    return tuple(map(Path, items))


def _as_some_paths(value: Any, _: Any) -> Any:
    if not (paths := _as_paths(value, _)):
        raise ValueError("expected at least one path")
    return paths


Paths = Annotated[tuple[Path, ...], WrapValidator(_as_paths)]
"""One path, several with commas between, or a list of them."""
SomePaths = Annotated[tuple[Path, ...], WrapValidator(_as_some_paths)]
"""At least one path."""


def _as_numbers(value: Any) -> Any:
    """`0.8,1.0` as the command line gives it, and one number alone."""
    if isinstance(value, str):
        try:
            return tuple(map(float, value.split(",")))
        except ValueError:
            raise ValueError(f"given {value!r}, expected numbers with commas between, such as 0.8,1.0") from None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


N = TypeVar("N")
Numbers = Annotated[tuple[N, ...], BeforeValidator(_as_numbers)]
"""One number or several."""
How = Literal["gate", "helpfulness", "safety"]
"""Of two reward models one reward: by the piecewise gate, or one of them alone."""


def demand_rewards(how: How, helpfulness: Path | None, safety: Path | None) -> None:
    """Raises ValueError when a reward model that has a say is not given."""
    given = {"helpfulness": helpfulness, "safety": safety}
    if missing := [name for name, path in given.items() if how in ("gate", name) and path is None]:
        alone = (
            ""
            if how != "gate" or len(missing) == 2
            else f", or choose by the other one alone with --combination={({*given} - {*missing}).pop()}"
        )
        raise ValueError(f"combination {how} needs --{' and --'.join(missing)}, the folder of a reward model{alone}")


def reward_paths(how: How, helpfulness: Path | None, safety: Path | None) -> list[Path]:
    """Where the reward models that have a say lie, helpfulness first. Raises UserError for one of another domain."""
    given: list[tuple[Domain, Path | None]] = [("helpfulness", helpfulness), ("safety", safety)]
    return [reward_path(path, domain) for domain, path in given if how in ("gate", domain) and path is not None]


Bits = Literal[4, 16, 32]
"""Of weights that are not trained; 4: NF4."""


def answering(model: Path, judges: Sequence[Path], bits: Bits | None) -> "tuple[Assistant, list[RewardModel]]":
    """A chat model and the reward models that judge it: each with weights of its own, or on one base in so many `bits`. Raises UserError."""
    from ..assistant.local import Assistant
    from ..core.device import best_device
    from ..reward.model import RewardModel
    from ..rlhf.roles import answering_on_one_base

    if bits is not None:
        return answering_on_one_base(model, judges, bits, best_device())
    return Assistant.load(model), [RewardModel.load(folder) for folder in judges]


def rewards_of(how: How, models: "Sequence[RewardModel]", gate: float) -> "Rewards":
    """The reward of the models that lie where `reward_paths` says."""
    from ..reward.combine import Alone, Combination

    if how != "gate":
        return Alone(how, models[0])
    helpfulness, safety = models
    return Combination(helpfulness, safety, gate)


def data_file(path: Path, name: str) -> Path:
    """`path` itself if it is a file, else the file `name` of an artifact folder or RUN:NAME. Raises UserError."""
    if path.is_file():
        return path
    if not path.is_dir() and ":" not in path.name:
        raise UserError(f"{path}: no such file or folder; expected a file of rows, a folder that holds {name}, or RUN:NAME")
    folder = resolve(path)
    if not (folder / name).is_file():
        found = find_artifact(folder)
        kind = f" (it is of kind {found.kind!r})" if found else ""
        raise UserError(f"{folder}: holds no {name}{kind}; give a file or a folder that holds one")
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
    from ..checkpoints.card import model_card
    from ..checkpoints.huggingface import HuggingFaceFiles

    HuggingFaceFiles(model, tokenizer).save(place.folder)
    shutil.copyfile(place.log, place.folder / METRICS)
    parameters = sum(weight.numel() for weight in model.parameters())
    write_text(place.folder / "README.md", model_card(title, _task(model), model.config, parameters, place.made, facts))


def _task(model: "Trunk") -> "Task":
    from ..model.transformer import Scorer

    return "text-classification" if isinstance(model, Scorer) else "text-generation"


def finish_source(place: Workplace, source: "Source", title: str, facts: Mapping[str, Any]) -> None:
    """As `finish_model`, of a language model that is read weight by weight and never stands in memory whole."""
    from ..checkpoints.card import model_card
    from ..checkpoints.huggingface import write_hugging_face

    write_hugging_face(source, place.folder)
    shutil.copyfile(place.log, place.folder / METRICS)
    card = model_card(title, "text-generation", source.config, source.config.parameters, place.made, facts)
    write_text(place.folder / "README.md", card)


def finish_adapter(place: Workplace, files: "AdapterFiles", tokenizer: "Tokenizer", title: str, facts: Mapping[str, Any]) -> None:
    """Writes an adapter's folder with its tokenizer, its card and the metrics of its training."""
    from ..checkpoints.card import adapter_card
    from ..checkpoints.tokenizer_json import write_tokenizer_files

    files.save(place.folder)
    write_tokenizer_files(tokenizer, place.folder, files.model.config.context)
    shutil.copyfile(place.log, place.folder / METRICS)
    parameters = sum(weight.numel() for weight in files.model.parameters() if weight.requires_grad)
    task = _task(files.model)
    write_text(place.folder / "README.md", adapter_card(title, task, files.base, files.config, parameters, place.made, facts))


def reward_path(spec: str | Path, domain: "Domain") -> Path:
    """Where the reward model of a domain lies. Raises UserError when its manifest declares another one; without a manifest it is taken
    for what it is given as.
    """
    folder = model_path(spec)
    declared = declared_domain(folder)
    if declared not in (None, domain):
        raise UserError(f"{folder}: is a {declared} reward model, as its manifest says; {domain} expects one that was trained for {domain}")
    return folder


def judge_paths(judge: Path | None, *deciding: Path | None) -> list[Path]:
    """Where the reward model lies that judges in the oracle's place, none if there is none. Raises UserError for one of another domain, and
    for one of `deciding`, which choose or train: they would praise their own work.
    """
    from ..checkpoints.adapted import base_artifact

    if judge is None:
        return []
    folder = reward_path(judge, "helpfulness")
    if base_artifact(folder).hash in {base_artifact(model_path(path)).hash for path in deciding if path}:
        raise UserError(f"{judge}: judges what it chose or trained itself; give a judge that is none of the other reward models")
    return [folder]


def judge_of(folders: Sequence[Path], world: "WorldConfig") -> "Judge":
    """The judge of real text at what `judge_paths` gave, or, without any, the oracle of a world. Raises UserError for no reward model."""
    if folders:
        from ..evaluation.real import TextJudge
        from ..reward.model import RewardModel

        return TextJudge(RewardModel.load(folders[0]))
    from ..miniature.oracle import Oracle
    from ..miniature.world import World

    return Oracle(World(world))


def about_judge(folder: Path) -> dict[str, Any]:
    """Of a reward model that judges: its name, what it was trained for, and its accuracy on its own test comparisons; null where its
    manifest says nothing."""
    found = find_artifact(folder) if folder.is_dir() else None
    accuracy = found.metrics.get("accuracy", {}).get("own", {}).get("all") if found else None
    return {"name": folder.name, "domain": declared_domain(folder), "accuracy": accuracy}


def trained_on(folder: Path, prompts: "Sequence[Prompt]") -> int | None:
    """How many of the prompts begin with a message that begins a comparison a reward model was trained on; None where its manifest or its
    data are not there."""
    from ..data.preferences import PREFERENCES_FILE, Counts, read_comparisons

    found = find_artifact(folder) if folder.is_dir() else None
    data = [Path(path) for path in found.manifest["config"].get("data", ())] if found else []
    if not data or any(is_hub(path) for path in data):
        return None
    try:
        files = data_files(data, PREFERENCES_FILE)
    except UserError:
        return None
    known = {_first_message(pair.prompt) for file in files for pair in read_comparisons(file, "helpfulness", Counts())}
    return sum(_first_message(prompt.dialogue) in known for prompt in prompts)


def _first_message(dialogue: "Dialogue") -> str:
    """Of the user, whatever its white space."""
    return " ".join(next(message.content for message in dialogue.messages if message.role == "user").split())


def declared_domain(folder: Path) -> str | None:
    """What a reward model's manifest says it judges, None where nobody says."""
    found = find_artifact(folder) if folder.is_dir() else None
    return found.metrics.get("domain") if found else None
