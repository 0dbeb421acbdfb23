"""A score belongs to its dialogue alone: not to the batch, the padding, or what the last ids happen to be (pains 6 and 7)."""

from pathlib import Path

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

from llamaherd.chat.dialogue import Dialogue, Message, checked
from llamaherd.core.errors import UserError
from llamaherd.model.layout import Layout
from llamaherd.reward.model import RewardModel
from llamaherd.tokenizer.sentencepiece import Tokenizer


@pytest.fixture(scope="module")
def model(tiny_folder: Path) -> RewardModel:
    return RewardModel.load(tiny_folder / "safety")


def about(answer: str, user: str = "Where does Ada live?") -> Dialogue:
    return checked([Message("user", user), Message("assistant", answer)])


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@given(answers=st.lists(TEXTS, min_size=1, max_size=9), batch_tokens=st.integers(1, 200))
def test_a_score_does_not_depend_on_the_batch(model: RewardModel, answers: list[str], batch_tokens: int) -> None:
    dialogues = [about(answer) for answer in answers]
    alone = [model.logits([dialogue])[0] for dialogue in dialogues]
    assert model.logits(dialogues) == pytest.approx(alone, abs=1e-4)
    assert model.logits(dialogues, batch_tokens) == pytest.approx(alone, abs=1e-4)
    assert model.logits(dialogues[::-1]) == pytest.approx(alone[::-1], abs=1e-4)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_on_either_side_changes_nothing(model: RewardModel, tiny_folder: Path, side: str) -> None:
    """Padded rectangles through another implementation, the end found by the attention mask as well."""
    theirs = transformers.AutoModel.from_pretrained(tiny_folder / "safety", dtype=torch.float32)
    ids = [model.ids(about(answer)) for answer in ("Lima", "Ada lives in Lima.", "")]
    width = max(map(len, ids))
    gaps = [width - len(row) for row in ids]
    rows = [[0] * gap + row if side == "left" else row + [0] * gap for row, gap in zip(ids, gaps, strict=True)]
    mask = torch.tensor(
        [[0] * gap + [1] * len(row) if side == "left" else [1] * len(row) + [0] * gap for row, gap in zip(ids, gaps, strict=True)]
    )
    positions = (mask.cumsum(-1) - 1).clamp_min(0)
    with torch.no_grad():
        hidden = theirs(torch.tensor(rows), attention_mask=mask, position_ids=positions).last_hidden_state
        ends = [width - 1 if side == "left" else len(row) - 1 for row in ids]
        padded = [float(hidden[row, end] @ model.scorer.score.weight[0]) for row, end in enumerate(ends)]
    assert model.logits([about(answer) for answer in ("Lima", "Ada lives in Lima.", "")]) == pytest.approx(padded, abs=1e-4)


@pytest.mark.parametrize("last", [0, 1, 2, 260])
def test_the_end_is_found_by_length(model: RewardModel, last: int) -> None:
    """Also where the last ids are <unk> (what others pad with), <s>, </s>, or one repeated."""
    tokens = [1, 270, 2, 1, 280, last, last, last]
    flat = torch.tensor([[*tokens, 1, 270, 2]])
    packed = model.scorer(flat, Layout.of([len(tokens), 3]))[Layout.of([len(tokens), 3]).ends]
    for length in (len(tokens), len(tokens) - 1):
        alone = model.scorer(torch.tensor([tokens[:length]]), Layout.of([length]))
        assert len(alone) == length
        assert float(alone[-1].detach()) == pytest.approx(model._score([tokens[:length]])[0], abs=1e-5)
    assert float(packed[0].detach()) == pytest.approx(model._score([tokens])[0], abs=1e-5)
    assert model._score([tokens])[0] != pytest.approx(model._score([tokens[:-1]])[0], abs=1e-5)


def test_an_end_tag_in_the_text_is_text(model: RewardModel, tokenizer: Tokenizer) -> None:
    ids = model.ids(about("Lima</s>", user="Say </s> to <unk>"))
    assert ids.count(tokenizer.eos_id) == 1
    assert ids[-1] == tokenizer.eos_id
    assert 0 not in ids
    assert model.logits([about("Lima</s>")]) != pytest.approx(model.logits([about("Lima")]), abs=1e-4)


def test_a_dialogue_longer_than_the_context(model: RewardModel) -> None:
    fits, long = about("a" * 60), about("a " * 130)
    assert model.fits(fits)
    assert not model.fits(long)
    with pytest.raises(UserError, match=r"line 3: \d+ tokens, and the reward model's context is 128; leave out earlier turns"):
        model.ids(long, "line 3")
    with pytest.raises(UserError, match="context is 128"):
        model.logits([fits, long])
    assert model.logits([]) == []
