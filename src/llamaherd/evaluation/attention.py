"""Where a model looks: the attention of one dialogue's parts to its earlier ones (paper.md section 7, figure 10)."""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ..assistant.local import Assistant
from ..chat.dialogue import Dialogue
from ..chat.template import encode_dialogue, message_spans
from ..model.layout import Layout
from ..model.transformer import Transformer

BIN_TOKENS = 8
"""Neighbouring tokens of one message that share a place in the picture, at most."""


@dataclass(frozen=True)
class Watched(Layout):
    """A layout of one document that keeps the largest weight of any head so far, [T, T], as attention is computed."""

    strongest: list[Tensor] = field(default_factory=list)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        length, size = q.shape[1], q.shape[3]
        queries, keys = q[0].transpose(0, 1).float(), k[0].transpose(0, 1).float()
        scores = queries @ keys.repeat_interleave(len(queries) // len(keys), dim=0).mT / size**0.5
        later = torch.ones(length, length, dtype=torch.bool, device=q.device).triu(1)
        weights = scores.masked_fill(later, float("-inf")).softmax(dim=-1).amax(dim=0)
        self.strongest[:] = [torch.maximum(weights, before) for before in self.strongest] or [weights]
        return super().attend(layer, q, k, v)


@torch.inference_mode()
def strongest_attention(model: Transformer, ids: list[int]) -> Tensor:
    """[T, T] the largest weight that each token (row) gives to each earlier one in any layer and head."""
    watched = Watched((len(ids),), model.device)
    model.hidden(torch.tensor([ids], device=model.device), watched)
    return watched.strongest[0]


def attention_map(assistant: Assistant, dialogue: Dialogue) -> dict[str, Any]:
    """The picture of a finished dialogue: `bins`, {"role", "turn"} of up to BIN_TOKENS neighbouring tokens of one message, and
    `attention`, for each bin the mean over its tokens of the largest weight given to any token of each bin up to it.

    Tags, begin and end stand in no bin: what looks at nothing in particular looks at the begin.
    """
    weights = strongest_attention(assistant.model, encode_dialogue(dialogue, assistant.tokenizer).ids)
    bins: list[dict[str, Any]] = []
    places: list[tuple[int, int]] = []
    turn = 0
    for role, start, end in message_spans(dialogue, assistant.tokenizer):
        turn += role == "user"
        parts = -(-(end - start) // BIN_TOKENS)
        cuts = [start + (end - start) * part // parts for part in range(parts + 1)] if parts else []
        places += pairwise(cuts)
        bins += [{"role": role, "turn": max(turn, 1)}] * parts
    rows = [
        [round(float(weights[first:last, start:end].amax(dim=1).mean()), 3) for start, end in places[: index + 1]]
        for index, (first, last) in enumerate(places)
    ]
    return {"bins": bins, "attention": rows}
