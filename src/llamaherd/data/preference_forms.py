"""Comparisons as public sets write them: each form reads a row into candidates, of which `preferences.py` makes preferences."""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import combinations
from typing import NamedTuple

from .candidates import (
    CONTRADICTS,
    FAILED,
    NO_MAJORITY,
    NO_PROMPT,
    TIE,
    Candidate,
    Row,
    Side,
    asked_by_user,
    higher,
    item,
    list_at,
    malformed,
    models_at,
    name_at,
    number_in,
    ranked,
    verdict,
)
from .chosen_rejected import alpaca, are_transcripts, chosen_rejected, llama_factory, rmb, speaks, transcript, two_dialogues
from .importers import asked_in, text_at
from .records import BadPreference, Grade


def _always(_: Row) -> bool:
    return True


class Form(NamedTuple):
    """Rows with these fields, and of which `when` holds."""

    name: str
    fields: tuple[str, ...]
    read: Callable[[Row, str], Iterable[Candidate]]
    when: Callable[[Row], bool] = _always


def _strength(first: float | None, second: float | None, total: float) -> Grade | None:
    """A grade from WebGPT's two scores, which add up to `total` and are 2 apart for "much better", 1 for "better"; None for other scores.

    Means of several annotators lie between.
    """
    if first is None or second is None or not math.isclose(first + second, total, abs_tol=1e-6) or first == second:
        return None
    grades: Mapping[Grade, float] = {"significantly": 2.0, "better": 1.0, "slightly": 0.5, "negligibly": 0.0}
    return next(grade for grade, least in grades.items() if abs(first - second) >= least)


def _webgpt(row: Row, where: str) -> list[Candidate]:
    question = row.get("question")
    asked = question if isinstance(question, str) else text_at(item(question, where, "question"), "full_text", where)
    scores = number_in(row.get("score_0")), number_in(row.get("score_1"))
    answers = text_at(row, "answer_0", where), text_at(row, "answer_1", where)
    return [Candidate(asked_by_user(asked), answers, *higher(*scores), _strength(*scores, total=0))]


def _scored_transcripts(row: Row, where: str) -> Iterator[Candidate]:
    """`text` and `score` as Domain-Specific Preference writes them: whole transcripts, WebGPT's with 1 added to each score."""
    texts, scores = list_at(row, "text", where, 2), list_at(row, "score", where, 2)
    if len(texts) != len(scores) or not all(isinstance(text, str) and speaks(text) for text in texts):
        raise malformed(where, "text", texts, "transcripts of ## Human: and ## Assistant:, with one score each")
    scored = [(transcript(text, where), number_in(score)) for text, score in zip(texts, scores, strict=True)]
    for (one, score), (two, other) in combinations(scored, 2):
        preferred, why = higher(score, other)
        yield two_dialogues(one, two, where, preferred=preferred, why=why, grade=_strength(score, other, total=2))


def _summarize(row: Row, where: str) -> list[Candidate]:
    info = item(row["info"], where, "info")
    summaries = [item(one, where, "a summary") for one in list_at(row, "summaries", where, 2)]
    if len(summaries) != 2:
        raise malformed(where, "summaries", f"{len(summaries)} of them", "two")
    parts = (("SUBREDDIT: r/", "subreddit"), ("TITLE: ", "title"), ("POST: ", "post"), ("ARTICLE: ", "article"))
    asked = [f"{label}{info[key]}" for label, key in parts if isinstance(info.get(key), str) and info[key].strip()]
    if not any(line.startswith(("POST", "ARTICLE")) for line in asked):
        raise BadPreference(NO_PROMPT, f"{where}: info has neither post nor article; expected what is summarized")
    preferred, why = verdict(row.get("choice"), {0: 0, 1: 1}, where, "choice")
    texts, models = ([text_at(one, "text", where) for one in summaries], [name_at(one, "policy") for one in summaries])
    return [
        Candidate(
            asked_by_user("\n\n".join([*asked, "TL;DR:"])), (texts[0], texts[1]), preferred, why, models=(models[0], models[1]),
            annotator=name_at(row, "worker"), batch=name_at(row, "batch"),
        )
    ]  # fmt: skip


def _shp(row: Row, where: str) -> list[Candidate]:
    preferred, why = verdict(row.get("labels"), {1: 0, 0: 1}, where, "labels")
    scores = number_in(row.get("score_A")), number_in(row.get("score_B"))
    by_scores, _ = higher(*scores)
    if preferred is not None and None not in scores and by_scores != preferred:
        preferred, why = None, TIE if by_scores is None else CONTRADICTS
    answers = text_at(row, "human_ref_A", where), text_at(row, "human_ref_B", where)
    return [Candidate(asked_by_user(text_at(row, "history", where)), answers, preferred, why)]


def _stack_exchange(row: Row, where: str) -> list[Candidate]:
    answers = text_at(row, "response_j", where), text_at(row, "response_k", where)
    return [Candidate(asked_by_user(text_at(row, "question", where)), answers, 0)]


def _stack_exchange_answers(row: Row, where: str) -> Iterator[Candidate]:
    answers = [item(one, where, "an answer") for one in list_at(row, "answers", where)]
    scored = [(text_at(one, "text", where), number_in(one.get("pm_score")), None) for one in answers]
    return ranked(asked_by_user(text_at(row, "question", where)), scored, where)


def _pandalm(row: Row, where: str) -> list[Candidate]:
    """The majority of the annotators decides; what their disagreement leaves of it is the grade, of one annotator none."""
    names = sorted(key for key in row if re.fullmatch(r"annotator\d+", key))
    votes = [verdict(row[name], {1: 0, 2: 1, 0: None}, where, name) for name in names]
    first, second, ties = (sum(side == which for side, _ in votes) for which in (0, 1, None))
    preferred: Side | None = 0 if first > len(votes) / 2 else 1 if second > len(votes) / 2 else None
    failed = not votes or any(why == FAILED for side, why in votes if side is None)
    why = FAILED if failed else TIE if ties > len(votes) / 2 else NO_MAJORITY
    ahead = abs(first - second) / max(1, len(votes))
    grade: Grade = "better" if ahead == 1 else "slightly" if ahead > 1 / 2 else "negligibly"
    answers = text_at(row, "response1", where), text_at(row, "response2", where)
    side = None if failed else preferred
    return [Candidate(asked_in(row, where), answers, side, why, grade if len(votes) > 1 and side is not None else None)]


def _ultrafeedback(row: Row, where: str) -> Iterator[Candidate]:
    """Every pair of completions whose scores differ; a score is the overall one, else the mean of the ratings."""
    given, ratings = list_at(row, "completions", where), row.get("ratings")
    scored: list[tuple[str, float | None, str | None]]
    if all(isinstance(one, str) for one in given):
        beside = ratings if isinstance(ratings, list) and len(ratings) == len(given) else [None] * len(given)
        scored = [(text, number_in(score), None) for text, score in zip(given, beside, strict=True)]
    else:
        completions = [item(one, where, "a completion") for one in given]
        scored = [(text_at(one, "response", where), _overall(one), name_at(one, "model")) for one in completions]
    return ranked(asked_in(row, where), scored, where, source=name_at(row, "source"))


def _overall(completion: Row) -> float | None:
    annotations = completion.get("annotations")
    aspects = annotations.values() if isinstance(annotations, Mapping) else ()
    rated = [number for one in aspects if isinstance(one, Mapping) and (number := number_in(one.get("Rating"))) is not None]
    mean = number_in(completion.get("fine-grained_score")) if not rated else sum(rated) / len(rated)
    overall = number_in(completion.get("overall_score"))
    if overall is None:
        return mean
    # The set's own defect: a 1 was stored as a 10. Which of them it is, the ratings of 1 to 5 say.
    return None if overall == 10 and mean is not None and mean <= 2 else overall


def _alpaca_eval(row: Row, where: str) -> list[Candidate]:
    value = number_in(row.get("preference"))
    if row.get("preference") is not None and (value is None or not (value == 0 or 1 <= value <= 2)):
        raise malformed(where, "preference", row["preference"], "0 or 1.5 (a tie), 1 to 2, or null")
    # Between 1, the first answer, and 2, the second, weighted judges leave their doubt.
    preferred, why = (None, TIE) if value == 0 else higher(1.5, value)
    answers = text_at(row, "output_1", where), text_at(row, "output_2", where)
    models = models_at(row, "generator_1", "generator_2")
    return [Candidate(asked_in(row, where), answers, preferred, why, models=models, annotator=name_at(row, "annotator"))]


def _auto_j(row: Row, where: str) -> list[Candidate]:
    preferred, why = verdict(row.get("label"), {0: 0, 1: 1, 2: None}, where, "label")
    return [
        Candidate(
            asked_by_user(text_at(row, "prompt", where)),
            (text_at(row, "response 1", where), text_at(row, "response 2", where)),
            preferred,
            why,
        )
    ]


def _fine_grained(row: Row, where: str) -> Iterator[Candidate]:
    """Labels of all pairs of predictions in order (1 and 2, 1 and 3, ...); what the predictions were to be made from follows the question."""
    predictions = [text_at(row, key, where) for key in sorted(row) if re.fullmatch(r"prediction \d+", key)]
    pairs = list(combinations(predictions, 2))
    labels = row.get("preference")
    labels = [None] * len(pairs) if labels is None else list_at(row, "preference", where)
    if len(labels) != len(pairs):
        raise malformed(where, "preference", labels, f"a label for each of the {len(pairs)} pairs of predictions")
    passages = row.get("passages") if isinstance(row.get("passages"), list) else []
    # A passage is its title and its sentences, the first of which repeats the title.
    read = [" ".join(map(str, passage[1:])) for passage in passages or [] if isinstance(passage, list)]
    prompt = asked_by_user("\n\n".join([text_at(row, "question", where), *read]))
    for pair, label in zip(pairs, labels, strict=True):
        preferred, why = verdict(label, {1: 0, 2: 1, 0: None}, where, "a label")
        yield Candidate(prompt, pair, preferred, why)


def _by_domain(row: Row, where: str) -> list[Candidate]:
    """One answer for each domain; a query that names none asks for the normal one."""
    responses = item(row["responses"], where, "responses")
    if "normal" not in responses:
        raise malformed(where, "responses", ", ".join(map(str, responses)), "an answer called normal among them")
    others = [name for name in responses if name != "normal"]
    prompt = asked_by_user(text_at(row, "query", where))
    return [Candidate(prompt, (text_at(responses, "normal", where), text_at(responses, name, where)), 0) for name in others]


FORMS = (
    Form("LLaMA-Factory", ("conversations", "chosen", "rejected"), llama_factory),
    Form("RMB", ("conversation_input", "chosen", "rejected"), rmb),
    Form("Alpaca with chosen and rejected", ("instruction", "chosen", "rejected"), alpaca),
    Form("Anthropic HH", ("chosen", "rejected"), chosen_rejected, are_transcripts),
    Form("TRL", ("chosen", "rejected"), chosen_rejected),
    Form("OpenAI WebGPT", ("question", "answer_0", "answer_1"), _webgpt),
    Form("text and score", ("text", "score"), _scored_transcripts, lambda row: isinstance(row["text"], list)),
    Form("OpenAI Summarize", ("info", "summaries"), _summarize),
    Form("Stanford SHP", ("history", "human_ref_A", "human_ref_B"), _shp),
    Form("Stack Exchange paired", ("question", "response_j", "response_k"), _stack_exchange),
    Form("Stack Exchange", ("question", "answers"), _stack_exchange_answers),
    Form("PandaLM", ("instruction", "response1", "response2"), _pandalm),
    Form("UltraFeedback", ("instruction", "completions"), _ultrafeedback),
    Form("AlpacaEval", ("instruction", "output_1", "output_2"), _alpaca_eval),
    Form("Auto-J", ("prompt", "response 1", "response 2"), _auto_j),
    Form("Fine-Grained RLHF", ("question", "prediction 1", "prediction 2"), _fine_grained),
    Form("Domain-Specific Preference", ("query", "responses"), _by_domain),
)
"""In the order in which they are tried."""
