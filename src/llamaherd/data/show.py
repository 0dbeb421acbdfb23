"""Looking at data as the model sees it: dialogues, prompts, preferences and documents as coloured ids."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console

from ..chat.colour import coloured
from ..chat.dialogue import Dialogue, parse_dialogue
from ..chat.template import Rendered, encode_dialogue, encode_prompt
from ..core.errors import UserError
from ..core.files import read_rows, row_name
from ..tokenizer.sentencepiece import Tokenizer
from .documents import parse_document
from .filters import clean
from .importers import as_dialogue, is_dialogue
from .preferences import OWN, comparisons_of, form_of
from .records import BadPreference


def _rendered(dialogue: Dialogue, tokenizer: Tokenizer) -> Rendered:
    if dialogue.last.role == "assistant":
        return encode_dialogue(dialogue, tokenizer)
    ids = encode_prompt(dialogue, tokenizer)
    return Rendered(ids, [0] * len(ids))


def rendered_rows(row: Mapping[str, Any], where: str, tokenizer: Tokenizer) -> Iterator[tuple[str, Rendered]]:
    """(what it is, ids and mask) of a row, told by its fields; both answers of a preference. Raises UserError."""
    form = form_of(row)
    if form:
        for found in comparisons_of(row, where, "helpfulness"):
            if not isinstance(found, BadPreference):
                # Only our own schema says which domain a comparison is of.
                what = f"{found.grade or 'no grade'}, {found.domain if form == OWN else form}"
                for name, answer in (("chosen", found.chosen), ("rejected", found.rejected)):
                    yield f"{name}, {what}", _rendered(found.prompt.followed_by("assistant", answer), tokenizer)
            elif form == OWN:
                raise found
            else:
                yield f"left out, {found.reason}, {form}", Rendered([], [])
    elif "messages" in row:
        dialogue = parse_dialogue(row, where)
        yield "dialogue" if dialogue.last.role == "assistant" else "prompt", _rendered(dialogue, tokenizer)
    elif is_dialogue(row):
        yield "dialogue", _rendered(as_dialogue(row, where), tokenizer)
    elif "text" in row:
        document = parse_document(row, where, default_source="without source")
        ids = [tokenizer.bos_id, *tokenizer.encode(clean(document.text)), tokenizer.eos_id]
        yield f"document {document.source}", Rendered(ids, [0] + [1] * (len(ids) - 1))
    else:
        fields = ", ".join(row) or "no field"
        raise UserError(
            f'{where}: expected "messages" (a dialogue or preference; or a dialogue in another form that sft reads) or "text" (a document), got {fields}'
        )


def show(path: Path, tokenizer: Tokenizer, out: TextIO, limit: int | None = None) -> None:
    """Prints the first `limit` rows of a file (None: all) with the share of their ids that is trained on.

    Terminals get colour, other outputs brackets. Raises UserError at the first bad line, with file and line number.
    """
    console = Console(file=out, highlight=False, markup=False, soft_wrap=True)
    shown = trained = total = 0
    name = row_name(path)
    for number, row in read_rows(path):
        if shown == limit:
            break
        shown += 1
        for what, rendered in rendered_rows(row, f"{name} {number}", tokenizer):
            trained += sum(rendered.mask)
            total += len(rendered.ids)
            console.print(f"line {number}, {what}: {_share(sum(rendered.mask), len(rendered.ids))}", style="bold")
            console.print(coloured(rendered, tokenizer, colour=console.is_terminal))
            console.print()
    console.print(f"{shown} rows: {_share(trained, total)}", style="bold")


def _share(trained: int, total: int) -> str:
    return f"{total} tokens, {trained} trained ({trained / total:.0%})" if total else "no tokens"
