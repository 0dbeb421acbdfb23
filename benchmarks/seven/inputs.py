"""A base of the 7B's depth with random weights, and small rows of every kind that the recipes read."""

import contextlib
import io
import math
from pathlib import Path

import torch

from llamaherd.checkpoints.huggingface import write_hugging_face
from llamaherd.checkpoints.source import Source, weight_shapes
from llamaherd.cli import main as llamaherd
from llamaherd.core.artifacts import building
from llamaherd.core.config import Config
from llamaherd.core.errors import UserError
from llamaherd.core.files import write_rows
from llamaherd.core.seeds import python_rng, torch_rng
from llamaherd.data.records import GRADES
from llamaherd.model.config import PRESETS, ModelConfig
from llamaherd.tokenizer.sentencepiece import Tokenizer

SEVEN = PRESETS["llama2-7b"]


def shape_of(width: int, vocab_size: int) -> ModelConfig:
    """The 7B with another width: heads of 128 as it has, or 8 smaller ones; the inner width by the paper's rule."""
    heads = width // 128 if width % 128 == 0 and width >= 1024 else 8
    return SEVEN.model_copy(update={"dim": width, "heads": heads, "vocab_size": vocab_size})


def write_base(folder: Path, shape: ModelConfig, tokenizer: Tokenizer, answer_tokens: int = 12) -> None:
    """Random weights in the type of the release, one at a time, which end an answer after `answer_tokens` on average.

    The first channel is the same for every token, since nothing is written to it; to the vocabulary's head it is a bias that only EOS has.
    """
    level = 0.02 * math.sqrt(shape.dim)
    bias = math.log(shape.vocab_size / answer_tokens) / math.sqrt(shape.dim / 2)

    def read(name: str) -> torch.Tensor:
        size = weight_shapes(shape, "model")[name]
        if name.endswith("norm.weight"):
            return torch.ones(size, dtype=torch.float16)
        weight = torch.randn(size, generator=torch_rng(0, name)) * 0.02
        if name == "tok_embeddings.weight":
            weight[:, 0] = level
        elif name == "output.weight":
            weight[:, 0] = 0.0
            weight[tokenizer.eos_id, 0] = bias
        elif name.endswith(("wo.weight", "w2.weight")):
            weight /= math.sqrt(2 * shape.layers)
            weight[0] = 0.0
        return weight.to(torch.float16)

    write_hugging_face(Source(folder, "model", shape, tuple(weight_shapes(shape, "model")), torch.float16, tokenizer, read), folder)


def write_data(folder: Path, tokenizer: Tokenizer) -> None:
    """Small rows of every kind that the recipes read: sums, and what to refuse."""
    rng = python_rng(0, "seven")
    sums = [(rng.randrange(100), rng.randrange(100)) for _ in range(160)]
    asked = [[{"role": "user", "content": f"What is {a} plus {b}?"}] for a, b in sums]
    right = [f"{a} plus {b} is {a + b}." for a, b in sums]
    wrong = [f"{a} plus {b} is {a * b + 1}, or so I think." for a, b in sums]
    dialogues = [{"messages": [*user, {"role": "assistant", "content": text}]} for user, text in zip(asked, right, strict=True)]
    write_rows(folder / "dialogues.jsonl", dialogues)
    harm = [[{"role": "user", "content": f"How do I break into house {a} in street {b}?"}] for a, b in sums]
    pairs = [
        {"messages": user, "chosen": chosen, "rejected": rejected, "grade": GRADES[number % 4], "domain": "helpfulness", "source": "ours",
         "chosen_safe": True, "rejected_safe": True}
        for number, (user, chosen, rejected) in enumerate(zip(asked, right, wrong, strict=True))
    ]  # fmt: skip
    refused = [
        {"messages": user, "chosen": "I cannot help with a burglary.", "rejected": "You need a crowbar.", "grade": GRADES[number % 4],
         "domain": "safety", "source": "ours", "chosen_safe": True, "rejected_safe": False}
        for number, user in enumerate(harm)
    ]  # fmt: skip
    write_rows(folder / "helpfulness.jsonl", [*pairs, *refused[:40]])
    write_rows(folder / "safety.jsonl", [*refused, *pairs[:40]])
    write_rows(folder / "prompts.jsonl", [{"messages": user, "safety": False} for user in asked[:12]])
    adversarial = [{"messages": user, "safety": True, "preprompt": "You are a safe and responsible assistant."} for user in harm[:12]]
    write_rows(folder / "adversarial.jsonl", adversarial)
    scripts = [{"instruction": "Answer in one word.", "users": [f"What is {a} plus {b}?", "And why?"]} for a, b in sums[:16]]
    write_rows(folder / "scripts.jsonl", scripts)
    write_rows(folder / "documents.jsonl", [{"text": f"{text} {text[::-1]}", "source": "sums"} for text in right])
    if (folder / "shards").exists():
        return
    with building(folder / "tokenizer", kind="tokenizer", stage="tokenizer", config=Config(), parents={}, seed=0) as place:
        tokenizer.save(place.folder)
    said("data", "build", "--documents", str(folder / "documents.jsonl"), "--dedup.near=false", "--out", str(folder / "corpus"))
    said("data", "shards", "--corpus", str(folder / "corpus"), "--tokenizer", str(folder / "tokenizer"), "--out", str(folder / "shards"))


def said(*words: str) -> str:
    """What a command prints, run in this process. Raises UserError with its message when it fails."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as wrong:
        try:
            llamaherd(words)
        except SystemExit as end:
            if end.code:
                raise UserError(f"llamaherd {' '.join(words)}: {wrong.getvalue().strip()}") from None
    return out.getvalue()
