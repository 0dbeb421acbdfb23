"""A conversation in the terminal. Answers go to standard output; everything else that is said goes to standard error."""

import contextlib
import io
import math
import re
import secrets
import sys
from typing import TYPE_CHECKING

from ..chat.dialogue import Dialogue, Message, checked, tag_in
from ..chat.fit import Overflow, told
from ..core.config import Config
from ..core.errors import UserError, did_you_mean
from ..core.seeds import seed_for
from ..generate.config import SamplingConfig
from ..model.config import ModelConfig
from ..model.memory import FLOAT, Pass, cache_bytes, forward_buffers, largest_weight
from ..train.memory import Moment

if TYPE_CHECKING:
    from ..assistant.open import TextModel

COMMANDS = {
    "/system": "/system TEXT       another system text; without TEXT: none",
    "/reset": "/reset             forget the dialogue, keep the system text",
    "/adapter": "/adapter NAME      another adapter; without NAME: none",
    "/temperature": "/temperature T     0 takes the most likely token, more is more varied",
    "/help": "/help              this list",
    "/quit": "/quit              the end, as Ctrl-D; Ctrl-C stops an answer",
}
PROMPT = "> "
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Characters that steer a terminal instead of saying something; tab and newline are not among them."""


SAMPLING_COPIES = 8
"""Of a token's logits: as they are, in float32, scaled, as probabilities, sorted with their ids, added up, as log-probabilities."""


class ChatConfig(Config):
    """Who answers, and how."""

    model: str
    """A folder, RUN, RUN:VERSION, or an endpoint."""
    system: str | None = None
    """System text."""
    seed: int | None = None
    """For the same answers again; null: other ones each time."""
    adapters: tuple[str, ...] = ()
    """Adapters on the model, as NAME=DIR or DIR; the first one is at work until another is chosen."""
    sampling: SamplingConfig = SamplingConfig()
    """Temperature, nucleus, length."""
    overflow: Overflow = "drop-turns"
    """What happens when the context is full: the oldest turns are left out and the system text stays, or the message is refused."""
    invariant: bool = False
    """Whether answers are the same bits as in any other company (docs/generation.md), at the price of speed."""


class Chat:
    """A dialogue in progress: what was said so far, and under which settings it goes on."""

    def __init__(self, model: "TextModel", config: ChatConfig):
        self.model, self.system, self.sampling = model, config.system, config.sampling
        self.turns: tuple[Message, ...] = ()
        self.answers, self.overflow = 0, config.overflow
        # Only who gives no seed gets one from the system.
        self.seed = secrets.randbits(32) if config.seed is None else config.seed

    def take(self, line: str) -> bool:
        """Obeys a command or answers a message; False when it was the last. Raises UserError, after which nothing has changed."""
        word, *rests = line.split(None, 1) or [""]
        rest = rests[0] if rests else ""
        if not re.fullmatch(r"/[A-Za-z]+", word):
            if word:
                self.answer(line.strip())
            return True
        rest = rest.strip()
        match word.lower():
            case "/quit":
                return False
            case "/help":
                note("\n".join(COMMANDS.values()))
            case "/reset":
                self.turns = ()
                note("the dialogue is forgotten" + (", the system text stays" if self.system is not None else ""))
            case "/system":
                self.set_system(rest or None)
            case "/adapter":
                self.model.use(rest or None)
                note(f"adapter {rest} is at work" if rest else "no adapter is at work")
            case "/temperature":
                self.set_temperature(rest)
            case unknown:
                raise UserError(f"{unknown} is no command{did_you_mean(unknown, COMMANDS)}; /help lists them")
        return True

    def set_system(self, text: str | None) -> None:
        """Puts another system text over the whole dialogue, or none. Raises UserError when it holds a template tag."""
        check_system(text)
        self.system = text
        note("no system text" if text is None else "the system text is set" + ("; /reset starts over under it" if self.turns else ""))

    def set_temperature(self, text: str) -> None:
        """Raises UserError unless `text` is a number from 0 up; without text, says which it is."""
        try:
            value = float(text or self.sampling.temperature)
        except ValueError:
            value = math.nan
        if not 0 <= value < math.inf:
            raise UserError(f"temperature {text!r}: expected a number from 0 up, such as /temperature 0.6")
        self.sampling = self.sampling.model_copy(update={"temperature": value})
        note(f"temperature {value:g}")

    def answer(self, text: str) -> None:
        """Streams the answer to one message and keeps both. Raises UserError, after which the dialogue is as before."""
        system = () if self.system is None else (Message("system", self.system),)
        dialogue, dropped = self.model.fitted(checked((*system, *self.turns, Message("user", text))), self.sampling)
        if dropped and self.overflow == "refuse":
            raise UserError(f"the context is full: {dropped} of {len(self.turns) // 2} earlier turns would have to go; /reset starts over")
        if dropped:
            note(told(dropped))
        said, stopped = self._stream(dialogue)
        tag = tag_in(said)
        if not said.strip() or tag:
            fault = f"contains the template tag {tag}" if tag else "was stopped before it began" if stopped else "is empty"
            note(f"the answer {fault}; this turn is left out of the dialogue")
            return
        if stopped:
            note("stopped; the answer stays in the dialogue as far as it came")
        self.turns = (*dialogue.messages[len(system) :], Message("assistant", said))

    def _stream(self, dialogue: Dialogue) -> tuple[str, bool]:
        """(what came of the answer, whether Ctrl-C stopped it), shown as it comes."""
        self.answers += 1
        said = ""
        try:
            for piece in self.model.stream(dialogue, self.sampling, seed_for(self.seed, "chat", self.answers)):
                said += piece
                show(CONTROL.sub("\ufffd", piece))
        except KeyboardInterrupt:
            return said, True
        finally:
            if said:
                show("\n")
        return said, False


def check_system(text: str | None) -> None:
    """Raises UserError when `text` can be no system text."""
    if text is not None:
        checked((Message("system", text), Message("user", "any")))


def show(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def read_line() -> str | None:
    """The next line, or None when there is none: edited in place in a terminal, as it is from a pipe."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return sys.stdin.readline() or None
    try:
        return input(PROMPT)
    except EOFError:
        note("")
        return None


def run(config: ChatConfig) -> None:
    """Talks until the input ends. Raises UserError when the model or the first system text cannot be used."""
    from ..assistant.open import adapter_places, open_assistant

    check_system(config.system)
    adapters = adapter_places(config.adapters)
    with contextlib.suppress(ImportError):  # Windows has none; lines are then edited by the console itself
        import readline  # noqa: F401
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # bytes that are no text end one message, not the program
    chat = Chat(open_assistant(config.model, adapters, config.invariant), config)
    note(f"{chat.model.name} ({config.model}) listens; /help lists the commands")
    interrupted = False
    while True:
        try:
            line = read_line()
        except KeyboardInterrupt:
            if interrupted:
                return note("")
            note("\nCtrl-C again ends the conversation")
            interrupted = True
            continue
        interrupted = False
        try:
            if line is None or not chat.take(line):
                return None
        except UserError as error:
            note(str(error))
        except KeyboardInterrupt:
            note("stopped")


def memory(shape: ModelConfig, weights: int, prompt_tokens: int, new_tokens: int, item: int = FLOAT, packed: int = 0) -> list[Moment]:
    """The fullest moments of an answer: `weights` in bytes and `packed` ones besides, a prompt that is read whole, and room in the cache
    for what is new.
    """
    cache = cache_bytes(shape, 1, prompt_tokens + new_tokens, item)
    rope = 2 * shape.context * shape.head_size * FLOAT
    reading = forward_buffers(shape, Pass((prompt_tokens,), 1), item) + rope
    saying = SAMPLING_COPIES * shape.vocab_size * FLOAT + rope
    held = {"weights": weights} | ({"packed weights": packed} if packed else {})
    return [
        Moment("loading", {**held, "copies": largest_weight(shape) * item}),
        Moment("reading the prompt", {**held, "cache": cache, "activations": reading}),
        Moment("answering", {**held, "cache": cache, "logits": saying}),
    ]
