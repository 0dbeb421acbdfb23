import pytest
from benchmarks.common import our_model, transformers_twin

from benchmarks import generation
from llamaherd.generate.config import SamplingConfig

PROMPTS = [[5, 6, 7, 8], [9], [10, 11]]
GREEDY_LIKE = SamplingConfig(temperature=1.0, top_p=1e-6, max_new_tokens=12)


def test_both_sides_count_the_same_tokens() -> None:
    """With next to no nucleus both take the likeliest tokens, so they stop at the same places."""
    ours = our_model("tiny")
    theirs, stops = transformers_twin(ours), list(range(3, 512, 6))
    counts = [generation.ours(ours, PROMPTS, GREEDY_LIKE, stops, copies) for copies in (1, 3)]
    assert counts == [generation.theirs(theirs, PROMPTS, GREEDY_LIKE, stops, copies, 2) for copies in (1, 3)]
    assert 3 < counts[0] < 3 * 12, "some stop early"
    assert counts[1] == 3 * counts[0]


def test_without_stops_all_are_equally_long() -> None:
    ours = our_model("tiny")
    assert generation.ours(ours, PROMPTS, GREEDY_LIKE, (), 1) == 36
    assert generation.theirs(transformers_twin(ours), PROMPTS, GREEDY_LIKE, (), 1, 3) == 36


def test_the_whole_table(capsys: pytest.CaptureFixture[str]) -> None:
    generation.main(["--model", "tiny", "--pairs", "1", "--share", "0.04"])
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert len(rows) == 9
    assert all(float(row.split("|")[4]) > 0 for row in rows[1:])
