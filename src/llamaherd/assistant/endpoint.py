"""A model behind an OpenAI-compatible address: `/chat/completions` for dialogues, `/completions` for raw text.

Answers come as server-sent events, one JSON object per `data:` line, and end with `data: [DONE]`. Redirects are never
followed, so that text and key reach nobody but the host that the user named.
"""

import http.client
import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from typing import IO, Any
from urllib.parse import urlencode, urlsplit

from ..chat.dialogue import Dialogue
from ..core.errors import UserError, one_line
from ..generate.config import SamplingConfig

KEY_VARIABLE = "LLAMAHERD_API_KEY"
TIMEOUT_S = 120.0
"""Longest silence: until the connection stands, and between two pieces of an answer."""
MOST_BYTES = 1 << 20
"""Of one event, or of an answer or error that is not streamed."""
SEED_BITS = 31
"""Some servers read seeds as 32-bit numbers with a sign and refuse larger ones; ours takes 63 bits, but whose it is nobody says."""
LOCAL_SETTINGS = ("top_k", "min_p", "repetition_penalty", "top_log_probs", "prompt_log_probs")
"""What only a local model obeys."""
HINTS = {
    401: f"set {KEY_VARIABLE} to a key that it accepts",
    403: f"set {KEY_VARIABLE} to a key that it accepts",
    404: "check the address (it usually ends in /v1) and the model's name after #",
    429: "too many requests, or a quota is used up; try again later",
}


class Endpoint:
    """One model of one server. Each method raises UserError, in one line, for whatever the network or the server does."""

    def __init__(self, address: str, name: str, timeout_s: float = TIMEOUT_S):
        self.address, self.name, self.timeout_s = address, name, timeout_s

    @classmethod
    def parse(cls, spec: str) -> "Endpoint":
        """From `http(s)://host/v1#name`. Raises UserError."""
        try:
            parts = urlsplit(spec)
            usable = parts.hostname and parts.port != 0 and parts.username is None and spec.isascii() and spec.isprintable()
        except ValueError:  # a port that is no number, brackets that hold no address
            usable = None
        if not usable or " " in spec or not parts.fragment:
            raise UserError(f"{ascii(spec)[1:-1]}: expected an endpoint as http(s)://host/v1#name, with the model's name after #")
        return cls(parts._replace(path=parts.path.rstrip("/"), fragment="").geturl(), parts.fragment)

    def use(self, adapter: str | None) -> None:
        if adapter is not None:
            raise UserError(f"no adapter {adapter!r}; an endpoint has none, name the model that it serves instead")

    def fitted(self, dialogue: Dialogue, config: SamplingConfig) -> tuple[Dialogue, int]:
        """The dialogue as it is: only the server knows its context, and says so when it is full."""
        return dialogue, 0

    def stream(self, dialogue: Dialogue, config: SamplingConfig, seed: int) -> Iterator[str]:
        """The answer's text as it comes."""
        self._demand_known(config)
        return self._answer("/chat/completions", {"messages": dialogue.to_row()["messages"]}, config, seed)

    def continuation(self, text: str, config: SamplingConfig, seed: int) -> Iterator[str]:
        """What follows a raw text; an empty one starts from BOS alone where the server says which id that is."""
        self._demand_known(config)
        return self._continued(text, config, seed)

    def _continued(self, text: str, config: SamplingConfig, seed: int) -> Iterator[str]:
        yield from self._answer("/completions", {"prompt": text or self._begin()}, config, seed)

    def _begin(self) -> list[int] | str:
        """The prompt that starts from nothing: many servers refuse an empty text, and some (ours, and vLLM's likes) tell the id of BOS."""
        parts = urlsplit(self.address)
        path = f"{parts.path.removesuffix('/v1')}/tokenizer_info"
        request = urllib.request.Request(parts._replace(path=path, query=urlencode({"model": self.name})).geturl(), headers=_key())
        try:
            with urllib.request.build_opener(_NoRedirects).open(request, timeout=self.timeout_s) as response:
                begin = json.loads(response.read(MOST_BYTES))["bos_token_id"]
        except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError, RecursionError):
            return ""  # what is wrong is said when the text is asked for
        return [begin] if isinstance(begin, int) else ""

    def _demand_known(self, config: SamplingConfig) -> None:
        """Raises UserError for settings that an OpenAI-compatible server has no word for."""
        usual = SamplingConfig()
        others = [name for name in LOCAL_SETTINGS if getattr(config, name) != getattr(usual, name)]
        if others:
            named = ", ".join(f"--{name.replace('_', '-')}" for name in others)
            raise UserError(f"{self.address}: an OpenAI-compatible server knows no {named}; leave that out, or name a local model")

    def _answer(self, path: str, asked: Mapping[str, Any], config: SamplingConfig, seed: int) -> Iterator[str]:
        body = {
            "model": self.name, **asked, "temperature": config.temperature, "top_p": config.top_p,
            "max_tokens": config.max_new_tokens, "seed": seed % (1 << SEED_BITS), "stream": True,
            **({"stop": list(config.stop)} if config.stop else {}),
        }  # fmt: skip
        parts = urlsplit(self.address)
        url = parts._replace(path=parts.path + path).geturl()
        request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json", **_key()})
        try:
            with urllib.request.build_opener(_NoRedirects).open(request, timeout=self.timeout_s) as response:
                yield from self._texts(response)
        except urllib.error.HTTPError as error:
            with error:
                raise UserError(f"{self.address}: {_refusal(error)}") from None
        except TimeoutError:
            raise UserError(f"{self.address}: silent for {self.timeout_s:g} s; try again, or see whether it is overloaded") from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            if isinstance(reason, TimeoutError):
                reason = f"no connection within {self.timeout_s:g} s"
            why = one_line(str(getattr(reason, "strerror", None) or reason or type(reason).__name__))
            raise UserError(f"{self.address}: cannot be reached, or broke off ({why}); see whether the server runs there") from None

    def _texts(self, response: Any) -> Iterator[str]:
        """Pieces of text from the events; a server that does not stream sends a single object."""
        if response.headers.get_content_type() == "application/json":
            yield self._text(response.read(MOST_BYTES).decode("utf-8", "replace"))[0]
            return
        finished = False
        while line := response.readline(MOST_BYTES):
            if len(line) == MOST_BYTES:
                raise self._malformed("a line without an end")
            field, _, value = line.decode("utf-8", "replace").strip().partition(":")
            if field != "data":  # comments that keep the connection open, names of events, lines between events
                continue
            if value.strip() == "[DONE]":
                return
            text, ends = self._text(value)
            finished |= ends
            if text:
                yield text
        if not finished:
            raise UserError(f"{self.address}: the answer broke off before its end; ask again")

    def _text(self, event: str) -> tuple[str, bool]:
        """The text of one event, and whether it says that the answer is complete."""
        try:
            row = json.loads(event)
            if row.get("error"):
                raise UserError(f"{self.address}: the server says: {_message(event)}")
            if not row["choices"]:  # counts of tokens come without any text
                return "", False
            choice = row["choices"][0]
            part = choice.get("delta", choice.get("message", choice))
            text = part.get("content", part.get("text")) or ""
            text.encode()
        except UserError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise self._malformed(event) from None
        return text, choice.get("finish_reason") is not None

    def _malformed(self, what: str) -> UserError:
        return UserError(f"{self.address}: not the stream of an OpenAI-compatible server: {one_line(what)}")


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str) -> None:
        """None leaves the redirect as the error that it is here."""


def _key() -> dict[str, str]:
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise UserError(f"{KEY_VARIABLE} holds characters that no key has; set it again")  # without showing it
    return {"Authorization": f"Bearer {key}"} if key else {}


def _refusal(error: urllib.error.HTTPError) -> str:
    """What a status that is not success means, with the server's own words."""
    if 300 <= error.code < 400:
        target = one_line(error.headers.get("Location", "another address"))
        return f"redirects to {target}, which is not followed; name that address if you trust it"
    try:
        said = _message(error.read(MOST_BYTES).decode("utf-8", "replace"))
    except (OSError, http.client.HTTPException):
        said = ""
    hint = HINTS.get(error.code, "the server failed; try again later" if error.code >= 500 else "")
    return "; ".join(filter(None, (f"status {error.code}{': ' if said else ''}{said}", hint)))


def _message(body: str) -> str:
    """The server's words in a JSON error of any usual shape, or the body itself."""
    try:
        value: Any = json.loads(body)
    except (ValueError, RecursionError):
        value = body
    for name in ("error", "message", "detail"):
        if isinstance(value, dict) and value.get(name):
            value = value[name]
    return one_line(value if isinstance(value, str) else json.dumps(value))
