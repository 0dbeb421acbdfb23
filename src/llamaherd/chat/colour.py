"""Rendered ids made visible: every token with its boundaries, and which of them are trained on."""

from rich.text import Text

from ..tokenizer.sentencepiece import Tokenizer
from .template import Rendered

BOUNDARY = "│"
OPEN, CLOSE = "⟦", "⟧"
TRAINED_STYLE, CONTEXT_STYLE = "bold green", "dim"


def coloured(rendered: Rendered, tokenizer: Tokenizer, colour: bool = True) -> Text:
    """Pieces as the vocabulary writes them, one dialogue pair a line: trained ones green, the others dim.

    Without colour, brackets stand around what is trained on.
    """
    text = Text()
    before = 0
    for index, (id, trained) in enumerate(zip(rendered.ids, rendered.mask, strict=True)):
        style = TRAINED_STYLE if trained else CONTEXT_STYLE
        if index:
            text.append(CLOSE if before and not trained and not colour else BOUNDARY, CONTEXT_STYLE)
            text.append("\n" if id == tokenizer.bos_id else "")
        if trained and not before and not colour:
            text.append(OPEN)
        text.append(tokenizer.piece(id), style)
        before = trained
    text.append(CLOSE if before and not colour else "")
    return text
