"""How long an instruction at the start of a dialogue holds (paper.md section 7's test of Ghost Attention)."""

from collections.abc import Callable, Sequence

from ..assistant.local import Assistant
from ..chat.dialogue import Dialogue, Message, checked
from ..core.seeds import seed_for
from ..generate.config import SamplingConfig
from ..measures.intervals import Figure, rate


def obedience_by_turn(
    assistant: Assistant,
    instructions: Sequence[str],
    users: Sequence[Sequence[str]],
    obeys: Callable[[int, str], bool],
    turns: Sequence[int],
    sampling: SamplingConfig,
    seed: int,
) -> dict[str, Figure]:
    """Share of dialogues whose answer at each of `turns` obeys; the instruction is the system text and is said once.

    A dialogue that an empty answer or a forged tag broke off counts as disobedient from then on; one whose context is full
    is left out of later turns.
    """
    broken = 0
    dialogues: dict[int, Dialogue] = {}
    figures: dict[str, Figure] = {}
    for turn in range(1, max(turns) + 1):
        asked = []
        for index in range(len(instructions)):
            if turn == 1:
                dialogues[index] = checked([Message("system", instructions[index]), Message("user", users[index][0])])
            elif index in dialogues:
                dialogues[index] = dialogues[index].followed_by("user", users[index][turn - 1])
            if index in dialogues and _has_room(assistant, dialogues[index], sampling):
                asked.append(index)
        dialogues = {index: dialogues[index] for index in asked}
        if not asked:
            figures |= {str(later): rate(0, broken) for later in turns if later >= turn}
            break
        seeds = [seed_for(seed, "obedience", index, turn) for index in asked]
        answers = assistant.answers([dialogues[index] for index in asked], sampling, seeds)
        if turn in turns:
            obeyed = sum(obeys(index, answer.text) for index, answer in zip(asked, answers, strict=True))
            figures[str(turn)] = rate(obeyed, len(asked) + broken)
        for index, answer in zip(asked, answers, strict=True):
            if answer.usable:
                dialogues[index] = dialogues[index].followed_by("assistant", answer.text)
            else:
                del dialogues[index]
                broken += 1
    return figures


def _has_room(assistant: Assistant, dialogue: Dialogue, sampling: SamplingConfig) -> bool:
    return len(assistant.prompt_ids(dialogue)) + sampling.max_new_tokens <= assistant.model.config.context
