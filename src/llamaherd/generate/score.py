"""Log-probabilities beside those of sampled tokens: of other tokens, and of a prompt's own."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..model.transformer import Transformer
from .sequence import Alternatives, Running

HEAD_TOKENS = 256
"""Tokens of a prompt whose logits are there at once."""


def alternatives(log_probs: Tensor, count: int) -> list[Alternatives]:
    """For each row of log_probs [B, V] the `count` likeliest ids with their log-probabilities, the likeliest first."""
    top = log_probs.topk(min(count, log_probs.shape[-1]))
    return [list(zip(ids, values, strict=True)) for ids, values in zip(top.indices.tolist(), top.values.tolist(), strict=True)]


def take_prompt(sequence: Running, logits: Tensor, ids: Sequence[int]) -> None:
    """Notes the log-probabilities of the next `ids` of a prompt, whose logits are [T, V]."""
    log_probs = logits.float().log_softmax(-1)
    sequence.completion.prompt_log_probs += log_probs.gather(-1, torch.tensor(ids, device=logits.device)[:, None])[:, 0].tolist()
    if sequence.sampling.top_log_probs:
        sequence.completion.prompt_alternatives += alternatives(log_probs, sequence.sampling.top_log_probs)


def score_prompt(model: Transformer, sequence: Running) -> None:
    """Notes the log-probabilities of a prompt that was just added, in a pass of its own."""
    prompt = sequence.ids
    if len(prompt) > 1:
        take_hidden(model, sequence, model.hidden(torch.tensor([prompt[:-1]], device=model.device))[0])


def take_hidden(model: Transformer, sequence: Running, hidden: Tensor, start: int = 0) -> None:
    """Notes the log-probabilities of what follows the prompt's tokens from `start` on, of which these are the hidden states [T, D]."""
    for first in range(0, len(hidden), HEAD_TOKENS):
        part = hidden[first : first + HEAD_TOKENS]
        take_prompt(sequence, model.output(part), sequence.ids[start + first + 1 : start + first + 1 + len(part)])
