"""Texts that end an answer: found in the decoded text, wherever tokens begin and end."""

from collections.abc import Sequence

from ..tokenizer.sentencepiece import TextStream, Tokenizer


class StopText:
    """The text of ids that come one by one, cut before the first of `stops`; what may become one is held back. `begun` as in TextStream."""

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str], begun: bool = False):
        self._stream, self._stops, self._held = TextStream(tokenizer, begun), stops, ""
        self.text = ""
        """All that was given out so far."""
        self.found: str | None = None
        """The text that ended the answer."""

    def feed(self, id: int) -> str:
        """The text that is certain after one more id; sets `found` when it completes a stop."""
        return self._certain(self._stream.feed(id))

    def close(self) -> str:
        """What is left when no more ids come; nothing after a stop."""
        if self.found is not None:
            return ""
        rest = self._certain(self._stream.close()) + self._held
        self.text += self._held
        self._held = ""
        return rest

    def _certain(self, piece: str) -> str:
        if not self._stops:
            self.text += piece
            return piece
        self._held += piece
        # Of several stops the one that is complete first ends the answer; of those complete at once, the one that begins first.
        places = [(self._held.find(stop) + len(stop), self._held.find(stop), stop) for stop in self._stops if stop in self._held]
        if places:
            _, cut, self.found = min(places)
            certain, self._held = self._held[:cut], ""
        else:
            longest = max((size for stop in self._stops for size in range(1, len(stop)) if self._held.endswith(stop[:size])), default=0)
            cut = len(self._held) - longest
            certain, self._held = self._held[:cut], self._held[cut:]
        self.text += certain
        return certain
