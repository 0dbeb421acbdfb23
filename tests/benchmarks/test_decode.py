import pytest

from benchmarks import decode


def test_the_whole_table(capsys: pytest.CaptureFixture[str]) -> None:
    decode.main(["--model", "tiny", "--pairs", "1", "--new", "4"])
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert [row.split("|")[1].strip() for row in rows] == ["case", "one sequence", "8 sequences", "prompt of 512 tokens"]
    assert all(float(row.split("|")[3].replace(",", "")) > 0 for row in rows[1:])
