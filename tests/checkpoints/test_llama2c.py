import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from llamaherd.checkpoints.huggingface import load_model, save_model
from llamaherd.checkpoints.llama2c import demand_llama2c, open_llama2c, tokenizer_bin, write_llama2c
from llamaherd.checkpoints.source import open_source
from llamaherd.core.errors import UserError
from llamaherd.generate.config import SamplingConfig
from llamaherd.generate.engine import generate
from llamaherd.tokenizer.sentencepiece import Tokenizer

from .conftest import BASE, FORMS, randomised, refused, same_weights
from .test_pth import Evil

STORIES = "models/stories260K"


@pytest.fixture
def stories(data: Path, tmp_path: Path) -> Path:
    """The trained model, alone with its tokenizer, in files that a test may spoil."""
    for name in ("stories260K.bin", "tok512.model"):
        shutil.copyfile(data / STORIES / name, tmp_path / name)
    return tmp_path / "stories260K.bin"


def test_the_trained_model_tells_its_story(data: Path) -> None:
    model, tokenizer = load_model(data / STORIES / "stories260K.bin")
    assert (model.config.heads, model.config.kv, model.config.tied, model.config.context) == (8, 4, True, 512)
    expected = (data / STORIES / "expected_greedy.txt").read_text()
    told = generate(model, [[1]], SamplingConfig(temperature=0, max_new_tokens=256), [0], (1, 2))[0]
    assert tokenizer.decode(told.ids) == expected


def test_the_trained_model_comes_back_to_the_byte(data: Path, tmp_path: Path) -> None:
    source = open_source(data / STORIES / "stories260K.bin")
    write_llama2c(source, tmp_path / "again.bin")
    assert (tmp_path / "again.bin").read_bytes() == (data / STORIES / "stories260K.bin").read_bytes()
    assert tokenizer_bin(source.tokenizer, 512) == (data / STORIES / "tok512.bin").read_bytes()


def test_a_folder_with_one_such_file_is_a_model(data: Path) -> None:
    assert open_source(data / STORIES).path == data / STORIES / "stories260K.bin"


@pytest.mark.parametrize("form", FORMS)
def test_every_shape_comes_back(form: str, form_folder: Callable[[str], Path], tokenizer: Tokenizer, tmp_path: Path) -> None:
    write_llama2c(open_source(form_folder(form)), tmp_path / "model.bin")
    tokenizer.save(tmp_path)
    assert same_weights(tmp_path / "model.bin", randomised(FORMS[form]))
    back = open_source(tmp_path / "model.bin").config
    assert (back.tied, back.context, back.ffn_width) == (FORMS[form].tied, FORMS[form].context, FORMS[form].ffn_width)


def test_the_header_and_order_worked_by_hand(form_folder: Callable[[str], Path], tmp_path: Path) -> None:
    model = randomised(FORMS["all heads"])
    write_llama2c(open_source(form_folder("all heads")), tmp_path / "model.bin")
    content = (tmp_path / "model.bin").read_bytes()
    assert struct.unpack_from("<7i", content) == (32, 48, 2, 8, 8, -344, 40)
    floats = torch.frombuffer(bytearray(content[28:]), dtype=torch.float32)
    assert floats[: 344 * 32].equal(model.tok_embeddings.weight.flatten())
    assert floats[-344 * 32 :].equal(model.output.weight.flatten())
    norms = floats[344 * 32 : 344 * 32 + 64].view(2, 32)
    assert norms.equal(torch.stack([block.attention_norm.weight for block in model.layers]))
    first = floats[344 * 32 + 64 :][:4].view(1, 4)[0]  # of wq: the head's first row
    assert first.equal(model.layers[0].attention.wq.weight[0, :4])
    second = floats[344 * 32 + 64 + 32 :][:4]  # its pair, which stands two rows further with us (heads of 4)
    assert second.equal(model.layers[0].attention.wq.weight[2, :4])


def test_pieces_beyond_the_tokenizer_have_names_that_text_never_becomes(tokenizer: Tokenizer) -> None:
    content, place, pieces = tokenizer_bin(tokenizer, 344), 4, []
    while place < len(content):
        score, size = struct.unpack_from("<fI", content, place)
        pieces.append((score, content[place + 8 : place + 8 + size]))
        place += 8 + size
    assert len(pieces) == 344
    assert struct.unpack_from("<I", content)[0] == max(len(piece) for _, piece in pieces)
    assert pieces[1:3] == [(0.0, b"\n<s>\n"), (0.0, b"\n</s>\n")]
    assert [score for score, _ in pieces[340:]] == [pytest.approx(-1e10)] * 4
    assert all(piece for _, piece in pieces)


@pytest.mark.parametrize(
    ("update", "said"),
    [
        ({"norm_eps": 1e-6}, "norm_eps 1e-06 (it has 1e-05)"),
        ({"rope_theta": 5e5}, "rotary base 500000.0 (it has 10000.0)"),
        ({"head_dim": 6}, "heads of 6 in a width of 32"),
    ],
)
def test_what_the_format_cannot_hold(update: dict[str, float], said: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    save_model(randomised(BASE.model_copy(update=update)), tokenizer, tmp_path)
    with pytest.raises(UserError) as found:
        demand_llama2c(open_source(tmp_path))
    assert said in str(found.value)


@pytest.mark.parametrize("place", [0, 1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("value", [0, -1, 7, 1 << 30])
def test_a_header_that_lies(place: int, value: int, stories: Path) -> None:
    content = bytearray(stories.read_bytes())
    struct.pack_into("<i", content, 4 * place, value)
    stories.write_bytes(content)
    assert "HERE: " in refused(stories)


@pytest.mark.parametrize("kept", [0, 10, 28, 1000, -1])
def test_a_file_that_is_cut_short(kept: int, stories: Path) -> None:
    stories.write_bytes(stories.read_bytes()[:kept])
    assert "HERE: " in refused(stories)


def test_other_files_are_told_apart(stories: Path, data: Path, tmp_path: Path) -> None:
    stories.write_bytes(b"GGUF" + bytes(100))
    assert "is GGUF, which is written here and not read" in refused(stories)
    stories.write_bytes(struct.pack("<Ii", 0x616B3432, 2) + bytes(248))
    assert "is a llama2.c file of version 2" in refused(stories)
    shutil.copyfile(data / STORIES / "tok512.bin", stories)
    assert "expected a model folder or a llama2.c .bin" in refused(stories)
    (tmp_path / "model.safetensors").write_bytes(bytes(100))
    assert "is a part of a model; give the folder" in refused(tmp_path / "model.safetensors")


@pytest.mark.parametrize("name", ["w.bin", "w.pt", "w.pth", "pytorch_model.bin"])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_is_not_read(name: str, zipped: bool, tmp_path: Path) -> None:
    torch.save({"a": Evil(tmp_path / "ran")}, tmp_path / name, _use_new_zipfile_serialization=zipped)
    line = refused(tmp_path / name)
    assert "a pickle (PyTorch's), which could run code" in line or name == "w.pth"
    refused(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_nan_is_named(stories: Path) -> None:
    content = bytearray(stories.read_bytes())
    struct.pack_into("<f", content, 28 + 4 * 1000, float("nan"))
    stories.write_bytes(content)
    assert "HERE: tok_embeddings.weight holds values that are not finite" in refused(stories, load_model)


def test_the_tokenizer_beside_it(stories: Path) -> None:
    shutil.copyfile(stories.with_name("tok512.model"), stories.with_name("other.model"))
    with pytest.raises(UserError, match="found other.model, tok512.model; keep one there, or convert with --tokenizer FILE"):
        open_llama2c(stories)
    assert open_llama2c(stories, stories.with_name("other.model")).config.vocab_size == 512
    for file in stories.parent.glob("*.model"):
        file.unlink()
    with pytest.raises(UserError, match="found none; keep one there"):
        open_llama2c(stories)
