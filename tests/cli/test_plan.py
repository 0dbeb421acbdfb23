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


def test_advice_goes_on_from_a_file_of_settings(capsys: pytest.CaptureFixture[str]) -> None:
    """Nested settings of the file count: no larger micro_batch than the file's is named, and the forecast stays what it was."""
    words = ["plan", "ppo", "llama2-7b", "--config", "llama2-7b-ppo", "--context", "512", "--device", "cuda"]
    told = []
    for memory in ("60GB", "24GB"):
        main([*words, "--memory", memory, "--json"])
        told.append(json.loads(capsys.readouterr().out))
    wide, narrow = told
    assert (wide["fits"], narrow["fits"]) == (True, False)
    assert wide["total_bytes"] == narrow["total_bytes"]
    changes = [one["change"] for one in narrow["advice"]]
    assert "--ppo.sampler.together=16" in changes
    assert "--roles.bits=4" in changes
    assert not any("micro-batch=32" in change for change in changes)


def test_the_guard_of_ppo_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    weights = []
    for guard in ([], ["--guard=stories-110m"]):
        main(["plan", "ppo", "stories-110m", "--device", "cpu", "--memory", "64GB", "--json", *guard])
        weights.append(json.loads(capsys.readouterr().out)["parts"]["weights"])
    assert 4 * 80_000_000 < weights[1] - weights[0] < 4 * 120_000_000
