"""Adapter folders, both ways: peft loads ours and gives our logits, we load peft's; the rest is refused by its name."""

import json
import shutil
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from llamaherd.checkpoints.huggingface import load_model, save_model
from llamaherd.checkpoints.peft import CONFIG, TENSORS, AdapterFiles, lay_over, read_adapter
from llamaherd.core.errors import UserError
from llamaherd.core.seeds import torch_rng
from llamaherd.model.config import LoraConfig, ModelConfig
from llamaherd.model.lora import add_adapter, changes_of, new_changes, switch
from llamaherd.model.transformer import Transformer
from llamaherd.tokenizer.sentencepiece import Tokenizer

SETTINGS = {
    "all": LoraConfig(r=4, alpha=8),
    "two, rank-stabilised": LoraConfig(r=3, alpha=1.5, rslora=True, dropout=0.1, layers=("wq", "wv")),
    "head": LoraConfig(r=2, alpha=6, layers=("w2", "output")),
}
each_setting = pytest.mark.parametrize("config", SETTINGS.values(), ids=SETTINGS)


@pytest.fixture(scope="module")
def base(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    shape = ModelConfig(dim=32, layers=2, heads=4, kv_heads=2, ffn=56, vocab_size=tokenizer.vocab_size, context=64)
    model = Transformer(shape)
    for name, weight in model.named_parameters():
        weight.data.normal_(1.0 if weight.ndim == 1 else 0.0, 0.2, generator=torch_rng(0, name))
    folder = tmp_path_factory.mktemp("peft") / "base"
    save_model(model, tokenizer, folder)
    return folder


def with_adapter(base: Path, config: LoraConfig, seed: int = 0) -> Transformer:
    model, _ = load_model(base)
    new = new_changes(model, config, seed)
    changes = {path: (a, torch.randn(b.shape, generator=torch_rng(seed, path)) * 0.2) for path, (a, b) in new.items()}
    add_adapter(model, "one", changes, config.scale)
    return model


def write(base: Path, config: LoraConfig, folder: Path, seed: int = 0) -> Transformer:
    model = with_adapter(base, config, seed)
    AdapterFiles(model, "one", config, str(base)).save(folder)
    return model


def theirs_at(base: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)


def tokens() -> Tensor:
    return torch.randint(3, 300, (2, 30), generator=torch_rng(0, "tokens"))


def close(ours: Tensor, theirs: Tensor) -> bool:
    return bool((ours - theirs).abs().max() <= 1e-5 * theirs.abs().max())


@each_setting
def test_peft_loads_ours_and_gives_the_same_logits(base: Path, config: LoraConfig, tmp_path: Path) -> None:
    ours = write(base, config, tmp_path / "adapter")
    theirs = peft.PeftModel.from_pretrained(theirs_at(base), tmp_path / "adapter").eval()
    logits = theirs(tokens()).logits
    assert close(ours(tokens()), logits)
    with theirs.disable_adapter():
        assert (theirs(tokens()).logits - logits).abs().max() > 0.1, "the adapter was not loaded"


@each_setting
def test_we_load_peft_s(base: Path, config: LoraConfig, tmp_path: Path) -> None:
    names = {"wq": "q_proj", "wv": "v_proj", "w2": "down_proj", "output": "lm_head"}
    targets = "all-linear" if config.layers == "all" else [names[name] for name in config.layers]
    settings = peft.LoraConfig(
        r=config.r, lora_alpha=config.alpha, use_rslora=config.rslora, lora_dropout=config.dropout, target_modules=targets,
        init_lora_weights=False, task_type="CAUSAL_LM",
    )  # fmt: skip
    torch.manual_seed(0)
    theirs = peft.get_peft_model(theirs_at(base), settings).eval()
    theirs.save_pretrained(tmp_path / "adapter")
    ours, _ = load_model(base)
    plain = ours(tokens())
    adapter = read_adapter(tmp_path / "adapter")
    assert adapter.whole == (config.layers != "all"), "all-linear is a pattern, which blocks it takes is said by its tensors"
    assert adapter.base == str(base)
    lay_over(ours, "theirs", adapter)
    assert close(ours(tokens()), theirs(tokens()).logits)
    assert (ours(tokens()) - plain).abs().max() > 0.1


def test_a_weight_of_the_base_that_comes_along_must_be_the_base_s(base: Path, tmp_path: Path) -> None:
    settings = peft.LoraConfig(r=2, target_modules=["lm_head"], init_lora_weights=False)
    theirs = peft.get_peft_model(theirs_at(base), settings)
    theirs.base_model.model.lm_head.base_layer.weight.data[5, 5] += 1
    theirs.save_pretrained(tmp_path / "adapter")
    adapter = read_adapter(tmp_path / "adapter")
    for load in (lambda: lay_over(load_model(base)[0], "one", adapter), lambda: load_model(tmp_path / "adapter")):
        with pytest.raises(UserError, match=r"comes with output.weight of its own, which is not the base's"):
            load()


def test_peft_s_adapter_to_some_blocks(base: Path, tmp_path: Path) -> None:
    settings = peft.LoraConfig(r=2, target_modules=["q_proj"], layers_to_transform=[1], init_lora_weights=False)
    theirs = peft.get_peft_model(theirs_at(base), settings).eval()
    theirs.save_pretrained(tmp_path / "adapter")
    ours, _ = load_model(base)
    lay_over(ours, "theirs", read_adapter(tmp_path / "adapter"))
    assert list(changes_of(ours, "theirs")) == ["layers.1.attention.wq"]
    assert close(ours(tokens()), theirs(tokens()).logits)


def test_several_on_one_base_answer_as_peft_s(base: Path, tmp_path: Path) -> None:
    for seed, config in enumerate(SETTINGS.values()):
        write(base, config, tmp_path / str(seed), seed)
    ours, _ = load_model(base)
    theirs = peft.PeftModel.from_pretrained(theirs_at(base), tmp_path / "0", adapter_name="a0").eval()
    for seed in range(3):
        lay_over(ours, f"a{seed}", read_adapter(tmp_path / str(seed)))
        if seed:
            theirs.load_adapter(tmp_path / str(seed), adapter_name=f"a{seed}")
    for name in ("a1", "a2", "a0"):
        switch(ours, name)
        theirs.set_adapter(name)
        assert close(ours(tokens()), theirs(tokens()).logits), name


@each_setting
def test_what_is_written_is_read_back(base: Path, config: LoraConfig, tmp_path: Path) -> None:
    ours = write(base, config, tmp_path / "adapter")
    read = read_adapter(tmp_path / "adapter")
    assert set(read.config.names) == set(config.names)
    assert (read.config.r, read.config.scale, read.config.dropout) == (config.r, config.scale, config.dropout)
    for path, change in changes_of(ours, "one").items():
        assert read.changes[path][0].equal(change.a.detach())
        assert read.changes[path][1].equal(change.b.detach())
    assert sorted(path.name for path in (tmp_path / "adapter").iterdir()) == [CONFIG, TENSORS]


def test_a_folder_that_the_disk_damaged_is_found_after_writing(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, config = with_adapter(base, SETTINGS["all"]), SETTINGS["all"]
    files = AdapterFiles(model, "one", config, str(base))
    from llamaherd.checkpoints import peft as module

    def half(tensors: dict[str, Tensor], path: Path) -> None:
        save_file({name: value.detach() / 2 for name, value in tensors.items()}, path)

    monkeypatch.setattr(module, "save_tensors", half)
    with pytest.raises(OSError, match="was not written as it is in memory; the disk may be failing"):
        files.save(tmp_path / "adapter")


def changed(folder: Path, **values: Any) -> None:
    settings = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(settings | values))


REFUSED = [
    ({"use_dora": True}, "use_dora is 'True', which is not supported"),
    ({"bias": "all"}, "bias is 'all'"),
    ({"modules_to_save": ["embed_tokens"]}, "modules_to_save is"),
    ({"rank_pattern": {"q_proj": 8}}, "rank_pattern is"),
    ({"alpha_pattern": {"q_proj": 8}}, "alpha_pattern is"),
    ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa'"),
    ({"fan_in_fan_out": True}, "fan_in_fan_out is 'True'"),
    ({"some_later_feature": {"x": 1}}, "some_later_feature is"),
    ({"peft_type": "LOHA"}, "peft_type is 'LOHA'; expected LORA"),
    ({"target_modules": ["q_proj", "embed_tokens"]}, "target_modules names embed_tokens, which is not a linear layer"),
    ({"target_modules": None}, "target_modules is 'None'; expected names"),
    ({"r": "four"}, "r: given"),
    ({"r": 5}, r"has A \[4, \d+\] and B \[\d+, 4\]; adapter_config.json says rank 5"),
    ({"lora_alpha": None}, "alpha: given null"),
]


@pytest.mark.parametrize(("values", "expected"), REFUSED)
def test_settings_beyond_plain_lora_are_refused_by_name(base: Path, values: dict[str, Any], expected: str, tmp_path: Path) -> None:
    write(base, SETTINGS["all"], tmp_path / "adapter")
    changed(tmp_path / "adapter", **values)
    with pytest.raises(UserError, match=expected) as found:
        read_adapter(tmp_path / "adapter")
    assert "\n" not in str(found.value)


PREFIX = "base_model.model.model.layers.0.self_attn.q_proj"
DAMAGED = [
    ({f"{PREFIX}.lora_A.weight": None}, "layers.0.attention.wq has no A; get the whole adapter again"),
    ({f"{PREFIX}.lora_magnitude_vector.weight": torch.ones(32)}, "DoRA, which is not supported"),
    ({f"{PREFIX}.bias": torch.ones(32)}, "a bias, which is not supported"),
    ({"base_model.model.model.embed_tokens.lora_embedding_A": torch.ones(4, 4)}, "an embedding's adapter, which is not supported"),
    ({"base_model.model.model.layers.0.mlp.q_proj.lora_A.weight": torch.ones(4, 32)}, "which is no layer of Llama's"),
    ({"lora_A.weight": torch.ones(4, 4)}, "a tensor that is no A or B"),
    ({f"{PREFIX}.lora_A.weight": torch.full((4, 32), float("nan"))}, "holds values that are not finite numbers"),
    ({f"{PREFIX}.lora_A.weight": torch.ones(4, 32, dtype=torch.int8)}, "holds values that are not finite numbers"),
    ({f"{PREFIX}.lora_A.weight": torch.ones(4)}, r"has A \[4\]"),
]


@pytest.mark.parametrize(("values", "expected"), DAMAGED)
def test_tensors_that_are_not_whole_plain_lora(base: Path, values: dict[str, Tensor | None], expected: str, tmp_path: Path) -> None:
    write(base, SETTINGS["all"], tmp_path / "adapter")
    tensors = load_file(tmp_path / "adapter" / TENSORS) | values
    save_file({name: value for name, value in tensors.items() if value is not None}, tmp_path / "adapter" / TENSORS)
    with pytest.raises(UserError, match=expected) as found:
        read_adapter(tmp_path / "adapter")
    assert "\n" not in str(found.value)


def test_files_that_are_missing_or_damaged(base: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    write(base, SETTINGS["all"], adapter)
    content = (adapter / TENSORS).read_bytes()
    with pytest.raises(UserError, match="holds no adapter_config.json"):
        read_adapter(base)
    (adapter / TENSORS).write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"adapter_model.safetensors: damaged or not safetensors"):
        read_adapter(adapter)
    (adapter / TENSORS).unlink()
    (adapter / "adapter_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(UserError, match=r"adapter_model.bin is a pickle and is not read, save the adapter as safetensors"):
        read_adapter(adapter)
    (adapter / CONFIG).write_text("[]")
    with pytest.raises(UserError, match="holds a list; expected the settings of a PEFT adapter"):
        read_adapter(adapter)


def test_an_adapter_for_another_base(base: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    shape = ModelConfig(dim=32, layers=2, heads=4, kv_heads=2, ffn=56, vocab_size=tokenizer.vocab_size, context=64)
    write(base, LoraConfig(r=2), tmp_path / "adapter")
    adapter = read_adapter(tmp_path / "adapter")
    for values, expected in (
        ({"layers": 3}, "changes no layers.2.attention.wk, which this model of 3 layers has"),
        ({"layers": 1}, "changes layers.1.*, which a model of 1 layers does not have"),
        ({"kv_heads": 4}, r"wk has A \[2, 32\] and B \[16, 2\], the base's layer is \[32, 32\]"),
    ):
        with pytest.raises(UserError, match=expected) as found:
            lay_over(Transformer(shape.model_copy(update=values)), "one", adapter)
        assert "made for another base" in str(found.value)
        assert "\n" not in str(found.value)
    shutil.rmtree(tmp_path / "adapter")
