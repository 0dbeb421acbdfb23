import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from llamaherd.chat.template import Rendered, encode_dialogue
from llamaherd.checkpoints.huggingface import load_model
from llamaherd.core.artifacts import Artifact
from llamaherd.core.config import build
from llamaherd.core.errors import UserError
from llamaherd.core.files import write_rows
from llamaherd.core.metrics import read_metrics
from llamaherd.data.records import read_dialogues
from llamaherd.stages import sft
from llamaherd.tokenizer.sentencepiece import Tokenizer
from llamaherd.train.loop import NonFiniteError


def run(folder: Path, data: Path | list[Path], out: Path, **values: Any) -> Artifact:
    given = {
        "model": str(folder / "v0"), "data": [str(path) for path in (data if isinstance(data, list) else [data])],
        "epochs": 1, "batch_rows": 2, "micro_rows": 1, "optimizer": {"lr": 1e-2},
    }  # fmt: skip
    return sft.run(build(sft.SftConfig, given | values), out, 0)


def rendered(path: Path, tokenizer: Tokenizer) -> list[Rendered]:
    return [encode_dialogue(dialogue, tokenizer) for dialogue in read_dialogues(path)]


def said(user: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]


def answer_loss(folder: Path, dialogues: list[Rendered]) -> float:
    """Mean -log p of answer tokens by another implementation, one dialogue at a time."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    total, count = 0.0, 0
    for dialogue in dialogues:
        labels = [id if flag else -100 for id, flag in zip(dialogue.ids, dialogue.mask, strict=True)]
        with torch.no_grad():
            loss = model(torch.tensor([dialogue.ids]), labels=torch.tensor([labels])).loss.item()
        total, count = total + loss * sum(dialogue.mask), count + sum(dialogue.mask)
    return total / count


def test_golden_masks_reach_the_loss(tiny_folder: Path, tiny_inputs: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    """The first step, on all rows at once, has the loss of the answers alone, and says how many tokens they are."""
    done = run(tiny_folder, tiny_inputs / "dialogues.jsonl", tmp_path / "out", batch_rows=99, micro_rows=2)
    dialogues = rendered(tiny_inputs / "dialogues.jsonl", tokenizer)
    [row] = read_metrics(done.path / "metrics.jsonl")
    trained, all_tokens = sum(sum(dialogue.mask) for dialogue in dialogues), sum(len(dialogue.ids) for dialogue in dialogues)
    assert row["trained"] == done.metrics["trained_tokens"] == trained
    assert row["trained_share"] == pytest.approx(trained / (all_tokens - len(dialogues)))
    assert row["loss"] == pytest.approx(answer_loss(tiny_folder / "v0", dialogues), rel=1e-4)


def test_only_the_last_answer_of_ghost_attention_rows_is_trained(tiny_folder: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    write_rows(file, [{"messages": [*said("Hi", "One"), *said("Bye", "Two")], "trained": "last"}])
    [dialogue] = rendered(file, tokenizer)
    last = len(encode_dialogue(read_dialogues(file)[0], tokenizer).ids) - dialogue.mask.index(1)
    assert sum(dialogue.mask) == last
    done = run(tiny_folder, file, tmp_path / "out")
    assert done.metrics["trained_tokens"] == last
    assert read_metrics(done.path / "metrics.jsonl")[0]["loss"] == pytest.approx(answer_loss(tiny_folder / "v0", [dialogue]), rel=1e-4)


def test_it_learns_and_keeps_its_files(tiny_folder: Path, tiny_inputs: Path, tmp_path: Path) -> None:
    done = run(tiny_folder, tiny_inputs / "dialogues.jsonl", tmp_path / "out", epochs=4)
    rows = read_metrics(done.path / "metrics.jsonl")
    assert rows[-1]["loss"] < rows[0]["loss"] - 1
    assert done.metrics["steps"] == len(rows)
    assert done.metrics["dialogues"] == 24
    assert load_model(done.path)[0].config.context == 128
    assert sft.headline(done) == f"24 dialogues, {done.metrics['trained_tokens']} answer tokens, loss {done.metrics['loss']:.3f}"
    assert len(done.manifest["parents"]) == 2


def test_dialogues_longer_than_a_row_are_left_out_and_counted(tiny_folder: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    write_rows(file, [{"messages": said("Hi", "One")}, {"messages": said("Hi", "long " * 200)}])
    done = run(tiny_folder, file, tmp_path / "out")
    assert (done.metrics["dialogues"], done.metrics["dropped_too_long"]) == (1, 1)
    assert done.metrics["trained_tokens"] == sum(rendered(file, tokenizer)[0].mask)
    assert ", 1 too long, " in sft.headline(done)
    with pytest.raises(UserError, match=r"all 2 dialogues are longer than row_tokens \(5\); raise it or shorten them"):
        run(tiny_folder, file, tmp_path / "none", row_tokens=5)
    with pytest.raises(UserError, match="row_tokens is 129 and the model's context 128"):
        run(tiny_folder, file, tmp_path / "none", row_tokens=129)


@pytest.mark.parametrize(("shares", "expected"), [((), 36), ((1.0, 0.0), 24), ((0.5, 1.0), 24), ((2.0, 0.5), 54), ((0.25, 2.25), 33)])
def test_shares_of_files(tiny_folder: Path, tiny_inputs: Path, tmp_path: Path, shares: tuple[float, ...], expected: int) -> None:
    """24 dialogues and 12 others."""
    other = tmp_path / "other.jsonl"
    write_rows(other, [{"messages": said(f"Question {number}", "Yes")} for number in range(12)])
    done = run(tiny_folder, [tiny_inputs / "dialogues.jsonl", other], tmp_path / "out", shares=shares, batch_rows=99, epochs=1)
    assert done.metrics["dialogues"] == expected


@pytest.mark.parametrize(
    ("safety_share", "share", "expected"), [(0.0, 1.0, 10), (0.25, 1.0, 15), (1.0, 1.0, 30), (0.5, 0.5, 10), (0.5, 2.0, 40)]
)
def test_the_share_of_safety_data(tiny_folder: Path, tmp_path: Path, safety_share: float, share: float, expected: int) -> None:
    """20 dialogues with the tag, 10 without."""
    file, tags = (
        tmp_path / "rows.jsonl",
        [{"safety": True}, {"safety": True}, {"safety": False}] * 5 + [{"safety": True}, {"safety": True}, {}] * 5,
    )
    write_rows(file, [{"messages": said(f"Question {number}", "Yes"), **tag} for number, tag in enumerate(tags)])
    done = run(tiny_folder, file, tmp_path / "out", safety_share=safety_share, shares=(share,), batch_rows=99, epochs=1)
    assert done.metrics["dialogues"] == expected


def test_steps_do_not_depend_on_the_number_of_dialogues(tiny_folder: Path, tiny_inputs: Path, tmp_path: Path) -> None:
    files = [tiny_inputs / "dialogues.jsonl"]
    for count in (1, 3):
        assert run(tiny_folder, files * count, tmp_path / str(count), steps=7, epochs=1).metrics["steps"] == 7


def test_what_cannot_be_tuned_on(tiny_folder: Path, tiny_inputs: Path, tmp_path: Path) -> None:
    good, bad, empty = tiny_inputs / "dialogues.jsonl", tmp_path / "bad.jsonl", tmp_path / "empty.jsonl"
    write_rows(bad, [{"messages": said("Hi", "One")}, {"messages": [*said("Hi", "One")[:1], *said("Hi", "One")]}])
    empty.write_text("\n")
    for data, values, expected in (
        (bad, {}, r"bad.jsonl line 2: message 2 \(user\): expected assistant here"),
        (empty, {}, "no dialogue in .*empty.jsonl"),
        (tmp_path / "absent.jsonl", {}, "absent.jsonl: no such"),
        (good, {"shares": [1.0, 2.0]}, "shares has 2 numbers and data 1 files"),
        (good, {"model": str(tiny_folder / "safety")}, "architecture LlamaForSequenceClassification, expected LlamaForCausalLM"),
    ):
        with pytest.raises(UserError, match=expected) as found:
            run(tiny_folder, data, tmp_path / "out", **values)
        assert "\n" not in str(found.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.jsonl", "empty.jsonl"]


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_state(tiny_folder: Path, tiny_inputs: Path, tmp_path: Path) -> None:
    out, wild = tmp_path / "out", {"lr": 1e30, "clip": 1e30, "checkpoint_every_s": 0, "weight_decay": 0, "schedule": "constant"}
    with pytest.raises(NonFiniteError, match=r"step \d+.*stopped before the step, the last saved state is kept"):
        run(tiny_folder, tiny_inputs / "dialogues.jsonl", out, epochs=9, optimizer=wild)
    assert not out.exists()
    states = sorted(path.name for path in (tmp_path / "out.partial" / "state").glob("step-*"))
    assert states
    steps = [row["step"] for row in read_metrics(tmp_path / "out.partial" / "metrics.jsonl")]
    assert states[-1] == f"step-{steps[-1]:08d}"
    model, _ = load_model(tmp_path / "out.partial" / "state" / states[0] / "model")
    assert all(weight.isfinite().all() for weight in model.parameters())


def test_the_card_says_what_was_measured(tiny_folder: Path, tiny_inputs: Path, tmp_path: Path) -> None:
    done = run(tiny_folder, tiny_inputs / "dialogues.jsonl", tmp_path / "out")
    card = (done.path / "README.md").read_text()
    assert f"- trained tokens: {done.metrics['trained_tokens']}" in card
    assert math.isfinite(json.loads(card.split("- loss: ")[1].split("\n")[0]))
