"""Supervised fine-tuning (paper.md section 3), and every later tuning on dialogues: packed rows, loss on answers only.

All weights are tuned, or with `lora` an adapter on a frozen base, in 4 bits if so wished (QLoRA): the same loop, another artifact.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from ..core.artifacts import Artifact, Kind, Workplace, building, model_path, open_artifact
from ..core.config import Config
from ..core.errors import UserError
from ..core.seeds import seed_for
from ..data.inputs import described_by, parents_of
from ..data.shares import taken
from ..model.config import BaseConfig, LoraConfig, ModelConfig
from ..model.memory import FLOAT, Frozen, Pass, largest_in_block, largest_weight, widest
from ..train.config import OptimizerConfig
from ..train.memory import QUANTISING_BYTES, Moment, Trained, step_moments
from .common import SomePaths, data_files, finish_adapter, finish_model

if TYPE_CHECKING:
    from ..chat.template import Rendered
    from ..data.importers import Imported
    from ..model.transformer import Transformer
    from ..tokenizer.sentencepiece import Tokenizer
    from ..train.loop import LossSum, Source
    from ..train.state import ModelFiles


class SftSettings(Config):
    """How a model is tuned on dialogues; defaults are the paper's."""

    epochs: float = Field(2.0, gt=0)
    """Passes over the dialogues."""
    steps: int | None = Field(None, ge=1)
    """Optimizer steps, however many dialogues there are; null: as many as `epochs` take."""
    row_tokens: int | None = Field(None, ge=2)
    """Dialogues are packed into rows of this size; null: the model's context. A longer dialogue is left out and counted."""
    batch_rows: int = Field(64, ge=1)
    """Rows per step."""
    micro_rows: int = Field(8, ge=1)
    """Rows per forward pass."""
    optimizer: OptimizerConfig = OptimizerConfig(lr=2e-5)
    """AdamW and schedule."""
    checkpointing: bool = False
    """Blocks keep only their input and are run again for the gradient: the same result, less memory, about a third more time."""


class SftConfig(SftSettings):
    """Settings and inputs."""

    model: Path
    """The model to tune: a folder, RUN or RUN:VERSION."""
    data: SomePaths
    """Files of dialogues, or folders that hold dialogues.jsonl."""
    shares: tuple[Annotated[float, Field(ge=0)], ...] = ()
    """How much of each file is taken, in the order of `data` (0.5: half of it, seeded; 2: twice); empty: all of each."""
    safety_share: float = Field(1.0, ge=0, le=1)
    """How much is taken of the dialogues that rejection sampling and distillation tag as answers to safety prompts (section 9's scaling)."""
    bad_rows: Literal["refuse", "leave out"] = "refuse"
    """What becomes of rows that are no dialogue, or break a rule of dialogues; those that are left out are counted."""
    lora: LoraConfig | None = None
    """An adapter to train in place of all weights, such as --lora.r=16; null: none."""
    base: BaseConfig = BaseConfig()
    """What an adapter is trained on."""

    @model_validator(mode="after")
    def _base_of_an_adapter(self) -> "SftConfig":
        if self.lora is None and self.base.bits != 32:
            raise ValueError(f"base.bits {self.base.bits} is for a frozen base under an adapter; add --lora.r=16, or leave it out")
        return self


@dataclass(frozen=True)
class Tuned:
    """What is trained, how it goes to disk, and what becomes of it."""

    model: "Transformer"
    tokenizer: "Tokenizer"
    kind: Kind
    files: "ModelFiles"
    parents: Mapping[str, Artifact]
    finish: Callable[[Workplace, str], None]


def run(config: SftConfig, out: Path, seed: int) -> Artifact:
    """Tunes a model on dialogues, or trains an adapter on one. Raises UserError at the first dialogue that breaks a rule, before any work."""
    from ..chat.template import supervision
    from ..core.device import best_device
    from ..data.importers import import_dialogues
    from ..train.batches import steps_in
    from ..train.loop import train
    from ..train.optimizer import demand_optimizer

    demand_optimizer(config.optimizer, best_device())
    folder = model_path(config.model)
    files = _files(config)
    imported = [import_dialogues(file, config.bad_rows) for file, _ in files]
    tuned = _adapter(folder, config.lora, config.base.bits, seed) if config.lora else _all_weights(folder)
    model = tuned.model
    model.checkpointing = config.checkpointing
    rendered = _rendered(files, imported, config, tuned.tokenizer, seed)
    rows, too_long = _packed(rendered, config, model.config.context)
    total_steps = config.steps or steps_in(config.epochs, len(rows), config.batch_rows)
    with building(
        out, kind=tuned.kind, stage="sft", config=config, parents=parents_of([file for file, _ in files], **tuned.parents), seed=seed
    ) as place:
        done = train(
            model, _loss(model, rendered, 2 / 3 if config.lora else 1.0), _batches(config, rows, seed), total_steps=total_steps, config=config.optimizer,
            files=tuned.files, state=place.state, metrics=place.log, label="tune",
        )  # fmt: skip
        used = supervision([rendered[index] for row in rows for index in row], tuned.tokenizer.eos_id)
        place.metrics.update(
            dialogues=len(rendered) - len(too_long), dropped_too_long=len(too_long), trained_tokens=used["trained"],
            left_out_rows=sum(len(each.left_out) for each in imported), steps=done.steps, loss=done.loss,
        )  # fmt: skip
        tuned.finish(place, out.name)
        place.metrics["supervision"] = used
    return open_artifact(out, tuned.kind)


def _all_weights(folder: Path) -> Tuned:
    from ..checkpoints.huggingface import HuggingFaceFiles, load_model
    from ..core.device import best_device

    model, tokenizer = load_model(folder, best_device())

    def finish(place: Workplace, name: str) -> None:
        finish_model(place, model, tokenizer, f"{name}: chat model", place.metrics)

    return Tuned(model, tokenizer, "model", HuggingFaceFiles(model, tokenizer), parents_of([described_by(folder)]), finish)


def _adapter(folder: Path, lora: LoraConfig, bits: int, seed: int) -> Tuned:
    from ..checkpoints.adapted import base_artifact, load_frozen
    from ..checkpoints.peft import AdapterFiles
    from ..core.device import best_device
    from ..model.lora import add_adapter, new_changes

    model, tokenizer = load_frozen(folder, bits, best_device())
    add_adapter(model, "tuned", new_changes(model, lora, seed), lora.scale, lora.dropout)
    files = AdapterFiles(model, "tuned", lora, str(folder))

    def finish(place: Workplace, name: str) -> None:
        finish_adapter(place, files, tokenizer, f"{name}: adapter", place.metrics)

    return Tuned(model, tokenizer, "adapter", files, {"base": base_artifact(folder)}, finish)


def _loss(model: "Transformer", rendered: "Sequence[Rendered]", worked: float) -> "Callable[[Any], LossSum]":
    """Of micro-batches of rows. `worked`: the share of a full backward pass that is done; a frozen base needs no gradients of weights."""
    from ..train.batches import TokenBatch, next_token_loss

    def loss(micro: Sequence[list[int]]) -> "LossSum":
        documents = [(rendered[index].ids, rendered[index].mask) for row in micro for index in row]
        part = next_token_loss(model, TokenBatch.of(documents, model.device))
        part.flops *= worked
        return part

    return loss


def _batches(config: SftConfig, rows: Sequence[list[int]], seed: int) -> "Source":
    import torch

    from ..train.batches import epochs, split

    def batches(standing: Any) -> Iterator[tuple[list[Sequence[list[int]]], Any]]:
        for indices, position in epochs(len(rows), config.batch_rows, seed_for(seed, "sft"), standing):
            if config.lora:  # dropout of a step depends on which step it is, and so not on where training was interrupted
                torch.manual_seed(seed_for(seed, "dropout", position["epoch"], position["start"]))
            yield split([rows[index] for index in indices], config.micro_rows), position

    return batches


def _files(config: SftConfig) -> list[tuple[Path, float]]:
    """The files of all sources, and how often each is taken: as its source's share says."""
    if config.shares and len(config.shares) != len(config.data):
        raise UserError(f"shares has {len(config.shares)} numbers and data {len(config.data)} files; give one for each, or none")
    shares = config.shares or [1.0] * len(config.data)
    return [(file, share) for path, share in zip(config.data, shares, strict=True) for file in data_files([path], "dialogues.jsonl")]


def _rendered(
    files: Sequence[tuple[Path, float]], imported: "Sequence[Imported]", config: SftConfig, tokenizer: "Tokenizer", seed: int
) -> "list[Rendered]":
    """Ids and masks of the dialogues of all files, each taken as often as its share says."""
    from ..chat.template import encode_dialogue

    rendered = []
    for (file, share), found in zip(files, imported, strict=True):
        tagged = [index for index, (_, row) in enumerate(found.dialogues) if row.get("safety") is True]
        order = taken(len(found.dialogues), tagged, share, config.safety_share, seed, file)
        once = {index: encode_dialogue(found.dialogues[index][0], tokenizer) for index in sorted(set(order))}
        rendered += [once[index] for index in order]
    if not rendered:
        raise UserError(f"no dialogue in {', '.join(str(file) for file, _ in files)}; give a file with at least one")
    return rendered


def _packed(rendered: "Sequence[Rendered]", config: SftConfig, context: int) -> tuple[list[list[int]], list[int]]:
    """Rows of dialogues, by their indices, and those that are too long for one. Raises UserError when no row comes of it."""
    from ..data.packing import pack

    row_tokens = config.row_tokens or context
    if row_tokens > context:
        raise UserError(f"row_tokens is {row_tokens} and the model's context {context}; rows must fit the context")
    rows, too_long = pack([len(item.ids) for item in rendered], row_tokens)
    if not rows:
        raise UserError(f"all {len(rendered)} dialogues are longer than row_tokens ({row_tokens}); raise it or shorten them")
    return rows, too_long


def headline(artifact: Artifact) -> str:
    """What came out, in one line."""
    metrics = artifact.metrics
    left_out = f", {metrics['dropped_too_long']} too long" if metrics["dropped_too_long"] else ""
    left_out += f", {metrics['left_out_rows']:,} bad rows left out" if metrics.get("left_out_rows") else ""
    return f"{metrics['dialogues']:,} dialogues, {metrics['trained_tokens']:,} answer tokens{left_out}, loss {metrics['loss']:.3f}"


def passes(config: SftConfig, shape: ModelConfig, tokenizer: "Tokenizer", seed: int) -> tuple[list[list[Pass]], int]:
    """Forward passes of each step, as `run` would do them on its data, and how many steps there are. Raises UserError as it does."""
    from ..data.importers import import_dialogues
    from ..train.batches import epochs, split, steps_in

    files = _files(config)
    rendered = _rendered(files, [import_dialogues(file, config.bad_rows) for file, _ in files], config, tokenizer, seed)
    rows, _ = _packed(rendered, config, shape.context)
    steps, found = config.steps or steps_in(config.epochs, len(rows), config.batch_rows), []
    sizes = [(len(item.ids) - 1, sum(item.mask[1:])) for item in rendered]
    for indices, position in epochs(len(rows), config.batch_rows, seed_for(seed, "sft"), None):
        micro = [[sizes[at] for row in part for at in rows[row]] for part in split(indices, config.micro_rows)]
        found.append([Pass(tuple(length for length, _ in part), sum(wanted for _, wanted in part)) for part in micro])
        if len(found) == steps or position["epoch"] > 1:  # later epochs cut the same rows in other ways
            return found, steps
    raise AssertionError("epochs are endless")


def assumed_passes(config: SftSettings, context: int) -> list[Pass]:
    """Those of a step whose rows are full and trained throughout: no data needs more."""
    sizes = [min(config.micro_rows, config.batch_rows - start) for start in range(0, config.batch_rows, config.micro_rows)]
    tokens = (config.row_tokens or context) - 1
    return [Pass((tokens,) * size, tokens * size) for size in sizes]


def memory(config: SftConfig, shape: ModelConfig, step: Sequence[Pass], first_only: bool, on_gpu: bool = False) -> list[Moment]:
    """The fullest moments. `first_only`: there is one step alone, before whose end the optimizer holds nothing."""
    frozen = Frozen(config.lora, config.base.bits) if config.lora else None
    model = Trained(shape, frozen=frozen, checkpointing=config.checkpointing, on_gpu=on_gpu)
    # While a weight is read it stands there as it is stored; on its way into 4 bits also as floats, codes and what finds these.
    reading = (
        largest_weight(shape) * FLOAT
        if config.base.bits != 4
        else max(largest_weight(shape) * FLOAT, largest_in_block(shape) * QUANTISING_BYTES)
    )
    loading = Moment("loading", {"weights": model.weights, "copies": reading})
    optimizer = model.optimizer(config.optimizer)
    moments = [
        moment.beside(weights=model.weights, optimizer=0 if first_only else optimizer)
        for moment in step_moments(model, widest(step), len(step) > 1)
    ]
    stepping = Moment("optimizer's step", {"weights": model.weights, "gradients": model.gradients, "optimizer": optimizer})
    return [loading, *moments, stepping]
