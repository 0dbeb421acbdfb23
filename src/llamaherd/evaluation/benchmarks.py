"""Academic benchmarks that need no answer, only how likely a model finds given ones (paper.md section 13), and bits per byte.

An item is a question with its choices, or a text whose end is to be said. Scored zero-shot and without the chat format, as lm-eval scores
tasks of the same names; rows of files are in the form of llm-foundry's evaluation data.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..core.errors import UserError
from ..core.files import read_rows, row_name
from ..core.seeds import python_rng
from ..data.documents import Document
from ..measures.intervals import FEWEST, Figure, mean, of_means_over_seeds, rate
from ..model.transformer import Transformer
from ..tokenizer.sentencepiece import Tokenizer
from .continuations import encode_pair, fitted, likelihoods, requests_of, rolled

Row = dict[str, Any]
STORY_SOURCE = "tinystories"
STORY_CHOICES = 4
ENDING_SENTENCES = 2
FEWEST_SENTENCES = 4
"""A story with fewer has no beginning to speak of."""
NEAR = 0.03
"""An interval that holds chance and ends within this distance of it says that a model is at chance."""


@dataclass(frozen=True)
class Item:
    """A context and a continuation for each choice, and which is right; a text whose end is to be said has one alone."""

    name: str
    """Its file and line: what is the same item for every model."""
    pairs: tuple[tuple[str, str], ...]
    gold: int = 0
    characters: tuple[int, ...] = (1,)
    """Of each choice, for the normalised accuracy."""


@dataclass(frozen=True)
class Task:
    """How rows are read, and which figures the field gives for it."""

    parse: "Callable[[str, Mapping[str, Any]], Item]"
    normalised: bool = False
    """Whether the accuracy by log-probability per character is reported too."""


def _text(where: str, row: Mapping[str, Any], field: str) -> str:
    value = row.get(field)
    if not isinstance(value, str) or not value.strip():
        raise UserError(f'{where}: expected "{field}", a text, got {value!r:.60}; the fields here are {", ".join(row) or "none"}')
    return value


def _texts(where: str, row: Mapping[str, Any], field: str) -> list[str]:
    values = row.get(field)
    if not isinstance(values, list) or len(values) < 2 or not all(isinstance(value, str) and value.strip() for value in values):
        raise UserError(
            f'{where}: expected "{field}", a list of two texts or more, got {values!r:.60}; the fields here are {", ".join(row) or "none"}'
        )
    return values


def _gold(where: str, row: Mapping[str, Any], field: str, choices: int) -> int:
    value = row.get(field)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < choices:
        raise UserError(f'{where}: expected "{field}", the number of the right choice from 0 to {choices - 1}, got {value!r:.60}')
    return value


def _choices(where: str, context: str, choices: Sequence[str], gold: int) -> Item:
    return Item(where, tuple((context, f" {choice}") for choice in choices), gold, tuple(map(len, choices)))


def parse_choices(where: str, row: Mapping[str, Any]) -> Item:
    """`{"query", "choices", "gold"}`, the choices as what follows the query. Raises UserError that begins with `where`."""
    choices = _texts(where, row, "choices")
    return _choices(where, _text(where, row, "query"), choices, _gold(where, row, "gold", len(choices)))


def parse_question(where: str, row: Mapping[str, Any]) -> Item:
    """The same, where the query is a question: "Answer:" stands on a line of its own after it. Raises UserError."""
    choices = _texts(where, row, "choices")
    question = _text(where, row, "query").rstrip()
    return _choices(where, f"{question}\nAnswer:", choices, _gold(where, row, "gold", len(choices)))


def parse_options(where: str, row: Mapping[str, Any]) -> Item:
    """`{"context_options", "continuation", "gold"}`: which of several contexts makes the continuation likelier. Raises UserError."""
    options, continuation = _texts(where, row, "context_options"), _text(where, row, "continuation")
    pairs = tuple((option, f" {continuation}") for option in options)
    return Item(where, pairs, _gold(where, row, "gold", len(options)), tuple(len(continuation) for _ in options))


def parse_continuation(where: str, row: Mapping[str, Any]) -> Item:
    """`{"context", "continuation"}`, the continuation to be said word for word. Raises UserError."""
    return Item(where, ((_text(where, row, "context"), f" {_text(where, row, 'continuation')}"),))


def parse_hellaswag(where: str, row: Mapping[str, Any]) -> Item:
    """The data set's own fields, cleaned as lm-eval does, or `{"query", "choices", "gold"}`. Raises UserError."""
    if "endings" not in row:
        return parse_choices(where, row)
    endings = [_without_brackets(ending) for ending in _texts(where, row, "endings")]
    context = f"{_text(where, row, 'ctx_a')} {str(row.get('ctx_b') or '').capitalize()}"
    query = _without_brackets(f"{_text(where, row, 'activity_label')}: {context}")
    return _choices(where, query, endings, _gold(where, row, "label", len(endings)))


def _without_brackets(text: str) -> str:
    text = re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". "))
    return text.replace("  ", " ")


TASKS: Mapping[str, Task] = {
    "lambada": Task(parse_continuation),
    "boolq": Task(parse_question),
    "piqa": Task(parse_question, normalised=True),
    "arc-easy": Task(parse_question, normalised=True),
    "arc-challenge": Task(parse_question, normalised=True),
    "hellaswag": Task(parse_hellaswag, normalised=True),
    "openbookqa": Task(parse_choices, normalised=True),
    "winogrande": Task(parse_options),
    "copa": Task(parse_choices),
    "choices": Task(parse_choices, normalised=True),
    "continuations": Task(parse_continuation),
}
"""What is read from files of rows."""


def read_items(task: str, file: Path) -> list[Item]:
    """The items of a file. Raises UserError that names file and line for a row of another form, and for a file without any."""
    read = ((number, TASKS[task].parse(f"{row_name(file)} {number}", row)) for number, row in read_rows(file))
    items = [replace(item, name=f"{file.name} {number}") for number, item in read]
    if not items:
        raise UserError(f"{file}: holds no item; expected rows of the task {task}, see docs/evaluation.md")
    return items


_SENTENCE = re.compile(r"[.!?]+[\"'\u2019\u201d)]*\s+")


def story_items(documents: Iterable[Document], seed: int) -> tuple[list[Item], int]:
    """Held-out stories, each to be told apart by its last sentences from three other stories' last ones; and how many were too short.

    Which others, and in what order, is drawn by `seed` for each story. Raises UserError for fewer than four stories.
    """
    stories = [document.text.strip() for document in documents if document.source == STORY_SOURCE]
    split = []
    for story in stories:
        ends = [match.end() for match in _SENTENCE.finditer(story)]
        if len(ends) + 1 >= FEWEST_SENTENCES:
            split.append((story[: ends[-ENDING_SENTENCES]].rstrip(), story[ends[-ENDING_SENTENCES] :]))
    endings = sorted({ending for _, ending in split})
    if len(endings) < STORY_CHOICES:
        raise UserError(
            f"stories: {len(endings)} different endings in the held-out documents; expected at least {STORY_CHOICES} documents of source "
            f'"{STORY_SOURCE}" with {FEWEST_SENTENCES} sentences or more'
        )
    items = []
    for number, (beginning, ending) in enumerate(split, 1):
        rng = python_rng(seed, "stories", beginning)
        others = rng.sample([other for other in endings if other != ending], STORY_CHOICES - 1)
        gold = rng.randrange(STORY_CHOICES)
        items.append(_choices(f"story {number}", beginning, [*others[:gold], ending, *others[gold:]], gold))
    return items, len(stories) - len(split)


def drawn(items: Sequence[Any], most: int | None, seed: int, name: str) -> list[Any]:
    """All of them, or `most` drawn by `seed`, in their order."""
    if most is None or most >= len(items):
        return list(items)
    return [items[place] for place in sorted(python_rng(seed, "subset", name).sample(range(len(items)), most))]


def scored(model: Transformer, tokenizer: Tokenizer, items: Sequence[Item], batch_tokens: int) -> list[Row]:
    """A row for each item: log-probabilities of its choices in nats, which was chosen, plainly and per character, and whether it is right.

    A context is cut from the left to fit (`cut`); an item one of whose continuations is longer than the context is not scored (`too_long`).
    """
    rows, asked = [], []
    for item in items:
        whole = [encode_pair(tokenizer, *pair) for pair in item.pairs]
        pairs = [fitted(*pair, model.config.context) for pair in whole]
        row: Row = {"item": item.name, "gold": item.gold}
        fitting = [pair for pair in pairs if pair is not None]
        if len(fitting) < len(pairs):
            rows.append(row | {"too_long": True})
            continue
        rows.append(row | {"cut": fitting != whole})
        asked.append((rows[-1], item, *requests_of(fitting)))
    requests = [request for _, _, requests, _ in asked for request in requests]
    found = iter(likelihoods(model, requests, batch_tokens))
    for row, item, own, places in asked:
        answers = [next(found) for _ in own]
        ours = [answers[request][continuation] for request, continuation in places]
        row["log_probs"] = [one.log_prob for one in ours]
        if len(ours) == 1:
            row["correct"] = ours[0].greedy
            continue
        per_character = [one.log_prob / characters for one, characters in zip(ours, item.characters, strict=True)]
        for name, values in (("", row["log_probs"]), ("_per_character", per_character)):
            # Of equals the first, as the field does.
            row[f"chosen{name}"] = values.index(max(values))
            row[f"correct{name}"] = row[f"chosen{name}"] == item.gold
    return rows


def figures(items: Sequence[Item], rows: Sequence[Row], normalised: bool) -> dict[str, Any]:
    """Of the rows of some items: accuracy, chance, what always the same answer gets where that can be said, perplexity of what is to be
    said, verdicts and counts.
    """
    known = [(item, row) for item, row in zip(items, rows, strict=True) if "correct" in row]
    accuracy = rate(sum(row["correct"] for _, row in known), len(known))
    counts = {
        "items": len(known), "too_long": len(rows) - len(known), "cut": sum(row["cut"] for _, row in known),
    }  # fmt: skip
    if not known:
        return {"accuracy": accuracy, "chance": None, "verdict": "undecided", **counts}
    to_say = all(len(item.pairs) == 1 for item, _ in known)
    majority = _majority([item for item, _ in known], to_say)
    chance = majority if to_say else sum(1 / len(item.pairs) for item, _ in known) / len(known)
    assert chance is not None
    found: dict[str, Any] = {"accuracy": accuracy, "chance": chance, "verdict": verdict(accuracy, chance, "chance")}
    if to_say:
        nats = mean([-row["log_probs"][0] for _, row in known])
        found["perplexity"] = {**nats, **{name: math.exp(min(nats[name] or 0.0, 700.0)) for name in ("value", "low", "high")}}
    elif majority is not None:
        found["majority"] = majority
        found["verdict_on_majority"] = verdict(accuracy, majority, "the majority class")
    if normalised:
        per_character = rate(sum(row["correct_per_character"] for _, row in known), len(known))
        found["accuracy_per_character"] = per_character
        found["verdict_per_character"] = verdict(per_character, chance, "chance")
    return found | counts


def _majority(items: Sequence[Item], to_say: bool) -> float | None:
    """The share of items that the most frequent answer is right for, where all offer the same answers or any may be said."""
    offered = {tuple(continuation for _, continuation in item.pairs) for item in items}
    if len(offered) > 1 and not to_say:
        return None
    answers = Counter(item.pairs[item.gold][1] for item in items)
    return answers.most_common(1)[0][1] / len(items)


def verdict(one: Figure, level: float, name: str) -> str:
    """ "above chance", "below chance" or "at chance" by the interval, else "undecided"; "at" needs an interval of no more than NEAR."""
    if one["low"] is None or one["high"] is None or one["n"] < FEWEST:
        return "undecided"
    if one["low"] > level:
        return f"above {name}"
    if one["high"] < level:
        return f"below {name}"
    return f"at {name}" if max(one["high"] - level, level - one["low"]) <= NEAR else "undecided"


def document_rows(model: Transformer, tokenizer: Tokenizer, documents: Sequence[Document], batch_tokens: int) -> list[Row]:
    """A row for each document: the nats of all its tokens, their number, and its bytes as UTF-8.

    One longer than the context is read in windows (`rolled`), so that every byte counts once; that the text ends is not predicted.
    """
    encoded = [tokenizer.encode(document.text) for document in documents]
    parts = [rolled(ids, tokenizer.bos_id, model.config.context) for ids in encoded]
    found = iter(likelihoods(model, [request for own in parts for request in own], batch_tokens))
    rows = []
    for document, ids, own in zip(documents, encoded, parts, strict=True):
        nats = -math.fsum(next(found)[0].log_prob for _ in own)
        size = len(document.text.encode())
        rows.append({"source": document.source, "nats": nats, "tokens": len(ids), "bytes": size, "windows": len(own)})
    return rows


def bits_figures(rows: Sequence[Row]) -> dict[str, Any]:
    """Bits per byte of all documents and of each source's, with intervals from a bootstrap over documents."""
    sources = sorted({row["source"] for row in rows})
    by_source = {source: _bits([row for row in rows if row["source"] == source]) for source in sources}
    counts = {"documents": len(rows), "bytes": sum(row["bytes"] for row in rows), "in_windows": sum(row["windows"] > 1 for row in rows)}
    return {"bits_per_byte": _bits(rows), "by_source": by_source, **counts}


def _bits(rows: Sequence[Row]) -> Figure:
    """Sum of bits over sum of bytes: long documents count as much as they are long."""
    sums = {str(place): (row["nats"] / math.log(2), row["bytes"]) for place, row in enumerate(rows)}
    return of_means_over_seeds([sums], lambda means: means[0] / means[1])
