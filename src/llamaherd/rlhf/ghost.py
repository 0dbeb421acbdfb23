"""Ghost Attention (paper.md section 7): an instruction said with every message while sampling, once while training.

1. Append the instruction to every user message and let the newest model answer, turn by turn.
2. Keep the instruction at the start only and train on the last answer alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ..assistant.local import Assistant
from ..chat.dialogue import Dialogue, Message, checked
from ..core.seeds import seed_for
from ..generate.config import SamplingConfig
from ..generate.memory import Memory
from .judging import why_unusable


@dataclass(frozen=True)
class Script:
    """The user's side of a dialogue and the instruction that holds throughout."""

    instruction: str
    users: tuple[str, ...]


def reminded(script: Script, answers: Sequence[str]) -> Dialogue:
    """The dialogue so far as the sampler sees it: the instruction follows every user message."""
    messages = []
    for turn in range(len(answers) + 1):
        messages.append(Message("user", f"{script.users[turn]} {script.instruction}"))
        if turn < len(answers):
            messages.append(Message("assistant", answers[turn]))
    return checked(messages)


def check_script(script: Script, where: str) -> None:
    """Raises UserError for a message that no dialogue may hold (empty, with a template tag)."""
    for user in script.users:
        checked([Message("system", script.instruction), Message("user", user)], where=where)


def training_row(script: Script, answers: Sequence[str]) -> Dialogue:
    """The dialogue as it is trained: the instruction is the system text, and only the last answer carries loss."""
    messages = [Message("system", script.instruction)]
    for user, answer in zip(script.users, answers, strict=True):
        messages += [Message("user", user), Message("assistant", answer)]
    return checked(messages, trained="last")


@dataclass
class GhostRows:
    """Training dialogues and how many scripts were left out, by reason."""

    dialogues: list[Dialogue]
    dropped: dict[str, int]


def ghost_dialogues(assistant: Assistant, scripts: Sequence[Script], sampling: SamplingConfig, seed: int, first: int = 0) -> GhostRows:
    """Samples all scripts side by side, one turn at a time.

    Dropped and counted: scripts with an empty answer, an answer with a tag, a full context, an unfinished last answer (it
    alone is trained on, and would teach to stop in the middle).
    """
    answers: list[list[str]] = [[] for _ in scripts]
    dropped = {"empty": 0, "tag": 0, "unfinished": 0, "context": 0}
    alive = list(range(len(scripts)))
    context, memory = assistant.model.config.context, Memory()
    for turn in range(max(len(script.users) for script in scripts)):
        asked = [index for index in alive if turn < len(scripts[index].users)]
        dialogues = {index: reminded(scripts[index], answers[index]) for index in asked}
        full = [index for index in asked if len(assistant.prompt_ids(dialogues[index])) + sampling.max_new_tokens > context]
        dropped["context"] += len(full)
        asked = [index for index in asked if index not in full]
        alive = [index for index in alive if index not in full]
        if not asked:
            continue
        seeds = [seed_for(seed, "ghost", first + index, turn) for index in asked]
        given = assistant.answers([dialogues[index] for index in asked], sampling, seeds, memory)
        for index, answer in zip(asked, given, strict=True):
            answers[index].append(answer.text)
            reason = why_unusable(answer)
            if reason and (reason != "unfinished" or turn == len(scripts[index].users) - 1):
                dropped[reason] += 1
                alive.remove(index)
    return GhostRows([training_row(scripts[index], answers[index]) for index in alive], dropped)
