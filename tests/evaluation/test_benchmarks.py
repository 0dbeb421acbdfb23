"""Benchmarks with hand-made models that know the answers or nothing, rows of every form, and bits per byte by hand."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from llamaherd.core.errors import UserError
from llamaherd.core.files import write_rows
from llamaherd.data.documents import Document
from llamaherd.evaluation import benchmarks
from llamaherd.evaluation.benchmarks import Item, bits_figures, document_rows, drawn, figures, read_items, scored, story_items, verdict
from llamaherd.measures.intervals import rate
from llamaherd.model.config import ModelConfig
from llamaherd.model.transformer import Transformer
from llamaherd.tokenizer.sentencepiece import Tokenizer

HOMES = {"Ada": "Lima", "Ben": "Oslo", "Eva": "Rome", "Max": "Kyiv"}
CHOICES = {"query": "Where?", "choices": ["Lima", "Oslo"], "gold": 1}


class Words:
    """A tokenizer of which every word is a piece."""

    bos_id = 0
    vocab_size = 64

    def __init__(self) -> None:
        self.known: dict[str, int] = {}

    def encode(self, text: str) -> list[int]:
        return [self.known.setdefault(word, 1 + len(self.known)) for word in text.split()]


def follower(tokenizer: Any, follows: dict[str, str], strength: float = 10.0, context: int = 64) -> Transformer:
    """A model that looks at the last token alone, and knows what follows some words; all else is equally likely."""
    size = tokenizer.vocab_size
    model = Transformer(ModelConfig(dim=size, layers=1, heads=1, head_dim=2, ffn=2, vocab_size=size, context=context))
    for weight in model.parameters():
        weight.data.fill_(1.0 if weight.ndim == 1 else 0.0)
    model.tok_embeddings.weight.data = torch.eye(size)
    for before, after in follows.items():
        model.output.weight.data[tokenizer.encode(after)[0], tokenizer.encode(before)[-1]] = strength
    return model.eval()


@pytest.fixture
def words() -> Any:
    return Words()


def items() -> list[Item]:
    cities = list(HOMES.values())
    return [
        benchmarks.parse_choices("x", {"query": f"At home: {name}", "choices": cities, "gold": cities.index(city)})
        for name, city in HOMES.items()
    ]


@pytest.mark.parametrize(("strength", "right"), [(10.0, 4), (-10.0, 0)])
def test_a_model_that_knows_and_one_that_knows_better(words: Any, strength: float, right: int) -> None:
    rows = scored(follower(words, HOMES, strength), words, items(), 4096)
    assert sum(row["correct"] for row in rows) == sum(row["correct_per_character"] for row in rows) == right
    found = figures(items(), rows, normalised=True)
    assert (found["accuracy"]["value"], found["chance"], found["items"]) == (right / 4, 0.25, 4)
    assert found["verdict"] == "undecided", "four items decide nothing"


def test_log_probs_of_choices_by_hand(words: Any) -> None:
    """One token each: the city that follows has a logit of its own, all others have none."""
    (row,) = scored(follower(words, HOMES), words, items()[:1], 4096)
    logit = 10 / math.sqrt(1 / words.vocab_size + 1e-5)  # RMSNorm of a one-hot row
    total = logit + math.log(1 + (words.vocab_size - 1) * math.exp(-logit))
    assert row["log_probs"] == pytest.approx([logit - total, -total, -total, -total], abs=1e-3)
    assert (row["item"], row["gold"], row["cut"]) == ("x", 0, False)


def test_the_length_of_choices_counts_where_it_is_said_to(words: Any) -> None:
    """Where all tokens are equally likely two words are likelier than three, and three long ones likelier per character."""
    asked = benchmarks.parse_choices("x", {"query": "At home:", "choices": ["a b", "Constantinople is far"], "gold": 0})
    (row,) = scored(follower(words, {}), words, [asked], 4096)
    assert row["log_probs"] == pytest.approx([-2 * math.log(64), -3 * math.log(64)], rel=1e-5)
    assert (row["chosen"], row["correct"]) == (0, True)
    assert (row["chosen_per_character"], row["correct_per_character"]) == (1, False)


def test_of_equals_the_first_is_chosen(words: Any) -> None:
    asked = benchmarks.parse_choices("x", {"query": "At home:", "choices": ["Lima", "Oslo", "Rome"], "gold": 2})
    (row,) = scored(follower(words, {}), words, [asked], 4096)
    assert (row["chosen"], row["correct"]) == (0, False)


def test_what_is_to_be_said_is_said_or_not(words: Any) -> None:
    asked = [
        benchmarks.parse_continuation("x", {"context": f"At home: {name}", "continuation": city})
        for name, city in [*HOMES.items(), ("Ada", "Oslo")]
    ]
    rows = scored(follower(words, HOMES), words, asked, 4096)
    assert [row["correct"] for row in rows] == [True] * 4 + [False]
    found = figures(asked, rows, normalised=False)
    assert found["accuracy"]["value"] == 0.8
    assert found["chance"] == 0.4, "always Oslo is right twice of five times"
    nats = [-row["log_probs"][0] for row in rows]
    assert found["perplexity"]["value"] == pytest.approx(math.exp(sum(nats) / 5))
    assert found["perplexity"]["low"] < found["perplexity"]["value"] < found["perplexity"]["high"]


def test_the_majority_class_stands_beside_where_all_choices_are_the_same() -> None:
    asked = [
        benchmarks.parse_question("x", {"query": f"Question: {number}?", "choices": ["no", "yes"], "gold": int(number % 4 > 0)})
        for number in range(40)
    ]
    always = [{"item": "x", "gold": item.gold, "cut": False, "log_probs": [-2.0, -1.0], "correct": item.gold == 1} for item in asked]
    found = figures(asked, always, normalised=False)
    assert (found["chance"], found["majority"], found["accuracy"]["value"]) == (0.5, 0.75, 0.75)
    assert (found["verdict"], found["verdict_on_majority"]) == ("above chance", "undecided")
    mixed = [asked[0], benchmarks.parse_question("x", {"query": "Where?", "choices": ["here", "there"], "gold": 0})]
    assert "majority" not in figures(mixed, always[:2], normalised=False)


def test_verdicts_by_hand() -> None:
    assert verdict(rate(40, 50), 0.5, "chance") == "above chance"
    assert verdict(rate(10, 50), 0.5, "chance") == "below chance"
    assert verdict(rate(26, 50), 0.5, "chance") == "undecided", "too few to say"
    assert verdict(rate(2510, 5000), 0.5, "chance") == "at chance"
    assert verdict(rate(9, 9), 0.5, "chance") == "undecided", "fewer than ten decide nothing"
    assert verdict(rate(0, 0), 0.5, "chance") == "undecided"


def test_rows_of_each_form_by_hand() -> None:
    question = benchmarks.parse_question("x", {"query": "Question: Where?\n", "choices": ["Lima", "Oslo"], "gold": 1})
    assert question.pairs == (("Question: Where?\nAnswer:", " Lima"), ("Question: Where?\nAnswer:", " Oslo"))
    assert (question.gold, question.characters) == (1, (4, 4))
    options = {"context_options": ["Ada was late so Ada", "Ada was late so Ben"], "continuation": "ran.", "gold": 0}
    assert benchmarks.parse_options("x", options).pairs == (("Ada was late so Ada", " ran."), ("Ada was late so Ben", " ran."))
    said = benchmarks.parse_continuation("x", {"context": "She said", "continuation": "yes"})
    assert said.pairs == (("She said", " yes"),)
    own = {
        "activity_label": "Tea", "ctx_a": "Water [header] boils.", "ctx_b": "the cup", "endings": ["is  [substeps] full. ", "flies."],
        "label": 0,
    }  # fmt: skip
    assert benchmarks.parse_hellaswag("x", own).pairs[0] == ("Tea: Water boils. The cup", " is full.".replace("is full", "is  full"))
    assert benchmarks.parse_hellaswag("x", CHOICES).pairs == benchmarks.parse_choices("x", CHOICES).pairs


@pytest.mark.parametrize(
    ("task", "row", "problem"),
    [
        ("piqa", CHOICES | {"gold": 2}, 'expected "gold", the number of the right choice from 0 to 1, got 2'),
        ("piqa", CHOICES | {"gold": True}, 'expected "gold", the number of the right choice from 0 to 1, got True'),
        ("piqa", CHOICES | {"gold": "1"}, "expected \"gold\", the number of the right choice from 0 to 1, got '1'"),
        ("boolq", CHOICES | {"choices": ["yes"]}, "expected \"choices\", a list of two texts or more, got \\['yes'\\]"),
        ("arc-easy", CHOICES | {"choices": ["yes", " "]}, 'expected "choices", a list of two texts or more'),
        ("copa", {"choices": ["a", "b"], "gold": 0}, 'expected "query", a text, got None; the fields here are choices, gold'),
        ("lambada", {"context": "She said", "continuation": ""}, "expected \"continuation\", a text, got ''"),
        ("winogrande", CHOICES, 'expected "context_options", a list of two texts or more, got None'),
        ("hellaswag", {"endings": ["a", "b"], "ctx_a": "x", "label": 0}, 'expected "activity_label", a text'),
    ],
)
def test_a_row_of_another_form_is_refused_by_line(task: str, row: dict[str, Any], problem: str, tmp_path: Path) -> None:
    good: dict[str, dict[str, Any]] = {
        "lambada": {"context": "She said", "continuation": "yes"},
        "winogrande": {"context_options": ["a", "b"], "continuation": "c", "gold": 0},
    }
    write_rows(tmp_path / "rows.jsonl", [good.get(task, CHOICES), row])
    with pytest.raises(UserError, match=rf"rows\.jsonl line 2: {problem}"):
        read_items(task, tmp_path / "rows.jsonl")
    (tmp_path / "rows.jsonl").write_text("\n")
    with pytest.raises(UserError, match=r"rows\.jsonl: holds no item; expected rows of the task"):
        read_items(task, tmp_path / "rows.jsonl")


def test_what_is_cut_and_what_is_left_out_is_counted(words: Any) -> None:
    model = follower(words, HOMES, context=4)
    cities = list(HOMES.values())
    asked = [
        benchmarks.parse_choices("short", {"query": "Ada", "choices": cities, "gold": 0}),
        benchmarks.parse_choices("cut", {"query": "one and another and another: Ada", "choices": cities, "gold": 0}),
        benchmarks.parse_choices("out", {"query": "Ada", "choices": ["Lima", "Oslo and then Rome and then Kyiv"], "gold": 0}),
    ]
    rows = scored(model, words, asked, 4096)
    assert rows[2] == {"item": "out", "gold": 0, "too_long": True}
    assert [row["cut"] for row in rows[:2]] == [False, True]
    found = figures(asked, rows, normalised=False)
    assert (found["items"], found["cut"], found["too_long"], found["accuracy"]["value"]) == (2, 1, 1, 1.0)
    nothing = figures(asked[2:], rows[2:], normalised=True)
    assert (nothing["accuracy"]["value"], nothing["verdict"], nothing["items"]) == (None, "undecided", 0)


def test_stories_with_a_known_answer() -> None:
    """The ending that is its own says the right city after the name."""
    documents = [
        Document(f"It rains. The dog barks. The cat sleeps at home: {name} {city}. Good night.", "tinystories")
        for name, city in HOMES.items()
    ]
    found, short = story_items([*documents, Document("Too short. Really.", "tinystories"), Document("Not a story. " * 9, "novels")], 0)
    assert (len(found), short) == (4, 1)
    endings = {f" The cat sleeps at home: {name} {city}. Good night." for name, city in HOMES.items()}
    for item, (name, city) in zip(found, HOMES.items(), strict=True):
        assert {continuation for _, continuation in item.pairs} == endings, "all four endings, its own among them"
        assert {context for context, _ in item.pairs} == {"It rains. The dog barks."}
        assert item.pairs[item.gold][1] == f" The cat sleeps at home: {name} {city}. Good night."
    assert story_items(documents, 0)[0] == found
    many = [Document(f"One. Two {number}. Three {number}. Four.", "tinystories") for number in range(20)]
    golds = [[item.gold for item in story_items(many, seed)[0]] for seed in (0, 0, 1)]
    assert golds[0] == golds[1] != golds[2]
    assert set(golds[0]) == {0, 1, 2, 3}
    with pytest.raises(
        UserError, match='stories: 3 different endings in the held-out documents; expected at least 4 documents of source "t'
    ):
        story_items(documents[:3] * 5, 0)


def test_a_model_that_knows_how_stories_end(words: Any) -> None:
    """Beginnings end with a name, and what follows is its city."""
    documents = [Document(f"Hi. Hello. Who is {name}.\n\n{city} it is. Good.", "tinystories") for name, city in HOMES.items()]
    asked, _ = story_items(documents, 0)
    knows = {f"{name}.": city for name, city in HOMES.items()}
    for strength, right in ((10.0, 4), (-10.0, 0)):
        rows = scored(follower(words, knows, strength), words, asked, 4096)
        assert sum(row["correct"] for row in rows) == right


def test_a_subset_is_drawn_once_and_kept_in_order() -> None:
    some = drawn(range(100), 10, 0, "piqa")
    assert len(some) == 10
    assert some == sorted(some) == drawn(range(100), 10, 0, "piqa")
    assert some != drawn(range(100), 10, 1, "piqa")
    assert drawn(range(5), None, 0, "x") == drawn(range(5), 9, 0, "x") == [0, 1, 2, 3, 4]


TEXTS = ("Ada lives in Lima.", "Wörter, die kein Stück sind: \u4f60\u597d!", "Ben lives in Oslo. " * 30)


@pytest.fixture
def documents() -> list[Document]:
    return [Document(text, source) for text, source in zip(TEXTS, ("facts", "words", "facts"), strict=True)]


def test_bits_per_byte_of_a_uniform_model_by_hand(documents: list[Document], tokenizer: Tokenizer) -> None:
    model = follower(tokenizer, {}, context=32)
    rows = document_rows(model, tokenizer, documents, 4096)
    tokens = [len(tokenizer.encode(text)) for text in TEXTS]
    sizes = [len(text.encode()) for text in TEXTS]
    assert [(row["tokens"], row["bytes"]) for row in rows] == list(zip(tokens, sizes, strict=True))
    assert [row["windows"] for row in rows] == [-(-count // 32) for count in tokens]
    found = bits_figures(rows)
    bits = math.log2(tokenizer.vocab_size)
    assert found["bits_per_byte"]["value"] == pytest.approx(sum(tokens) * bits / sum(sizes), rel=1e-5)
    assert found["by_source"]["words"]["value"] == pytest.approx(tokens[1] * bits / sizes[1], rel=1e-5)
    assert found["by_source"]["facts"]["value"] == pytest.approx((tokens[0] + tokens[2]) * bits / (sizes[0] + sizes[2]), rel=1e-5)
    assert (found["documents"], found["bytes"], found["in_windows"]) == (3, sum(sizes), sum(row["windows"] > 1 for row in rows))
    assert found["bits_per_byte"]["low"] <= found["bits_per_byte"]["value"] <= found["bits_per_byte"]["high"]


class Letters:
    """A tokenizer of all texts over four letters, so many letters to a piece."""

    bos_id = 0

    def __init__(self, letters: int):
        self.letters = letters
        self.vocab_size = 1 + 4**letters

    def encode(self, text: str) -> list[int]:
        assert len(text) % self.letters == 0
        parts = [text[start : start + self.letters] for start in range(0, len(text), self.letters)]
        return [1 + sum("abcd".index(letter) * 4**place for place, letter in enumerate(part)) for part in parts]


def test_two_tokenizers_of_one_uniform_source_give_the_same_bits() -> None:
    """Four equally likely letters are two bits a byte, however many of them a token holds; nats per token differ threefold."""
    text = "abcddcbaabcd" * 40
    found, nats_per_token = [], []
    for letters in (1, 2, 3):
        tokenizer: Any = Letters(letters)
        model = follower(tokenizer, {}, context=16)
        with torch.no_grad():
            # All pieces are equally likely, and the beginning is no piece.
            model.tok_embeddings.weight[:] = 0.0
            model.tok_embeddings.weight[:, 0] = 1.0
            model.output.weight[0, 0] = -1e4
        (row,) = document_rows(model, tokenizer, [Document(text, "letters")], 64)
        found.append(bits_figures([row])["bits_per_byte"]["value"])
        nats_per_token.append(row["nats"] / row["tokens"])
    assert found == pytest.approx([2.0, 2.0, 2.0], abs=1e-4)
    assert nats_per_token == pytest.approx([math.log(4) * letters for letters in (1, 2, 3)], abs=1e-4)
