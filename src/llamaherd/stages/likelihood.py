"""How well a model predicts documents that it was not trained on: nats per token, document by document."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from ..core.artifacts import Artifact, building, hash_of, model_path, open_artifact
from ..core.chunks import in_chunks
from ..core.config import Config
from ..core.errors import UserError
from ..core.files import write_rows
from ..data.documents import CORPUS_FILE, read_documents
from ..data.inputs import described_by, parents_of
from ..measures.intervals import mean
from .common import Paths, SomePaths, data_files


class LikelihoodConfig(Config):
    """Inputs."""

    model: Path
    """A base model: a folder, RUN or RUN:NAME."""
    documents: SomePaths
    """Files of documents, or folders of corpora."""
    seen: Paths = ()
    """Files or corpora of training documents: one that stands there word for word is left out and counted."""
    chunk_documents: int = Field(64, ge=1)
    """Documents read at a time."""


def run(config: LikelihoodConfig, out: Path, seed: int) -> Artifact:
    """Writes rows.jsonl: of each document its tokens, their nats, and the nats per token.

    A document longer than the context is left out and counted. Raises UserError when none is left.
    """
    import torch

    from ..checkpoints.quantized import load_for_inference
    from ..core.device import best_device
    from ..losses.language import token_log_probs
    from ..train.batches import TokenBatch

    folder = model_path(config.model)
    files, seen_files = (data_files(paths, CORPUS_FILE) for paths in (config.documents, config.seen))
    seen = {document.text for document in read_documents(seen_files)}
    texts = list(dict.fromkeys(document.text for document in read_documents(files)))
    fresh = [text for text in texts if text not in seen]
    model, tokenizer = load_for_inference(folder, best_device())
    encoded = [(text, [tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id]) for text in fresh]
    whole = [(text, ids) for text, ids in encoded if len(ids) - 1 <= model.config.context]
    if not whole:
        raise UserError(
            f"no document of {', '.join(map(str, files))} is left: {len(texts) - len(fresh)} were seen in training; give others"
        )
    with building(
        out,
        kind="evaluation",
        stage="likelihood",
        config=config,
        parents=parents_of([described_by(folder), *files, *seen_files]),
        seed=seed,
    ) as place:

        def work(chunk: Sequence[tuple[str, list[int]]], first: int) -> list[dict[str, Any]]:
            batch = TokenBatch.of([(ids, [1] * len(ids)) for _, ids in chunk], model.device)
            with torch.inference_mode():
                nats = -token_log_probs(model.output(model.hidden(batch.tokens, batch.layout)[0]), batch.targets)
            sizes = [len(ids) - 1 for _, ids in chunk]
            return [
                {"id": hash_of(text)[:16], "tokens": size, "nats": float(part.sum()), "nats_per_token": float(part.mean())}
                for (text, _), size, part in zip(chunk, sizes, torch.split(nats, sizes), strict=True)
            ]

        rows = in_chunks(place.state, whole, config.chunk_documents, work)
        write_rows(place.folder / "rows.jsonl", rows)
        shape = model.config
        place.metrics.update(
            nats_per_token=mean([row["nats_per_token"] for row in rows]), documents=len(rows), parameters=shape.parameters,
            dropped_seen=len(texts) - len(fresh), dropped_too_long=len(encoded) - len(whole),
            cache_bytes_per_token=2 * shape.layers * shape.kv * shape.head_size * 4,
        )  # fmt: skip
    return open_artifact(out, "evaluation")


def headline(artifact: Artifact) -> str:
    """What came out, in one line."""
    metrics = artifact.metrics
    left_out = "".join(
        f", {metrics[f'dropped_{name}']:,} {name.replace('_', ' ')}" for name in ("seen", "too_long") if metrics[f"dropped_{name}"]
    )
    return (
        f"{metrics['nats_per_token']['value']:.3f} nats per token of {metrics['documents']:,} documents{left_out}, "
        f"{metrics['cache_bytes_per_token']:,} bytes of cache per token"
    )
