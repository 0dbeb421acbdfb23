"""What is said in sum: sick, healthy, or unknown."""

from pathlib import Path

from llamaherd.core.files import write_json
from llamaherd.doctor.examine import as_json, as_text, examine, verdict
from llamaherd.doctor.finding import Check

CHECK = Check("end", "it never ends", "end it")


def test_the_verdict() -> None:
    wrong, fine = CHECK.found("v1", True, "0.9", "0.1"), CHECK.found("v2", False, "0.0", "0.1")
    other = Check("start", "it never starts", "start it").found("v1", True, "0.9", "0.1")
    assert verdict([wrong, wrong, fine]) == "1 thing is wrong"
    assert verdict([wrong, other]) == "2 things are wrong"
    assert verdict([fine, CHECK.absent("v3", "no rows")]) == "healthy"


def test_what_could_not_be_checked_is_not_called_healthy(tmp_path: Path) -> None:
    (tmp_path / "words").mkdir()
    manifest = {"kind": "tokenizer", "stage": "tokenizer", "hash": "x", "config": {}, "metrics": {}, "parents": {}}
    write_json(tmp_path / "words" / "manifest.json", manifest)
    patient, found = examine(tmp_path / "words")
    assert [one for one in found if one.state == "healthy"] == []
    assert "words: nothing could be checked, so nothing is known (1 artifacts; 0 checks passed" in as_text(patient, found).replace(
        "\n", " "
    )
    assert as_json(patient, found, None)["healthy"] is False
