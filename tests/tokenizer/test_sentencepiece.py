from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaherd.core.errors import UserError
from llamaherd.tokenizer.sentencepiece import TextStream, Tokenizer
from llamaherd.tokenizer.training import TokenizerConfig, train_tokenizer

CORPUS = [
    "The quick brown fox jumps over the lazy dog.\nIt was 1984, and 23 llamas grazed in the field.",
    "[INST] Where does Ada live? [/INST] Ada lives in Lima. ",
    "def add(a, b):\n    return a + b\n" * 3,
    "Grüße aus Köln, naïve café, 東京 и Москва.",
]
AWKWARD = [
    "", " ", "  ", "   x", "x   ", " a  b ", "\n", "\n\n", "\t", "\r\n", "\0", "a\0b", "😀", "👩‍🚀", "<s>", "</s>", "<unk>",
    "<0x0A>", "<s> </s>", "[INST] a [/INST]", "<<SYS>>", "\ufeff", "\uffff", "\U0010ffff", "é", "e\u0301", "▅", "⁇", " ⁇ ",
]  # fmt: skip

texts = st.lists(st.one_of(st.text(max_size=20), st.sampled_from(AWKWARD)), max_size=5).map("".join)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(CORPUS, TokenizerConfig(vocab_size=380, character_coverage=1.0))


def test_ids_of_the_three_symbols_and_of_bytes(tokenizer: Tokenizer):
    assert (tokenizer.unk_id, tokenizer.bos_id, tokenizer.eos_id) == (0, 1, 2)
    assert [tokenizer.piece(id) for id in (0, 1, 2, 3, 13, 258)] == ["<unk>", "<s>", "</s>", "<0x00>", "<0x0A>", "<0xFF>"]
    assert [tokenizer.byte(id) for id in (2, 3, 13, 258, 259)] == [None, 0, 10, 255, None]
    assert [tokenizer.is_control(id) for id in (0, 1, 2, 3)] == [False, True, True, False]


@pytest.mark.parametrize("text", AWKWARD)
def test_awkward_texts_come_back(tokenizer: Tokenizer, text: str):
    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(text=texts)
def test_any_text_comes_back_and_never_gives_a_symbol(tokenizer: Tokenizer, text: str):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text.replace("\u2581", " ")
    assert not {tokenizer.unk_id, tokenizer.bos_id, tokenizer.eos_id} & set(ids)


def test_the_mark_of_a_space_is_a_space(tokenizer: Tokenizer):
    assert tokenizer.encode("a\u2581b") == tokenizer.encode("a b")
    assert tokenizer.decode(tokenizer.encode("a\u2581b")) == "a b"


def test_control_ids_say_nothing(tokenizer: Tokenizer):
    ids = [1, *tokenizer.encode("The fox"), 2]
    assert tokenizer.decode(ids) == "The fox"


def test_many_texts_at_once(tokenizer: Tokenizer):
    assert tokenizer.encode_many(AWKWARD) == [tokenizer.encode(text) for text in AWKWARD]


def test_lone_surrogates_are_refused(tokenizer: Tokenizer):
    for call in (lambda: tokenizer.encode("ab\ud83d"), lambda: tokenizer.encode_many(["", "ab\ud83d"])):
        with pytest.raises(UserError, match=r"U\+D83D, character 3"):
            call()


def test_foreign_ids_are_refused(tokenizer: Tokenizer):
    with pytest.raises(UserError, match="id 999 is none of this tokenizer's 380"):
        tokenizer.decode([5, 999])


def test_saved_and_loaded(tokenizer: Tokenizer, tmp_path: Path):
    tokenizer.save(tmp_path)
    again = Tokenizer.load(tmp_path)
    assert again.hash == tokenizer.hash == Tokenizer.load(tmp_path / "tokenizer.model").hash
    assert again.encode("Where is Ada?") == tokenizer.encode("Where is Ada?")


def test_what_cannot_be_loaded_is_named(tokenizer: Tokenizer, tmp_path: Path):
    with pytest.raises(UserError, match="found no file of that kind"):
        Tokenizer.load(tmp_path)
    (tmp_path / "a.model").write_bytes(b"junk")
    with pytest.raises(UserError, match=r"a\.model: is not a SentencePiece model"):
        Tokenizer.load(tmp_path)
    (tmp_path / "b.model").write_bytes(b"")
    with pytest.raises(UserError, match=r"found a\.model, b\.model"):
        Tokenizer.load(tmp_path)
    with pytest.raises(UserError, match=r"b\.model: is not a SentencePiece model"):
        Tokenizer.load(tmp_path / "b.model")
    with pytest.raises(UserError, match="No such file"):
        Tokenizer.load(tmp_path / "none.model")


def streamed(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    stream = TextStream(tokenizer)
    return [*(stream.feed(id) for id in ids), stream.close()]


def test_a_character_of_several_bytes_comes_whole(tokenizer: Tokenizer):
    llama = [byte + 3 for byte in "🦙".encode()]
    assert streamed(tokenizer, llama) == ["", "", "", "🦙", ""]
    assert streamed(tokenizer, llama[:2]) == ["", "", "\ufffd\ufffd"]
    assert streamed(tokenizer, [*llama[:2], 13]) == ["", "", "\ufffd\ufffd\n", ""]


@given(text=texts)
def test_streamed_text_is_the_text(tokenizer: Tokenizer, text: str):
    assert "".join(streamed(tokenizer, tokenizer.encode(text))) == text.replace("\u2581", " ")


@given(ids=st.lists(st.one_of(st.integers(0, 379), st.integers(3, 258), st.sampled_from([0, 1, 2])), max_size=40))
def test_streaming_any_ids_equals_decoding_them(tokenizer: Tokenizer, ids: list[int]):
    assert "".join(streamed(tokenizer, ids)) == tokenizer.decode(ids)


def test_the_released_tokenizer_on_its_conformance_cases(llama2: Tokenizer, data: Path):
    folder = data / "tokenizer/llama2"
    cases = (folder / "spm_cases.inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")
    expected = [[int(id) for id in line.split()] for line in (folder / "spm_cases.out").read_text().splitlines()]
    assert cases.pop() == ""
    assert len(cases) == len(expected) == 46
    for text, ids in zip(cases, expected):
        assert llama2.encode(text) == ids
        assert llama2.decode(ids) == text


def test_shape_of_the_released_tokenizer(llama2: Tokenizer):
    assert (llama2.vocab_size, llama2.unk_id, llama2.bos_id, llama2.eos_id) == (32_000, 0, 1, 2)
    assert llama2.prefixes_space


@given(text=texts)
def test_round_trip_of_the_released_tokenizer(llama2: Tokenizer, text: str):
    ids = llama2.encode(text)
    assert llama2.decode(ids) == text.replace("\u2581", " ")
    assert not {0, 1, 2} & set(ids)
