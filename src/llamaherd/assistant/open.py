"""Whoever can answer, by name: a model folder, a version of a run, or an endpoint. Only the first two need torch."""

from collections.abc import Iterator
from typing import Protocol

from ..chat.dialogue import Dialogue
from ..core.device import set_threads
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


def open_assistant(spec: str) -> TextModel:
    """From a folder, RUN (its newest version), RUN:VERSION, or `http(s)://host/v1#name`. Raises UserError.

    Nothing is asked of an endpoint before its first answer.
    """
    if spec.lower().startswith(("http://", "https://")):
        return Endpoint.parse(spec)
    from .local import Assistant

    set_threads()
    return Assistant.load(spec)
