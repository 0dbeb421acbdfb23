"""The command as it is called."""

import json

import pytest

from llamaherd.cli import main


def test_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    main(
        [
            "plan",
            "qlora",
            "llama2-7b",
            "--device",
            "cuda",
            "--memory",
            "24GB",
            "--row-tokens=512",
            "--micro-rows=8",
            "--no-measure",
            "--json",
        ]
    )
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {
        "task", "model", "parameters", "device", "moment", "parts", "total_bytes", "available_bytes", "fits", "advice", "disk_bytes",
        "steps", "seconds", "seconds_per_step", "assumed",
    }  # fmt: skip
    assert found["total_bytes"] == sum(found["parts"].values())
    assert found["available_bytes"] == 24 * 10**9
    assert found["fits"] is False
    assert found["seconds"] is None
    assert found["advice"]
    assert all(set(one) == {"change", "total_bytes", "fits"} for one in found["advice"])


def test_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    main(["plan", "chat", "llama2-7b", "--memory", "8GB", "--no-measure"])
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("does not fit: needs ") and line.endswith(" of 8.0 GB") for line in lines)
    assert any("--bits=4" in line for line in lines)
    main(["plan", "sft", "tiny", "--memory", "64GB", "--no-measure"])
    assert "\nfits: needs " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["sftt", "tiny"], "did you mean 'sft'"),
        (["sft", "tiney"], "did you mean 'tiny'"),
        (["sft", "tiny", "--memory", "lots"], "--memory lots: expected a size"),
        (["sft", "tiny", "--batch-rowz=3"], "did you mean 'batch_rows'"),
        (["sft", "tiny", "--context", "4096"], "expected 2 to 512"),
    ],
)
def test_errors_are_one_line(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        main(["plan", *words, "--no-measure"])
    said = capsys.readouterr().err
    assert error.value.code == 2
    assert said.count("\n") == 1
    assert told in said
