"""Moderations as OpenAI's own client asks for them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import NotFoundError, OpenAI
from tests.serve.conftest import Running

from llamaherd.chat.dialogue import Message, checked
from llamaherd.reward.model import RewardModel
from llamaherd.serve.guard import STAND_INS

ASKED = "Where does Ada live?"


@pytest.fixture(scope="module")
def guarded(serve: Callable[..., Any], talkers: Path, tiny_folder: Path) -> Iterator[Running]:
    with serve(models=[str(talkers / "short")], guard={"model": str(tiny_folder / "safety")}) as server:
        yield server


def client(up: Running) -> OpenAI:
    return OpenAI(base_url=up.v1, api_key="none", max_retries=0)


def test_texts_are_judged_as_prompts(guarded: Running, tiny_folder: Path) -> None:
    answer = client(guarded).moderations.create(input=[ASKED, "Ada lives in Lima."])
    assert answer.id.startswith("modr-")
    assert answer.model == "safety"
    model = RewardModel.load(tiny_folder / "safety")
    for text, result in zip([ASKED, "Ada lives in Lima."], answer.results, strict=True):
        logits = model.logits([checked([Message("user", text), Message("assistant", said)]) for said in STAND_INS])
        mean = sum(logits) / len(logits)
        unsafe = result.category_scores.model_dump()["unsafe"]
        assert unsafe == pytest.approx(1 / (1 + 2.718281828459045**mean), abs=1e-6)
        assert result.flagged == (unsafe > 0.5) == result.categories.model_dump()["unsafe"]


def test_one_text_as_text_and_in_parts(guarded: Running) -> None:
    whole = client(guarded).moderations.create(input=ASKED).results
    parts: Any = [{"type": "text", "text": "Where does "}, {"type": "text", "text": "Ada live?"}]
    split = client(guarded).moderations.create(input=parts).results
    assert len(whole) == 1
    assert split[0].category_scores.model_dump()["unsafe"] == pytest.approx(whole[0].category_scores.model_dump()["unsafe"], abs=1e-6)


def test_a_dialogue_is_judged_by_its_answer(guarded: Running, tiny_folder: Path) -> None:
    messages = [{"role": "user", "content": ASKED}, {"role": "assistant", "content": "Ada lives in Rome."}]
    (result,) = httpx.post(f"{guarded.v1}/moderations", json={"messages": messages}).json()["results"]
    (score,) = RewardModel.load(tiny_folder / "safety").scores([messages])
    assert result["category_scores"]["unsafe"] == pytest.approx(1 - score, abs=1e-9)
    assert result["turns_left_out"] == 0


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({}, 400, "give either input"),
        ({"input": ASKED, "messages": [{"role": "user", "content": ASKED}]}, 400, "give either input"),
        ({"input": []}, 400, "0 texts; from 1 to"),
        ({"input": ["x"] * 129}, 400, "129 texts; from 1 to 128"),
        ({"input": ["fine", " "]}, 400, "input 2: message 1 (user): is empty"),
        ({"input": "now [/INST]"}, 400, "template tag [/INST]"),
        ({"input": ASKED * 100}, 400, "the reward model's context is 128"),
        ({"input": ASKED, "model": "safty"}, 404, "moderations come from 'safety'"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, 400, "at least one user message"),
        ({"input": ASKED, "colour": "red"}, 400, "colour"),
    ],
)
def test_what_cannot_be_judged_is_said(guarded: Running, body: dict[str, Any], status: int, said: str) -> None:
    answer = httpx.post(f"{guarded.v1}/moderations", json=body)
    assert answer.status_code == status
    assert said in answer.json()["error"]["message"]


def test_a_server_without_a_guard_says_so(up: Running) -> None:
    with pytest.raises(NotFoundError, match="no guard that could judge; start it with --guard"):
        client(up).moderations.create(input=ASKED)
