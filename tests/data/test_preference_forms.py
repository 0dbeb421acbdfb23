"""Each public form: what becomes of a row, worked by hand; ties, failed judgements and disagreement; and every real file at hand."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llamaherd.data.preferences import Counts, comparisons_of, form_of, read_comparisons
from llamaherd.data.records import BadPreference, Preference

Row = dict[str, Any]
ASK = [("user", "Hi")]
TALK = [("user", "Hi"), ("assistant", "Hello!"), ("user", "More?")]
YES, NO = "Yes, more.", "No."


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def found(row: Row) -> list[Preference | BadPreference]:
    return list(comparisons_of(row, "here", "helpfulness"))


def told(row: Row) -> list[tuple[list[tuple[str, str]], str, str]]:
    """(turns of the prompt, chosen, rejected) of each comparison; all of them are sound."""
    return [
        ([(message.role, message.content) for message in one.prompt.messages], one.chosen.strip(), one.rejected.strip())
        for one in found(row)
        if isinstance(one, Preference)
    ]


def reasons(row: Row) -> list[str]:
    return [one.reason for one in found(row) if isinstance(one, BadPreference)]


HH_PROMPT = "\n\nHuman: Hi\n\nAssistant: Hello!\n\nHuman: More?"
MESSAGES = [turn("user", "Hi"), turn("assistant", "Hello!"), turn("user", "More?")]
ONE: dict[str, tuple[str, Row, list[tuple[str, str]]]] = {
    "hh": ("Anthropic HH", {"chosen": f"{HH_PROMPT}\n\nAssistant: {YES}", "rejected": f"{HH_PROMPT}\n\nAssistant: {NO}"}, TALK),
    "hh, white space": (
        "Anthropic HH",
        {"chosen": f"{HH_PROMPT} \n\nAssistant: {YES}\n", "rejected": f"{HH_PROMPT.strip()}\n\nAssistant:{NO}"},
        TALK,
    ),
    "hh, lines of Windows": (
        "Anthropic HH",
        {name: f"{HH_PROMPT}\n\nAssistant: {said}".replace("\n", "\r\n") for name, said in (("chosen", YES), ("rejected", NO))},
        TALK,
    ),
    "hh, a prompt and bare answers": ("TRL", {"prompt": f"{HH_PROMPT}\n\nAssistant:", "chosen": f" {YES}", "rejected": NO}, TALK),
    "trl, text": ("TRL", {"prompt": "Hi", "chosen": YES, "rejected": NO}, ASK),
    "trl, text without a prompt": ("TRL", {"chosen": f"Hi {YES}", "rejected": f"Hi {NO}"}, ASK),
    "trl, messages": ("TRL", {"prompt": MESSAGES, "chosen": [turn("assistant", YES)], "rejected": [turn("assistant", NO)]}, TALK),
    "trl, messages without a prompt": (
        "TRL",
        {"chosen": [*MESSAGES, turn("assistant", YES)], "rejected": [*MESSAGES, turn("assistant", NO)]},
        TALK,
    ),
    "trl, system beside": ("TRL", {"system": "Be kind.", "question": "Hi", "chosen": YES, "rejected": NO}, [("system", "Be kind."), *ASK]),
    "trl, system beside messages": (
        "TRL",
        {"system": "Be kind.", "chosen": [*MESSAGES, turn("assistant", YES)], "rejected": [*MESSAGES, turn("assistant", NO)]},
        [("system", "Be kind."), *TALK],
    ),
    "ultrafeedback, binarized": (
        "TRL",
        {
            "prompt": "Hi", "messages": [turn("user", "Hi"), turn("assistant", YES)], "score_chosen": 8.0, "score_rejected": 2.5,
            "chosen": [turn("user", "Hi"), turn("assistant", YES)], "rejected": [turn("user", "Hi"), turn("assistant", NO)],
        },
        ASK,
    ),
    "llama-factory": (
        "LLaMA-Factory",
        {
            "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello!"}, {"from": "human", "value": "More?"}],
            "chosen": {"from": "gpt", "value": YES}, "rejected": {"from": "gpt", "value": NO},
        },
        TALK,
    ),
    "alpaca": (
        "Alpaca with chosen and rejected",
        {"instruction": "More?", "input": "", "output": "So.", "history": [["Hi", "Hello!"]], "chosen": YES, "rejected": NO},
        TALK,
    ),
    "rmb": ("RMB", {"conversation_input": MESSAGES, "chosen": YES, "rejected": NO, "category": "Helpfulness/Chat"}, TALK),
    "webgpt": (
        "OpenAI WebGPT",
        {"question": {"dataset": "eli5", "id": "1", "full_text": "Hi"}, "answer_0": NO, "answer_1": YES, "score_0": -1.0, "score_1": 1.0},
        ASK,
    ),
    "text and score": (
        "text and score",
        {"text": [f"## Human:\nHi\n\n\n\n## Assistant:\n{NO}", f"## Human:\nHi\n\n\n\n## Assistant:\n{YES}"], "score": [0.5, 1.5]},
        ASK,
    ),
    "summarize": (
        "OpenAI Summarize",
        {
            "info": {"id": "1", "post": "I lost my cat.", "title": "My cat", "subreddit": "pets", "article": None},
            "summaries": [{"text": NO, "policy": "sup1", "note": ""}, {"text": YES, "policy": "ref", "note": ""}], "choice": 1, "worker": "w7",
            "batch": "batch3", "split": "train",
        },
        [("user", "SUBREDDIT: r/pets\n\nTITLE: My cat\n\nPOST: I lost my cat.\n\nTL;DR:")],
    ),
    "shp": (
        "Stanford SHP",
        {"history": "Hi", "human_ref_A": NO, "human_ref_B": YES, "labels": 0, "score_A": 3, "score_B": 9, "score_ratio": 3.0, "domain": "askbaking_train"},
        ASK,
    ),
    "stack exchange": ("Stack Exchange paired", {"qid": 4, "question": "Hi", "response_j": YES, "response_k": NO}, ASK),
    "stack exchange, scores": (
        "Stack Exchange",
        {"qid": 4, "question": "Hi", "answers": [{"text": NO, "pm_score": -1, "selected": False}, {"text": YES, "pm_score": 3, "selected": True}]},
        ASK,
    ),
    "pandalm": (
        "PandaLM",
        {"instruction": "Hi", "input": "", "response1": NO, "response2": YES, "annotator1": 2, "annotator2": 2, "annotator3": 2},
        ASK,
    ),
    "ultrafeedback": (
        "UltraFeedback",
        {"instruction": "Hi", "completions": [{"response": NO, "overall_score": 3.0}, {"response": YES, "overall_score": 7.5}]},
        ASK,
    ),
    "ultrafeedback, ratings beside": ("UltraFeedback", {"instruction": "Hi", "completions": [NO, YES], "ratings": [1, 4]}, ASK),
    "alpaca_eval": (
        "AlpacaEval",
        {"instruction": "Hi", "output_1": NO, "output_2": YES, "preference": 2, "generator_1": "a", "generator_2": "b", "annotator": "judge"},
        ASK,
    ),
    "alpaca_eval, weighted": ("AlpacaEval", {"instruction": "Hi", "output_1": YES, "output_2": NO, "preference": 1.49}, ASK),
    "auto-j": ("Auto-J", {"prompt": "Hi", "response 1": NO, "response 2": YES, "label": 1, "scenario": "chat"}, ASK),
    "fine-grained": (
        "Fine-Grained RLHF",
        {"question": "Hi", "passages": [["Title", "Title\n\nOne.", "Two."]], "prediction 1": YES, "prediction 2": NO, "preference": [1]},
        [("user", "Hi\n\nTitle\n\nOne. Two.")],
    ),
    "dsp": ("Domain-Specific Preference", {"query": "Hi", "responses": {"normal": YES, "academy": NO}}, ASK),
}  # fmt: skip


@pytest.mark.parametrize(("form", "row", "prompt"), ONE.values(), ids=ONE)
def test_each_form(form: str, row: Row, prompt: list[tuple[str, str]]) -> None:
    assert form_of(row) == form
    assert told(row) == [(prompt, YES, NO)]
    assert reasons(row) == []


def the(row: Row) -> Preference:
    (one,) = found(row)
    assert isinstance(one, Preference), one
    return one


def test_what_a_row_says_besides_is_kept() -> None:
    """The two models and the annotator stand with the answer that they belong to, whichever was preferred."""
    summary = the(ONE["summarize"][1])
    assert (summary.chosen_model, summary.rejected_model, summary.annotator, summary.batch) == ("ref", "sup1", "w7", "batch3")
    judged = the(ONE["alpaca_eval"][1])
    assert (judged.chosen_model, judged.rejected_model, judged.annotator) == ("b", "a", "judge")
    assert the({**ONE["rmb"][1], "category": "Harmlessness/S1"}).domain == "safety"
    assert the({**ONE["rmb"][1], "category": "New"}).domain == "helpfulness"
    assert the(ONE["shp"][1]).domain == "helpfulness", "SHP's field of that name is another thing"
    article = {"info": {"article": "News.", "title": None}, "summaries": ONE["summarize"][1]["summaries"], "choice": 0}
    assert told(article) == [([("user", "ARTICLE: News.\n\nTL;DR:")], NO, YES)]


@pytest.mark.parametrize(
    ("score", "grade"), [(1.0, "significantly"), (0.75, "better"), (0.5, "better"), (0.3, "slightly"), (0.1, "negligibly")]
)
def test_webgpt_says_how_strong_a_preference_is(score: float, grade: str) -> None:
    first = {**ONE["webgpt"][1], "score_0": score, "score_1": -score}
    assert (the(first).grade, the(first).chosen) == (grade, NO)
    shifted = {**ONE["text and score"][1], "score": [1 + score, 1 - score]}
    assert (the(shifted).grade, the(shifted).chosen) == (grade, NO)
    assert the({**ONE["text and score"][1], "score": [1, 0]}).grade is None, "not on that scale"


def votes(*labels: int | None) -> Row:
    row = {"instruction": "Hi", "response1": NO, "response2": YES}
    return {**row, **{f"annotator{number}": label for number, label in enumerate(labels, 1)}}


@pytest.mark.parametrize(
    ("labels", "chosen", "grade"),
    [
        ((1, 1, 1), NO, "better"), ((2, 2, 2), YES, "better"), ((1, 0, 1), NO, "slightly"), ((2, 2, 0), YES, "slightly"),
        ((1, 2, 2), YES, "negligibly"), ((2, 1, 1), NO, "negligibly"), ((2,), YES, None),
    ],
)  # fmt: skip
def test_disagreement_lowers_the_grade(labels: tuple[int, ...], chosen: str, grade: str | None) -> None:
    assert (the(votes(*labels)).chosen, the(votes(*labels)).grade) == (chosen, grade)


def scored(*scores: Any) -> Row:
    return {"instruction": "Hi", "completions": [{"response": f"Answer {index}.", **one} for index, one in enumerate(scores)]}


def rated(*values: Any) -> Row:
    return {"annotations": {f"aspect {index}": {"Rating": value, "Rationale": "..."} for index, value in enumerate(values)}}


def test_every_pair_of_scored_answers_is_a_comparison() -> None:
    row = scored(
        {"overall_score": 5.0, "model": "a"}, {"overall_score": 7.0, "model": "b"}, {"overall_score": 5.0, "model": "c"}, {"model": "d"}
    )
    assert [(one.chosen_model, one.rejected_model) for one in found(row) if isinstance(one, Preference)] == [("b", "a"), ("b", "c")]
    assert Counter(reasons(row)) == {"tie": 1, "failed judgement": 3}
    ratings = scored(rated("4", "N/A"), rated("3", "4"), {"overall_score": 10, **rated("1", "2")})
    assert [(chosen, rejected) for _, chosen, rejected in told(ratings)] == [("Answer 0.", "Answer 1.")]
    assert reasons(ratings) == ["failed judgement"] * 2, "a 10 beside the lowest ratings is a 1 that was stored wrongly"
    assert the({**scored({"overall_score": 1}, {"overall_score": 2}), "source": "sharegpt"}).source == "sharegpt"


def test_labels_of_all_pairs_of_predictions() -> None:
    row = {"question": "Hi", **{f"prediction {number}": f"P{number}." for number in (1, 2, 3, 4)}, "preference": [1, 2, 0, 1, 2, 2]}
    assert [(chosen, rejected) for _, chosen, rejected in told(row)] == [("P1.", "P2."), ("P3.", "P1."), ("P2.", "P3."), ("P4.", "P2."), ("P4.", "P3.")]  # fmt: skip
    assert reasons(row) == ["tie"]


def answers(chosen: str, rejected: str) -> Row:
    return {"chosen": f"\n\nHuman: Hi\n\nAssistant: {chosen}", "rejected": f"\n\nHuman: Hi\n\nAssistant: {rejected}"}


LEFT_OUT: dict[str, tuple[Row, list[str]]] = {
    "hh, equal": (answers(YES, f" {YES}"), ["equal answers"]),
    "hh, empty": (answers(YES, " "), ["empty answer"]),
    "hh, ends with the user": (answers(f"{YES}\n\nHuman: Thanks!", NO), ["no answer at the end"]),
    "hh, differ earlier": (answers(f"{YES}\n\nHuman: So?\n\nAssistant: So.", f"{NO}\n\nHuman: So?\n\nAssistant: Go."), ["differ before the last answer"]),
    "hh, of another length": (answers(f"{YES}\n\nHuman: So?\n\nAssistant: So.", NO), ["differ before the last answer"]),
    "hh, a name begins a paragraph": (answers(f"{YES}\n\nAssistant: Go.", NO), ["one speaker twice in a row"]),
    "hh, tag of the user": (
        {key: value.replace("Hi", "[INST] Hi") for key, value in answers(YES, NO).items()},
        ["template tag"],
    ),
    "hh, tag of the assistant": (answers(f"{YES} [/INST]", NO), ["template tag"]),
    "hh, begins with the assistant": ({"chosen": f"\n\nAssistant: {YES}", "rejected": f"\n\nAssistant: {NO}"}, ["malformed"]),
    "trl, no prompt": ({"chosen": [turn("assistant", YES)], "rejected": [turn("assistant", NO)]}, ["no prompt"]),
    "trl, nothing in common": ({"chosen": YES, "rejected": NO}, ["no prompt"]),
    "trl, equal": ({"chosen": YES, "rejected": YES}, ["equal answers"]),
    "trl, no messages": ({"prompt": "Hi", "chosen": [], "rejected": [turn("assistant", NO)]}, ["empty answer"]),
    "trl, no rejected": ({"prompt": "Hi", "chosen": YES}, ["empty answer"]),
    "trl, null": ({"prompt": "Hi", "chosen": YES, "rejected": None}, ["empty answer"]),
    "trl, a number": ({"prompt": "Hi", "chosen": YES, "rejected": 3}, ["malformed"]),
    "trl, empty prompt": ({"prompt": " ", "chosen": YES, "rejected": NO}, ["malformed"]),
    "trl, surrogate": ({"prompt": "Hi", "chosen": YES, "rejected": "\ud800"}, ["malformed"]),
    "trl, unknown speaker": ({"chosen": [turn("tool", "x")], "rejected": [turn("assistant", NO)]}, ["malformed"]),
    "binarized, tie": ({"prompt": "Hi", "chosen": YES, "rejected": NO, "score_chosen": 7, "score_rejected": 7.0}, ["tie"]),
    "binarized, wrong way round": ({"prompt": "Hi", "chosen": YES, "rejected": NO, "score_chosen": 2, "score_rejected": 7}, ["label contradicts scores"]),
    "llama-factory, prompt ends with an answer": (
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}], "chosen": YES, "rejected": NO},
        ["malformed"],
    ),
    "webgpt, tie": ({**ONE["webgpt"][1], "score_0": 0.0, "score_1": 0.0}, ["tie"]),
    "webgpt, no score": ({**ONE["webgpt"][1], "score_0": None}, ["failed judgement"]),
    "webgpt, no question": ({**ONE["webgpt"][1], "question": 7}, ["malformed"]),
    "text and score, tie": ({**ONE["text and score"][1], "score": [1.0, 1.0]}, ["tie"]),
    "text and score, plain": ({"text": ["a", "b"], "score": [0, 1]}, ["malformed"]),
    "summarize, no choice": ({**ONE["summarize"][1], "choice": None}, ["failed judgement"]),
    "summarize, choice": ({**ONE["summarize"][1], "choice": 2}, ["malformed"]),
    "summarize, nothing to summarize": ({**ONE["summarize"][1], "info": {"title": "x"}}, ["no prompt"]),
    "shp, tie": ({**ONE["shp"][1], "score_A": 9}, ["tie"]),
    "shp, contradiction": ({**ONE["shp"][1], "labels": 1}, ["label contradicts scores"]),
    "shp, label": ({**ONE["shp"][1], "labels": "A"}, ["malformed"]),
    "stack exchange, tie": ({"question": "Hi", "answers": [{"text": NO, "pm_score": 2}, {"text": YES, "pm_score": 2}]}, ["tie"]),
    "stack exchange, one answer": ({"question": "Hi", "answers": [{"text": NO, "pm_score": 2}]}, ["one answer alone"]),
    "pandalm, ties": (votes(0, 0, 0), ["tie"]),
    "pandalm, mostly ties": (votes(0, 2, 0), ["tie"]),
    "pandalm, all differ": (votes(0, 1, 2), ["no majority"]),
    "pandalm, one failed": (votes(1, None, 1), ["failed judgement"]),
    "pandalm, nobody": (votes(), ["failed judgement"]),
    "pandalm, label": (votes(1, 1, 3), ["malformed"]),
    "ultrafeedback, list": ({"instruction": "Hi", "completions": {}}, ["malformed"]),
    "alpaca_eval, tie": ({**ONE["alpaca_eval"][1], "preference": 0}, ["tie"]),
    "alpaca_eval, even": ({**ONE["alpaca_eval"][1], "preference": 1.5}, ["tie"]),
    "alpaca_eval, failed": ({**ONE["alpaca_eval"][1], "preference": None}, ["failed judgement"]),
    "alpaca_eval, absent": ({"instruction": "Hi", "output_1": NO, "output_2": YES}, ["failed judgement"]),
    "alpaca_eval, number": ({**ONE["alpaca_eval"][1], "preference": 3}, ["malformed"]),
    "auto-j, tie": ({**ONE["auto-j"][1], "label": 2}, ["tie"]),
    "fine-grained, labels": ({**ONE["fine-grained"][1], "preference": [1, 1]}, ["malformed"]),
    "dsp, nothing normal": ({"query": "Hi", "responses": {"academy": NO, "business": YES}}, ["malformed"]),
}  # fmt: skip


@pytest.mark.parametrize(("row", "expected"), LEFT_OUT.values(), ids=LEFT_OUT)
def test_what_holds_no_comparison_says_why(row: Row, expected: list[str]) -> None:
    assert told(row) == []
    assert reasons(row) == expected
    assert all(str(one).startswith("here") and "\n" not in str(one) for one in found(row))


def test_names_inside_a_text_are_no_turns() -> None:
    """Only a name that begins a paragraph begins a turn, as in HH itself."""
    row = answers("Human: you said\nAssistant: I said\n\n Human: that.", NO)
    assert told(row) == [(ASK, "Human: you said\nAssistant: I said\n\n Human: that.", NO)]


REAL: dict[str, tuple[str, int, dict[str, int]]] = {
    "alpaca_eval_gpt4_annotations.jsonl.gz": ("AlpacaEval", 6508, {"tie": 55, "failed judgement": 3, "empty answer": 1}),
    "autoj_pairwise_human.jsonl.gz": ("Auto-J", 729, {"tie": 234, "equal answers": 1}),
    "dsp_domain_responses_test.jsonl.gz": ("Domain-Specific Preference", 1991, {"equal answers": 25, "empty answer": 4}),
    "finegrained_qa_feedback_dev.jsonl.gz": ("Fine-Grained RLHF", 1899, {"tie": 285}),
    "hh_rlhf_harmless_base_test.jsonl.gz": ("Anthropic HH", 1704, {"one speaker twice in a row": 6, "empty answer": 3}),
    "hh_rlhf_helpful_base_test.jsonl.gz": ("Anthropic HH", 1769, {"one speaker twice in a row": 13, "empty answer": 4}),
    "llamafactory_dpo_en_demo.jsonl.gz": ("LLaMA-Factory", 236, {}),
    "pandalm_human_testset.jsonl.gz": ("PandaLM", 609, {"tie": 88, "empty answer": 36, "malformed": 6}),
    "politeness_preference.jsonl.gz": ("Alpaca with chosen and rejected", 1094, {"equal answers": 6}),
    "rmb_pairwise_sample.jsonl.gz": ("RMB", 2338, {"malformed": 2, "equal answers": 1}),
    "stack_exchange_paired_tiny.jsonl": ("Stack Exchange paired", 25, {}),
    "webgpt_comparisons_test.jsonl.gz": ("text and score", 499, {"tie": 181}),
}


@pytest.mark.parametrize(("name", "form", "comparisons", "left_out"), [(name, *one) for name, one in REAL.items()], ids=REAL)
def test_real_files(public_data: Callable[[str], Path], name: str, form: str, comparisons: int, left_out: dict[str, int]) -> None:
    counts = Counts()
    read = list(read_comparisons(public_data(f"preference/{name}"), "helpfulness", counts))
    assert (list(counts.rows), counts.comparisons, dict(counts.left_out)) == ([form], comparisons, left_out)
    assert len(read) == comparisons
    assert {one.source for one in read} == {name.split(".")[0]}


def test_every_real_file_is_among_these(data: Path) -> None:
    assert {path.name for path in (data / "preference").iterdir()} == set(REAL)
