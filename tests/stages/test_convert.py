import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from llamaherd.chat.dialogue import Message, checked
from llamaherd.chat.template import encode_prompt
from llamaherd.checkpoints.huggingface import load_model, save_model
from llamaherd.checkpoints.source import open_source
from llamaherd.cli import main
from llamaherd.core.artifacts import open_artifact
from llamaherd.core.config import build
from llamaherd.core.errors import UserError
from llamaherd.core.seeds import torch_rng
from llamaherd.model.config import ModelConfig
from llamaherd.model.transformer import Transformer
from llamaherd.stages import convert
from llamaherd.tokenizer.sentencepiece import Tokenizer

BASE = ModelConfig(dim=32, layers=2, heads=8, ffn=48, vocab_size=344, context=40)
FORMS = {
    "all heads": BASE,
    "grouped": BASE.model_copy(update={"kv_heads": 2, "layers": 3, "ffn": 52}),
    "tied": BASE.model_copy(update={"tied": True, "kv_heads": 4}),
    "odd width": BASE.model_copy(update={"ffn": 51, "heads": 2, "dim": 44}),
}
TOKENS = torch.randint(3, 340, (2, 25), generator=torch_rng(0, "tokens"))


def randomised(config: ModelConfig, dtype: torch.dtype) -> Transformer:
    model = Transformer(config).to(dtype)
    for name, weight in model.named_parameters():
        weight.data = torch.randn(weight.shape, generator=torch_rng(0, name)).mul(0.2).add(float(weight.ndim == 1)).to(dtype)
    if config.tied:
        model.output.weight = model.tok_embeddings.weight
    return model.eval()


def run(model: Path, out: Path, to: str, **settings: Any) -> Path:
    convert.run(build(convert.ConvertConfig, {"model": str(model), "to": to, **settings}), out)
    return out


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "manifest.json"}


@pytest.fixture(scope="module")
def form(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    made: dict[tuple[str, torch.dtype], Path] = {}

    def folder(name: str, dtype: torch.dtype = torch.float32) -> Path:
        if (name, dtype) not in made:
            made[name, dtype] = tmp_path_factory.mktemp("form") / "model"
            save_model(randomised(FORMS[name], dtype), tokenizer, made[name, dtype])
        return made[name, dtype]

    return folder


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize(("to", "shards"), [("meta", 1), ("meta", 2), ("meta", 8), ("llama2c", None), ("hf", 1), ("hf", 4)])
def test_there_and_back_is_the_same_to_the_byte(name: str, to: str, shards: int | None, form: Callable[..., Path], tmp_path: Path) -> None:
    if to == "meta" and any(size % (shards or 1) for size in (FORMS[name].heads, FORMS[name].kv, FORMS[name].ffn_width)):
        with pytest.raises(UserError, match=f"--shards {shards} does not divide the model's"):
            run(form(name), tmp_path / "there", to, shards=shards)
        return
    there = run(form(name), tmp_path / "there", to, **({"shards": shards} if shards else {}))
    assert files(run(there, tmp_path / "back", "hf")) == files(form(name))
    manifest = open_artifact(there, "model").manifest
    assert (manifest["stage"], manifest["metrics"]["context"], manifest["metrics"]["tied"]) == ("convert", 40, FORMS[name].tied)
    weights = [path for path in there.iterdir() if path.suffix in (".pth", ".safetensors", ".bin") and path.name != "tokenizer.bin"]
    assert len(weights) == (shards or 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_numbers_stay_as_they_are_unless_others_are_asked_for(dtype: torch.dtype, form: Callable[..., Path], tmp_path: Path) -> None:
    kind = str(dtype).removeprefix("torch.")
    source = form("grouped", dtype)
    for to in ("hf", "meta"):
        assert open_source(run(source, tmp_path / to, to)).dtype == dtype
        whole = run(form("grouped"), tmp_path / f"{to}-cast", to, dtype=kind)
        assert all(open_source(whole).read(name).equal(open_source(source).read(name)) for name in open_source(source).names)
    assert open_source(run(source, tmp_path / "l", "llama2c")).dtype == torch.float32


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("name", FORMS)
def test_transformers_takes_what_is_exported(
    name: str, shards: int, form: Callable[..., Path], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    meta = run(form(name), tmp_path / "meta", "meta")
    out = run(meta, tmp_path / "hf", "hf", shards=shards)
    theirs, report = transformers.AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not any(report.values())
    ours = load_model(form(name))[0]
    assert torch.allclose(ours(TOKENS), theirs(TOKENS).logits, atol=1e-5 * ours(TOKENS).abs().max().item())
    twin = transformers.AutoTokenizer.from_pretrained(out)
    for text in ("Where?", "  two spaces", " one", "\n a\tb ", "é 漢 😀"):
        assert twin(text, add_special_tokens=False)["input_ids"] == tokenizer.encode(text)
    dialogue = checked(
        [Message("system", "Brief."), Message("user", "  Where? "), Message("assistant", " Rome. "), Message("user", "Who?")]
    )
    ids = twin.apply_chat_template(dialogue.to_row()["messages"], tokenize=True, return_dict=False)
    assert ids == encode_prompt(dialogue, tokenizer)


def test_transformers_own_shards_come_through(tokenizer: Tokenizer, tmp_path: Path) -> None:
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 51}
    config = transformers.LlamaConfig(**shape, vocab_size=344, initializer_range=0.2)
    theirs = transformers.LlamaForCausalLM(config).to(torch.bfloat16).eval()
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="20KB")
    tokenizer.save(tmp_path / "theirs")
    back = run(run(tmp_path / "theirs", tmp_path / "meta", "meta", shards=1), tmp_path / "hf", "hf")
    whole = load_file(back / "model.safetensors")
    assert whole.keys() == theirs.state_dict().keys()
    assert all(whole[name].equal(value) for name, value in theirs.state_dict().items())


def test_reward_models_go_to_hugging_face_alone(tiny_folder: Path, tmp_path: Path) -> None:
    out = run(tiny_folder / "helpfulness", tmp_path / "half", "hf", dtype="bfloat16")
    assert open_artifact(out).kind == "reward-model"
    assert open_source(out).kind == "reward-model"
    for to in ("meta", "llama2c"):
        with pytest.raises(UserError, match="cannot hold a reward model"):
            run(tiny_folder / "helpfulness", tmp_path / to, to)


@pytest.mark.parametrize(
    ("to", "settings", "said"),
    [
        ("llama2c", {"dtype": "bfloat16"}, "llama2.c holds float32 and nothing else"),
        ("hf", {"dtype": "q8_0"}, "--dtype q8_0: hf holds floats"),
        ("meta", {"dtype": "q4_0"}, "--dtype q4_0: meta holds floats"),
        ("llama2c", {"shards": 2}, "--shards 2: a llama2c model is one file"),
        ("gguf", {"shards": 2}, "--shards 2: a gguf model is one file"),
        ("hf", {"shards": 1000}, "--shards 1000: the model has 21 weights"),
        ("meta", {"shards": 3}, "--shards 3 does not divide the model's heads 8"),
        ("hf", {"tokenizer": "none.model"}, "none.model: no such file"),
    ],
)
def test_what_cannot_be_is_said_before_work_starts(
    to: str, settings: dict[str, Any], said: str, form: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(UserError) as found:
        run(form("all heads"), tmp_path / "out", to, **settings)
    assert said in str(found.value)
    assert list(tmp_path.iterdir()) == []


def test_nothing_stays_of_a_model_with_nan_or_too_large_numbers(form: Callable[..., Path], tmp_path: Path) -> None:
    shutil.copytree(form("all heads"), tmp_path / "bad")
    tensors = load_file(tmp_path / "bad" / "model.safetensors")
    for value, dtype, said in ((float("nan"), "float32", "not finite"), (1e9, "float16", "too large for float16")):
        tensors["lm_head.weight"][3, 3] = value
        save_file(tensors, tmp_path / "bad" / "model.safetensors")
        for to in ("hf", "meta"):
            with pytest.raises(UserError, match=said):
                run(tmp_path / "bad", tmp_path / "out", to, dtype=dtype)
            assert [path.name for path in tmp_path.iterdir()] == ["bad"]


@pytest.mark.parametrize("to", ["hf", "meta", "llama2c"])
def test_a_full_disk_names_the_file_and_leaves_nothing(
    to: str, form: Callable[..., Path], tmp_path: Path, small_files: Callable[[int], AbstractContextManager[None]]
) -> None:
    with small_files(60_000), pytest.raises(OSError) as found:
        run(form("all heads"), tmp_path / "out", to)
    assert Path(found.value.filename).name in ("model.safetensors", "consolidated.00.pth", "model.bin")
    assert list(tmp_path.iterdir()) == []


def test_what_the_disk_changed_is_found(form: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from llamaherd.checkpoints import huggingface

    write = huggingface.write_tokenizer_files

    def and_flip(tokenizer: Tokenizer, folder: Path, context: int) -> None:
        content = bytearray((folder / "model.safetensors").read_bytes())
        content[-3] ^= 1
        (folder / "model.safetensors").write_bytes(content)
        write(tokenizer, folder, context)

    monkeypatch.setattr(huggingface, "write_tokenizer_files", and_flip)
    with pytest.raises(OSError, match=r"output\.weight was not written as it was meant"):
        run(form("all heads"), tmp_path / "out", "hf")
    assert list(tmp_path.iterdir()) == []


def test_a_bare_file_with_its_tokenizer_beside_it(form: Callable[..., Path], tokenizer: Tokenizer, tmp_path: Path) -> None:
    out = run(form("tied"), tmp_path / "new" / "small.bin", "llama2c")
    assert sorted(path.name for path in out.parent.iterdir()) == ["small.bin", "tokenizer.bin", "tokenizer.model"]
    assert files(run(out, tmp_path / "back", "hf")) == files(form("tied"))
    run(form("all heads"), out.with_name("second.bin"), "llama2c")  # the same tokenizer serves both
    assert files(run(out.with_name("second.bin"), tmp_path / "second", "hf")) == files(form("all heads"))
    with pytest.raises(UserError, match="small.bin exists already"):
        run(form("tied"), out, "llama2c")
    for name in ("tokenizer.bin", "other.model"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_bytes(b"another")
        with pytest.raises(UserError, match=f"{name}: is another tokenizer than this model's"):
            run(form("tied"), tmp_path / name / "x.bin", "llama2c")
        assert [path.name for path in (tmp_path / name).iterdir()] == [name]


def test_the_papers_of_a_model_go_along(form: Callable[..., Path], tmp_path: Path) -> None:
    shutil.copytree(form("tied"), tmp_path / "source")
    for name in ("README.md", "LICENSE.txt", "USE_POLICY.md"):
        (tmp_path / "source" / name).write_text(name)
    out = run(tmp_path / "source", tmp_path / "out", "meta")
    assert {"README.md", "LICENSE.txt", "USE_POLICY.md"} <= {path.name for path in out.iterdir()}


def test_the_command(form: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["convert", str(form("tied")), str(tmp_path / "m"), "--to", "meta", "--dtype", "bfloat16", "--shards", "2"])
    assert capsys.readouterr().out == f"{tmp_path / 'm'}: {FORMS['tied'].parameters:,} parameters as meta, read back and found the same\n"
    main(["convert", str(tmp_path / "m"), str(tmp_path / "m.bin"), "--to=llama2c", "--dtype=float32"])
    main(["generate", str(tmp_path / "m.bin"), "--raw", "--prompt", "Hi", "--temperature=0", "--max-new-tokens=4"])
    told = capsys.readouterr().out.splitlines()[-1]
    main(["generate", str(tmp_path / "m"), "--raw", "--prompt", "Hi", "--temperature=0", "--max-new-tokens=4"])
    assert capsys.readouterr().out == told + "\n"
    with pytest.raises(SystemExit):
        main(["convert", str(form("tied")), str(tmp_path / "x"), "--to", "onnx"])
    assert "onnx" in capsys.readouterr().err


def test_the_trained_model_converted_tells_its_story(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stories = data / "models/stories260K"
    main(["convert", str(stories / "stories260K.bin"), str(tmp_path / "hf"), "--to", "hf"])
    capsys.readouterr()
    main(["generate", str(tmp_path / "hf"), "--raw", "--prompt", "", "--temperature", "0"])
    assert capsys.readouterr().out == (stories / "expected_greedy.txt").read_text() + "\n"


MEASURE = """
import json, sys
from pathlib import Path
from llamaherd.core.config import build
from llamaherd.core.device import set_threads
from llamaherd.stages import convert
set_threads(1)
def bytes_of(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(field))
def go(model, out):
    convert.run(build(convert.ConvertConfig, {"model": model, **json.loads(sys.argv[4])}), Path(out))
small, large, out = sys.argv[1:4]
go(small, out + "-small")
Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
before = bytes_of("VmRSS")
go(large, out)
print(bytes_of("VmHWM") - before)
"""
LARGE = ModelConfig(dim=512, layers=12, heads=8, ffn=2048, vocab_size=344, context=64)
LARGEST_BYTES = 512 * 2048 * 4


@pytest.fixture(scope="module")
def large(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A model of many times its largest weight, in any format."""
    assert LARGE.parameters * 4 > 40 * LARGEST_BYTES
    place = tmp_path_factory.mktemp("large")
    save_model(randomised(LARGE, torch.float32), tokenizer, place / "hf")
    return lambda to: place / to if (place / to).exists() else run(place / "hf", place / to, to)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is measured as Linux reports it")
@pytest.mark.parametrize(
    ("source", "settings"),
    [
        ("hf", {"to": "meta", "shards": 2}),
        ("hf", {"to": "llama2c"}),
        ("meta", {"to": "hf"}),
        ("llama2c", {"to": "hf", "dtype": "bfloat16"}),
    ],
    ids=["hf-meta", "hf-llama2c", "meta-hf", "llama2c-hf"],
)
def test_memory_is_that_of_the_largest_weights(
    source: str, settings: dict[str, Any], large: Callable[[str], Path], form: Callable[..., Path], tmp_path: Path
) -> None:
    small = run(form("all heads"), tmp_path / "small", source)
    command = [sys.executable, "-c", MEASURE, str(small), str(large(source)), str(tmp_path / "out"), json.dumps(settings)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    grown = int(done.stdout) / LARGEST_BYTES
    print(f"{source} to {settings['to']}: memory grew by {grown:.1f} times the largest weight")
    assert 0.5 < grown < 6  # the model has forty times as much
