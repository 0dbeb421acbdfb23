from collections.abc import Callable

import pytest
import torch

from llamaherd.assistant.local import Assistant, Trim
from llamaherd.chat.dialogue import Message, checked
from llamaherd.core.seeds import torch_rng
from llamaherd.generate.config import SamplingConfig
from llamaherd.model.config import LoraConfig
from llamaherd.model.lora import add_adapter, new_changes
from llamaherd.model.transformer import Transformer
from llamaherd.tokenizer.sentencepiece import Tokenizer


def test_what_one_adapter_read_is_not_what_another_one_sees(make_tiny: Callable[[int], Transformer], tokenizer: Tokenizer) -> None:
    """Keys and values of a dialogue belong to the weights that made them: after a switch it is read again."""
    question = checked([Message("user", "Where does Ada live, and where does Ben?")])
    sampling = SamplingConfig(temperature=1.0, max_new_tokens=24)

    def said(assistant: Assistant) -> str:
        return "".join(assistant.stream(question, sampling, 1))

    plain, switched = (Assistant(make_tiny(3), tokenizer, "tiny") for _ in range(2))
    lora = LoraConfig(r=4)
    changes = new_changes(switched.model, lora, seed=0)
    add_adapter(
        switched.model,
        "loud",
        {path: (a, torch.randn(b.shape, generator=torch_rng(0, path))) for path, (a, b) in changes.items()},
        2.0,
        0.0,
    )
    switched.use("loud")
    loud = said(switched)
    switched.use(None)
    assert said(plain)
    assert said(switched) == said(plain) != loud
    switched.use("loud")
    assert said(switched) == loud


@pytest.mark.parametrize(
    ("pieces", "before", "expected"),
    [
        ([" ", "", " Ada ", " ", "lives\n", " "], True, ["", "", "Ada", "", "  lives", ""]),
        ([" ", "Ada", " "], False, ["", " Ada", ""]), ([" ", "\n"], True, ["", ""]),
    ],
)  # fmt: skip
def test_the_space_around_a_text_in_pieces_goes(pieces: list[str], before: bool, expected: list[str]) -> None:
    trim = Trim(before)
    assert [trim.feed(piece) for piece in pieces] == expected
