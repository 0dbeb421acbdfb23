"""The reward model's loss and gradients beside TRL's RewardTrainer: the same weights, comparisons and ids, through its own code.

TRL is imported where a test needs it, once: with what it brings that takes seconds.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from tests.conftest import random_scorer

from llamaherd.chat.dialogue import Message, checked
from llamaherd.checkpoints.huggingface import load_scorer, save_model
from llamaherd.checkpoints.names import to_hugging_face
from llamaherd.data.records import GRADES, Preference
from llamaherd.model.transformer import Scorer, Transformer
from llamaherd.reward.model import RewardModel
from llamaherd.reward.pairs import Pair, encode_pair, pair_loss
from llamaherd.tokenizer.sentencepiece import Tokenizer

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")


@dataclass(frozen=True)
class Both:
    """A reward model of ours, and TRL's trainer with the model that `transformers` read from the folder which we wrote."""

    scorer: Scorer
    tokenizer: Tokenizer
    trainer: Any

    def pairs(self, rows: list[Preference], margin: str) -> list[Pair]:
        model = RewardModel(self.scorer, self.tokenizer)
        return [encode_pair(row, model, margin) for row in rows]

    def ours(self, pairs: list[Pair]) -> tuple[float, dict[str, torch.Tensor]]:
        """Mean loss and gradients by the names that `transformers` has for the weights."""
        self.scorer.zero_grad()
        part = pair_loss(self.scorer, pairs, safety_weight=0.0)
        loss = part.total / part.count
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.item(), {
            to_hugging_face(name): weight.grad for name, weight in self.scorer.named_parameters() if weight.grad is not None
        }

    def theirs(self, pairs: list[Pair], with_margins: bool) -> tuple[float, dict[str, torch.Tensor]]:
        """Through TRL's preparation of tokenised rows, its collator and its loss."""
        from datasets import Dataset

        rows: list[dict[str, Any]] = [{"chosen_ids": pair.chosen, "rejected_ids": pair.rejected} for pair in pairs]
        if with_margins:
            rows = [{**row, "margin": pair.margin} for row, pair in zip(rows, pairs, strict=True)]
        trainer = self.trainer
        prepared = trainer._prepare_dataset(Dataset.from_list(rows), trainer.processing_class, trainer.args, "train")
        batch = trainer._prepare_inputs(trainer.data_collator(list(prepared)))
        assert ("margin" in batch) == with_margins
        assert len(batch["input_ids"]) == 2 * len(pairs)
        trainer.model.zero_grad()
        loss = trainer.compute_loss(trainer.model, batch)
        loss.backward()
        return loss.item(), {name: weight.grad for name, weight in trainer.model.named_parameters()}


@pytest.fixture(scope="module")
def both(make_tiny: Callable[[int], Transformer], tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Both:
    pytest.importorskip("trl", reason='trl is not installed; pip install -e ".[dev]" brings it')
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from trl import RewardConfig, RewardTrainer

    folder = tmp_path_factory.mktemp("trl")
    save_model(random_scorer(make_tiny(0), 0), tokenizer, folder / "model")
    processing = AutoTokenizer.from_pretrained(folder / "model")
    # With no padding token TRL would take the end-of-sequence, and its model read the score of padded rows before the end.
    assert processing.pad_token == processing.unk_token
    args = RewardConfig(
        output_dir=str(folder / "out"), use_cpu=True, bf16=False, report_to="none", activation_checkpointing=False, max_length=None,
        per_device_train_batch_size=4,
    )  # fmt: skip
    trainer = RewardTrainer(
        model=AutoModelForSequenceClassification.from_pretrained(folder / "model"), args=args,
        train_dataset=Dataset.from_list([{"chosen_ids": [1, 2], "rejected_ids": [1, 3]}]),
        processing_class=processing,
    )  # fmt: skip
    trainer.model.train()
    scorer, read = load_scorer(folder / "model", torch.device("cpu"))
    return Both(scorer.train(), read, trainer)


def comparison(number: int) -> Preference:
    """Dialogues of one to three turns, answers of unlike length, all grades."""
    earlier = [Message("user", "Where does Ben live?"), Message("assistant", "Ben lives in Oslo.")] * (number % 3)
    prompt = checked([*earlier, Message("user", "Where does Ada live?")])
    return Preference(prompt, "Ada lives in Lima. " * (1 + number % 4), "Rome" * (1 + number % 3), GRADES[number % 4], "helpfulness")


@pytest.mark.parametrize("size", [1, 2, 7])
@pytest.mark.parametrize("margin", [None, "small", "large"])
def test_loss_and_gradients_are_those_of_trl(both: Both, margin: str | None, size: int) -> None:
    pairs = both.pairs([comparison(number) for number in range(1, 1 + size)], margin or "none")
    assert len({len(ids) for pair in pairs for ids in (pair.chosen, pair.rejected)}) > 1, "nothing is padded"
    assert margin is None or any(pair.margin for pair in pairs), "no margin in the batch"
    (ours, gradients), (theirs, expected) = both.ours(pairs), both.theirs(pairs, with_margins=margin is not None)
    assert ours == pytest.approx(theirs, rel=1e-5)
    assert gradients.keys() == expected.keys()
    for name, gradient in expected.items():
        assert 0 < gradient.abs().max() < float("inf"), name
        assert (gradients[name] - gradient).abs().max() <= 5e-5 * gradient.abs().max(), name


def test_a_margin_changes_the_loss(both: Both) -> None:
    """So that what is equal above is not two losses which leave it out."""
    pairs = both.pairs([comparison(number) for number in range(7)], "large")
    assert both.theirs(pairs, with_margins=True)[0] > both.theirs(pairs, with_margins=False)[0] + 0.1


def test_every_pair_counts_once(both: Both) -> None:
    """A batch's loss is the mean of its pairs' own, for both."""
    pairs = both.pairs([comparison(number) for number in range(5)], "small")
    apart = [both.theirs([pair], with_margins=True)[0] for pair in pairs]
    assert both.ours(pairs)[0] == pytest.approx(sum(apart) / len(apart), rel=1e-5)
