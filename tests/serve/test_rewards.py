"""Rewards over HTTP are those of `llamaherd score`."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.serve.conftest import Running

from llamaherd.core.config import build
from llamaherd.core.errors import UserError
from llamaherd.core.files import write_rows
from llamaherd.serve.config import ServeConfig
from llamaherd.serve.rewards import Rewards
from llamaherd.stages.score import run as score_file

DIALOGUES = [
    {
        "messages": [
            {"role": "user", "content": f"Where does {name} live{mark}"},
            {"role": "assistant", "content": f"{name} lives in {city}."},
        ]
    }
    for name, mark, city in [("Ada", "?", "Lima"), ("Ben", " now?", "Oslo"), ("Eva", " then, and why?", "Rome"), ("Max", "?", "Kyiv")]
]


@pytest.fixture(scope="module")
def rewarding(serve: Callable[..., Any], talkers: Path, tiny_folder: Path) -> Iterator[Running]:
    rewards = [str(tiny_folder / "helpfulness"), f"other={tiny_folder / 'safety'}"]
    with serve(models=[str(talkers / "short")], rewards=rewards, guard={"model": str(tiny_folder / "safety")}) as server:
        yield server


@pytest.mark.parametrize(("name", "folder"), [("safety", "safety"), ("helpfulness", "helpfulness"), ("other", "safety")])
def test_the_same_bits_as_the_command(rewarding: Running, tiny_folder: Path, tmp_path: Path, name: str, folder: str) -> None:
    write_rows(tmp_path / "dialogues.jsonl", DIALOGUES)
    expected = [json.loads(line) for line in score_file(str(tiny_folder / folder), tmp_path / "dialogues.jsonl")]
    answer = httpx.post(f"{rewarding.v1}/rewards", json={"model": name, "dialogues": DIALOGUES})
    assert answer.status_code == 200, answer.text
    assert [(one["score"], one["logit"]) for one in answer.json()["data"]] == [(one["score"], one["logit"]) for one in expected]
    assert [one["index"] for one in answer.json()["data"]] == [0, 1, 2, 3]
    assert answer.json()["model"] == name


def test_null_equals_absent_all_the_way_down(rewarding: Running) -> None:
    body = {"model": "other", "dialogues": [{"messages": [{**one, "name": None} for one in DIALOGUES[0]["messages"]], "score": None}]}
    absent = httpx.post(f"{rewarding.v1}/rewards", json={"model": "other", "dialogues": DIALOGUES[:1]})
    assert httpx.post(f"{rewarding.v1}/rewards", json=body).json() == absent.json()
    parts = [{"type": "text", "text": "Where?", "image_url": None}]
    assert httpx.post(f"{rewarding.v1}/moderations", json={"input": parts, "messages": None}).status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"dialogues": DIALOGUES}, 400, "several reward models; name one: safety, helpfulness, other"),
        ({"model": "helpfulnes", "dialogues": DIALOGUES}, 404, "did you mean 'helpfulness'?"),
        ({"model": "other", "dialogues": DIALOGUES * 33}, 400, "132 dialogues; at most 128"),
        ({"model": "other", "dialogues": []}, 400, "dialogues"),
        (
            {"model": "other", "dialogues": [DIALOGUES[0], {"messages": DIALOGUES[1]["messages"][:1]}]},
            400,
            "dialogues[1]: message 1 (user)",
        ),
        ({"model": "other", "dialogues": [{"messages": DIALOGUES[0]["messages"] * 40}]}, 400, "dialogues[0]: "),
        ({"model": "other", "dialogues": [{"messages": DIALOGUES[0]["messages"] * 2049}]}, 400, "4098 messages; at most 4096"),
    ],
)
def test_what_cannot_be_scored_is_said(rewarding: Running, body: dict[str, Any], status: int, said: str) -> None:
    answer = httpx.post(f"{rewarding.v1}/rewards", json=body)
    assert answer.status_code == status
    assert said in answer.json()["error"]["message"]


def test_a_server_without_reward_models_says_so(up: Running) -> None:
    answer = httpx.post(f"{up.v1}/rewards", json={"dialogues": DIALOGUES})
    assert answer.status_code == 404
    assert "start it with --reward" in answer.json()["error"]["message"]


def test_too_many_at_once_are_told_to_come_again(serve: Callable[..., Any], talkers: Path, tiny_folder: Path) -> None:
    with serve(models=[str(talkers / "short")], rewards=[str(tiny_folder / "safety")], limits={"waiting": 3}) as server:
        answer = httpx.post(f"{server.v1}/rewards", json={"dialogues": DIALOGUES})
        assert answer.status_code == 429
        assert answer.headers["retry-after"] == "1"
        assert httpx.post(f"{server.v1}/rewards", json={"dialogues": DIALOGUES[:3]}).status_code == 200
        assert 'llamaherd_refused_total{reason="busy"} 1.0' in httpx.get(f"{server.url}/metrics").text


def test_reward_models_are_checked_before_anything_is_loaded(tiny_folder: Path, tmp_path: Path) -> None:
    def rewards(**settings: Any) -> Rewards:
        return Rewards(build(ServeConfig, {"models": ["x"], **settings}), taken=["v0"])

    safety = str(tiny_folder / "safety")
    with pytest.raises(UserError, match=r"v0 is a .*model; the guard, and whatever gives rewards, is a reward model"):
        rewards(rewards=[f"judge={tiny_folder / 'v0'}"])
    with pytest.raises(UserError, match="two models are called 'v0'"):
        rewards(rewards=[f"v0={safety}"])
    with pytest.raises(UserError, match="two models are called 'safety'"):
        rewards(rewards=[f"safety={tiny_folder / 'helpfulness'}"], guard={"model": safety})
    with pytest.raises(UserError):
        rewards(guard={"model": str(tmp_path / "nowhere")})
    both = rewards(rewards=[safety], guard={"model": safety})
    assert list(both.models) == ["safety"], "the guard may be asked as well"
    assert both.guard is both.models["safety"]
