"""Whether what samples is what is trained: the engine's greedy tokens beside those of the plain model, at the start of every run."""

from collections.abc import Sequence

import torch

from ..assistant.local import Assistant
from ..core.errors import UserError
from ..data.records import Prompt
from ..generate.config import SamplingConfig
from ..model.transformer import Transformer

LOOKED_AT_PROMPTS, LOOKED_AT_TOKENS = 4, 16


@torch.inference_mode()
def demand_same_greedy(assistant: Assistant, plain: Transformer, prompts: Sequence[Prompt]) -> None:
    """Raises UserError unless the answers that the engine makes greedily, with its cache, its batches and the adapter at work, are those
    that `plain` finds likeliest, which reads each whole, by itself and without a cache.

    A token that is as likely as the likeliest but for rounding counts as the same.
    """
    asked = prompts[:LOOKED_AT_PROMPTS]
    greedy = SamplingConfig(temperature=0.0, top_p=1.0, max_new_tokens=LOOKED_AT_TOKENS)
    assistant.model.eval()
    answers = assistant.answers([prompt.dialogue for prompt in asked], greedy, [0] * len(asked))
    pieces = assistant.tokenizer.vocab_size
    for number, answer in enumerate(answers, 1):
        ids = answer.completion.ids
        tokens = torch.tensor([[*answer.prompt_ids, *ids[:-1]]], device=plain.device)
        logits = plain.output(plain.hidden(tokens)[0, -len(ids) :])[:, :pieces].float()
        chosen = logits.gather(1, torch.tensor(ids, device=logits.device)[:, None])[:, 0]
        best = logits.amax(1)
        rounding = torch.finfo(plain.dtype).eps ** 0.5 * logits.abs().amax().clamp(min=1.0)
        # Not `best - chosen > rounding`: what is not a number would pass.
        for at in (~(best - chosen <= rounding)).nonzero()[:1, 0].tolist():
            raise UserError(
                f"greedy answer to prompt {number}, token {at + 1}: the sampler takes id {ids[at]}, the plain model finds id "
                f"{int(logits[at].argmax())} likelier by {float(best[at] - chosen[at]):.3g} nats; sampling and training disagree, so PPO "
                "would learn from answers of another model; check the weights, and give --roles.bits=32 if the base is held in fewer bits"
            )
