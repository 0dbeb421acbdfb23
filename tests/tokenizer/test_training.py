import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaherd.core.config import ConfigError, build
from llamaherd.core.errors import UserError
from llamaherd.tokenizer.sentencepiece import Tokenizer
from llamaherd.tokenizer.training import TokenizerConfig, sentences, train_tokenizer

CORPUS = ["the llama and the herd\nthe herd and the llama", "the other herd has 1234 llamas    and one shepherd"] * 20
CONFIG = TokenizerConfig(vocab_size=300)


def pieces(tokenizer: Tokenizer) -> list[str]:
    return [tokenizer.piece(id) for id in range(tokenizer.vocab_size)]


def test_two_trainings_give_one_tokenizer():
    first, second = train_tokenizer(CORPUS, CONFIG), train_tokenizer(CORPUS, CONFIG)
    assert first.model == second.model
    assert first.vocab_size == 300


def test_settings_of_the_paper_show_in_the_pieces():
    tokenizer = train_tokenizer(CORPUS, CONFIG)
    assert "▁the" in pieces(tokenizer)
    assert "▁▁" in pieces(tokenizer)
    assert [tokenizer.piece(id) for id in tokenizer.encode("1234")] == ["▁", "1", "2", "3", "4"]
    assert [tokenizer.piece(id) for id in tokenizer.encode("the\nQ")] == ["▁the", "<0x0A>", "<0x51>"]
    assert not any("▁" in piece.lstrip("▁") for piece in pieces(tokenizer))


def test_pieces_are_not_longer_than_asked():
    long = train_tokenizer(["internationally " * 50], TokenizerConfig(vocab_size=295))
    short = train_tokenizer(["internationally " * 50], TokenizerConfig(vocab_size=295, max_piece_length=4))
    assert "▁internationally" in pieces(long)
    assert max(len(piece) for piece in pieces(short)[259:]) == 4


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]):
    train_tokenizer(CORPUS, CONFIG)
    assert capfd.readouterr() == ("", "")


def test_sentences_are_lines_cut_at_spaces():
    assert list(sentences(["one\n\ntwo", "three"], 100)) == ["one", "two", "three"]
    assert list(sentences(["aaa bbb ccc ddd"], 7)) == ["aaa bbb", "ccc ddd"]
    assert list(sentences(["aaa bbb ccc ddd"], 6)) == ["aaa", "bbb", "ccc", "ddd"]
    assert list(sentences(["ééééé"], 5)) == ["éé", "éé", "é"]
    assert list(sentences(["", "\n"], 5)) == []


@given(text=st.text(alphabet="ab é😀", max_size=60), limit=st.integers(4, 20))
def test_cutting_keeps_every_character_and_the_limit(text: str, limit: int):
    cut = list(sentences([text], limit))
    assert "".join(cut).replace(" ", "") == text.replace(" ", "")
    assert all(len(sentence.encode()) <= limit for sentence in cut)


def test_long_lines_count_as_much_as_short_ones():
    line = "zebra quagga okapi " * 400
    many, one = (
        TokenizerConfig(vocab_size=290, max_sentence_bytes=64),
        TokenizerConfig(vocab_size=290, max_sentence_bytes=100_000),
    )
    assert pieces(train_tokenizer([line], many)) == pieces(train_tokenizer([line], one))
    assert pieces(train_tokenizer([line], many)) == pieces(train_tokenizer(["zebra quagga okapi"] * 400, one))


def test_the_trainers_own_mark_does_not_hide_a_line():
    tokenizer = train_tokenizer(["zebra zebra ▅ zebra"] * 10, TokenizerConfig(vocab_size=275))
    assert "▁zebra" in pieces(tokenizer)
    assert tokenizer.decode(tokenizer.encode("zebra ▅")) == "zebra ▅"


def test_a_vocabulary_that_does_not_fit_is_explained():
    with pytest.raises(UserError, match=r"vocab_size 5000: this corpus gives at most \d+ pieces") as most:
        train_tokenizer(CORPUS, TokenizerConfig(vocab_size=5000))
    with pytest.raises(UserError, match=r"vocab_size 262: this corpus needs at least \d+ pieces") as least:
        train_tokenizer(CORPUS, TokenizerConfig(vocab_size=262))
    assert "\n" not in f"{most.value}{least.value}"


@pytest.mark.parametrize("which", ["most", "least"])
def test_the_number_in_the_explanation_works(which: str):
    given_size = {"most": 5000, "least": 262}[which]
    with pytest.raises(UserError) as error:
        train_tokenizer(CORPUS, TokenizerConfig(vocab_size=given_size))
    named = int(str(error.value).split(f"at {which} ")[1].split()[0])
    assert train_tokenizer(CORPUS, TokenizerConfig(vocab_size=named)).vocab_size == named


@pytest.mark.parametrize("texts", [[], [""], ["\n", ""]])
def test_an_empty_corpus_is_refused(texts: list[str]):
    with pytest.raises(UserError, match="the corpus is empty"):
        train_tokenizer(texts, CONFIG)


def test_lone_surrogates_in_the_corpus_are_refused():
    with pytest.raises(UserError, match="lone surrogate"):
        train_tokenizer([*CORPUS, "\udc00"], CONFIG)


def test_impossible_settings_are_listed():
    with pytest.raises(ConfigError) as error:
        build(TokenizerConfig, {"vocab_size": 259, "character_coverage": 0.5})
    assert len(error.value.problems) == 2
