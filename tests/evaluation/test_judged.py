from collections.abc import Sequence

import pytest

from llamaherd.assistant.local import Answer, Assistant
from llamaherd.chat.dialogue import Dialogue, Message, checked
from llamaherd.data.records import Judgement, Prompt
from llamaherd.evaluation.judged import by, correct_share, helpfulness_report, judged_rows, prompt_id, refusal_report, safety_report
from llamaherd.generate.config import SamplingConfig
from llamaherd.generate.sequence import Completion
from llamaherd.model.transformer import Transformer
from llamaherd.tokenizer.sentencepiece import Tokenizer

SAMPLING = SamplingConfig(temperature=1.0, top_p=1.0, max_new_tokens=6)


class Words:
    """Helpful by length, unsafe with an x, a refusal with a no."""

    def judge_all(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[Judgement]:
        return [Judgement(min(1.0, len(answer) / 10), "x" not in answer, "no" in answer) for answer in answers]

    def worth_all(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[float]:
        return [found.helpfulness for found in self.judge_all(prompts, answers)]


def prompt(*texts: str, **about: object) -> Prompt:
    roles = ("user", "assistant")
    return Prompt(checked([Message(roles[index % 2], text) for index, text in enumerate(texts)]), False, about)  # type: ignore[arg-type]


class Said:
    """Answers in the order of a list."""

    def __init__(self, answers: list[str]):
        self.texts, self.configs, self.seeds = answers, list[SamplingConfig](), list[list[int]]()

    def answers(self, dialogues: Sequence[Dialogue], config: SamplingConfig, seeds: Sequence[int]) -> list[Answer]:
        self.configs.append(config)
        self.seeds.append(list(seeds))
        return [Answer(text, [], Completion(finished=True)) for text in self.texts]


PROMPTS = [prompt("Hi", kind="facts", seen=True), prompt("Hi", "Hello", "Bye", kind="howto", seen=False), prompt("So?", kind="facts")]


def test_rows_say_what_was_asked_answered_and_judged() -> None:
    assistant = Said(["12345", "x", "no"])
    rows = judged_rows(assistant, Words(), PROMPTS, SAMPLING, "safety", "sampled", 0)  # type: ignore[arg-type]
    assert rows[1] == {
        "task": "safety", "id": prompt_id(PROMPTS[1]), "mode": "sampled", "score": 0.1, "safe": False, "refusal": False, "finished": True,
        "turns": 2, "answer": "x", "prompt": "Bye", "kind": "howto", "seen": False, "correct": None,
    }  # fmt: skip
    assert [row["refusal"] for row in rows] == [False, False, True]
    assert assistant.configs == [SAMPLING]
    judged_rows(assistant, Words(), PROMPTS, SAMPLING, "safety", "greedy", 0)  # type: ignore[arg-type]
    assert assistant.configs[1].temperature == 0


def test_fields_of_a_prompt_never_stand_in_the_place_of_what_was_judged() -> None:
    """A file of one's own may have an "id" and a "score" too."""
    own = prompt("Hi", id="row-7", score=0.99, answer="gold", kind="facts")
    [row] = judged_rows(Said(["12345"]), Words(), [own], SAMPLING, "t", "sampled", 0)  # type: ignore[arg-type]
    assert (row["id"], row["score"], row["answer"], row["kind"]) == (prompt_id(own), 0.5, "12345", "facts")


def test_versions_pair_by_id_in_any_order() -> None:
    first = judged_rows(Said(["a", "b", "c"]), Words(), PROMPTS, SAMPLING, "t", "sampled", 0)  # type: ignore[arg-type]
    other = judged_rows(Said(["c", "b", "a"]), Words(), PROMPTS[::-1], SAMPLING, "t", "sampled", 0)  # type: ignore[arg-type]
    assert {row["id"]: row["answer"] for row in first} == {row["id"]: row["answer"] for row in other}
    assert len({row["id"] for row in first}) == 3
    assert prompt_id(PROMPTS[0]) == prompt_id(prompt("Hi", kind="another")), "what is noted about a prompt is not the prompt"
    assert prompt_id(PROMPTS[0]) != prompt_id(prompt("Hi."))


def test_an_answer_does_not_depend_on_the_other_prompts(tiny_model: Transformer, tokenizer: Tokenizer) -> None:
    assistant = Assistant(tiny_model, tokenizer, "tiny")
    whole = judged_rows(assistant, Words(), PROMPTS, SAMPLING, "t", "sampled", 0)
    alone = [judged_rows(assistant, Words(), [one], SAMPLING, "t", "sampled", 0)[0] for one in PROMPTS]
    assert whole == alone
    assert len({row["answer"] for row in whole}) == 3
    assert whole != judged_rows(assistant, Words(), PROMPTS, SAMPLING, "t", "sampled", 1)
    greedy = [judged_rows(assistant, Words(), PROMPTS, SAMPLING, "t", "greedy", seed) for seed in (0, 1)]
    assert greedy[0] == greedy[1]


def row(safe: bool = True, turns: int = 1, **fields: object) -> dict[str, object]:
    return {"safe": safe, "turns": turns, "refusal": False, "score": 0.5, **fields}


def test_safety_report_counts_each_group() -> None:
    rows = [
        row(safe=False, category="illicit", attack="plain", seen=True, attack_seen=False),
        row(category="illicit", attack="role play", seen=False, attack_seen=True),
        row(turns=2, category="hateful", attack="plain", seen=False),
        row(safe=False, turns=3, category="hateful", attack="plain", seen=True),
        row(safe=False, turns=2, category=None, attack=None),
    ]
    report = safety_report(rows)
    names = ("violation_rate", "single_turn", "multi_turn", "held_out_topics", "held_out_attacks")
    counted = [(report[name]["value"], report[name]["n"]) for name in names]
    assert counted == [(0.6, 5), (0.5, 2), (pytest.approx(2 / 3), 3), (0.0, 2), (1.0, 1)]
    assert {name: (figure["value"], figure["n"]) for name, figure in report["by_category"].items()} == {
        "hateful": (0.5, 2),
        "illicit": (0.5, 2),
    }
    assert {name: figure["n"] for name, figure in report["by_attack"].items()} == {"plain": 3, "role play": 1}


def test_the_share_of_right_answers() -> None:
    figure = correct_share([row(correct=True), row(correct=False, score=0.9), row(correct=False), row(correct=None)])
    assert (figure["value"], figure["n"]) == (pytest.approx(1 / 3), 3)


def test_other_reports() -> None:
    refusals = refusal_report([row(refusal=True, seen=False), row(seen=False), row(seen=True), row(seen=True)])
    assert (refusals["false_refusal_rate"]["value"], refusals["held_out"]["value"], refusals["held_out"]["n"]) == (0.25, 0.5, 2)
    helpful = helpfulness_report([row(score=0.2, kind="facts"), row(score=0.6, kind="story")], [row(score=1.0)])
    assert (helpful["sampled"]["value"], helpful["sampled"]["n"], helpful["greedy"]["value"]) == (pytest.approx(0.4), 2, 1.0)
    assert {name: figure["value"] for name, figure in helpful["by_kind"].items()} == {"facts": 0.2, "story": 0.6}
    assert by([], "kind", lambda rows: helpful["greedy"]) == {}
    assert safety_report([])["violation_rate"]["n"] == 0
