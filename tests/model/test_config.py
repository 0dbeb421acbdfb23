import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaherd.core.config import ConfigError, build
from llamaherd.core.errors import UserError
from llamaherd.model.config import PRESETS, ModelConfig, preset
from llamaherd.model.transformer import on_meta

PAPER = {  # section 1: heads, key-value heads, width, inner width, parameters
    "llama2-7b": (32, 32, 4096, 11008, 6_738_415_616),
    "llama2-13b": (40, 40, 5120, 13824, 13_015_864_320),
    "llama2-34b": (64, 8, 8192, 22016, 33_743_970_304),
    "llama2-70b": (64, 8, 8192, 28672, 68_976_648_192),
}


@pytest.mark.parametrize("name", PAPER)
def test_presets_have_the_papers_shape(name: str) -> None:
    config = preset(name)
    assert (config.heads, config.kv, config.dim, config.ffn_width, config.parameters) == PAPER[name]
    assert (config.context, config.vocab_size, config.head_size, config.tied) == (4096, 32000, 128, False)


@pytest.mark.parametrize("name", PRESETS)
def test_parameters_are_those_of_the_model(name: str) -> None:
    model = on_meta(PRESETS[name])
    assert sum(weight.numel() for weight in model.parameters()) == PRESETS[name].parameters


def test_a_model_on_meta_takes_no_memory() -> None:
    model = on_meta(PRESETS["llama2-70b"])
    assert {weight.device.type for weight in [*model.parameters(), *model.buffers()]} == {"meta"}


@pytest.mark.parametrize(("dim", "ffn"), [(288, 768), (512, 1376), (768, 2048)])
def test_inner_widths_of_the_stories_models(dim: int, ffn: int) -> None:
    assert ModelConfig(dim=dim, heads=8, multiple_of=32).ffn_width == ffn


@given(dim=st.integers(8, 9000), multiple=st.integers(1, 5000))
def test_inner_width_is_the_next_multiple(dim: int, multiple: int) -> None:
    width = ModelConfig(dim=dim, heads=1, head_dim=2, multiple_of=multiple).ffn_width
    assert width % multiple == 0
    assert width - multiple < 8 * dim // 3 <= width


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"dim": 100, "heads": 3}, "dim 100 is not a multiple of heads 3"),
        ({"dim": 12, "heads": 4, "kv_heads": 4}, "head size 3 is odd"),
        ({"head_dim": 7}, "head size 7 is odd"),
        ({"heads": 32, "kv_heads": 5}, "heads 32 is not a multiple of kv_heads 5"),
        ({"heads": 32, "kv_heads": 64}, "heads 32 is not a multiple of kv_heads 64"),
        ({"layers": 0}, "layers"),
        ({"dmi": 64}, "dmi"),
    ],
)
def test_problems_are_one_line_each(values: dict[str, int], said: str) -> None:
    with pytest.raises(ConfigError) as found:
        build(ModelConfig, values)
    assert len(found.value.problems) == 1
    assert said in found.value.problems[0]
    assert "\n" not in found.value.problems[0]


def test_both_shape_problems_are_listed() -> None:
    with pytest.raises(ConfigError, match=r"dim 100 .* heads 3.*kv_heads 2"):
        build(ModelConfig, {"dim": 100, "heads": 3, "kv_heads": 2})


def test_a_head_size_of_its_own_frees_the_width() -> None:
    config = ModelConfig(dim=100, heads=3, head_dim=8)
    assert config.head_size == 8


def test_unknown_preset_suggests_one() -> None:
    with pytest.raises(UserError, match="did you mean 'llama2-7b'"):
        preset("llama2-7B")


def test_training_flops() -> None:
    config = ModelConfig(dim=4, layers=1, heads=2, ffn=3, vocab_size=5)
    assert config.trunk_parameters == 4 * 4 * 4 + 3 * 4 * 3
    # Forward: 2 per weight and token; scores and mixing 2 each per head element and key, of which half are masked.
    forward = 2 * 100 + (2 + 2) * 4 * 10 / 2
    assert config.training_flops(tokens=7, document_tokens=10, wanted_tokens=7, outputs=0) == 3 * 7 * forward
    left_out = 4 * 2 * (4 * 4 + 3 * 4 * 3)  # the output of attention and the feed-forward of 4 tokens
    assert config.training_flops(tokens=7, document_tokens=10, wanted_tokens=3, outputs=5) == 3 * (7 * forward - left_out + 3 * 2 * 5 * 4)
