import pytest
import torch

from benchmarks import training
from llamaherd.train.batches import TokenBatch


def test_padding_and_labels() -> None:
    tokens, seen, labels = training.padded([([5, 6, 7], [0, 1, 1]), ([8, 9], [1, 0])])
    assert tokens.tolist() == [[5, 6, 7], [8, 9, 0]]
    assert seen.tolist() == [[1, 1, 1], [1, 1, 0]]
    assert labels.tolist() == [[-100, 6, 7], [8, -100, -100]]


def test_both_sides_train_on_as_many_tokens_to_the_same_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """The losses meet in the step, so the step is replaced by one that hands them out."""
    found: list[list[tuple[float, int]]] = []

    def losses(_model: torch.nn.Module, loss, batches):  # type: ignore[no-untyped-def]
        found.append([(mean.item(), tokens) for mean, tokens in map(loss, batches)])
        return lambda: 0

    monkeypatch.setattr(training, "stepper", losses)
    documents = [([5, 6, 7, 8, 9], [0, 0, 1, 1, 1]), ([10, 11, 12], [1, 1, 1])]
    training.language_case("", "tiny", [documents], [documents])
    [[(ours, our_tokens)], [(theirs, their_tokens)]] = found
    assert ours == pytest.approx(theirs, rel=1e-4)
    assert our_tokens == their_tokens == TokenBatch.of(documents, torch.device("cpu")).size == 6


def test_the_whole_table(capsys: pytest.CaptureFixture[str]) -> None:
    training.main(["--model", "tiny", "--pairs", "1", "--share", "0.05"])
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert len(rows) == 6
    assert all(float(row.split("|")[4]) > 0 for row in rows[1:])


def test_two_processes_do_the_work_twice(capsys: pytest.CaptureFixture[str]) -> None:
    training.main(["--model", "tiny", "--pairs", "1", "--share", "0.05", "--processes", "2", "--only", "tuning"])
    assert float(capsys.readouterr().out.splitlines()[-1].split("|")[4]) > 0


def test_processor_time_of_two_processes_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        training.main(["--processes", "2", "--clock", "cpu"])
    assert "--clock wall" in capsys.readouterr().err
