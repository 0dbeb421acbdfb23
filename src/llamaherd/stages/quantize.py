"""A model with weights of 8 or 4 bits, and what that changes: bytes, weights, predictions, perplexity."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from ..core.artifacts import Artifact, building, model_path, open_artifact
from ..core.config import Config
from ..core.errors import UserError
from ..core.files import write_text
from ..core.seeds import python_rng
from ..data.inputs import described_by, parents_of

GROUP = 64
WIKITEXT = Path("pretrain") / "wikitext2_test.txt.gz"
"""WikiText-2's test sample in the folder of public data."""
PROBE, PROBE_TOKENS = "random ids", 256
"""On which predictions are compared where no text is given."""


class QuantizeConfig(Config):
    """What becomes how small, and what to measure it on."""

    model: Path
    """A folder, a llama2.c .bin, RUN or RUN:VERSION."""
    bits: Literal[8, 4]
    """8: a scale for every row of a weight. 4: a scale and a zero for every group of a row."""
    group: Literal[32, 64, 128] | None = None
    """Weights that share a scale in 4 bits; null: 64."""
    text: tuple[Path, ...] = ()
    """Texts to measure perplexity on, besides WikiText-2's test sample where LLAMAHERD_DATA holds it."""
    tokens: int = Field(8192, ge=1)
    """How many of the first tokens of each text are read."""
    window: int = Field(512, ge=1)
    """Tokens that see each other."""
    tokenizer: Path | None = None
    """A SentencePiece model in place of the one beside the weights."""


def run(config: QuantizeConfig, out: Path, seed: int) -> Artifact:
    """Writes the folder. Raises UserError before any work for what cannot be quantised and for texts that cannot be read.

    The model goes through memory part by part, quantised and not side by side, and so do the texts.
    """
    from ..checkpoints.card import model_card
    from ..checkpoints.huggingface import WEIGHTS
    from ..checkpoints.quantized import load_quantized, write_quantized
    from ..checkpoints.source import open_source
    from ..evaluation.compared import Compared
    from ..evaluation.perplexity import read_text
    from ..model.quantized import Scheme

    if config.bits == 8 and config.group is not None:
        raise UserError("--group is of 4 bits; in 8 bits every row of a weight has one scale, leave it out")
    path = model_path(config.model)
    source = open_source(path, config.tokenizer)
    if source.kind != "model":
        raise UserError(f"{path}: a reward model; quantize takes language models, reward models stay as they are")
    scheme = Scheme(config.bits, (config.group or GROUP) if config.bits == 4 else None)
    texts = _texts(config.text)
    compared = Compared(source.config, scheme, min(config.window, source.config.context))
    for name, file in texts.items():
        compared.add(name, source.tokenizer.encode(read_text(file)), source.tokenizer.bos_id, config.tokens)
    if not texts:
        rng = python_rng(seed, "quantize")
        compared.add(PROBE, [rng.randrange(source.tokenizer.vocab_size) for _ in range(PROBE_TOKENS)], source.tokenizer.bos_id)
    parents = parents_of([described_by(path), *texts.values(), *([config.tokenizer] if config.tokenizer else [])])
    with building(out, kind="model", stage="quantize", config=config, parents=parents, seed=seed) as place:
        write_quantized(source, scheme, place.folder, compared.watch)
        load_quantized(place.folder)  # what cannot be loaded is not published
        place.metrics.update(
            bits=scheme.bits, group=scheme.group, parameters=source.config.parameters,
            bytes_before=source.config.parameters * source.dtype.itemsize, bytes_after=(place.folder / WEIGHTS).stat().st_size,
            weight_error=compared.weight_error, texts=compared.figures(),
        )  # fmt: skip
        card = model_card(
            f"{out.name}: {scheme.bits}-bit model", "text-generation", source.config, source.config.parameters, place.made,
            _facts(place.metrics), "llamaherd",
        )  # fmt: skip
        write_text(place.folder / "README.md", card)
    return open_artifact(out, "model")


def _texts(given: Sequence[Path]) -> dict[str, Path]:
    """Files of the texts by the names to report them under."""
    files = list(given)
    data = os.environ.get("LLAMAHERD_DATA")
    if data and (Path(data) / WIKITEXT).is_file() and not any(file.name == WIKITEXT.name for file in given):
        files.append(Path(data) / WIKITEXT)
    names = [file.name.split(".")[0] for file in files]
    return {name if names.count(name) == 1 else str(file): file for name, file in zip(names, files, strict=True)}


def _facts(metrics: Mapping[str, Any]) -> dict[str, str]:
    """The metrics in words, for the card and the terminal."""
    group = f" in groups of {metrics['group']}" if metrics["group"] else ", a scale for each row"
    share = metrics["bytes_after"] / metrics["bytes_before"]
    facts = {
        "weights": f"{metrics['bits']} bits{group}; embedding and norms as they were",
        "bytes": f"{metrics['bytes_before']:,} before, {metrics['bytes_after']:,} after ({share:.1%})",
        "error of quantised weights": f"{metrics['weight_error']:.3%} of their size (root mean square)",
    }
    for name, text in metrics["texts"].items():
        if name != PROBE:
            read = f"first {text['tokens']:,} of {text['of_tokens']:,}" if text["tokens"] < text["of_tokens"] else f"all {text['tokens']:,}"
            facts[f"perplexity on {name}"] = (
                f"{text['perplexity_before']:.4f} before, {text['perplexity_after']:.4f} after "
                f"({read} tokens, in windows of {text['window']})"
            )
        facts[f"predictions on {name}"] = (
            f"log-probabilities off by {text['log_prob_error']:.4f} (root mean square), KL {text['kl_nats']:.5f} nats, "
            f"the same most likely token at {text['same_choice']:.2%} of {text['tokens']:,}"
        )
    return facts


def report(artifact: Artifact) -> Iterator[str]:
    """What came out, line by line."""
    yield f"{artifact.path}: {headline(artifact)}"
    for name, fact in _facts(artifact.metrics).items():
        yield f"  {name}: {fact}"


def headline(artifact: Artifact) -> str:
    """What came out, in one line."""
    metrics = artifact.metrics
    return f"{metrics['parameters']:,} parameters, {metrics['bytes_after']:,} bytes instead of {metrics['bytes_before']:,}"
