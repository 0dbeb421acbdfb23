"""Comparisons whose rows hold `chosen` and `rejected`: Anthropic HH's transcripts, TRL's messages and texts, and what adds a prompt
of its own: LLaMA-Factory, Alpaca, RMB."""

import os.path
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from ..chat.dialogue import Message, Role
from .candidates import CONTRADICTS, NO_PROMPT, TIE, Candidate, Row, asked_by_user, higher, models_at, name_at, number_in
from .importers import asked_in, text_at, turns_of, under
from .records import EMPTY, EQUAL, BadPreference, Domain

EARLIER, UNANSWERED, TWICE = "differ before the last answer", "no answer at the end", "one speaker twice in a row"

# Transcripts: Anthropic HH's, and WebGPT's as Domain-Specific Preference writes it. A turn begins where a paragraph begins
# with the name of a speaker; the same words anywhere else are text.
HH = re.compile(r"(?:\A\s*|\r?\n\r?\n)(Human|Assistant):")
HEADED = re.compile(r"(?:\A\s*|\n)## (Human|Assistant):")
ROLES: Mapping[str, Role] = {"Human": "user", "Assistant": "assistant"}


def speaks(text: str) -> re.Pattern[str] | None:
    """The kind of transcript that a text is; None for plain text."""
    return next((kind for kind in (HH, HEADED) if kind.match(text)), None)


def are_transcripts(row: Row) -> bool:
    """Both dialogues of a row are told as transcripts."""
    return all(isinstance(row.get(key), str) and speaks(row[key]) for key in ("chosen", "rejected"))


def transcript(text: str, where: str) -> list[Message]:
    """The turns of a text that `speaks`. Raises BadPreference when a speaker has two in a row."""
    kind = speaks(text)
    assert kind, "only transcripts are read as such"
    _, *parts = kind.split(text)
    messages = [Message(ROLES[who], said.strip()) for who, said in zip(parts[::2], parts[1::2], strict=True)]
    if any(one.role == two.role for one, two in pairwise(messages)):
        raise BadPreference(TWICE, f"{where}: a speaker has two turns in a row; a name that begins a paragraph cannot be told from a turn")
    return messages


def two_dialogues(first: Sequence[Message], second: Sequence[Message], where: str, **about: Any) -> Candidate:
    """The first of two whole dialogues is preferred: what they share is the prompt, and only their last answers may differ."""
    if first[-1].role != "assistant" or second[-1].role != "assistant":
        raise BadPreference(UNANSWERED, f"{where}: a dialogue ends with its user; expected an answer at the end of both")
    if [(one.role, one.content.strip()) for one in first[:-1]] != [(one.role, one.content.strip()) for one in second[:-1]]:
        raise BadPreference(EARLIER, f"{where}: the two dialogues differ before their last answers; expected one prompt for both")
    return Candidate(first[:-1], (first[-1].content, second[-1].content), **{"preferred": 0, **about})


def _prompt(row: Row, where: str) -> list[Message] | None:
    value = row.get("prompt", row.get("question"))
    if value is None:
        return None
    if isinstance(value, str):
        messages = transcript(value, where) if speaks(value) else asked_by_user(value)
        open_end = len(messages) > 1 and messages[-1].role == "assistant" and not messages[-1].content
        messages = messages[:-1] if open_end else messages
    else:
        messages = turns_of(value, where, "prompt")
    return under(text_at(row, "system", where), messages)


def chosen_rejected(row: Row, where: str) -> list[Candidate]:
    """TRL's forms (the prompt stated or not, messages or text), with HH's transcripts among them."""
    chosen, rejected, system = row.get("chosen"), row.get("rejected"), text_at(row, "system", where)
    scores = number_in(row.get("score_chosen")), number_in(row.get("score_rejected"))
    about: dict[str, Any] = {"source": name_at(row, "source"), "annotator": name_at(row, "annotator")}
    about["models"] = models_at(row, "chosen_model", "rejected_model")
    if None not in scores:
        side, _ = higher(*scores)
        about |= {"preferred": 0 if side == 0 else None, "why": CONTRADICTS if side == 1 else TIE}
    prompt = _prompt(row, where)
    if isinstance(chosen, list) or isinstance(rejected, list):
        whole = [_messages(value, where, name) for value, name in ((chosen, "chosen"), (rejected, "rejected"))]
        if whole[0][0].role == whole[1][0].role == "assistant":
            if prompt is None:
                raise BadPreference(NO_PROMPT, f"{where}: chosen and rejected begin with an answer and there is no prompt")
            return [two_dialogues([*prompt, *whole[0]], [*prompt, *whole[1]], where, **about)]
        whole = [under(system, messages) for messages in whole]
        return [two_dialogues(whole[0], whole[1], where, **about)]
    chosen, rejected = text_at(row, "chosen", where), text_at(row, "rejected", where)
    if are_transcripts(row):
        return [two_dialogues(under(system, transcript(chosen, where)), under(system, transcript(rejected, where)), where, **about)]
    if prompt is None:
        asked, chosen, rejected = _shared_beginning(chosen, rejected, where)
        prompt = under(system, asked_by_user(asked))
    return [Candidate(prompt, (chosen, rejected), **{"preferred": 0, **about})]


def _messages(value: Any, where: str, name: str) -> list[Message]:
    if not value:
        raise BadPreference(EMPTY, f"{where}: {name} is {value!r}; expected messages that end with an answer")
    return turns_of(value, where, name)


def _shared_beginning(chosen: str, rejected: str, where: str) -> tuple[str, str, str]:
    """Prompt and answers of two plain texts: the prompt is what they share up to the last white space before they differ."""
    for text, name in ((chosen, "chosen"), (rejected, "rejected")):
        if not text.strip():
            raise BadPreference(EMPTY, f"{where}: {name} is {text[:40]!r}; expected the text of an answer")
    if chosen.strip() == rejected.strip():
        raise BadPreference(EQUAL, f"{where}: chosen and rejected are equal; such a pair teaches nothing")
    shared = os.path.commonprefix([chosen, rejected])  # noqa: RUF071
    shared = re.sub(r"\S+\Z", "", shared)
    if not shared.strip():
        raise BadPreference(NO_PROMPT, f"{where}: has no prompt, and chosen and rejected do not begin alike")
    return shared.strip(), chosen[len(shared) :], rejected[len(shared) :]


def llama_factory(row: Row, where: str) -> list[Candidate]:
    """ShareGPT turns, and the answers as turns or texts."""
    prompt = under(text_at(row, "system", where), turns_of(row["conversations"], where))
    answers = []
    for name in ("chosen", "rejected"):
        value = row.get(name)
        answers.append(turns_of([value], where, name)[0].content if isinstance(value, Mapping) else text_at(row, name, where))
    return [Candidate(prompt, (answers[0], answers[1]), 0)]


def alpaca(row: Row, where: str) -> list[Candidate]:
    """Instruction and input; an `output` beside the two answers is none of them."""
    return [Candidate(asked_in(row, where), (text_at(row, "chosen", where), text_at(row, "rejected", where)), 0)]


def rmb(row: Row, where: str) -> list[Candidate]:
    """RMB's category states the domain."""
    kind = (name_at(row, "category") or "").partition("/")[0]
    domains: Mapping[str, Domain] = {"Harmlessness": "safety", "Helpfulness": "helpfulness"}
    answers = text_at(row, "chosen", where), text_at(row, "rejected", where)
    models = models_at(row, "chosen_model", "rejected_model")
    prompt = turns_of(row["conversation_input"], where, "conversation_input")
    return [Candidate(prompt, answers, 0, models=models, domain=domains.get(kind))]
