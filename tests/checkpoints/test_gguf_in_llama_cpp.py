"""What llama.cpp makes of our GGUF files: logits at every position, ids of texts and chats, greedy text.

llama.cpp rounds what goes into a product as the product's weights are rounded (to float16, bfloat16, or blocks of Q8_0), so
the model that it is compared with does the same on the values that stand in the file. What is left are values that lie
so near the middle between two roundings that the last bit decides, which changes all that follows. Where there is nothing
to attend to, as at a first position, that is rare, and many of those agree to the precision of float32.
"""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from llamaherd.chat.dialogue import Message, checked
from llamaherd.chat.template import encode_prompt
from llamaherd.checkpoints.gguf import TYPES, write_gguf
from llamaherd.checkpoints.source import Source, open_source
from llamaherd.model.config import ModelConfig
from llamaherd.model.transformer import Transformer
from llamaherd.tokenizer.sentencepiece import Tokenizer
from llamaherd.tokenizer.training import TokenizerConfig, train_tokenizer

from .sources import matrix_types, random_model, read_back, source_of

pytestmark = pytest.mark.slow

CLIENT = Path(__file__).with_name("llama_cpp_client.py")
VARIABLE = "LLAMAHERD_LLAMA_CPP_PYTHON"
GROUPED = ModelConfig(dim=96, layers=3, heads=6, kv_heads=2, ffn=160, vocab_size=300, context=256, rope_theta=5000.0, norm_eps=1e-4)
SHAPES = {
    "grouped queries": GROUPED,
    "every head its own keys": GROUPED.model_copy(update={"kv_heads": 6}),
    "tied, free head size": GROUPED.model_copy(update={"tied": True, "head_dim": 32}),
    "padded vocabulary": GROUPED.model_copy(update={"vocab_size": 320}),
}
TOLERANCE = {"float32": 1e-5, "float16": 2e-3, "bfloat16": 1e-2, "q8_0": 3e-2, "q4_0": 3e-2}
"""Of all positions: the root mean square of the difference over that of the logits. With one layer's keys turned wrongly it is near 1."""
FIRST_TOLERANCE = 2e-6
"""Of the better quarter of first positions."""


@dataclass(frozen=True)
class Answer:
    logits: list[Tensor]
    said: dict[str, Any]


@pytest.fixture(scope="session")
def llama_cpp() -> str:
    """An interpreter that can import llama_cpp."""
    python = os.environ.get(VARIABLE) or (sys.executable if importlib.util.find_spec("llama_cpp") else None)
    if not python:
        pytest.skip(
            "llama-cpp-python is not here; python -m venv lcpp && lcpp/bin/pip install llama-cpp-python==0.3.36 "
            f"(builds for some 12 minutes, needs a C++ compiler), then {VARIABLE}=lcpp/bin/python"
        )
    return python


@pytest.fixture(scope="session")
def own() -> Tokenizer:
    return train_tokenizer(["the quick brown fox jumps over the lazy dog\n"] * 3, TokenizerConfig(vocab_size=300))


@pytest.fixture(scope="session")
def text(data: Path) -> str:
    return (data / "models/stories260K/expected_greedy.txt").read_text("utf-8")


@pytest.fixture(scope="session")
def stories(data: Path) -> Source:
    """Trained weights."""
    return open_source(data / "models/stories260K/stories260K.bin", data / "models/stories260K/tok512.model")


def ask(python: str, model: Path, **request: Any) -> Answer:
    out = model.with_suffix(".npz")
    done = subprocess.run(
        [python, str(CLIENT), str(model), str(out)], input=json.dumps(request), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    with np.load(out) as logits:
        return Answer([torch.from_numpy(logits[str(row)]) for row in range(len(request.get("rows", [])))], json.loads(done.stdout))


def rounded(x: Tensor, kind: str) -> Tensor:
    """x as llama.cpp takes it into a product with weights of a type."""
    if kind == "F32":
        return x
    if kind in ("F16", "BF16"):
        return x.to({"F16": torch.float16, "BF16": torch.bfloat16}[kind]).float()
    blocks = x.reshape(-1, 32)
    scale = blocks.abs().amax(1, keepdim=True) / 127
    whole = torch.round(blocks / scale.clamp_min(1e-30))
    return (whole * scale.half().float()).view(x.shape)


def what_llama_cpp_should_say(path: Path, config: ModelConfig, rows: Sequence[Sequence[int]]) -> list[Tensor]:
    """Logits [T, V] of our model with the file's values, its products' inputs rounded."""
    model, types = Transformer(config), matrix_types(path)
    with torch.no_grad():
        for name, value in read_back(path, config).items():
            model.get_parameter(name).copy_(value)
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            kind = types["tok_embeddings.weight" if config.tied and name == "output" else f"{name}.weight"]
            module.register_forward_pre_hook(lambda _, inputs, kind=kind: (rounded(inputs[0], kind),))
    return [model(torch.tensor([row]))[0].detach() for row in rows]


def apart(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).square().mean().sqrt() / ours.square().mean().sqrt())


def same_logits(source: Source, text: str, dtype: str, python: str, path: Path) -> None:
    ids = source.tokenizer.encode(text)[:150]
    rows = [[source.tokenizer.bos_id, *ids], *([id] for id in dict.fromkeys(ids))]
    write_gguf(source, path, dtype)
    theirs = ask(python, path, rows=rows).logits
    ours = what_llama_cpp_should_say(path, source.config, rows)
    first = [apart(our, their) for our, their in zip(ours[1:], theirs[1:])]
    assert apart(ours[0], theirs[0]) < TOLERANCE[dtype]
    assert sorted(first)[len(first) // 4] < FIRST_TOLERANCE


@pytest.mark.parametrize("dtype", TYPES)
def test_logits_of_trained_weights(dtype: str, stories: Source, text: str, llama_cpp: str, tmp_path: Path) -> None:
    same_logits(stories, text, dtype, llama_cpp, tmp_path / "stories.gguf")


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES)
def test_logits_of_random_weights(config: ModelConfig, dtype: str, own: Tokenizer, llama_cpp: str, tmp_path: Path) -> None:
    same_logits(
        source_of(random_model(config), own), "a lazy brown dog and 23 quick llamas " * 5, dtype, llama_cpp, tmp_path / "random.gguf"
    )


def test_greedy_text_of_trained_weights(stories: Source, text: str, llama_cpp: str, tmp_path: Path) -> None:
    tokenizer = stories.tokenizer
    write_gguf(stories, tmp_path / "stories.gguf", "float32")
    said = ask(llama_cpp, tmp_path / "stories.gguf", greedy_tokens=1 + len(tokenizer.encode(text))).said
    assert tokenizer.decode(said["greedy"]) == said["greedy_text"] == text


def test_ids_of_the_conformance_texts(data: Path, llama2: Tokenizer, llama_cpp: str, tmp_path: Path) -> None:
    texts = (data / "tokenizer/llama2/spm_cases.inp").read_text("utf-8").split("\n__ggml_vocab_test__\n")[:-1]
    expected = [[int(id) for id in line.split()] for line in (data / "tokenizer/llama2/spm_cases.out").read_text("utf-8").splitlines()]
    forged = ["<s>", "</s> x", "<unk>", "<0x0A>", "[PAD32000]", "[INST] <<SYS>>", "a\0b", "  \n \t "]
    write_gguf(source_of(random_model(GROUPED.model_copy(update={"vocab_size": 32064})), llama2), tmp_path / "random.gguf", "float16")
    said = ask(llama_cpp, tmp_path / "random.gguf", texts=[*texts, *forged]).said
    assert len(texts) == len(expected) == 46
    assert said["pieces"] == [*expected, *map(llama2.encode, forged)]
    assert said["begun"] == [llama2.bos_id, *llama2.encode("a")]


def test_the_chat_template_gives_our_ids(llama2: Tokenizer, llama_cpp: str, tmp_path: Path) -> None:
    turns = [("system", "Be  brief.\n"), ("user", " Where is Ada? "), ("assistant", "In Lima."), ("user", "And Ben,\n\nnaïvely?")]
    dialogue = checked([Message(role, content) for role, content in turns])
    write_gguf(source_of(random_model(GROUPED.model_copy(update={"vocab_size": 32000})), llama2), tmp_path / "random.gguf", "q8_0")
    said = ask(llama_cpp, tmp_path / "random.gguf", dialogue=[{"role": role, "content": content} for role, content in turns]).said
    assert said["prompt"] == encode_prompt(dialogue, llama2)


def test_a_tokenizer_of_our_own(own: Tokenizer, llama_cpp: str, tmp_path: Path) -> None:
    texts = ["the  lazy\nfox", " über 23 llamas 😀", "", " ", "x" * 50]
    write_gguf(source_of(random_model(SHAPES["padded vocabulary"]), own), tmp_path / "own.gguf", "q4_0")
    assert ask(llama_cpp, tmp_path / "own.gguf", texts=texts).said["pieces"] == [own.encode(text) for text in texts]
