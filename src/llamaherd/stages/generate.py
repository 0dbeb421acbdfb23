"""One answer on standard output."""

import sys
from pathlib import Path

from ..chat.dialogue import Dialogue, Message, checked
from ..chat.fit import Overflow, told
from ..core.config import Config
from ..core.errors import UserError
from ..generate.config import SamplingConfig

SEEDS = 1 << 64
"""The engine's seeds are this many; a negative one counts from the end."""


class GenerateConfig(Config):
    """What is asked of which model."""

    model: str
    """A folder, RUN, RUN:VERSION, or an endpoint."""
    prompt: str
    """What the user says, or text to continue."""
    raw: bool = False
    """Without the chat format."""
    system: str | None = None
    """System text."""
    seed: int = 0
    """For the same answer again."""
    adapters: tuple[str, ...] = ()
    """An adapter on the model, as NAME=DIR or DIR."""
    sampling: SamplingConfig = SamplingConfig()
    """Temperature, nucleus, length."""
    history: Path | None = None
    """A file with one dialogue, in any form that sft reads, which the prompt goes on with."""
    overflow: Overflow = "refuse"
    """What happens when the context is full: the oldest turns are left out and the system text stays, or the prompt is refused."""
    invariant: bool = False
    """Whether the answer is the same bits as in any other company (docs/generation.md), at the price of speed."""


def run(config: GenerateConfig) -> None:
    """Prints the answer as it comes, and nothing else.

    Raises UserError for an empty prompt (unless raw), a template tag in it, one that leaves no room in the context.
    """
    from ..assistant.open import adapter_places, open_assistant

    if len(config.adapters) > 1:
        raise UserError(f"--adapter is given {len(config.adapters)} times; one answer is by one adapter, chat switches between several")
    adapters = adapter_places(config.adapters)
    seed = config.seed % SEEDS
    if config.raw:
        if given := [name for name in ("system", "history") if getattr(config, name) is not None]:
            raise UserError(f"--{given[0]} has no place in a --raw prompt; leave one of them out")
        pieces = open_assistant(config.model, adapters, config.invariant).continuation(config.prompt, config.sampling, seed)
    else:
        dialogue = _dialogue(config)
        model = open_assistant(config.model, adapters, config.invariant)
        if config.overflow == "drop-turns":
            dialogue, dropped = model.fitted(dialogue, config.sampling)
            if dropped:
                print(told(dropped), file=sys.stderr, flush=True)
        pieces = model.stream(dialogue, config.sampling, seed)
    for piece in pieces:
        sys.stdout.write(piece)
        sys.stdout.flush()
    sys.stdout.write("\n")


def _dialogue(config: GenerateConfig) -> Dialogue:
    """What is to be answered. Raises UserError when the parts do not make a dialogue."""
    said = _history(config.history) if config.history else ()
    if said and said[0].role == "system" and config.system is not None:
        raise UserError(f"--system is given, and {config.history} has a system text of its own; leave one of them out")
    system = (Message("system", config.system),) if config.system is not None else ()
    return checked((*system, *said, Message("user", config.prompt)), where="--prompt")


def _history(file: Path) -> tuple[Message, ...]:
    from ..data.importers import import_dialogues

    dialogues = import_dialogues(file).dialogues
    if len(dialogues) != 1:
        raise UserError(f"{file}: has {len(dialogues)} dialogues; --history takes a file with one, which the prompt goes on with")
    return dialogues[0][0].messages
