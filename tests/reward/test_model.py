"""A score belongs to its dialogue alone: not to the batch, the padding, or what the last ids happen to be (pains 6 and 7)."""

from pathlib import Path

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

from llamaherd.chat.dialogue import Dialogue, Message, checked
from llamaherd.chat.template import encode_dialogue
from llamaherd.checkpoints.huggingface import save_model
from llamaherd.core.errors import UserError
from llamaherd.core.files import read_json, write_json
from llamaherd.data.records import Prompt
from llamaherd.model.config import ModelConfig
from llamaherd.model.layout import Layout
from llamaherd.model.transformer import Scorer, initialise
from llamaherd.reward.combine import Combination
from llamaherd.reward.model import RewardModel
from llamaherd.tokenizer.sentencepiece import Tokenizer
from llamaherd.tokenizer.training import TokenizerConfig, train_tokenizer


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


ANSWERS = ["Lima", "Ada lives in Lima.", "", "Ada lives in Lima. " * 3]


@pytest.mark.parametrize("side", ["left", "right"])
def test_transformers_scores_the_same_with_its_own_head_and_end(model: RewardModel, tiny_folder: Path, side: str) -> None:
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tiny_folder / "safety", dtype=torch.float32)
    ids = [model.ids(about(answer)) for answer in ANSWERS]
    width = max(map(len, ids))
    rows, mask = [], []
    for row in ids:
        gap = [0] * (width - len(row))
        rows.append(gap + row if side == "left" else row + gap)
        mask.append(gap + [1] * len(row) if side == "left" else [1] * len(row) + gap)
    at = torch.tensor(mask)
    positions = (at.cumsum(-1) - 1).clamp_min(0)
    with torch.no_grad():
        found = theirs(torch.tensor(rows), attention_mask=at, position_ids=positions).logits[:, 0].tolist()
    assert model.logits([about(answer) for answer in ANSWERS]) == pytest.approx(found, abs=1e-4)


def test_a_folder_that_pads_with_its_end_scores_the_same(model: RewardModel, tiny_folder: Path, tmp_path: Path) -> None:
    """Where pad is the end's id, whoever looks for the last token that is no padding reads the one before the end (pain 6)."""
    save_model(model.scorer, model.tokenizer, tmp_path / "same")
    write_json(tmp_path / "same" / "config.json", {**read_json(tmp_path / "same" / "config.json"), "pad_token_id": model.tokenizer.eos_id})
    dialogues = [about(answer) for answer in ANSWERS]
    assert RewardModel.load(tmp_path / "same").logits(dialogues) == model.logits(dialogues)
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "same", dtype=torch.float32)
    with torch.no_grad():
        before_the_end = theirs(torch.tensor([model.ids(dialogues[0])])).logits.item()
    assert before_the_end != pytest.approx(model.logits(dialogues[:1])[0], abs=1e-3), "the trap is there"


def test_a_reward_model_with_another_tokenizer_than_the_policys_scores_the_text(model: RewardModel, tmp_path: Path) -> None:
    """Nothing but text crosses the boundary: another vocabulary, other ids, the same answer (pain 1)."""
    other = train_tokenizer(
        [f"Where does Ada live? Ada lives in Lima{mark} [INST] [/INST] " for mark in ".!?,;:"] * 3, TokenizerConfig(vocab_size=300)
    )
    scorer = Scorer(ModelConfig(dim=24, layers=1, heads=2, ffn=32, vocab_size=other.vocab_size, context=200))
    initialise(scorer, 1)
    scorer.score.weight.data.normal_(generator=torch.Generator().manual_seed(0))
    save_model(scorer.eval(), other, tmp_path / "foreign")
    foreign = RewardModel.load(tmp_path / "foreign")
    dialogue = about("Ada lives in Lima.")
    assert foreign.ids(dialogue) != model.ids(dialogue)
    ids = encode_dialogue(dialogue, other).ids
    alone = scorer(torch.tensor([ids]), Layout.of([len(ids)]))[-1].item()
    assert foreign.logits([dialogue]) == pytest.approx([alone], abs=1e-5)
    prompt = Prompt(checked([Message("user", "Where does Ada live?")]), safety=False)
    both = Combination(foreign, foreign)
    assert both.logits([prompt], ["Ada lives in Lima."]) == pytest.approx([alone], abs=1e-5)


def test_dialogues_in_scores_out(model: RewardModel) -> None:
    plain = [[{"role": "user", "content": "Where does Ada live?"}, {"role": "assistant", "content": answer}] for answer in ANSWERS]
    logits = model.logits([about(answer) for answer in ANSWERS])
    assert model.logits(plain) == logits
    assert model.scores(plain) == pytest.approx([1 / (1 + 2.718281828459045**-logit) for logit in logits])
    assert model.scores([plain[0], about(ANSWERS[1])]) == model.scores(plain[:2])
    assert model.scores([]) == []
    with pytest.raises(UserError, match=r"dialogue 2: message 1 \(user\): a finished dialogue ends with an assistant"):
        model.scores([plain[0], plain[0][:1]])
    with pytest.raises(UserError, match="dialogue 1: message 1: expected"):
        model.scores([["Hello"]])  # type: ignore[list-item]


def test_scores_that_are_no_numbers_are_refused_by_name(model: RewardModel, tmp_path: Path) -> None:
    """Weights that are finite and overflow: nobody is to train on what comes of them."""
    save_model(model.scorer, model.tokenizer, tmp_path / "loud")
    loud = RewardModel.load(tmp_path / "loud")
    loud.scorer.score.weight.data.fill_(3e38)
    with pytest.raises(UserError, match=r"dialogue 1 \(.*loud scores it (-?inf|nan), which is no finite number; .*train it anew"):
        loud.logits([about("Lima")])
    with pytest.raises(UserError, match=r"row 7: .*loud scores it"):
        loud.logits([about("Lima")], names=["row 7"])
    prompt = Prompt(checked([Message("user", "Where?")]), safety=True)
    with pytest.raises(UserError, match="no finite number"):
        Combination(model, loud).logits([prompt], ["Lima"])


def test_weights_that_are_nan_are_refused_as_they_are_read(model: RewardModel, tmp_path: Path) -> None:
    scorer = Scorer(model.scorer.config)
    scorer.load_state_dict(model.scorer.state_dict())
    scorer.layers[0].feed_forward.w1.weight.data[0, 0] = float("nan")  # type: ignore[union-attr, index]
    save_model(scorer, model.tokenizer, tmp_path / "broken")
    with pytest.raises(UserError, match=r"broken.*gate_proj.*not finite; the checkpoint is damaged"):
        RewardModel.load(tmp_path / "broken")
