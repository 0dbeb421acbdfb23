"""Interrupted, damaged and full-disk runs end with the weights of an undisturbed one, bit for bit."""

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import count, islice
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from llamaherd.checkpoints.huggingface import HuggingFaceFiles, load_model
from llamaherd.core.errors import UserError
from llamaherd.core.metrics import read_metrics
from llamaherd.core.seeds import python_rng
from llamaherd.model.config import ModelConfig
from llamaherd.model.transformer import new_model
from llamaherd.tokenizer.sentencepiece import Tokenizer
from llamaherd.tokenizer.training import TokenizerConfig, train_tokenizer
from llamaherd.train.batches import TokenBatch, epochs, next_token_loss, split
from llamaherd.train.config import OptimizerConfig
from llamaherd.train.loop import LossSum, train
from llamaherd.train.state import _verified

STEPS = 6
Run = Callable[..., dict[str, Tensor]]


class Interrupted(BaseException):
    pass


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["the quick brown fox jumps over the lazy dog " * 3], TokenizerConfig(vocab_size=295))


@pytest.fixture(scope="module")
def run(tokenizer: Tokenizer) -> Run:
    """Trains in a folder from what is there, until the end or for so many `batches`; returns the weights."""
    rng = python_rng(0, "documents")
    documents = [[rng.randrange(3, 295) for _ in range(rng.randrange(2, 20))] for _ in range(9)]

    def once(folder: Path, batches: int | None = None, every_s: float = 0) -> dict[str, Tensor]:
        model = new_model(ModelConfig(dim=16, layers=1, heads=2, kv_heads=1, ffn=24, vocab_size=295, context=32), 0)

        def source(standing: Any) -> Iterator[tuple[list[Sequence[int]], Any]]:
            for number, (indices, position) in enumerate(epochs(len(documents), 4, 1, standing)):
                if number == batches:
                    raise Interrupted
                yield split(indices, 2), position

        def loss(part: Sequence[int]) -> LossSum:
            return next_token_loss(model, TokenBatch.of([(documents[i], [1] * len(documents[i])) for i in part], model.device))

        with nullcontext() if batches is None else pytest.raises(Interrupted):
            train(
                model,
                loss,
                source,
                total_steps=STEPS,
                config=OptimizerConfig(lr=0.01, warmup_steps=2, checkpoint_every_s=every_s),
                files=HuggingFaceFiles(model, tokenizer),
                state=folder / "state",
                metrics=folder / "metrics.jsonl",
                label="test",
            )
        return dict(model.state_dict())

    return once


@pytest.fixture(scope="module")
def whole(run: Run, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    """The weights of a run that was never saved nor disturbed."""
    return run(tmp_path_factory.mktemp("whole"), every_s=1e9)


@pytest.fixture(scope="module")
def half_way(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was interrupted after four steps."""
    folder = tmp_path_factory.mktemp("half")
    run(folder, batches=4)
    return folder


def equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return all(found[name].equal(weight) for name, weight in expected.items())


def steps(folder: Path) -> list[int]:
    return [row["step"] for row in read_metrics(folder / "metrics.jsonl")]


@pytest.mark.parametrize("parts", [[3], [1], [5], [1, 1, 1, 1, 1], [2, 3]])
def test_interrupted_equals_whole(run: Run, whole: dict[str, Tensor], tmp_path: Path, parts: list[int]) -> None:
    for number, batches in enumerate(parts, 1):
        run(tmp_path, batches)
        assert steps(tmp_path) == list(range(1, sum(parts[:number]) + 1))
    assert equal(run(tmp_path), whole)
    assert steps(tmp_path) == list(range(1, STEPS + 1))


def test_a_seldom_saved_run_repeats_what_it_lost(run: Run, whole: dict[str, Tensor], tmp_path: Path) -> None:
    run(tmp_path, batches=2)
    run(tmp_path, batches=3, every_s=1e9)
    assert steps(tmp_path) == [1, 2, 3, 4, 5]
    assert not (tmp_path / "state" / "step-00000003").exists()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')  # what a kill leaves of a line
    assert equal(run(tmp_path), whole)
    assert steps(tmp_path) == list(range(1, STEPS + 1))


def damage_flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    place = python_rng(0, path.name).randrange(len(content))
    content[place] ^= 1
    path.write_bytes(content)


def damage_cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


FILES = [
    "state.json",
    "optimizer.safetensors",
    "model/model.safetensors",
    "model/config.json",
    "model/generation_config.json",
    "model/tokenizer.model",
    "model/tokenizer.json",
    "model/tokenizer_config.json",
    "model/special_tokens_map.json",
    "model/chat_template.jinja",
]


@pytest.mark.parametrize("damage", [damage_flip, damage_cut, Path.unlink], ids=["flipped", "cut", "missing"])
@pytest.mark.parametrize("file", FILES)
def test_a_damaged_state_is_named_and_the_one_before_it_taken(
    run: Run,
    whole: dict[str, Tensor],
    half_way: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    file: str,
    damage: Callable[[Path], None],
) -> None:
    shutil.copytree(half_way, tmp_path, dirs_exist_ok=True)
    newest = tmp_path / "state" / "step-00000004"
    damage(newest / file)
    assert equal(run(tmp_path), whole)
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("damaged training state left out: ")
    assert str(newest / file) in line
    assert steps(tmp_path) == list(range(1, STEPS + 1))


def test_the_list_of_damaged_files_is_whole(half_way: Path) -> None:
    newest = half_way / "state" / "step-00000004"
    assert sorted(path.relative_to(newest).as_posix() for path in newest.rglob("*") if path.is_file()) == sorted(FILES)


def test_every_byte_of_the_state_file_counts(half_way: Path, tmp_path: Path) -> None:
    """A changed step or position would train on wrongly without a sign."""
    newest = tmp_path / "step"
    shutil.copytree(half_way / "state" / "step-00000004", newest)
    saved = (newest / "state.json").read_bytes()
    for place in range(len(saved)):
        content = bytearray(saved)
        content[place] ^= 1 << place % 7
        (newest / "state.json").write_bytes(content)
        if not chr(saved[place]).isspace():  # between values, another white space means the same
            with pytest.raises(UserError, match=r"state\.json"):
                _verified(newest)


def test_when_all_states_are_damaged_nothing_starts_over_in_silence(
    run: Run, half_way: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(half_way, tmp_path, dirs_exist_ok=True)
    for state in (tmp_path / "state").iterdir():
        damage_flip(state / "optimizer.safetensors")
    with pytest.raises(UserError, match="every saved training state is damaged; remove the folder") as found:
        run(tmp_path)
    assert "\n" not in str(found.value)
    assert len(capsys.readouterr().err.splitlines()) == 2
    assert steps(tmp_path) == [1, 2, 3, 4]


def test_a_damaged_state_does_not_push_out_whole_ones(run: Run, whole: dict[str, Tensor], half_way: Path, tmp_path: Path) -> None:
    shutil.copytree(half_way, tmp_path, dirs_exist_ok=True)
    shutil.move(tmp_path / "state" / "step-00000004", tmp_path / "state" / "step-00000005")
    damage_flip(tmp_path / "state" / "step-00000005" / "state.json")
    run(tmp_path, batches=1)
    assert sorted(state.name for state in (tmp_path / "state").iterdir()) == ["step-00000003", "step-00000004"]
    assert equal(run(tmp_path), whole)


def test_only_two_states_stay_and_nothing_half_written(half_way: Path) -> None:
    assert sorted(path.name for path in (half_way / "state").iterdir()) == ["step-00000003", "step-00000004"]


def test_saved_states_are_models_that_others_load(half_way: Path) -> None:
    folder = half_way / "state" / "step-00000004" / "model"
    ours, _ = load_model(folder)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokens = torch.arange(3, 30)[None]
    assert torch.allclose(ours(tokens), theirs(tokens).logits, atol=1e-5)
    assert transformers.AutoTokenizer.from_pretrained(folder)("the fox").input_ids[0] == 1


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file() and ".saving" not in path.parts
    }


def test_a_full_disk_names_the_file_and_leaves_older_states(
    run: Run, whole: dict[str, Tensor], half_way: Path, tmp_path: Path, small_files: Callable[[int], AbstractContextManager[None]]
) -> None:
    shutil.copytree(half_way, tmp_path, dirs_exist_ok=True)
    before = tree(tmp_path / "state")
    with small_files(30_000), pytest.raises(OSError, match=r"model\.safetensors"):  # the weights take more
        run(tmp_path)
    assert tree(tmp_path / "state") == before
    assert equal(run(tmp_path), whole)


def full_after(writes: int) -> Callable[[int], None]:
    """An `os.fsync` that finds the disk full after so many calls."""
    durable, calls = os.fsync, count()

    def fsync(handle: int) -> None:
        if next(calls) >= writes:
            raise OSError(errno.ENOSPC, "No space left on device")
        durable(handle)

    return fsync


def test_a_disk_that_fills_up_at_any_file_leaves_older_states(
    run: Run, whole: dict[str, Tensor], half_way: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(half_way, tmp_path, dirs_exist_ok=True)
    before = tree(tmp_path / "state")
    for writes in range(2, 10):  # the first is that of the metrics
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full_after(writes))
            with pytest.raises(OSError, match="No space left on device: '.*state/.saving") as found:
                run(tmp_path)
        assert found.value.filename
        assert tree(tmp_path / "state") == before
    assert equal(run(tmp_path), whole)
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])["step"] == STEPS


def test_epochs_used_here_cross_their_border() -> None:
    positions = [position for _, position in islice(epochs(9, 4, 1, None), STEPS)]
    assert {position["epoch"] for position in positions} == {0, 1, 2}
