"""Whoever can answer, by name: a model folder, a version of a run, or an endpoint. Only the first two need torch."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from ..chat.dialogue import Dialogue
from ..core.artifacts import resolve
from ..core.device import free_memory_bytes, set_threads
from ..core.errors import UserError
from ..generate.config import SamplingConfig
from .endpoint import Endpoint


class TextModel(Protocol):
    """Text in, text out as it comes. Equal seeds give equal answers, as far as whoever answers keeps that promise."""

    name: str

    def stream(self, dialogue: Dialogue, config: SamplingConfig, seed: int) -> Iterator[str]:
        """The answer to a dialogue that ends with a user, in pieces. Raises UserError while it comes."""

    def continuation(self, text: str, config: SamplingConfig, seed: int) -> Iterator[str]:
        """What follows a raw text, without any chat format. Raises UserError while it comes."""

    def fitted(self, dialogue: Dialogue, config: SamplingConfig) -> tuple[Dialogue, int]:
        """The newest turns that leave room for an answer, and how many older ones were left out. Raises UserError."""

    def use(self, adapter: str | None) -> None:
        """Puts one of its adapters to work, or none. Raises UserError when it has no such adapter."""


def adapter_places(given: Sequence[str]) -> dict[str, Path]:
    """Adapter folders by name, from `NAME=DIR` or `DIR`, which is then called as the folder is. Raises UserError."""
    found: dict[str, Path] = {}
    for text in given:
        name, equals, place = text.partition("=")
        if Path(text).is_dir() or not equals:
            name, place = Path(text).name, text
        if name in found:
            raise UserError(f"two adapters are called {name!r}; give each its own name, as in --adapter {name}2={place}")
        found[name] = resolve(place)
    return found


def open_assistant(spec: str, adapters: Mapping[str, Path] | None = None, invariant: bool = False) -> TextModel:
    """From a folder, RUN (its newest version), RUN:VERSION, or `http(s)://host/v1#name`. Raises UserError.

    Nothing is asked of an endpoint before its first answer. `invariant`: every answer is the same bits as in any other company; weights
    are not laid out anew then, which would depend on the memory that is free.
    """
    if spec.lower().startswith(("http://", "https://")):
        if adapters:
            raise UserError(f"{spec}: is an endpoint; an adapter needs the weights of its base, so give a folder or leave --adapter out")
        if invariant:
            raise UserError(f"{spec}: is an endpoint, and only its server decides how it computes; give a folder or leave --invariant out")
        return Endpoint.parse(spec)
    from ..model.packed import pack
    from .local import Assistant

    set_threads()
    assistant = Assistant.load(spec, adapters=adapters, invariant=invariant)
    if not adapters and not invariant:
        pack(assistant.model, free_memory_bytes("cpu") or 0)
    return assistant
