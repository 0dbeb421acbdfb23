"""Pretraining (paper.md section 2): token shards to a base model."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from ..core.artifacts import Artifact, building, open_artifact
from ..core.config import Config
from ..core.errors import UserError
from ..core.seeds import seed_for
from ..model.config import ModelConfig, preset
from ..train.config import OptimizerConfig
from .common import finish_model


class PretrainSettings(Config):
    """How a base model is trained."""

    model: str | ModelConfig = "miniature"
    """Name of a preset, which takes the tokenizer's vocabulary, or a shape."""
    row_tokens: int = Field(256, ge=2)
    """Tokens predicted in one row; documents in a row do not see each other."""
    batch_rows: int = Field(8, ge=1)
    """Rows per step."""
    micro_rows: int = Field(8, ge=1)
    """Rows per forward pass."""
    steps: int = Field(900, ge=1)
    """Optimizer steps."""
    optimizer: OptimizerConfig = OptimizerConfig(lr=3e-3, warmup_steps=50)
    """AdamW and schedule; rate and warm-up are for a model of a million parameters, where the paper's 7B takes 3e-4 and 2000."""

    checkpointing: bool = False
    """Blocks keep only their input and are run again for the gradient: the same result, less memory, about a third more time."""

    @field_validator("model")
    @classmethod
    def _known(cls, model: str | ModelConfig) -> str | ModelConfig:
        if isinstance(model, str):
            preset(model)
        return model

    @model_validator(mode="after")
    def _warmup_ends(self) -> "PretrainSettings":
        if self.optimizer.warmup_steps >= self.steps:
            raise ValueError(f"optimizer.warmup_steps: given {self.optimizer.warmup_steps}, expected fewer than steps, {self.steps}")
        return self


class PretrainConfig(PretrainSettings):
    """Settings and inputs."""

    shards: Path
    """Folder of token shards."""


def shape(config: PretrainSettings, vocab_size: int) -> ModelConfig:
    """The model's shape for a tokenizer. Raises UserError when an explicit one does not fit it or the rows."""
    model = preset(config.model).model_copy(update={"vocab_size": vocab_size}) if isinstance(config.model, str) else config.model
    if model.vocab_size != vocab_size:
        raise UserError(f"model.vocab_size is {model.vocab_size} and the tokenizer has {vocab_size} pieces; make them equal")
    if config.row_tokens > model.context:
        raise UserError(f"row_tokens is {config.row_tokens} and the model's context {model.context}; rows must fit the context")
    return model


def run(config: PretrainConfig, out: Path, seed: int) -> Artifact:
    """Trains a base model from nothing. Raises UserError."""
    from ..checkpoints.huggingface import HuggingFaceFiles
    from ..core.device import best_device
    from ..data.packing import PretrainRows
    from ..data.shards import TokenShards
    from ..model.transformer import new_model
    from ..tokenizer.sentencepiece import Tokenizer
    from ..train.batches import Masked, TokenBatch, next_token_loss, split
    from ..train.loop import train

    parent = open_artifact(config.shards, "shards")
    tokenizer = Tokenizer.load(parent.path)
    rows = PretrainRows(TokenShards(parent.path), config.row_tokens, seed_for(seed, "pretrain", "order"))
    model = new_model(shape(config, tokenizer.vocab_size), seed_for(seed, "pretrain", "weights"), best_device())
    model.checkpointing = config.checkpointing

    def batches(standing: Any) -> Iterator[tuple[list[list[Masked]], Any]]:
        row = standing["row"] if standing else 0
        while True:
            documents = [rows.row(row + index) for index in range(config.batch_rows)]
            row += config.batch_rows
            micro: list[list[Masked]] = [
                [(ids, [1] * len(ids)) for pieces in part for ids in pieces] for part in split(documents, config.micro_rows)
            ]
            yield [part for part in micro if part], {"row": row}

    with building(out, kind="model", stage="pretrain", config=config, parents={"shards": parent}, seed=seed) as place:
        done = train(
            model, lambda micro: next_token_loss(model, TokenBatch.of(micro, model.device)), batches,
            total_steps=config.steps, config=config.optimizer, files=HuggingFaceFiles(model, tokenizer),
            state=place.state, metrics=place.log, label="pretrain",
        )  # fmt: skip
        tokens = done.steps * config.batch_rows * config.row_tokens
        place.metrics.update(parameters=model.config.parameters, steps=done.steps, loss=done.loss, epochs=tokens / rows.shards.tokens)
        finish_model(place, model, tokenizer, f"{out.name}: base model", place.metrics)
    return open_artifact(out, "model")


def headline(artifact: Artifact) -> str:
    """What came out, in one line."""
    metrics = artifact.metrics
    return (
        f"{metrics['parameters']:,} parameters, loss {metrics['loss']:.3f} after {metrics['steps']} steps ({metrics['epochs']:.1f} epochs)"
    )
