from collections.abc import Sequence

import pytest

from llamaherd.generate.stops import StopText
from llamaherd.tokenizer.sentencepiece import Tokenizer


def cut(tokenizer: Tokenizer, ids: Sequence[int], stops: Sequence[str]) -> tuple[str, str | None]:
    """What is shown, id by id, and the stop; nothing shown is ever taken back."""
    text, shown = StopText(tokenizer, stops), ""
    for id in ids:
        shown += text.feed(id)
        assert not any(stop in shown for stop in stops)
        if text.found is not None:
            break
    shown += text.close()
    assert shown == text.text
    return shown, text.found


@pytest.mark.parametrize(
    ("stops", "expected"),
    [
        (["lamp"], ("The ", "lamp")),
        (["p is"], ("The lam", "p is")),
        (["never"], ("The lamp is on. Äpfel", None)),
        (["is on", "lamp is o"], ("The ", "lamp is o")),
        (["."], ("The lamp is on", ".")),
        (["Äp", "zz"], ("The lamp is on. ", "Äp")),
        (["fel!", "el and"], ("The lamp is on. Äpfel", None)),
    ],
)
def test_a_text_is_cut_before_its_stop_wherever_tokens_end(
    tokenizer: Tokenizer, stops: list[str], expected: tuple[str, str | None]
) -> None:
    text = "The lamp is on. Äpfel"
    whole = tokenizer.encode(text)
    assert cut(tokenizer, whole, stops) == expected
    # Another way to write the same text: letter by letter.
    letters = [id for letter in text for id in tokenizer.encode(letter) if tokenizer.piece(id) != "▁" or letter == " "]
    if tokenizer.decode(letters) == text:
        assert cut(tokenizer, letters, stops) == expected


def test_a_text_that_goes_on_keeps_its_first_space(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("lives in Lima")
    whole = StopText(tokenizer, (), begun=True)
    assert "".join(map(whole.feed, ids)) + whole.close() == " lives in Lima"
    cut = StopText(tokenizer, (" lives",), begun=True)
    shown = "".join(cut.feed(id) for id in ids if cut.found is None)
    assert (shown, cut.found) == ("", " lives")
