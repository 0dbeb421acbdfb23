"""The Llama 2 transformer (paper.md section 1): RMSNorm before each part, rotary positions, grouped queries, SwiGLU, no biases.

B batch, T tokens, D width, H query heads, K key-value heads, d head size, V vocabulary. Weights have Meta's names;
q and k rotate by halves, as in Hugging Face files.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, silu
from torch.utils.checkpoint import checkpoint

from .cache import Ends, Prompts
from .config import ModelConfig
from .layout import Layout

M = TypeVar("M", bound=nn.Module)

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""(layer, q [B, T, H, d], k [B, T, K, d], v [B, T, K, d]) -> [B, T, H, d]"""


class Sequences(Protocol):
    """Which tokens of a call belong together: a Layout of whole documents, or a Cache with the next token of each."""

    @property
    def positions(self) -> Tensor:
        """[B * T] position of each token inside its sequence."""

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """As in Attend."""


@lru_cache(maxsize=8)
def rope_table(head_size: int, theta: float, length: int, device: torch.device) -> Tensor:
    """[2, length, d] cosines and signed sines, float32: position p turns pair (i, i + d/2) by p / theta^(2i/d)."""
    with torch.inference_mode(False):  # it may be asked for while generating and is then kept for training
        return _rope_table(head_size, theta, length, device)


def _rope_table(head_size: int, theta: float, length: int, device: torch.device) -> Tensor:
    frequencies = 1.0 / theta ** (torch.arange(0, head_size, 2, device=device).float() / head_size)
    angles = torch.arange(length, device=device).float()[:, None] * frequencies
    cosines, sines = angles.cos(), angles.sin()
    return torch.stack([torch.cat([cosines, cosines], dim=1), torch.cat([-sines, sines], dim=1)])


def rotate(x: Tensor, rope: Tensor) -> Tensor:
    """Turns each pair (i, i + d/2) of x [B, T, heads, d] by the angles in rope [2, B or 1, T, 1, d]."""
    return (x * rope[0] + x.roll(x.shape[-1] // 2, -1) * rope[1]).to(x.dtype)


def only(wanted: Tensor | None, x: Tensor) -> Tensor:
    """The wanted tokens [B, W, D] of x [B, T, D]; None wants all."""
    return x if wanted is None else x.index_select(1, wanted)


def end_to_end(*parts: nn.Linear) -> Tensor | None:
    """One matrix over layers whose weights follow each other in memory; None where they do not, or are to have gradients."""
    if torch.is_grad_enabled() or any(type(part) is not nn.Linear for part in parts):
        return None
    weights = [part.weight for part in parts]
    first, after = weights[0], weights[0].data_ptr()
    for weight in weights:
        if weight.data_ptr() != after or not weight.is_contiguous():
            return None
        after += weight.nbytes
    if after > first.untyped_storage().data_ptr() + first.untyped_storage().nbytes():
        return None  # neighbours by chance
    return first.as_strided((sum(map(len, weights)), first.shape[1]), first.stride())


@torch.no_grad()
def lay_end_to_end(*parts: nn.Linear) -> None:
    """Gives layers of equal width new memory, in which their weights follow each other."""
    together = torch.cat([part.weight for part in parts])
    for part, weight in zip(parts, torch.split(together, [part.out_features for part in parts]), strict=True):
        part.weight = nn.Parameter(weight, requires_grad=part.weight.requires_grad)


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight, the mean in float32."""

    def __init__(self, dim: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.rms_norm(x, self.weight.shape, self.weight, self.eps)


class Attention(nn.Module):
    """Grouped-query attention: H query heads share K key and value heads."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.head_size = config.head_size
        self.wq = nn.Linear(config.dim, config.heads * config.head_size, bias=False)
        self.wk = nn.Linear(config.dim, config.kv * config.head_size, bias=False)
        self.wv = nn.Linear(config.dim, config.kv * config.head_size, bias=False)
        self.wo = nn.Linear(config.heads * config.head_size, config.dim, bias=False)
        self.kv = config.kv
        self.together: nn.Module | None = None
        """In place of wq, wk and wv, where a model was packed to answer."""

    def forward(self, x: Tensor, layer: int, rope: Tensor, attend: Attend, wanted: Tensor | None) -> Tensor:
        out: Tensor = self.wo(only(wanted, attend(layer, *self._heads(x, rope)).flatten(2)))
        return out

    def _heads(self, x: Tensor, rope: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q [B, T, H, d], k and v [B, T, K, d] of x [B, T, D], by one product where that is possible."""
        if self.together is not None:
            product = self.together(x)
        elif (weight := end_to_end(self.wq, self.wk, self.wv)) is not None:
            product = linear(x, weight)
        else:
            q = self.wq(x).view(*x.shape[:2], -1, self.head_size)
            return rotate(q, rope), *self.keys_values(x, rope)
        heads, kv = product.view(*x.shape[:2], -1, self.head_size), self.kv
        turned = rotate(heads[:, :, :-kv], rope)
        return turned[:, :, :-kv], turned[:, :, -kv:], heads[:, :, -kv:]

    def keys_values(self, x: Tensor, rope: Tensor) -> tuple[Tensor, Tensor]:
        """What other tokens see of x [B, T, D]: two of [B, T, K, d]."""
        if self.together is not None:
            return self._heads(x, rope)[1:]
        k, v = (w(x).view(*x.shape[:2], -1, self.head_size) for w in (self.wk, self.wv))
        return rotate(k, rope), v


class FeedForward(nn.Module):
    """SwiGLU: w2(silu(w1 x) * w3 x)."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.w1 = nn.Linear(config.dim, config.ffn_width, bias=False)
        self.w2 = nn.Linear(config.ffn_width, config.dim, bias=False)
        self.w3 = nn.Linear(config.dim, config.ffn_width, bias=False)
        self.together: nn.Module | None = None
        """In place of w1 and w3, where a model was packed to answer."""

    def forward(self, x: Tensor) -> Tensor:
        gate, value = (self.w1(x), self.w3(x)) if self.together is None else self.together(x).chunk(2, -1)
        out: Tensor = self.w2(silu(gate) * value)
        return out


class Block(nn.Module):
    """Attention and feed-forward, each behind a norm and added to the residual stream."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.attention_norm = RMSNorm(config.dim, config.norm_eps)
        self.attention = Attention(config)
        self.ffn_norm = RMSNorm(config.dim, config.norm_eps)
        self.feed_forward = FeedForward(config)

    def forward(self, x: Tensor, layer: int, rope: Tensor, attend: Attend, wanted: Tensor | None = None) -> Tensor:
        """[B, T, D], or of the wanted tokens [B, W, D]: of the others no more is made than what attention sees of them."""
        x = only(wanted, x) + self.attention(self.attention_norm(x), layer, rope, attend, wanted)
        out: Tensor = x + self.feed_forward(self.ffn_norm(x))
        return out


class Trunk(nn.Module):
    """Everything but a head: ids in, hidden states out."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.checkpointing = False
        """Whether blocks keep nothing but their input for the backward pass, which then runs them again (Chen et al. 2016)."""
        self.tok_embeddings = nn.Embedding(config.vocab_size, config.dim)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = RMSNorm(config.dim, config.norm_eps)

    @property
    def device(self) -> torch.device:
        return self.tok_embeddings.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.tok_embeddings.weight.dtype

    def hidden(self, tokens: Tensor, layout: Sequences | None = None, wanted: Tensor | None = None) -> Tensor:
        """Normed hidden states of the last layer, [B, T, D]; with `wanted` (indices [W] into T) of those tokens alone.

        tokens: [B, T], each row one causal sequence; with a Layout, [1, N] documents back to back that do not see each other;
        with a Cache, [B, 1], the next token of each of its sequences. Longer sequences than config.context are a caller's bug.
        """
        if layout is None:
            layout = Layout.of([tokens.shape[1]] * tokens.shape[0], tokens.device)
        longest = max(layout.lengths) if isinstance(layout, Layout) else 0
        assert longest <= self.config.context, f"{longest} tokens in a context of {self.config.context}"
        x, rope = self.tok_embeddings(tokens), self._rope(layout.positions.view(tokens.shape))
        *blocks, last = self.layers
        for layer, block in enumerate(blocks):
            x = self._through(block, x, layer, rope, layout.attend)
        out: Tensor = self.norm(self._through(last, x, len(blocks), rope, layout.attend, wanted))
        return out

    def _through(self, block: Callable[..., Tensor], *arguments: Any) -> Tensor:
        again = self.checkpointing and torch.is_grad_enabled()
        out: Tensor = checkpoint(block, *arguments, use_reentrant=False) if again else block(*arguments)
        return out

    def read(self, tokens: Tensor, prompts: Prompts | Ends) -> None:
        """Puts the keys and values of packed prompts [1, N], or of their ends [B, T], into a cache; no hidden state is made beyond
        the last keys.
        """
        x, rope = self.tok_embeddings(tokens), self._rope(prompts.positions.view(tokens.shape))
        *blocks, last = self.layers
        assert isinstance(last, Block)
        for layer, block in enumerate(blocks):
            x = block(x, layer, rope, prompts.attend)
        prompts.keep(len(blocks), *last.attention.keys_values(last.attention_norm(x), rope))

    def _rope(self, positions: Tensor) -> Tensor:
        """[2, B, T, 1, d] for positions [B, T]."""
        return rope_table(self.config.head_size, self.config.rope_theta, self.config.context, positions.device)[:, positions, None]


class Transformer(Trunk):
    """The language model: a trunk and the vocabulary head."""

    def __init__(self, config: ModelConfig):
        super().__init__(config)
        self.output = nn.Linear(config.dim, config.vocab_size, bias=False)
        if config.tied:
            self.output.weight = self.tok_embeddings.weight

    def forward(self, tokens: Tensor, layout: Sequences | None = None) -> Tensor:
        """Logits [B, T, V]; arguments as in `hidden`."""
        out: Tensor = self.output(self.hidden(tokens, layout))
        return out


class Scorer(Trunk):
    """A trunk with a scalar head in the vocabulary head's place: reward models (section 5) and PPO's critic."""

    def __init__(self, config: ModelConfig):
        super().__init__(config)
        self.score = nn.Linear(config.dim, 1, bias=False)

    def forward(self, tokens: Tensor, layout: Layout, wanted: Tensor | None = None) -> Tensor:
        """A number for each of the tokens [1, N], or of the wanted ones alone: [N] or [W]. A sequence's score is that at `layout.ends`."""
        # A head that is trained on a frozen base keeps more digits than a base of 16 bits.
        out: Tensor = self.score(self.hidden(tokens, layout, wanted).to(self.score.weight.dtype))[0, :, 0]
        return out


def initialise(model: Trunk, seed: int) -> None:
    """Every initial value: normal of deviation 0.02, the two matrices that write to the residual stream less by its depth; norms 1.

    The paper prints no rule. A scalar head starts at zero, so that every score starts equal.
    """
    generator = torch.Generator(device="cpu").manual_seed(seed)
    for name, weight in model.named_parameters():
        if name.endswith("norm.weight"):
            values = torch.ones(weight.shape)
        elif name == "score.weight":
            values = torch.zeros(weight.shape)
        else:
            writes_residual = name.endswith(("wo.weight", "w2.weight"))
            deviation = 0.02 / (math.sqrt(2 * model.config.layers) if writes_residual else 1.0)
            values = torch.randn(weight.shape, generator=generator) * deviation
        with torch.no_grad():
            weight.copy_(values)


def on_meta(config: ModelConfig) -> Transformer:
    """The model as shapes only, without memory: a 70B can be inspected anywhere."""
    with torch.device("meta"):
        return Transformer(config)


def materialise(model: M, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> M:
    """Gives a model built on the meta device real, uninitialised memory. Tied weights stay tied."""
    tied = isinstance(model, Transformer) and model.config.tied
    model = model.to(dtype).to_empty(device=device)
    if tied:
        assert isinstance(model, Transformer)
        model.output.weight = model.tok_embeddings.weight
    for attention in (module for module in model.modules() if isinstance(module, Attention)):
        lay_end_to_end(attention.wq, attention.wk, attention.wv)
    return model


def new_model(config: ModelConfig, seed: int, device: torch.device | str = "cpu") -> Transformer:
    """A freshly initialised language model."""
    model = materialise(on_meta(config), device)
    initialise(model, seed)
    return model


def scorer_from(model: Trunk) -> Scorer:
    """A scorer on a copy of `model`'s trunk, its head at zero."""
    with torch.device("meta"):
        scorer = Scorer(model.config)
    scorer = materialise(scorer, model.device, model.dtype)
    trunk = {name: value for name, value in model.state_dict().items() if not name.startswith(("output.", "score."))}
    left_over = scorer.load_state_dict(trunk, strict=False)
    assert tuple(map(list, left_over)) == (["score.weight"], []), left_over
    nn.init.zeros_(scorer.score.weight)
    return scorer


def scorer_on(model: Trunk) -> Scorer:
    """A scorer on `model`'s own trunk, whatever kind its linear layers are of, its head at zero in float32: the two share their weights."""
    with torch.device("meta"):
        scorer = Scorer(model.config)
    scorer.tok_embeddings, scorer.layers, scorer.norm = model.tok_embeddings, model.layers, model.norm
    scorer.score = nn.Linear(model.config.dim, 1, bias=False, device=model.device)
    nn.init.zeros_(scorer.score.weight)
    return scorer
