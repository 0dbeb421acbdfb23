"""Shapes of the model family (paper.md section 1) and what they cost in parameters and operations; shapes of adapters."""

from typing import Literal

from pydantic import Field, model_validator

from ..core.config import Config
from ..core.errors import UserError, did_you_mean


class ModelConfig(Config):
    """One Llama-architecture shape. Widths left out follow the paper's rules."""

    dim: int = Field(4096, ge=1)
    """Width D of the residual stream."""
    layers: int = Field(32, ge=1)
    """Number of transformer blocks."""
    heads: int = Field(32, ge=1)
    """Query heads H."""
    kv_heads: int | None = Field(None, ge=1)
    """Key-value heads K (grouped-query attention); null: as many as query heads."""
    head_dim: int | None = Field(None, ge=2)
    """Size of one head; null: dim / heads."""
    ffn: int | None = Field(None, ge=1)
    """Inner width of SwiGLU; null: the paper's rule from multiple_of and ffn_multiplier."""
    multiple_of: int = Field(256, ge=1)
    """The rule rounds the inner width up to a multiple of this."""
    ffn_multiplier: float | None = Field(None, gt=0)
    """The rule's extra factor (70B)."""
    vocab_size: int = Field(32000, ge=4)
    """Pieces V of the tokenizer."""
    context: int = Field(4096, ge=2)
    """Most tokens of one sequence."""
    rope_theta: float = Field(10000.0, gt=0)
    """Base of the rotary frequencies."""
    norm_eps: float = Field(1e-5, gt=0)
    """Added to the mean square in RMSNorm."""
    tied: bool = False
    """Whether the output head is the embedding (Llama 2: no)."""

    @model_validator(mode="after")
    def _shapes_fit(self) -> "ModelConfig":
        problems = []
        if self.head_dim is None and self.dim % self.heads:
            problems.append(f"dim {self.dim} is not a multiple of heads {self.heads}; change one or give head_dim")
        elif self.head_size % 2:
            problems.append(f"head size {self.head_size} is odd; rotary embedding turns pairs")
        if self.heads % self.kv:
            problems.append(f"heads {self.heads} is not a multiple of kv_heads {self.kv}")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def kv(self) -> int:
        return self.kv_heads or self.heads

    @property
    def head_size(self) -> int:
        return self.head_dim or self.dim // self.heads

    @property
    def ffn_width(self) -> int:
        """Section 1: two thirds of 4 D, times the multiplier, rounded up to multiple_of; each product truncated as in the original code."""
        if self.ffn is not None:
            return self.ffn
        width = int(2 * (4 * self.dim) / 3)
        if self.ffn_multiplier is not None:
            width = int(self.ffn_multiplier * width)
        return self.multiple_of * -(-width // self.multiple_of)

    @property
    def trunk_parameters(self) -> int:
        """Weights that multiply every token: attention and feed-forward (not the embedding lookup, not the norms, not the head)."""
        attention = self.dim * self.head_size * (2 * self.heads + 2 * self.kv)
        return self.layers * (attention + 3 * self.dim * self.ffn_width)

    @property
    def parameters(self) -> int:
        embedding = 0 if self.tied else self.vocab_size * self.dim
        return self.trunk_parameters + self.vocab_size * self.dim + embedding + self.dim * (2 * self.layers + 1)

    def training_flops(self, tokens: int, document_tokens: float, wanted_tokens: int, outputs: int) -> float:
        """Operations of forward and backward over `tokens`, in documents of that mean length (causal attention: half the square).

        What follows attention in the last block and a head of so many outputs (the vocabulary, or one score) run on
        `wanted_tokens` of them: those that are trained.
        """
        attention = 2 * self.layers * self.heads * self.head_size * document_tokens / 2 * 2
        after_attention = self.dim * (self.heads * self.head_size + 3 * self.ffn_width)
        all_tokens = tokens * (2 * (self.trunk_parameters - after_attention) + attention)
        return 3.0 * (all_tokens + wanted_tokens * 2 * (after_attention + outputs * self.dim))


LinearName = Literal["wq", "wk", "wv", "wo", "w1", "w2", "w3", "output"]
"""The linear layers: those of every block, and the vocabulary head."""
BLOCK_LINEARS: tuple[LinearName, ...] = ("wq", "wk", "wv", "wo", "w1", "w2", "w3")


class LoraConfig(Config):
    """Low-rank changes to frozen linear layers: W + scale * B A, with A [r, in] and B [out, r] (Hu et al. 2021)."""

    r: int = Field(16, ge=1)
    """Rank of the change."""
    alpha: float = Field(32.0, gt=0)
    """The change is scaled by alpha / r."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of a layer's inputs that the change does not see in training."""
    layers: tuple[LinearName, ...] | Literal["all"] = "all"
    """Which linear layers are changed; all: those of every block, and not the vocabulary head."""
    rslora: bool = False
    """Scale by alpha / sqrt(r) instead, which keeps large ranks learning (Kalajdzievski 2023)."""

    @model_validator(mode="after")
    def _some_layer(self) -> "LoraConfig":
        if not self.layers or (self.layers != "all" and len(set(self.layers)) < len(self.layers)):
            raise ValueError(f"layers: expected different names among {', '.join((*BLOCK_LINEARS, 'output'))}, or all")
        return self

    @property
    def names(self) -> tuple[LinearName, ...]:
        return BLOCK_LINEARS if self.layers == "all" else self.layers

    @property
    def scale(self) -> float:
        return self.alpha / (self.r**0.5 if self.rslora else self.r)


class BaseConfig(Config):
    """The frozen base under an adapter."""

    bits: Literal[4, 16, 32] = 32
    """Bits of each of its weights; 4: NF4 with double quantisation (QLoRA), of all linear layers in blocks."""


PRESETS: dict[str, ModelConfig] = {
    "llama2-7b": ModelConfig(),
    "llama2-13b": ModelConfig(dim=5120, layers=40, heads=40),
    "llama2-34b": ModelConfig(dim=8192, layers=48, heads=64, kv_heads=8),
    "llama2-70b": ModelConfig(dim=8192, layers=80, heads=64, kv_heads=8, multiple_of=4096, ffn_multiplier=1.3),
    "stories-260k": ModelConfig(dim=64, layers=5, heads=8, kv_heads=4, ffn=172, vocab_size=512, context=512, tied=True),
    "stories-15m": ModelConfig(dim=288, layers=6, heads=6, multiple_of=32, context=256, tied=True),
    "stories-42m": ModelConfig(dim=512, layers=8, heads=8, multiple_of=32, context=1024, tied=True),
    "stories-110m": ModelConfig(dim=768, layers=12, heads=12, multiple_of=32, context=1024, tied=True),
    "miniature": ModelConfig(dim=128, layers=4, heads=4, kv_heads=2, ffn=352, vocab_size=1024, context=1024),
    "tiny": ModelConfig(dim=64, layers=2, heads=4, kv_heads=2, ffn=176, vocab_size=512, context=512),
}


def preset(name: str) -> ModelConfig:
    """A shape by name. Raises UserError that lists the names."""
    if name not in PRESETS:
        raise UserError(f"no model preset {name!r}{did_you_mean(name, PRESETS)}; there are {', '.join(PRESETS)}")
    return PRESETS[name]
