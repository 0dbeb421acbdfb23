"""A model in another format, or in other numbers: Hugging Face's, Meta's and llama2.c's both ways, GGUF one way."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ..core.artifacts import Artifact, building, model_path, open_artifact
from ..core.config import Config
from ..core.errors import UserError
from ..core.files import fsync_folder
from ..data.inputs import described_by, parents_of

if TYPE_CHECKING:
    from ..checkpoints.source import Source

Write = Callable[[Path], None]
FILES = {"llama2c": "model.bin", "gguf": "model.gguf"}
"""The weights of formats that have them in a single file."""
PAPERS = ("README.md", "LICENSE*", "NOTICE*", "USE_POLICY*")
"""What goes along with a model whatever becomes of its weights."""


class ConvertConfig(Config):
    """What becomes what."""

    model: Path
    """A folder of Hugging Face's or Meta's, a llama2.c .bin, RUN or RUN:VERSION."""
    to: Literal["hf", "meta", "llama2c", "gguf"]
    """The format to write."""
    dtype: Literal["float32", "bfloat16", "float16", "q8_0", "q4_0"] | None = None
    """How weights are held; null: as in the model. q8_0 and q4_0 are GGUF's alone, llama2.c has float32 alone."""
    tokenizer: Path | None = None
    """A SentencePiece model in place of the one beside the weights."""
    shards: int | None = Field(None, ge=1)
    """Files of weights (hf), or model-parallel shards (meta); null: one, and in hf one more for every 5 GB."""


def run(config: ConvertConfig, out: Path, seed: int = 0) -> Artifact | None:
    """Writes the model at `out` and reads it back: a folder, or, of formats of one file, that file where `out` ends as they do.

    Raises UserError before any work for what the format cannot hold and for a model that headers, sizes and shapes show to be
    damaged; while working, for what only the weights show. Nothing is left then.
    """
    from ..checkpoints.convert import writer
    from ..checkpoints.source import open_source

    path = model_path(config.model)
    source = open_source(path, config.tokenizer)
    write = writer(source, config.to, config.dtype, config.shards)
    weights = FILES.get(config.to)
    if weights and out.suffix == Path(weights).suffix:
        _bare(config, path, source, write, out, weights, seed)
        return None
    _folder(config, path, source, write, out, seed)
    return open_artifact(out, "model", "reward-model")


def headline(artifact: Artifact) -> str:
    """What was written, in one line."""
    metrics = artifact.metrics
    return f"{metrics['parameters']:,} parameters as {metrics['format']}, read back and found the same"


def _folder(config: ConvertConfig, path: Path, source: "Source", write: Write, out: Path, seed: int) -> None:
    parents = parents_of([described_by(path), *([config.tokenizer] if config.tokenizer else [])])
    with building(out, kind=source.kind, stage="convert", config=config, parents=parents, seed=seed) as place:
        write(place.folder)
        for paper in [] if path.is_file() else [file for name in PAPERS for file in sorted(path.glob(name)) if file.is_file()]:
            shutil.copyfile(paper, place.folder / paper.name)
        shape = source.config
        place.metrics.update(format=config.to, parameters=shape.parameters, context=shape.context, tied=shape.tied)


def _bare(config: ConvertConfig, path: Path, source: "Source", write: Write, out: Path, weights: str, seed: int) -> None:
    """A file of weights, with the tokenizer that its readers need beside it; what lies there already is not replaced."""
    if out.exists():
        raise UserError(f"{out} exists already; choose another place, or remove it to write it again")
    beside = _demand_room(out.parent, source) if config.to == "llama2c" else ()
    folder = out.with_name(f"{out.name}.folder")
    _folder(config, path, source, write, folder, seed)
    for name in beside:
        os.replace(folder / name, out.with_name(name))
    os.replace(folder / weights, out)
    shutil.rmtree(folder)
    fsync_folder(out.parent)


def _demand_room(folder: Path, source: "Source") -> list[str]:
    """Which tokenizer files a folder lacks beside a llama2.c model. Raises UserError when it has others."""
    from ..checkpoints.llama2c import tokenizer_bin

    models, theirs = sorted(folder.glob("*.model")), folder / "tokenizer.bin"
    others = [file for file in models if file.read_bytes() != source.tokenizer.model] or models[1:]
    if theirs.is_file() and theirs.read_bytes() != tokenizer_bin(source.tokenizer, source.config.vocab_size):
        others = [theirs]
    if others:
        raise UserError(f"{others[0]}: is another tokenizer than this model's, which has to lie beside it; give a folder of its own")
    return [name for name, there in (("tokenizer.model", models), ("tokenizer.bin", theirs.is_file())) if not there]
