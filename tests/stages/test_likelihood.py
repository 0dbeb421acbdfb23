"""Nats per token, beside another implementation; what was seen in training is left out."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from llamaherd.core.artifacts import Artifact
from llamaherd.core.config import build
from llamaherd.core.errors import UserError
from llamaherd.core.files import read_rows, write_rows
from llamaherd.stages import likelihood
from llamaherd.tokenizer.sentencepiece import Tokenizer

TEXTS = ("Ada lives in Lima.", "Ben lives in Oslo.", "Max", "Eva lives in Kyiv and Max lives in Rome.")


def run(folder: Path, out: Path, texts: tuple[str, ...] = TEXTS, **values: Any) -> Artifact:
    file = out.with_suffix(".jsonl")
    write_rows(file, [{"text": text, "source": "facts"} for text in texts])
    return likelihood.run(build(likelihood.LikelihoodConfig, {"model": str(folder / "v0"), "documents": str(file)} | values), out, 0)


def rows(done: Artifact) -> list[dict[str, Any]]:
    return [row for _, row in read_rows(done.path / "rows.jsonl")]


def test_each_document_by_another_implementation(tiny_folder: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    done = run(tiny_folder, tmp_path / "out", chunk_documents=3)
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_folder / "v0", dtype=torch.float32)
    for text, row in zip(TEXTS, rows(done), strict=True):
        ids = torch.tensor([[tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id]])
        with torch.no_grad():
            nats = model(ids, labels=ids).loss.item()
        assert row["tokens"] == ids.shape[1] - 1
        assert row["nats_per_token"] == pytest.approx(nats, rel=1e-4)
        assert row["nats"] == pytest.approx(nats * row["tokens"], rel=1e-4)
    metrics = done.metrics
    assert metrics["nats_per_token"]["value"] == pytest.approx(sum(row["nats_per_token"] for row in rows(done)) / 4)
    assert metrics["cache_bytes_per_token"] == 2 * 1 * 1 * 8 * 4, "keys and values of 1 layer, 1 head of 8 numbers of 4 bytes"
    assert likelihood.headline(done).endswith(
        f"{metrics['nats_per_token']['value']:.3f} nats per token of 4 documents, 64 bytes of cache per token"
    )


def test_chunks_do_not_matter(tiny_folder: Path, tmp_path: Path) -> None:
    one, all_at_once = (rows(run(tiny_folder, tmp_path / str(size), chunk_documents=size)) for size in (1, 9))
    assert [row["id"] for row in one] == [row["id"] for row in all_at_once]
    assert [row["nats"] for row in one] == pytest.approx([row["nats"] for row in all_at_once], rel=1e-5)


def test_what_was_seen_what_comes_twice_and_what_is_too_long_is_left_out(tiny_folder: Path, tmp_path: Path) -> None:
    seen = tmp_path / "seen.jsonl"
    write_rows(seen, [{"text": text} for text in ("Ben lives in Oslo.", "elsewhere")])
    done = run(tiny_folder, tmp_path / "out", (*TEXTS, TEXTS[0], "long " * 100), seen=str(seen))
    assert len(rows(done)) == done.metrics["documents"] == 3
    assert (done.metrics["dropped_seen"], done.metrics["dropped_too_long"]) == (1, 1)
    assert " of 3 documents, 1 seen, 1 too long, " in likelihood.headline(done)
    with pytest.raises(UserError, match=r"no document of .* is left: 1 were seen in training; give others"):
        run(tiny_folder, tmp_path / "none", ("Ben lives in Oslo.",), seen=str(seen))
