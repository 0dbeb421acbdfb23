import math
from pathlib import Path

import pytest
import torch

from llamaherd.assistant.local import Assistant
from llamaherd.chat.dialogue import Message, checked
from llamaherd.chat.template import encode_dialogue, message_spans
from llamaherd.evaluation import attention
from llamaherd.evaluation.attention import Watched, attention_map, strongest_attention

DIALOGUE = checked([
    Message("system", "Act as Ada."), Message("user", "Where does Ada live?"), Message("assistant", "Ada lives in Lima."),
    Message("user", "Where does Ada live?"), Message("assistant", "Ada lives in Lima."),
])  # fmt: skip


def test_weights_worked_by_hand() -> None:
    """Two heads share one key head of size 1: scores are q k, softmaxed over what is not later."""
    q, k = torch.tensor([[[1.0], [0.0]], [[1.0], [2.0]]])[None], torch.tensor([[[0.0]], [[math.log(3)]]])[None]
    watched = Watched((2,), torch.device("cpu"))
    watched.attend(0, q, k, torch.ones_like(k))
    # Second token: head 0 weighs 1 : 3, head 1 weighs 1 : 9.
    assert watched.strongest[0].flatten().tolist() == pytest.approx([1.0, 0.0, 0.25, 0.9])
    watched.attend(0, -q, k, torch.ones_like(k))
    # The next layer weighs 3 : 1 and 9 : 1 the other way.
    assert watched.strongest[0].flatten().tolist() == pytest.approx([1.0, 0.0, 0.9, 0.9])


def test_every_layer_is_watched_and_nothing_is_changed(tiny_folder: Path) -> None:
    assistant = Assistant.load(tiny_folder / "v0")
    ids = encode_dialogue(DIALOGUE, assistant.tokenizer).ids
    weights = strongest_attention(assistant.model, ids)
    assert weights.shape == (len(ids), len(ids))
    assert weights.triu(1).abs().max() == 0
    assert weights[0, 0] == 1
    assert ((weights.sum(dim=1) > 0.99) & (weights.amax(dim=1) <= 1)).all(), "the largest of several heads adds up to at least one"
    # An earlier token's weights do not depend on later ones.
    assert torch.allclose(strongest_attention(assistant.model, ids[:9]), weights[:9, :9], atol=1e-5)


def test_the_picture(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assistant = Assistant.load(tiny_folder / "v0")
    monkeypatch.setattr(attention, "BIN_TOKENS", 1000)
    found = attention_map(assistant, DIALOGUE)
    roles = [("system", 1), ("user", 1), ("assistant", 1), ("user", 2), ("assistant", 2)]
    assert [(one["role"], one["turn"]) for one in found["bins"]] == roles
    assert [len(row) for row in found["attention"]] == [1, 2, 3, 4, 5]
    weights = strongest_attention(assistant.model, encode_dialogue(DIALOGUE, assistant.tokenizer).ids)
    spans = message_spans(DIALOGUE, assistant.tokenizer)
    (_, start, end), (_, first, last) = spans[0], spans[4]
    by_hand = sum(weights[token, start:end].max().item() for token in range(first, last)) / (last - first)
    assert found["attention"][4][0] == pytest.approx(by_hand, abs=6e-4)
    monkeypatch.setattr(attention, "BIN_TOKENS", 2)
    bins = attention_map(assistant, DIALOGUE)["bins"]
    assert [bins.count({"role": role, "turn": turn}) for role, turn in roles] == [-(-(end - start) // 2) for _, start, end in spans]
