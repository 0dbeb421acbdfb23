from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llamaherd.assistant.local import Assistant
from llamaherd.chat import template
from llamaherd.chat.dialogue import Message, checked
from llamaherd.chat.template import Rendered, encode_dialogue
from llamaherd.core.artifacts import Artifact
from llamaherd.core.files import read_rows, write_rows
from llamaherd.doctor.config import Thresholds
from llamaherd.doctor.examine import examine
from llamaherd.doctor.tuning import keeps_the_rule
from llamaherd.generate.config import SamplingConfig
from llamaherd.tokenizer.sentencepiece import Tokenizer

from .conftest import absent, findings

Tune = Callable[..., Artifact]
Change = Callable[[Rendered, Tokenizer], list[int]]


def without_end(one: Rendered, tokenizer: Tokenizer) -> list[int]:
    return [0 if id == tokenizer.eos_id else flag for id, flag in zip(one.ids, one.mask, strict=True)]


def with_prompt(one: Rendered, tokenizer: Tokenizer) -> list[int]:
    return [1] * len(one.mask)


def without_first(one: Rendered, tokenizer: Tokenizer) -> list[int]:
    return [flag * before for before, flag in zip([0, *one.mask], one.mask, strict=False)]


def shifted(one: Rendered, tokenizer: Tokenizer) -> list[int]:
    """One place early: the last token of the prompt is trained, and the end is not."""
    return [*one.mask[1:], 0]


def broken(change: Change, monkeypatch: pytest.MonkeyPatch, make: Callable[[], Artifact]) -> Artifact:
    """What the stage makes of a template whose masks are changed; the doctor's own is as it should be."""

    def encode(dialogue: Any, tokenizer: Tokenizer) -> Rendered:
        one = encode_dialogue(dialogue, tokenizer)
        return Rendered(one.ids, change(one, tokenizer))

    with monkeypatch.context() as patch:
        patch.setattr(template, "encode_dialogue", encode)
        return make()


@pytest.fixture(scope="module")
def data(tiny_inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dialogues of one turn, of two, and of two whose last answer alone is trained."""
    rows = [row for _, row in read_rows(tiny_inputs / "dialogues.jsonl")]
    longer = [{"messages": one["messages"] + two["messages"]} for one, two in zip(rows[:6], rows[6:12], strict=True)]
    file = tmp_path_factory.mktemp("tuning") / "dialogues.jsonl"
    write_rows(file, [*rows, *longer, *({**row, "trained": "last"} for row in longer)])
    return file


def test_a_healthy_tuning_gives_no_finding(tune: Tune, data: Path, tmp_path: Path) -> None:
    done = tune(tmp_path / "chat", data)
    assert findings(done.path) == {}
    assert absent(done.path) == set()
    counted = done.metrics["supervision"]
    assert (counted["trained"], counted["runs"]) == (done.metrics["trained_tokens"], counted["ends"])
    assert counted["runs"] == 24 + 6 * 2 + 6


def test_a_batch_made_for_large_data_leaves_a_step(tune: Tune, data: Path, tmp_path: Path) -> None:
    [few] = findings(tune(tmp_path / "chat", data, batch_rows=64, epochs=1).path)["few-steps"]
    assert few.said == "1 steps"
    assert "batch_rows" in few.remedy


def test_halves_of_files_and_of_safety_rows_are_found_again(tune: Tune, data: Path, tiny_inputs: Path, tmp_path: Path) -> None:
    """The doctor renders just the dialogues that were drawn, each as often as it was; a file that is left out altogether is no riddle."""
    tagged = [{**row, "safety": number % 2 == 0} for number, (_, row) in enumerate(read_rows(tiny_inputs / "dialogues.jsonl"))]
    write_rows(tmp_path / "tagged.jsonl", tagged)
    some = [str(data), str(tmp_path / "tagged.jsonl"), str(tiny_inputs / "dialogues.jsonl")]
    done = tune(tmp_path / "chat", some, shares=[0.5, 1.5, 0.0], safety_share=0.3, epochs=1)
    [mask] = [one for one in examine(done.path)[1] if one.check == "tuning-mask"]
    assert mask.state == "healthy"
    assert mask.numbers["trained"] == mask.numbers["due"] > 0


@pytest.mark.parametrize(
    ("change", "checks", "said"),
    [
        (without_end, {"tuning-mask", "tuning-end"}, "one of each of the 42 answers is missing, its first token or its end"),
        (with_prompt, {"tuning-mask"}, "tokens of prompts were trained"),
        (without_first, {"tuning-mask"}, "one of each of the 42 answers is missing, its first token or its end"),
        (shifted, {"tuning-end"}, "0 ends of sequence were trained of the 42"),
    ],
)
def test_masks_that_are_off_are_seen(
    change: Change, checks: set[str], said: str, tune: Tune, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = broken(change, monkeypatch, lambda: tune(tmp_path / "chat", data, epochs=1))
    found = findings(done.path)
    assert set(found) == checks
    assert any(said in one.said for some in found.values() for one in some)


@pytest.mark.slow
def test_a_model_whose_end_was_masked_out_never_stops_and_the_doctor_says_why(
    tune: Tune, sample: Callable[..., Artifact], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the mask to the answers: trained to speak and never to end, sampled, and seen in both places. Its healthy twin is quiet."""
    healthy = tune(tmp_path / "healthy", data, epochs=60)
    sick = broken(without_end, monkeypatch, lambda: tune(tmp_path / "sick", data, epochs=60))
    for done, ends in ((healthy, True), (sick, False)):
        [answer] = Assistant.load(done.path).answers(
            [checked([Message("user", "Where does Ada live?")])], SamplingConfig(temperature=0.0, max_new_tokens=40), [0]
        )
        assert answer.completion.finished == ends
    assert "answers-end" not in findings(sample(tmp_path / "few", model=str(healthy.path)).path)
    [never] = findings(sample(tmp_path / "many", model=str(sick.path)).path)["answers-end"]
    assert never.numbers["unfinished"]["value"] > 0.2


def test_what_cannot_be_rendered_again_is_not_measured(tune: Tune, data: Path, tmp_path: Path) -> None:
    own = tmp_path / "dialogues.jsonl"
    own.write_bytes(data.read_bytes())
    done = tune(tmp_path / "chat", own, epochs=1)
    with own.open("a") as file:
        file.write("\n")
    changed = [one for one in examine(done.path)[1] if one.check in ("tuning-mask", "tuning-end")]
    assert [(one.state, one.said) for one in changed] == [("not measured", f"{own}: not what it was then")] * 2
    own.unlink()
    gone = [one for one in examine(done.path)[1] if one.check in ("tuning-mask", "tuning-end")]
    assert [(one.state, one.said) for one in gone] == [("not measured", f"{own}: not there any more")] * 2
    own.write_bytes(data.read_bytes())
    few = [one for one in examine(done.path, Thresholds(most_dialogues=5))[1] if one.check == "tuning-mask"]
    assert [one.said for one in few] == ["36 dialogues are more than most_dialogues, 5"]


def test_long_dialogues_that_were_left_out_are_named(tune: Tune, data: Path, tmp_path: Path) -> None:
    done = tune(tmp_path / "chat", data, row_tokens=40, epochs=1)
    [left_out] = findings(done.path)["tuning-left-out"]
    assert left_out.numbers["left_out"] == done.metrics["dropped_too_long"] > 0
    assert "tuning-mask" not in findings(done.path), "those that were left out are not missed"


def test_the_golden_rule(tokenizer: Tokenizer) -> None:
    dialogue = checked(
        [Message("user", "Where?"), Message("assistant", "Lima."), Message("user", "And Bob?"), Message("assistant", " Oslo. ")]
    )
    one = encode_dialogue(dialogue, tokenizer)
    assert keeps_the_rule(one, dialogue, tokenizer)
    for change in (without_end, with_prompt, without_first, shifted):
        assert not keeps_the_rule(Rendered(one.ids, change(one, tokenizer)), dialogue, tokenizer)
    assert not keeps_the_rule(Rendered(one.ids, [0] * len(one.ids)), dialogue, tokenizer)
