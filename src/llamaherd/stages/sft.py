"""Supervised fine-tuning (paper.md section 3), and every later tuning on dialogues: packed rows, loss on answers only."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from ..core.artifacts import Artifact, building, open_artifact, resolve
from ..core.config import Config
from ..core.errors import UserError
from ..core.files import read_rows
from ..core.seeds import python_rng, seed_for
from ..data.inputs import parents_of
from ..train.config import OptimizerConfig
from .common import SomePaths, data_file, finish_model

if TYPE_CHECKING:
    from ..chat.dialogue import Dialogue
    from ..chat.template import Rendered
    from ..tokenizer.sentencepiece import Tokenizer


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


def run(config: SftConfig, out: Path, seed: int) -> Artifact:
    """Tunes a model on dialogues. Raises UserError at the first dialogue that breaks a rule, before any work."""
    from ..checkpoints.huggingface import HuggingFaceFiles, load_model
    from ..core.device import best_device
    from ..data.packing import pack
    from ..train.batches import TokenBatch, epochs, next_token_loss, split, steps_in
    from ..train.loop import train

    folder = resolve(config.model)
    model, tokenizer = load_model(folder, best_device())
    files = [data_file(path, "dialogues.jsonl") for path in config.data]
    rendered = _rendered(files, config, tokenizer, seed)
    row_tokens = config.row_tokens or model.config.context
    if row_tokens > model.config.context:
        raise UserError(f"row_tokens is {row_tokens} and the model's context {model.config.context}; rows must fit the context")
    rows, too_long = pack([len(item.ids) for item in rendered], row_tokens)
    if not rows:
        raise UserError(f"all {len(rendered)} dialogues are longer than row_tokens ({row_tokens}); raise it or shorten them")
    total_steps = config.steps or steps_in(config.epochs, len(rows), config.batch_rows)

    def batches(standing: Any) -> Iterator[tuple[list[Sequence[list[int]]], Any]]:
        for indices, position in epochs(len(rows), config.batch_rows, seed_for(seed, "sft"), standing):
            yield split([rows[index] for index in indices], config.micro_rows), position

    def loss(micro: Sequence[list[int]]) -> Any:
        documents = [(rendered[index].ids, rendered[index].mask) for row in micro for index in row]
        return next_token_loss(model, TokenBatch.of(documents, model.device))

    parents = parents_of([folder / "config.json", *files])
    with building(out, kind="model", stage="sft", config=config, parents=parents, seed=seed) as place:
        done = train(
            model, loss, batches, total_steps=total_steps, config=config.optimizer, files=HuggingFaceFiles(model, tokenizer),
            state=place.state, metrics=place.log, label="tune",
        )  # fmt: skip
        used = sum(sum(rendered[index].mask) for row in rows for index in row)
        place.metrics.update(
            dialogues=len(rendered) - len(too_long), dropped_too_long=len(too_long), trained_tokens=used,
            steps=done.steps, loss=done.loss,
        )  # fmt: skip
        finish_model(place, model, tokenizer, f"{out.name}: chat model", place.metrics)
    return open_artifact(out, "model")


def _rendered(files: Sequence[Path], config: SftConfig, tokenizer: "Tokenizer", seed: int) -> "list[Rendered]":
    """Ids and masks of the dialogues of all files, each taken as often as its share says."""
    from ..chat.template import encode_dialogue

    if config.shares and len(config.shares) != len(files):
        raise UserError(f"shares has {len(config.shares)} numbers and data {len(files)} files; give one for each, or none")
    rendered = []
    for file, share in zip(files, config.shares or [1.0] * len(files), strict=True):
        once = [encode_dialogue(dialogue, tokenizer) for dialogue in _dialogues(file, config.safety_share, seed)]
        whole, part = int(share), share - int(share)
        some = python_rng(seed, "share", file.parent.name, file.name).sample(range(len(once)), round(part * len(once)))
        rendered += once * whole + [once[index] for index in sorted(some)]
    if not rendered:
        raise UserError(f"no dialogue in {', '.join(map(str, files))}; give a file with at least one")
    return rendered


def _dialogues(file: Path, safety_share: float, seed: int) -> "list[Dialogue]":
    """The dialogues of a file, `safety_share` of the tagged ones; those of a smaller share are among those of a larger one."""
    from ..chat.dialogue import parse_dialogue

    rows = [(row.get("safety") is True, parse_dialogue(row, f"{file} line {number}", "assistant")) for number, row in read_rows(file)]
    tagged = [index for index, (safety, _) in enumerate(rows) if safety]
    python_rng(seed, "safety share", file.parent.name, file.name).shuffle(tagged)
    left_out = set(tagged[round(safety_share * len(tagged)) :])
    return [dialogue for index, (_, dialogue) in enumerate(rows) if index not in left_out]


def headline(artifact: Artifact) -> str:
    """What came out, in one line."""
    metrics = artifact.metrics
    left_out = f", {metrics['dropped_too_long']} too long" if metrics["dropped_too_long"] else ""
    return f"{metrics['dialogues']:,} dialogues, {metrics['trained_tokens']:,} answer tokens{left_out}, loss {metrics['loss']:.3f}"
