from typing import Any

from llamaherd.chat.colour import CONTEXT_STYLE, TRAINED_STYLE, coloured
from llamaherd.chat.template import Rendered

RENDERED = Rendered([1, ord("a"), ord("b"), 2, 1, ord("c"), ord("d"), 2], [0, 0, 1, 1, 0, 0, 1, 1])


def test_brackets_stand_around_the_trained_when_there_is_no_colour(letters: Any):
    assert coloured(RENDERED, letters, colour=False).plain == "<s>│a│⟦b│</s>⟧\n<s>│c│⟦d│</s>⟧"


def test_colours_tell_trained_from_context(letters: Any):
    text = coloured(RENDERED, letters)
    assert text.plain == "<s>│a│b│</s>│\n<s>│c│d│</s>"
    styles = {text.plain[span.start : span.end]: span.style for span in text.spans}
    assert {name for name, style in styles.items() if style == TRAINED_STYLE} == {"b", "d", "</s>"}
    assert {name for name, style in styles.items() if style == CONTEXT_STYLE} == {"<s>", "a", "c", "│"}


def test_untrained_answers_have_no_brackets(letters: Any):
    rendered = Rendered(RENDERED.ids, [0, 0, 0, 0, 0, 0, 1, 1])
    assert coloured(rendered, letters, colour=False).plain == "<s>│a│b│</s>│\n<s>│c│⟦d│</s>⟧"
