import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from llamaherd.assistant.endpoint import Endpoint
from llamaherd.assistant.local import Assistant
from llamaherd.assistant.open import TextModel, open_assistant
from llamaherd.chat.dialogue import Dialogue, Message, checked
from llamaherd.checkpoints.huggingface import save_model
from llamaherd.core.errors import UserError
from llamaherd.core.files import write_json
from llamaherd.generate.config import SamplingConfig
from llamaherd.model.transformer import Transformer
from llamaherd.tokenizer.sentencepiece import Tokenizer

SAMPLING = SamplingConfig(temperature=1.0, max_new_tokens=20)


@pytest.fixture(scope="module")
def run(make_tiny: Callable[[int], Transformer], tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with versions 9 and 10, both random."""
    run = tmp_path_factory.mktemp("runs") / "small"
    for seed, name in enumerate(("v9", "v10")):
        save_model(make_tiny(seed), tokenizer, run / name)
        write_json(run / name / "manifest.json", {"kind": "model", "hash": name})
    write_json(run / "recipe.json", {})
    return run


def question(*turns: str, system: str | None = None) -> Dialogue:
    roles = ("user", "assistant")
    messages = [Message(roles[index % 2], text) for index, text in enumerate(turns)]  # type: ignore[arg-type]
    return checked([*([Message("system", system)] if system else []), *messages])


def said(model: TextModel, seed: int = 1) -> str:
    return "".join(model.stream(question("Where?"), SAMPLING, seed))


def test_a_folder_a_version_and_the_newest_version(run: Path) -> None:
    newest, older, folder = open_assistant(str(run)), open_assistant(f"{run}:v9"), open_assistant(str(run / "v9"))
    assert (newest.name, older.name, folder.name) == ("v10", "v9", "v9")
    assert said(older) == said(folder) != said(newest)


def test_an_unfinished_run_is_one_line(run: Path) -> None:
    with pytest.raises(UserError, match=r"has no 'v11'.*it has v10, v9"):
        open_assistant(f"{run}:v11")


@pytest.mark.parametrize("spec", ["http://127.0.0.1:1/v1#small", "HTTPS://host.example/v1#small"])
def test_an_address_is_an_endpoint(spec: str) -> None:
    model = open_assistant(spec)
    assert isinstance(model, Endpoint)
    assert model.name == "small"


def test_an_endpoint_needs_no_torch() -> None:
    code = (
        "import sys; from llamaherd.assistant.open import open_assistant; open_assistant('http://h/v1#m'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_stream_is_the_answer(run: Path) -> None:
    model = Assistant.load(run)
    for seed in range(5):
        [answer] = model.answers([question("Where?")], SAMPLING, [seed])
        assert said(model, seed) == answer.text
    assert len({said(model, seed) for seed in range(5)}) == 5


def test_a_continuation_of_nothing_starts_from_begin_alone(run: Path) -> None:
    model = Assistant.load(run)
    alone = "".join(model.stream_ids([model.tokenizer.bos_id], SAMPLING, 3))
    assert "".join(model.continuation("", SAMPLING, 3)) == alone != ""


def test_the_oldest_turns_go_and_the_system_text_stays(run: Path) -> None:
    model = Assistant.load(run)
    dialogue = question(*["Lima?"] * 21, system="Ada")
    fitted, dropped = model.fitted(dialogue, SAMPLING)
    room = model.model.config.context - SAMPLING.max_new_tokens
    assert fitted.messages == (dialogue.messages[0], *dialogue.messages[1 + 2 * dropped :])
    assert len(model.prompt_ids(fitted)) <= room
    less_dropped = checked([dialogue.messages[0], *dialogue.messages[2 * dropped - 1 :]])
    assert len(model.prompt_ids(less_dropped)) > room


def test_a_message_longer_than_the_context_is_one_line_with_both_numbers(run: Path) -> None:
    model = Assistant.load(run)
    dialogue = question("Lima " * 200)
    length, room = len(model.prompt_ids(dialogue)), model.model.config.context - SAMPLING.max_new_tokens
    with pytest.raises(UserError, match=f"takes {length} tokens, and there is room for {room}") as found:
        model.fitted(dialogue, SAMPLING)
    assert "\n" not in str(found.value)


def test_stop_texts_cut_streams_and_answers_alike(run: Path) -> None:
    model = open_assistant(str(run))
    assert isinstance(model, Assistant)
    whole = "".join(model.continuation("Where?", SAMPLING, 3))
    stop = whole[len(whole) // 2 :][:2]
    config = SAMPLING.model_copy(update={"stop": (stop,)})
    assert "".join(model.continuation("Where?", config, 3)) == whole[: whole.index(stop)]
    answer = said(model)
    stop = answer[len(answer) // 2 :][:2]
    config = SAMPLING.model_copy(update={"stop": (stop,)})
    cut = answer[: answer.index(stop)].strip()
    assert "".join(model.stream(question("Where?"), config, 1)).strip() == cut
    [given] = model.answers([question("Where?")], config, [1])
    assert given.text == cut
    assert given.completion.finished


def test_a_dialogue_that_goes_on_is_read_from_where_it_differs(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = open_assistant(str(run))
    assert isinstance(model, Assistant)
    first = question("Where is the red lamp that stood here?")
    answer = "".join(model.stream(first, SAMPLING, 1))
    read: list[int] = []
    inner = model.model.read
    monkeypatch.setattr(model.model, "read", lambda tokens, into: (read.append(tokens.numel()), inner(tokens, into))[1])
    asked = question("Where is the red lamp that stood here?", answer or "There.", "And now?")
    "".join(model.stream(asked, SAMPLING, 2))
    assert sum(read) < len(model.prompt_ids(asked)) - len(model.prompt_ids(first)) // 2


def test_a_system_that_tells_no_memory_answers_all_the_same(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from llamaherd.assistant import open as module

    before = said(open_assistant(f"{run}:v9"))
    monkeypatch.setattr(module, "free_memory_bytes", lambda device: None)
    assert said(open_assistant(f"{run}:v9")) == before


def test_an_invariant_model_is_not_laid_out_anew_and_an_endpoint_cannot_be_one(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from llamaherd.assistant import open as module

    monkeypatch.setattr(module, "free_memory_bytes", pytest.fail)  # nothing depends on it
    model = open_assistant(f"{run}:v9", invariant=True)
    assert isinstance(model, Assistant)
    [answer] = model.answers([question("Where?")], SAMPLING, [4])
    assert said(model, 4) == answer.text
    with pytest.raises(UserError, match="only its server decides how it computes"):
        open_assistant("http://127.0.0.1:1/v1#small", invariant=True)
