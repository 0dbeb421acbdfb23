"""What the benchmark reads of the public data, as files in the forms that the stages take: documents, dialogues, comparisons in folds.

Nothing of the comparisons is in the documents or dialogues: neither their dialogues nor prompts taken from the same collection.
"""

import gzip
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from llamaherd.chat.dialogue import DialogueError
from llamaherd.core.files import read_rows, write_rows
from llamaherd.core.seeds import python_rng
from llamaherd.data.importers import as_dialogue
from llamaherd.data.preferences import Counts, read_comparisons
from llamaherd.data.public.comparisons import SETS
from llamaherd.data.public.documents import FILES, STORY_END, groups
from llamaherd.data.records import Domain, Preference

HH: Mapping[Domain, str] = {SETS[name][1]: SETS[name][0] for name in ("hh-helpful", "hh-harmless")}
"""Anthropic's helpful and harmless comparisons, by the domain of ours that they belong to."""
FOLDS = 5
DEVELOPMENT = 0
"""The part on which settings are chosen; it is never tested. Parts 1 to FOLDS are the tested folds."""


def documents(data: Path, novels: int | None) -> Iterator[dict[str, Any]]:
    """The English text for pretraining; `novels`: at most so many of each file, None for all."""
    for source, files in FILES.items():
        for path in (data / file for file in files):
            # The measured results stand on stories as the file has them, the one that its end cuts off included.
            whole = _stories(path) if source == "tinystories" else islice(groups(source, [path]), novels if source == "novels" else None)
            yield from ({"text": text, "source": source} for group in whole for text in group if text.strip())


def _stories(path: Path) -> list[tuple[str]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [(text,) for text in file.read().split(STORY_END)]


def demonstrations(data: Path) -> tuple[list[dict[str, Any]], int]:
    """Instructions with answers as dialogues, and how many rows were left out since they break a rule of dialogues.

    Llama 2's answers to AlpacaEval go without those to its prompts from HH ("helpful_base").
    """
    folder, found, left_out = data / "instruction", list[dict[str, Any]](), 0
    files = (
        "alpaca_en_demo.jsonl.gz",
        "gpteacher_roleplay.jsonl.gz",
        "instruction_1100.jsonl",
        "llama2_7b_chat_outputs_alpaca_eval.jsonl.gz",
    )
    rows: list[tuple[dict[str, Any], str]] = [
        ({key: row[key] for key in ("instruction", "input", "output") if key in row}, file)
        for file in files
        for _, row in read_rows(folder / file)
        if row.get("dataset") != "helpful_base"
    ]
    for file in ("alpaca_seed_tasks.jsonl", "self_instruct_user_oriented.jsonl"):
        rows += [({"instruction": row["instruction"], **one}, file) for _, row in read_rows(folder / file) for one in row["instances"]]
    for row, file in rows:
        try:
            found.append(as_dialogue(row, file).to_row())
        except DialogueError:
            left_out += 1
    return found, left_out


@dataclass(frozen=True)
class Comparisons:
    """The comparisons that are used, each with its part (DEVELOPMENT or a fold), and why others were left out."""

    rows: list[tuple[Preference, int]]
    left_out: Counter[str]


def comparisons(data: Path, seed: int) -> Comparisons:
    """Both domains in parts; all comparisons of dialogues that begin with the same message are in one part."""
    left_out, kept = Counter[str](), list[Preference]()
    for domain, file in HH.items():
        counts = Counts()
        kept += read_comparisons(data / file, domain, counts)
        left_out.update({f"{domain}: {reason}": count for reason, count in counts.left_out.items()})
    return Comparisons(list(zip(kept, parts_of([first_message(one) for one in kept], seed), strict=True)), left_out)


def parts_of(groups: Sequence[str], seed: int) -> list[int]:
    """A part for every row, 0 to FOLDS, the same for all rows of a group; parts hold about as many groups."""
    order = sorted(set(groups))
    python_rng(seed, "people", "parts").shuffle(order)
    part = {group: place % (FOLDS + 1) for place, group in enumerate(order)}
    return [part[group] for group in groups]


def first_message(one: Preference) -> str:
    """What a dialogue begins with, without regard to case and spaces."""
    return " ".join(one.prompt.messages[0].content.casefold().split())


def write_texts(data: Path, folder: Path, novels: int | None, rows: int | None, seed: int) -> dict[str, Any]:
    """Writes documents.jsonl, dialogues.jsonl and, for every domain, the files of comparisons that `file` names; what was left out.

    `rows`: at most so many dialogues, and comparisons of each domain; None for all.
    """
    found, (dialogues, bad) = comparisons(data, seed), demonstrations(data)
    kept = [one for domain in HH for one in [pair for pair in found.rows if pair[0].domain == domain][:rows]]
    write_rows(folder / "documents.jsonl", documents(data, novels))
    write_rows(folder / "dialogues.jsonl", dialogues[:rows])
    for part in range(FOLDS + 1):
        write_rows(folder / f"test-{part}.jsonl", [one.to_row() for one, where in kept if where == part])
    for domain in HH:
        own = [(one.to_row(), part) for one, part in kept if one.domain == domain]
        write_rows(folder / f"{domain}-train-{DEVELOPMENT}.jsonl", [row for row, part in own if part not in (DEVELOPMENT, 1)])
        for fold in range(1, FOLDS + 1):
            write_rows(folder / f"{domain}-train-{fold}.jsonl", [row for row, part in own if part != fold])
    return {
        "comparisons": len(kept),
        "left_out_comparisons": dict(found.left_out),
        "dialogues": len(dialogues[:rows]),
        "left_out_dialogues": bad,
    }
