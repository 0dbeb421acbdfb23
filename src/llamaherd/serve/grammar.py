"""Answers that keep to a grammar: JSON, JSON of a schema, calls of tools. The masks come from llguidance (docs/dependencies.md).

A grammar is compiled once for each tokenizer, beside the event loop and one at a time, and kept in memory only. What strangers
send can cost no more than `LIMITS` of work, neither compiled nor at each token; what goes beyond fails this one request.
"""

import asyncio
import json
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from torch import Tensor

from ..core.errors import UserError
from ..tokenizer.sentencepiece import SPACE, Tokenizer
from .config import GrammarConfig
from .errors import ApiError
from .schema import first_words

LIMITS = LLParserLimits(initial_lexer_fuel=1_000_000, step_lexer_fuel=200_000, step_max_items=50_000, max_lexer_states=250_000,
                        max_grammar_size=200_000, verbose_errors=False)  # fmt: skip
"""Units of the library, of which it does some ten thousand in a millisecond."""
LINE = " "
"""White space within JSON, as a regular expression: none or one space. A model that was not tuned for JSON fills its answer with more."""


def json_rule(name: str, schema: dict[str, Any]) -> str:
    """A rule of the grammar: JSON of a schema, on one line."""
    own = {"whitespace_flexible": False, "whitespace_pattern": LINE}
    return f"{name}: %json {json.dumps({**schema, 'x-guidance': own})}\n"


def grammar_of(start: str, rules: str) -> str:
    """A whole grammar. The format of the chat puts a space before and after an answer; nothing is forced on the tokenizer's cuts."""
    return f'%llguidance {{"no_forcing": true}}\nstart: / ?/ ({start}) / ?/\n{rules}'


def json_grammar(schema: dict[str, Any]) -> str:
    """JSON of a checked schema, and nothing else."""
    return grammar_of("body", json_rule("body", schema))


class Matching:
    """The Constraint of one sequence: what it says is the beginning of a text of the grammar."""

    def __init__(self, matcher: LLMatcher, vocab_size: int):
        self.matcher, self._vocab_size = matcher, vocab_size

    def allowed(self) -> Tensor:
        """[V] bool. Raises UserError where going on would cost more than LIMITS."""
        bits = np.frombuffer(self.matcher.compute_bitmask(), np.uint8)
        self._demand_health()
        return torch.from_numpy(np.unpackbits(bits, count=self._vocab_size, bitorder="little").astype(bool))

    def take(self, id: int) -> None:
        """Raises UserError as `allowed` does, and for an id that was not allowed."""
        self.matcher.consume_token(id)
        self._demand_health()

    def _demand_health(self) -> None:
        if self.matcher.is_error():
            raise UserError(f"the answer cannot go on in the form asked for: {first_words(self.matcher.get_error())}; make it simpler")


class Unless:
    """A Constraint that holds only once the text begins with `opening`: before that the sequence is free, and it stays so when it says
    something else.
    """

    def __init__(self, matching: Matching, opening: str, pieces: Sequence[bytes | None]):
        self._matching, self._opening, self._pieces = matching, opening.encode(), pieces
        self._said = b""
        self._undecided, self._holds = True, False

    def allowed(self) -> Tensor | None:
        """[V] bool, or None for any. Raises UserError."""
        return self._matching.allowed() if self._holds else None

    def take(self, id: int) -> None:
        """Raises UserError."""
        if self._holds:
            self._matching.take(id)
        elif self._undecided:
            self._undecided = self._matching.matcher.validate_tokens([id]) == 1
            if self._undecided:
                self._matching.take(id)
                self._said += self._pieces[id] or b""
                self._holds = self._said.lstrip().startswith(self._opening)


class Grammars:
    """Grammars on one tokenizer, the last used of them compiled. Used from one event loop."""

    def __init__(self, tokenizer: Tokenizer, stop_ids: Sequence[int], config: GrammarConfig):
        self._tokenizer, self._stop_ids, self._config = tokenizer, tuple(stop_ids), config
        self._compiled: OrderedDict[str, LLMatcher] = OrderedDict()
        self._vocabulary: _Vocabulary | None = None
        self._thread = ThreadPoolExecutor(1, "grammar")

    async def matching(self, grammar: str, count: int, where: str) -> list[Matching]:
        """A Constraint for each of `count` sequences. Raises ApiError, which names `where`, for what cannot be compiled in time."""
        return await self._in_time(grammar, count, where)

    async def unless(self, grammar: str, opening: str, count: int, where: str) -> list[Unless]:
        """The same, free unless they begin with `opening`."""
        matching = await self._in_time(grammar, count, where)
        assert self._vocabulary is not None
        return [Unless(one, opening, self._vocabulary.pieces) for one in matching]

    async def _in_time(self, grammar: str, count: int, where: str) -> list[Matching]:
        work = asyncio.get_running_loop().run_in_executor(self._thread, self._matching, grammar, count, where)
        try:
            return await asyncio.wait_for(work, self._config.compile_s)
        except TimeoutError:
            message = f"{where}: not compiled within {self._config.compile_s:g} s; make it simpler, or try again later"
            raise ApiError(400, message, where, "too_slow") from None

    def _matching(self, grammar: str, count: int, where: str) -> list[Matching]:
        """In the one thread, which alone touches what is compiled."""
        if self._vocabulary is None:
            self._vocabulary = _Vocabulary(self._tokenizer, self._stop_ids)
        if grammar not in self._compiled:
            matcher = LLMatcher(self._vocabulary.known, grammar, log_level=0, limits=LIMITS)
            if not matcher.is_error():
                matcher.compute_bitmask()
            if matcher.is_error():
                raise ApiError(400, f"{where}: {first_words(matcher.get_error())}", where, "invalid_schema")
            self._compiled[grammar] = matcher
            if len(self._compiled) > self._config.kept:
                self._compiled.popitem(last=False)
        self._compiled.move_to_end(grammar)
        return [Matching(self._compiled[grammar].deep_copy(), self._tokenizer.vocab_size) for _ in range(count)]

    def close(self) -> None:
        """Ends the thread after what it compiles."""
        self._thread.shutdown(cancel_futures=True)


class _Vocabulary:
    """The tokenizer as the library knows it: the bytes that each piece writes. Control ids and the unknown piece write nothing."""

    is_tokenizer_wrapper = True

    def __init__(self, tokenizer: Tokenizer, stop_ids: Sequence[int]):
        self.pieces = [_written(tokenizer, id) for id in range(tokenizer.vocab_size)]
        self.bos_token_id, self.eos_token_id = tokenizer.bos_id, tokenizer.eos_id
        self.special_token_ids = [id for id, piece in enumerate(self.pieces) if piece is None]
        self.tokens = [tokenizer.piece(id).encode() if piece is None else piece for id, piece in enumerate(self.pieces)]
        self.known = LLTokenizer(self, n_vocab=tokenizer.vocab_size, eos_token=list(stop_ids))  # type: ignore[arg-type]

    def __call__(self, text: bytes) -> list[int]:
        raise AssertionError("only forced text is tokenized, and no grammar here forces any")


def _written(tokenizer: Tokenizer, id: int) -> bytes | None:
    if tokenizer.is_control(id) or id == tokenizer.unk_id:
        return None
    byte = tokenizer.byte(id)
    return tokenizer.piece(id).replace(SPACE, " ").encode() if byte is None else bytes([byte])
