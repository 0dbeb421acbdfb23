"""Weights laid out for answering alone, on a CPU in float32: about twice as fast for several tokens at once, 1.3 times for one.

A plain product with a few rows reads a row-major matrix at half of what memory could give. Here oneDNN's blocked layout serves
several rows, and for one row a matrix with more outputs than inputs stands column by column, so that whole columns stream through.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from .memory import packed_bytes
from .transformer import Block, Transformer

ROWS = 8
"""For so many rows oneDNN chooses the blocks; they are the fastest for others too."""


class Packed(nn.Module):
    """x -> x W^T for layers of equal width whose outputs follow each other; can neither be trained nor saved."""

    def __init__(self, parts: Sequence[nn.Linear]):
        super().__init__()
        weight = torch.cat([part.weight.detach() for part in parts])
        self._many: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, ROWS)
        self._one = weight.T.contiguous().T if weight.shape[0] > weight.shape[1] else weight

    def forward(self, x: Tensor) -> Tensor:
        if x.numel() == x.shape[-1]:
            return linear(x, self._one)
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._many, None, "none", [], "")
        return out


def pack(model: Transformer, free_bytes: int) -> bool:
    """Lays out the weights of a model that is only to answer from now on; False, and nothing is done, where that would not help or
    would take more than half of the memory that is free.
    """
    # No name may hold on to the layers: what is laid out anew has to be freed block by block.
    plain = {type(layer) is nn.Linear and layer.weight.dtype == torch.float32 for layer in model.modules() if isinstance(layer, nn.Linear)}
    suited = model.device.type == "cpu" and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if not suited or plain != {True} or not packed_bytes(model.config, free_bytes):
        return False
    with torch.inference_mode():
        for block in model.layers:
            assert isinstance(block, Block)
            attention, feed_forward = block.attention, block.feed_forward
            attention.together = Packed([attention.wq, attention.wk, attention.wv])
            feed_forward.together = Packed([feed_forward.w1, feed_forward.w3])
            del attention.wq, attention.wk, attention.wv, feed_forward.w1, feed_forward.w3
            attention.wo, feed_forward.w2 = Packed([attention.wo]), Packed([feed_forward.w2])  # type: ignore[assignment]
        model.output = Packed([model.output])  # type: ignore[assignment]
    return True
