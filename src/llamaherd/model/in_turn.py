"""Texts that go through a model whose blocks come one after the other, so that it need never be whole in memory."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from .config import ModelConfig
from .layout import Layout
from .transformer import Block, RMSNorm, rope_table


class InTurn:
    """Hidden states of texts, ids [T] each, on their way: `embed`, then every `block`, then `logits`."""

    def __init__(self, config: ModelConfig, texts: Sequence[Tensor]):
        self._config, self._texts = config, texts
        self._states: list[Tensor] = []

    @torch.inference_mode()
    def embed(self, weight: Tensor) -> None:
        """Begins, with the embedding [V, D]."""
        self._states = [weight[text].float()[None] for text in self._texts]

    @torch.inference_mode()
    def block(self, layer: int, block: Block) -> None:
        """The next block: numbers from 0."""
        config = self._config
        for index, x in enumerate(self._states):
            length = x.shape[1]
            rope = rope_table(config.head_size, config.rope_theta, config.context, x.device)[:, None, :length, None]
            self._states[index] = block(x, layer, rope, Layout.of([length], x.device).attend)

    @torch.inference_mode()
    def logits(self, norm: RMSNorm, head: nn.Module) -> Iterator[Tensor]:
        """[T, V] of each text."""
        for x in self._states:
            yield head(norm(x))[0]
