"""A chat model ready to answer: dialogues in, answers out."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..chat.dialogue import Dialogue, tag_in
from ..chat.fit import demand_room, encode_open, fit_prompt
from ..chat.template import read_answer
from ..checkpoints.adapted import demand_base
from ..checkpoints.peft import lay_over, read_adapter
from ..checkpoints.quantized import load_for_inference
from ..core.artifacts import model_path
from ..core.device import best_device
from ..generate.config import SamplingConfig
from ..generate.engine import ROWS, Engine, generate
from ..generate.memory import Memory
from ..generate.sequence import Completion
from ..model.lora import switch
from ..model.transformer import Transformer
from ..tokenizer.sentencepiece import Tokenizer


class Trim:
    """A text that comes in pieces, without the space before and after it. `before`: whether the space before it goes too."""

    def __init__(self, before: bool = True):
        self._started, self._held = not before, ""

    def feed(self, piece: str) -> str:
        """What is certain to stand inside after one more piece."""
        if not self._started:
            piece = piece.lstrip()
            self._started = bool(piece)
        piece = self._held + piece
        shown = piece.rstrip()
        self._held = piece[len(shown) :]
        return shown


@dataclass(frozen=True)
class Answer:
    """An answer as text and as the ids that were sampled."""

    text: str
    prompt_ids: list[int]
    completion: Completion

    @property
    def tag(self) -> str | None:
        """The template tag that the answer forges, if any: such an answer never becomes data."""
        return tag_in(self.text)

    @property
    def usable(self) -> bool:
        """Whether it may become data: not empty, no template tag."""
        return bool(self.text.strip()) and self.tag is None


class Assistant:
    """A local model with its tokenizer. `name` is what records call it; `invariant` as in generate.engine.Engine."""

    def __init__(self, model: Transformer, tokenizer: Tokenizer, name: str, invariant: bool = False):
        self.model, self.tokenizer, self.name, self.invariant = model, tokenizer, name, invariant
        self.stop_ids = (tokenizer.eos_id, tokenizer.bos_id)
        self._adapter: str | None = None
        self.memory = Memory()
        """Of the dialogue that `stream` goes on with."""

    @classmethod
    def load(
        cls, spec: str | Path, name: str | None = None, adapters: Mapping[str, Path] | None = None, invariant: bool = False
    ) -> "Assistant":
        """From a folder, RUN:VERSION or RUN, with adapters by name, the first of them at work. Raises UserError."""
        folder = model_path(spec)
        for place in (adapters or {}).values():
            demand_base(place, folder)
        model, tokenizer = load_for_inference(folder, best_device())
        assistant = cls(model, tokenizer, name or folder.name, invariant)
        for adapter, place in (adapters or {}).items():
            lay_over(model, adapter, read_adapter(place))
            assistant._adapter = adapter
        assistant.use(next(iter(adapters), None) if adapters else None)
        return assistant

    def switch(self, adapter: str | None) -> None:
        """Puts one of its adapters to work, or none, for whoever keeps a memory for each. Raises UserError when it has no such adapter."""
        if adapter != self._adapter:
            switch(self.model, adapter)
            self._adapter = adapter

    def use(self, adapter: str | None) -> None:
        """Puts one of its adapters to work, or none. Raises UserError when it has no such adapter."""
        self.switch(adapter)
        self.memory = Memory()  # what it knew was made with other weights

    def prompt_ids(self, dialogue: Dialogue) -> list[int]:
        """Ids of what the model goes on from: a dialogue that ends with a user, or one whose last answer was begun."""
        return encode_open(dialogue, self.tokenizer)

    def demand_room(self, dialogue: Dialogue, where: str) -> None:
        """Raises UserError when a prompt fills the context and so leaves no room for an answer."""
        demand_room(len(self.prompt_ids(dialogue)), self.model.config.context, where)

    def answers(
        self,
        dialogues: Sequence[Dialogue],
        config: SamplingConfig | Sequence[SamplingConfig],
        seeds: Sequence[int],
        memory: Memory | None = None,
        rows: int = ROWS,
    ) -> list[Answer]:
        """One answer to each dialogue that ends with a user, `rows` at a time. Raises UserError when one has no room in the context.

        `config` is one for all or one for each. With a memory, of dialogues that were answered before only what is new is read.
        """
        prompts = [self.prompt_ids(dialogue) for dialogue in dialogues]
        stops = config.stop if isinstance(config, SamplingConfig) else any(one.stop for one in config)
        tokenizer = self.tokenizer if stops else None
        completions = generate(
            self.model, prompts, config, seeds, self.stop_ids, self.tokenizer.vocab_size, rows, memory=memory, tokenizer=tokenizer,
            invariant=self.invariant,
        )  # fmt: skip
        return [Answer(self._text(completion), prompt, completion) for prompt, completion in zip(prompts, completions, strict=True)]

    def _text(self, completion: Completion) -> str:
        return read_answer(completion.text_ids, self.tokenizer) if completion.text is None else completion.text.strip()

    def fitted(self, dialogue: Dialogue, config: SamplingConfig) -> tuple[Dialogue, int]:
        """The newest turns (and the system text) that leave room for an answer, and how many older turns were left out."""
        room = min(config.max_new_tokens, self.model.config.context // 4)
        return fit_prompt(dialogue, self.tokenizer, self.model.config.context - room)

    def stream(self, dialogue: Dialogue, config: SamplingConfig, seed: int) -> Iterator[str]:
        """The answer's text as it comes."""
        yield from self.stream_ids(self.prompt_ids(dialogue), config, seed, strip=True)

    def continuation(self, text: str, config: SamplingConfig, seed: int) -> Iterator[str]:
        """What follows a raw text, without the chat format; an empty text starts from BOS alone."""
        yield from self.stream_ids([self.tokenizer.bos_id, *self.tokenizer.encode(text)], config, seed)

    def stream_ids(self, prompt: Sequence[int], config: SamplingConfig, seed: int, strip: bool = False) -> Iterator[str]:
        """Text after a raw prompt of ids; with `strip`, without the space before and after."""
        engine = Engine(self.model, self.stop_ids, self.tokenizer, rows=1, memory=self.memory, continuous=False, invariant=self.invariant)
        trim = Trim()
        engine.add(prompt, config, seed)
        while engine.busy:
            pieces = [event.text for event in engine.step()]  # none while a prompt is read
            piece = "".join(pieces)
            if shown := trim.feed(piece) if strip else piece:
                yield shown
