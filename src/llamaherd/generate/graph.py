"""The step of a fixed number of slots as a CUDA graph: one launch in place of hundreds. On other devices it is a plain call."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..model.slots import Slots
from ..model.transformer import Transformer

WARM_UP = 3
"""Calls before a capture, in which libraries choose kernels and take memory."""


class Decode:
    """Logits [B, V] of one token per row, at the places that `slots` was told. A graph's result is overwritten by its next call."""

    def __init__(self, model: Transformer, slots: Slots, rows: int):
        self._model, self._slots = model, slots
        self._tokens = torch.zeros(rows, 1, dtype=torch.long, device=model.device)
        self._graphs: dict[bool, tuple[torch.cuda.CUDAGraph, Tensor]] = {}

    def __call__(self, tokens: Sequence[int]) -> Tensor:
        self._tokens.copy_(torch.tensor(tokens)[:, None])
        if self._tokens.device.type != "cuda":
            return self._step()
        if self._slots.apart not in self._graphs:
            self._graphs[self._slots.apart] = self._captured()
        graph, logits = self._graphs[self._slots.apart]
        graph.replay()
        return logits

    def _step(self) -> Tensor:
        logits: Tensor = self._model(self._tokens, self._slots)[:, 0]
        return logits

    def _captured(self) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        """Warming up and capturing write the step's keys and values again, at the same places: nothing changes by that."""
        beside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(WARM_UP):
                self._step()
        torch.cuda.current_stream().wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            logits = self._step()
        return graph, logits
