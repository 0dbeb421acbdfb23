"""One answer on standard output."""

import sys

from ..chat.dialogue import Message, checked
from ..core.config import Config
from ..core.errors import UserError
from ..core.seeds import seed_for
from ..generate.config import SamplingConfig


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


def run(config: GenerateConfig) -> None:
    """Prints the answer as it comes, and nothing else.

    Raises UserError for an empty prompt (unless raw), a template tag in it, one that leaves no room in the context.
    """
    from ..assistant.open import adapter_places, open_assistant

    if len(config.adapters) > 1:
        raise UserError(f"--adapter is given {len(config.adapters)} times; one answer is by one adapter, chat switches between several")
    adapters = adapter_places(config.adapters)
    seed = seed_for(config.seed, "generate")
    if config.raw:
        if config.system is not None:
            raise UserError("--system has no place in a --raw prompt; leave one of them out")
        pieces = open_assistant(config.model, adapters).continuation(config.prompt, config.sampling, seed)
    else:
        system = [Message("system", config.system)] if config.system is not None else []
        dialogue = checked([*system, Message("user", config.prompt)], where="--prompt")
        pieces = open_assistant(config.model, adapters).stream(dialogue, config.sampling, seed)
    for piece in pieces:
        sys.stdout.write(piece)
        sys.stdout.flush()
    sys.stdout.write("\n")
