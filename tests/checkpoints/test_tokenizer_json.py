import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaherd.chat.dialogue import Message, checked
from llamaherd.chat.template import encode_dialogue, encode_prompt, pair_texts
from llamaherd.checkpoints.tokenizer_json import merges, write_tokenizer_files
from llamaherd.core.errors import UserError
from llamaherd.tokenizer.sentencepiece import Tokenizer
from llamaherd.tokenizer.training import TokenizerConfig, train_tokenizer

TALK = checked(
    [
        Message("system", "Always answer with a number.\n"),
        Message("user", "  How many llamas are there? "),
        Message("assistant", " 23 llamas.\n"),
        Message("user", "And  alpacas, naïvely counted? 😀"),
        Message("assistant", "4"),
    ]
)
FRAGMENTS = [
    " ", "  ", "   ", "      ", "\n", "\n\n", "\t", "\0", "1984", "3 14", "llama", "lala", "lalala", "Llamas", "aaa", "aaaa",
    "ababa", "é", "e\u0301", "漢字", "😀", "\u2581", "<0x0A>", "[INST]", "<<SYS>>", "....", "====", "(())", "the", " the",
]  # fmt: skip

texts = st.lists(st.one_of(st.text(max_size=10), st.sampled_from(FRAGMENTS)), max_size=10).map("".join)
texts = texts.filter(lambda text: not any(name in text for name in ("<s>", "</s>", "<unk>")))


def written(tokenizer: Tokenizer, folder: Path) -> Any:
    """The files, read by transformers."""
    transformers = pytest.importorskip("transformers")
    write_tokenizer_files(tokenizer, folder, context_tokens=64)
    return transformers.AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def small() -> Tokenizer:
    lines = ["the llama says lalala and aaaa ababa", "    return (llama == 1984)", "漢字 is not kana", *pair_texts(TALK)]
    return train_tokenizer(lines * 5, TokenizerConfig(vocab_size=420))


@pytest.fixture(scope="module")
def small_twin(small: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return written(small, tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def llama2(data: Path) -> Tokenizer:
    return Tokenizer.load(data / "tokenizer/llama2")


@pytest.fixture(scope="module")
def llama2_twin(llama2: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return written(llama2, tmp_path_factory.mktemp("llama2"))


@given(text=texts)
def test_transformers_gives_the_same_ids_and_text(small: Tokenizer, small_twin: Any, text: str):
    ids = small.encode(text)
    assert small_twin(text, add_special_tokens=False)["input_ids"] == ids
    assert small_twin.decode(ids, skip_special_tokens=True) == small.decode(ids)


@given(text=texts)
def test_transformers_gives_the_ids_of_the_released_tokenizer(llama2: Tokenizer, llama2_twin: Any, text: str):
    assert llama2_twin(text, add_special_tokens=False)["input_ids"] == llama2.encode(text)


@pytest.fixture(scope="module")
def joining(data: Path) -> Tokenizer:
    """Trained with SentencePiece's own defaults: of several spaces it reads one."""
    return Tokenizer.load(data / "models/stories260K/tok512.model")


@pytest.fixture(scope="module")
def joining_twin(joining: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return written(joining, tmp_path_factory.mktemp("joining"))


@given(text=texts)
def test_transformers_gives_the_ids_of_a_tokenizer_that_joins_spaces(joining: Tokenizer, joining_twin: Any, text: str):
    assert joining_twin(text, add_special_tokens=False)["input_ids"] == joining.encode(text)


def test_which_tokenizers_join_spaces(joining: Tokenizer, llama2: Tokenizer, small: Tokenizer):
    assert (joining.joins_spaces, llama2.joins_spaces, small.joins_spaces) == (True, False, False)
    assert joining.encode("  a   b ") == joining.encode("a b")


def test_begin_is_added_and_the_symbols_are_known(small: Tokenizer, small_twin: Any):
    assert small_twin("the llama")["input_ids"] == [1, *small.encode("the llama")]
    assert (small_twin.bos_token_id, small_twin.eos_token_id, small_twin.unk_token_id) == (1, 2, 0)
    assert small_twin.model_max_length == 64
    assert len(small_twin) == small.vocab_size


@pytest.mark.parametrize("size", ["small", "llama2"])
def test_the_chat_template_gives_the_ids_of_training_and_prompting(size: str, request: pytest.FixtureRequest):
    tokenizer, twin = request.getfixturevalue(size), request.getfixturevalue(f"{size}_twin")

    def ids(dialogue: Any) -> list[int]:
        return twin.apply_chat_template(dialogue.to_row()["messages"], tokenize=True, return_dict=False)

    assert ids(TALK) == encode_dialogue(TALK, tokenizer).ids
    assert ids(TALK.prompt) == encode_prompt(TALK.prompt, tokenizer)
    assert ids(TALK.with_system(None)) == encode_dialogue(TALK.with_system(None), tokenizer).ids


def test_the_chat_template_refuses_tags(small_twin: Any):
    with pytest.raises(Exception, match="template tag"):
        small_twin.apply_chat_template([{"role": "user", "content": "a [/INST] b"}])


def test_transformers_reads_symbols_in_text_as_control_ids_and_we_do_not(small: Tokenizer, small_twin: Any):
    assert 2 in small_twin("a</s>b", add_special_tokens=False)["input_ids"]
    assert 2 not in small.encode("a</s>b")


def test_a_model_folder_loads_too(small: Tokenizer, tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}))
    twin = written(small, tmp_path)
    prompt = encode_prompt(TALK.prompt, small)
    assert twin.apply_chat_template(TALK.prompt.to_row()["messages"], tokenize=True, return_dict=False) == prompt


def test_our_own_files_load_again(small: Tokenizer, tmp_path: Path):
    write_tokenizer_files(small, tmp_path)
    assert Tokenizer.load(tmp_path).hash == small.hash
    names = {"tokenizer.model", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"}
    assert {path.name for path in tmp_path.iterdir()} == names


def test_merges_join_existing_pieces_best_first(small: Tokenizer):
    pieces = {small.piece(id): id for id in range(small.vocab_size)}
    joined = [pieces[left + right] for left, right in merges(small)]
    assert joined == sorted(joined)
    assert {id for id in pieces.values() if id > 258 and len(small.piece(id)) > 1} == set(joined)


def test_other_kinds_of_models_are_refused(data: Path, tmp_path: Path):
    unigram = Tokenizer.load(data / "tokenizer/small")
    with pytest.raises(UserError, match="not of type BPE"):
        write_tokenizer_files(unigram, tmp_path)
    assert list(tmp_path.iterdir()) == []
