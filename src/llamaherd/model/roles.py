"""Several models on one base (PPO's five roles): each is the base with an adapter of its own, or with none, and a head.

Nothing is copied: their layers are the same objects, and whose turn it is says a name in each of them. W wanted tokens, V vocabulary.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from .cache import Ends, Prompts
from .layout import Layout
from .lora import LoraLinear
from .transformer import Scorer, Sequences, Transformer, Trunk


class Turns:
    """Whose adapter is at work on a base that carries all of them."""

    def __init__(self, base: Transformer):
        self._layers = [module for module in base.modules() if isinstance(module, LoraLinear)]

    def take(self, adapter: str | None) -> None:
        if self._layers and self._layers[0].active != adapter:
            for layer in self._layers:
                layer.active = adapter


class OnBase(Trunk):
    """A trunk that is the base's, with one adapter or none: it takes its turn whenever it is asked."""

    def __init__(self, base: Transformer, turns: Turns, adapter: str | None):
        nn.Module.__init__(self)  # a trunk of its own is what it must not make
        self.config, self.checkpointing = base.config, False
        self.tok_embeddings, self.layers, self.norm = base.tok_embeddings, base.layers, base.norm
        self.turns, self.adapter = turns, adapter

    def hidden(self, tokens: Tensor, layout: Sequences | None = None, wanted: Tensor | None = None) -> Tensor:
        self.turns.take(self.adapter)
        return super().hidden(tokens, layout, wanted)

    def read(self, tokens: Tensor, prompts: Prompts | Ends) -> None:
        self.turns.take(self.adapter)
        super().read(tokens, prompts)

    def _through(self, block: Any, *arguments: Any) -> Tensor:
        # A checkpointed block is run again on the way back, when it may be another's turn.
        return super()._through(partial(self._in_turn, block) if self.checkpointing else block, *arguments)

    def _in_turn(self, block: nn.Module, *arguments: Any) -> Tensor:
        self.turns.take(self.adapter)
        out: Tensor = block(*arguments)
        return out


class TransformerOnBase(OnBase, Transformer):
    """A language model: the base's head, too."""

    def __init__(self, base: Transformer, turns: Turns, adapter: str | None):
        OnBase.__init__(self, base, turns, adapter)
        self.output = base.output


class ScorerOnBase(OnBase, Scorer):
    """A scalar head of its own [D], in float32 whatever the base is held in."""

    def __init__(self, base: Transformer, turns: Turns, adapter: str | None, head: Tensor):
        OnBase.__init__(self, base, turns, adapter)
        self.score = nn.Linear(base.config.dim, 1, bias=False, device=base.device)
        with torch.no_grad():
            self.score.weight.copy_(head.view(1, -1))

    def forward(self, tokens: Tensor, layout: Layout, wanted: Tensor | None = None) -> Tensor:
        return self.of(self.hidden(tokens, layout, wanted)[0])

    def of(self, hidden: Tensor) -> Tensor:
        """Scores [W] of hidden states [W, D] of its own trunk."""
        return linear(hidden.to(self.score.weight.dtype), self.score.weight)[:, 0]


def on_one_trunk(policy: Trunk, critic: Trunk) -> bool:
    """Whether both have the same hidden states: one base and one adapter."""
    if not (isinstance(policy, OnBase) and isinstance(critic, OnBase)):
        return False
    return critic.turns is policy.turns and critic.adapter == policy.adapter


def logits_and_values(policy: Transformer, critic: Scorer, tokens: Tensor, layout: Layout, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """The policy's logits [W, V] and the critic's values [W] of wanted tokens: one pass where the critic is a head on the policy's trunk,
    otherwise one of each.
    """
    hidden = policy.hidden(tokens, layout, wanted)[0]
    logits = policy.output(hidden)
    if isinstance(critic, ScorerOnBase) and on_one_trunk(policy, critic):
        return logits, critic.of(hidden)
    return logits, critic(tokens, layout, wanted)
