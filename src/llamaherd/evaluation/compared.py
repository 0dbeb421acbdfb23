"""A model and its quantised self on the same texts, part by part, so that neither need be whole in memory."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..model.config import ModelConfig
from ..model.in_turn import InTurn
from ..model.quantized import QuantizedLinear, Scheme, dequantize, quantized_linear, replace_linears
from ..model.transformer import Block, RMSNorm
from .perplexity import Drift, windows

M = TypeVar("M", bound=nn.Module)
Quantised = Mapping[str, Mapping[str, Tensor]]
"""The tensors of each quantised weight, by the weight's name in its part."""


class Compared:
    """Give it texts with `add`, then let `watch` see the parts of the model in order; `figures` says what came out."""

    def __init__(self, config: ModelConfig, scheme: Scheme, window: int):
        self.config, self.scheme, self.window = config, scheme, window
        self.of: list[tuple[str, Tensor]] = []
        self.drift: dict[str, Drift] = {}
        self.all_tokens: dict[str, int] = {}
        self._squares = self._error = 0.0

    def add(self, name: str, ids: Sequence[int], bos_id: int, tokens: int | None = None) -> None:
        """A text as ids without its beginning, of which the first `tokens` are read (None: all)."""
        self.of += [(name, part) for part in windows(ids[:tokens], bos_id, self.window)]
        self.drift[name], self.all_tokens[name] = Drift(), len(ids)

    def watch(self, part: str, floats: Mapping[str, Tensor], quantised: Quantised) -> None:
        """The next part of the model: see checkpoints/quantized.py."""
        for name, tensors in quantised.items():
            weight = floats[name].float()
            self._squares += float(weight.square().sum())
            self._error += float((dequantize(tensors, self.scheme, *weight.shape) - weight).square().sum())
        if part == "tok_embeddings":
            parts = [part[:-1] for _, part in self.of]
            self.before, self.after = InTurn(self.config, parts), InTurn(self.config, parts)
            self.before.embed(floats["weight"])
            self.after.embed(floats["weight"])
        elif part == "norm":
            with torch.device("meta"):
                norm = RMSNorm(self.config.dim, self.config.norm_eps)
            self.norm = self._filled(norm, floats, {})
        elif part == "output":
            self._compare(floats, quantised)
        else:
            both: tuple[tuple[InTurn, Quantised], ...] = (self.before, {}), (self.after, quantised)
            for model, some in both:
                with torch.device("meta"):
                    block = Block(self.config)
                model.block(int(part.split(".")[1]), self._filled(block, floats, some))

    def _filled(self, module: M, floats: Mapping[str, Tensor], quantised: Quantised) -> M:
        """A module without memory, given its weights."""
        if quantised:
            replace_linears(module, lambda name, old: self._linear(quantised[f"{name}.weight"], old))
        values = {name: weight.float() for name, weight in floats.items() if name not in quantised}
        module.load_state_dict(values, strict=False, assign=True)
        return module

    def _linear(self, tensors: Mapping[str, Tensor], old: nn.Linear) -> QuantizedLinear:
        return quantized_linear(tensors, self.scheme, old.in_features, old.out_features)

    def _compare(self, floats: Mapping[str, Tensor], quantised: Quantised) -> None:
        with torch.device("meta"):
            head = nn.Linear(self.config.dim, self.config.vocab_size, bias=False)
        small = self._linear(quantised["weight"], head)
        logits = self.before.logits(self.norm, self._filled(head, floats, {})), self.after.logits(self.norm, small)
        for (name, part), first, second in zip(self.of, *logits, strict=True):
            self.drift[name].add(first, second, part[1:])

    @property
    def weight_error(self) -> float:
        """Root mean square of the errors of all quantised weights, over that of the weights."""
        return math.sqrt(self._error / self._squares) if self._squares else 0.0

    def figures(self) -> dict[str, dict[str, Any]]:
        """By text: its tokens and window, perplexity of both, how far their predictions differ."""
        return {
            name: {
                "tokens": drift.tokens, "of_tokens": self.all_tokens[name], "window": self.window,
                "perplexity_before": drift.first.perplexity, "perplexity_after": drift.second.perplexity,
                "log_prob_error": math.sqrt(drift.squares / drift.tokens), "kl_nats": drift.kl / drift.tokens,
                "same_choice": drift.same_choice / drift.tokens,
            }
            for name, drift in self.drift.items()
        }  # fmt: skip
