"""Sources of weights, made from models in memory; and what a GGUF file holds, by our names."""

from pathlib import Path

import gguf
import torch
from torch import Tensor

from llamaherd.checkpoints.source import ModelKind, Source
from llamaherd.core.seeds import torch_rng
from llamaherd.model.config import ModelConfig
from llamaherd.model.transformer import Scorer, Transformer
from llamaherd.tokenizer.sentencepiece import Tokenizer

OUTER = {"token_embd": "tok_embeddings", "output_norm": "norm", "output": "output"}
INNER = {
    "attn_norm": "attention_norm", "attn_q": "attention.wq", "attn_k": "attention.wk", "attn_v": "attention.wv", "attn_output": "attention.wo",
    "ffn_norm": "ffn_norm", "ffn_gate": "feed_forward.w1", "ffn_down": "feed_forward.w2", "ffn_up": "feed_forward.w3",
}  # fmt: skip
"""Parts of GGUF's names (llama.cpp's `LLM_TENSOR_NAMES`) and ours."""


def random_model(config: ModelConfig, seed: int = 0) -> Transformer:
    """Weights large enough for attention and positions to matter."""
    model = Transformer(config)
    for name, weight in model.named_parameters():
        deviation = 0.2 if weight.ndim == 1 or name == "tok_embeddings.weight" else 1.0 / weight.shape[1] ** 0.5
        weight.data.normal_(1.0 if weight.ndim == 1 else 0.0, deviation, generator=torch_rng(seed, "weights", name))
    return model.eval()


def source_of(
    model: Transformer | Scorer, tokenizer: Tokenizer, dtype: torch.dtype = torch.float32, path: Path = Path("models/herd")
) -> Source:
    weights = {name: weight.detach().to(dtype) for name, weight in model.named_parameters()}
    kind: ModelKind = "model" if isinstance(model, Transformer) else "reward-model"
    return Source(path, kind, model.config, tuple(weights), dtype, tokenizer, weights.__getitem__)


def our_name(name: str) -> str:
    """`blk.0.attn_q.weight` -> `layers.0.attention.wq.weight`."""
    parts = name.split(".")
    if parts[0] != "blk":
        return f"{OUTER[parts[0]]}.weight"
    return f"layers.{parts[1]}.{INNER[parts[2]]}.weight"


def matrix_types(path: Path) -> dict[str, str]:
    """GGUF's type of every weight of a file, by our names."""
    return {our_name(tensor.name): tensor.tensor_type.name for tensor in gguf.GGUFReader(path).tensors}


def read_back(path: Path, config: ModelConfig) -> dict[str, Tensor]:
    """The values in a file by our names, q and k rotating by halves: row 2i and row 2i + 1 of a head become i and i + d/2."""
    found = {}
    for tensor in gguf.GGUFReader(path).tensors:
        name = our_name(tensor.name)
        value = torch.from_numpy(gguf.dequantize(tensor.data, tensor.tensor_type).copy())
        if name.split(".")[-2] in ("wq", "wk"):
            value = torch.cat([torch.cat([head[0::2], head[1::2]]) for head in value.split(config.head_size)])
        found[name] = value
    return found
