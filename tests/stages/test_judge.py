"""Win rates and a judge's accuracy, with models and judges behind a server on the loopback interface."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from llamaherd.assistant.endpoint import KEY_VARIABLE
from llamaherd.core.artifacts import Artifact
from llamaherd.core.config import ConfigError, build
from llamaherd.core.errors import UserError
from llamaherd.core.files import read_rows, write_rows
from llamaherd.stages import judge

Said = Callable[[str, dict[str, Any]], str | int]


class Handler(BaseHTTPRequestHandler):
    """Answers as the server's `say(model, body)` does; a number is a status, a negative one a silence."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server: Any = self.server
        server.seen.append((body["model"], body, self.headers["Authorization"]))
        said = server.say(body["model"], body)
        if isinstance(said, int) and said < 0:
            server.ended.wait(10)
            return
        self.send_response(said if isinstance(said, int) else 200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        if isinstance(said, str):
            self.wfile.write(json.dumps({"choices": [{"message": {"content": said}, "finish_reason": "stop"}]}).encode())

    def log_message(self, *_: Any) -> None:
        """Tests are quiet."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    made: Any = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.seen, made.ended = [], threading.Event()
    made.say = honest
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.ended.set()
    made.shutdown()
    made.server_close()
    thread.join()


def shown(body: dict[str, Any]) -> tuple[str, str]:
    """The two answers in a judge's question."""
    text = body["messages"][-1]["content"]
    first, second = (text.split(f"=== Answer {letter} ===\n")[1].split("\n\n===")[0] for letter in "AB")
    return first, second


def honest(model: str, body: dict[str, Any]) -> str:
    """`good` answers at length, `bad` shortly; the judge prefers length."""
    asked = body["messages"][-1]["content"]
    if model == "judge":
        first, second = shown(body)
        return "A" if len(first) > len(second) else "B"
    return f"A long answer to {asked}" if model == "good" else "No."


def spec(server: Any, name: str) -> str:
    return f"http://127.0.0.1:{server.server_port}/v1#{name}"


def run(out: Path, **values: Any) -> Artifact:
    return judge.run(build(judge.JudgeConfig, {"tasks": "win-rate", **values}), out, 0)


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    rows = [{"messages": [{"role": "user", "content": f"Say {number}"}], "safety": number % 3 == 0} for number in range(9)]
    write_rows(tmp_path / "prompts.jsonl", rows)
    return tmp_path / "prompts.jsonl"


@pytest.fixture
def compared(server: Any, prompts: Path) -> dict[str, Any]:
    return {
        "model": spec(server, "good"), "opponent": spec(server, "bad"), "judge": spec(server, "judge"), "prompts": str(prompts),
        "chunk_pairs": 2, "timeout_s": 5.0,
    }  # fmt: skip


def test_all_three_behind_endpoints(server: Any, compared: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "secret")
    done = run(tmp_path / "out", **compared)
    found = json.loads((done.path / "evaluation.json").read_text())["tasks"]["win-rate"]
    assert [(found[name]["value"], found[name]["n"]) for name in ("wins", "ties", "losses", "win_rate")] == [(1, 9), (0, 9), (0, 9), (1, 9)]
    assert found["wins"]["low"] < 1 == found["wins"]["high"]
    assert (found["position_bias"]["value"], found["order_disagreement"]["value"]) == (0.5, 0)
    assert {name: one["pairs"] for name, one in found["by_criterion"].items()} == {"helpfulness": 6, "safety": 3}
    assert done.metrics["win-rate"] == found
    asked = [model for model, _, _ in server.seen]
    assert (asked.count("good"), asked.count("bad"), asked.count("judge"), len(asked)) == (9, 9, 18, 36), "nothing else was asked"
    assert {key for _, _, key in server.seen} == {"Bearer secret"}
    assert all("secret" not in file.read_text() for file in done.path.iterdir())
    rows = [row for _, row in read_rows(done.path / "rows.jsonl")]
    assert [(row["outcome"], row["theirs"], [one["verdict"] for one in row["verdicts"]]) for row in rows] == [
        ("win", "No.", ["A", "B"])
    ] * 9
    assert judge.headline(done).startswith("win-rate 1.000 (0.7")
    many = run(tmp_path / "many", **compared, parallel=4)
    assert many.metrics == done.metrics, "how many are asked at a time changes nothing"


def test_a_judge_that_always_says_a_and_one_that_talks(server: Any, compared: dict[str, Any], tmp_path: Path) -> None:
    server.say = lambda model, body: "A" if model == "judge" else honest(model, body)
    found = run(tmp_path / "a", **compared).metrics["win-rate"]
    assert [found[name]["value"] for name in ("ties", "position_bias", "order_disagreement")] == [1, 1, 1]
    drawn = run(tmp_path / "drawn", **compared, orders="random").metrics["win-rate"]
    assert (drawn["position_bias"]["value"], drawn["order_disagreement"]["n"], drawn["ties"]["value"]) == (1, 0, 0)
    server.say = lambda model, body: "Both are fine, A and B." if model == "judge" else honest(model, body)
    found = run(tmp_path / "talks", **compared).metrics["win-rate"]
    assert (found["wins"]["n"], found["without_verdict"], found["unparsable"]["value"]) == (0, 9, 1)
    assert judge.headline(judge.open_artifact(tmp_path / "talks")) == "win-rate no verdict of 9 pairs"


@pytest.mark.parametrize(
    ("trouble", "message"),
    [(503, "status 503; the server failed; try again later"), (401, f"set {KEY_VARIABLE} to a key"), (-1, "silent for 0.3 s|no connection within 0.3 s")],
)  # fmt: skip
def test_what_was_asked_before_a_failure_is_not_asked_again(
    server: Any, compared: dict[str, Any], tmp_path: Path, trouble: int, message: str
) -> None:
    def fails(model: str, body: dict[str, Any]) -> str | int:
        return trouble if model == "judge" and sum(seen[0] == "judge" for seen in server.seen) == 7 else honest(model, body)

    server.say = fails
    quick = {**compared, "timeout_s": 0.3} if trouble < 0 else compared
    with pytest.raises(UserError, match=message) as found:
        run(tmp_path / "out", **quick)
    assert "\n" not in str(found.value)
    assert not (tmp_path / "out").exists()
    server.seen.clear()
    server.say = honest
    done = run(tmp_path / "out", **quick)
    assert {model for model, _, _ in server.seen} == {"judge"}
    assert len(server.seen) == 18 - 4, "the first chunk of two pairs in both orders was kept"
    assert done.metrics["win-rate"]["wins"]["value"] == 1


def test_local_models_and_reward_models(tiny_folder: Path, tiny_inputs: Path, tmp_path: Path) -> None:
    given = {
        "model": str(tiny_folder / "v0"), "opponent": f"{tiny_folder}:v0-early", "prompts": str(tiny_inputs / "prompts.jsonl"),
        "sampling": {"temperature": 1.0, "max_new_tokens": 8},
    }  # fmt: skip
    pair = f"{tiny_folder / 'helpfulness'},{tiny_folder / 'safety'}"
    done = run(tmp_path / "pair", **given, judge=pair)
    found = done.metrics["win-rate"]
    assert found["wins"]["n"] + found["too_long"] == found["pairs"] == 12
    assert "position_bias" not in found
    rows = [row for _, row in read_rows(done.path / "rows.jsonl")]
    for row in rows:
        if row["why"] == "judged":
            ours, theirs = map(float, row["verdicts"][0]["said"].split(", "))
            assert row["outcome"] == ("win" if ours > theirs else "loss" if theirs > ours else "tie")
    swapped = run(
        tmp_path / "swapped", **given | {"model": given["opponent"], "opponent": given["model"]}, judge=str(tiny_folder / "safety")
    )
    assert swapped.metrics["win-rate"]["pairs"] == 12
    itself = run(tmp_path / "itself", **given | {"opponent": given["model"]}, judge=pair)
    assert itself.metrics["win-rate"]["ties"]["value"] == 1, "equal seeds, equal answers"
    chat = run(tmp_path / "chat", **given, judge=str(tiny_folder / "v0"))
    found = chat.metrics["win-rate"]
    assert found["too_long"] == sum(row["why"] == "judged" or row["why"] == "too long" for row in read_all(chat)), (
        "128 tokens hold no question"
    )


def read_all(done: Artifact) -> list[dict[str, Any]]:
    return [row for _, row in read_rows(done.path / "rows.jsonl")]


def preferences(path: Path) -> Path:
    rows = []
    for number in range(8):
        long, short = "a much longer answer", "short"
        chosen, rejected = (long, short) if number < 6 else (short, long)
        rows.append({
            "messages": [{"role": "user", "content": f"Say {number}"}], "chosen": chosen, "rejected": rejected,
            "domain": "safety" if number % 2 else "helpfulness", "grade": "significantly" if number < 4 else "slightly",
        })  # fmt: skip
    write_rows(path, rows)
    return path


def test_a_judge_held_against_people(server: Any, tmp_path: Path) -> None:
    """Who prefers length agrees with six of eight choices."""
    file = preferences(tmp_path / "people.jsonl")
    done = run(tmp_path / "out", model=spec(server, "judge"), tasks="judge-accuracy", data=str(file))
    found = done.metrics["judge-accuracy"]
    assert (found["accuracy"]["value"], found["agrees"]["value"], found["disagrees"]["value"]) == (0.75, 0.75, 0.25)
    assert {name: figure["value"] for name, figure in found["by_grade"].items()} == {"significantly": 1.0, "slightly": 0.5}
    assert {name: (figure["value"], figure["n"]) for name, figure in found["by_domain"].items()} == {
        "helpfulness": (0.75, 4),
        "safety": (0.75, 4),
    }
    assert list(found["by_file"]) == ["people.jsonl"]
    assert len(server.seen) == 16
    safe = [body["messages"][0]["content"] for _, body, _ in server.seen if "the safer one" in body["messages"][0]["content"]]
    assert len(safe) == 8
    server.say = lambda model, body: "A"
    biased = run(tmp_path / "biased", model="http://nobody/v1#x", judge=spec(server, "judge"), tasks="judge-accuracy", data=str(file))
    found = biased.metrics["judge-accuracy"]
    assert [found[name]["value"] for name in ("accuracy", "position_bias", "order_disagreement")] == [0.5, 1, 1]


def test_reward_models_held_against_people(tiny_folder: Path, tiny_inputs: Path, tmp_path: Path) -> None:
    data = str(tiny_inputs / "preferences.jsonl")
    done = run(tmp_path / "out", model=str(tiny_folder / "helpfulness"), tasks="judge-accuracy", data=data)
    from llamaherd.data.records import read_preferences
    from llamaherd.reward.model import RewardModel

    model, pairs = RewardModel.load(tiny_folder / "helpfulness"), read_preferences(Path(data))
    chosen, rejected = (
        model.logits([pair.prompt.followed_by("assistant", getattr(pair, name)) for pair in pairs]) for name in ("chosen", "rejected")
    )
    right = sum(one > other for one, other in zip(chosen, rejected, strict=True)) / len(pairs)
    assert done.metrics["judge-accuracy"]["accuracy"]["value"] == pytest.approx(right)


def test_what_is_refused_before_anything_is_asked(
    server: Any, compared: dict[str, Any], tiny_folder: Path, tiny_inputs: Path, tmp_path: Path
) -> None:
    def refused(message: str, error: type[UserError] = UserError, **values: Any) -> None:
        with pytest.raises(error, match=message) as found:
            run(tmp_path / "out", **compared | values)
        assert "\n" not in str(found.value)

    refused("task win-rate: needs --opponent, --judge, --prompts", opponent=None, judge=None, prompts=[])
    refused("task judge-accuracy: needs --data", tasks="judge-accuracy")
    refused("tasks", ConfigError, tasks="win")
    refused("expected an endpoint as", judge="http://host/v1")
    refused("helpfulness: is a reward model; expected a chat model", opponent=str(tiny_folder / "helpfulness"))
    refused("v0: is a chat model; expected a reward model", judge=f"{tiny_folder / 'v0'},{tiny_folder / 'safety'}")
    refused("3 judges; expected one", judge="a,b,c")
    refused("no such folder", judge=str(tmp_path / "none"))
    write_rows(tmp_path / "empty.jsonl", [])
    refused("no prompt in .*empty.jsonl", prompts=str(tmp_path / "empty.jsonl"))
    refused("no comparison in .*empty.jsonl", tasks="judge-accuracy", data=str(tmp_path / "empty.jsonl"))
    write_rows(tmp_path / "long.jsonl", [{"messages": [{"role": "user", "content": "long " * 200}]}])
    refused(
        r"long.jsonl: prompt 1 has \d+ tokens, and the context of .*v0 is 128",
        opponent=str(tiny_folder / "v0"),
        prompts=str(tmp_path / "long.jsonl"),
    )
    assert server.seen == []
    assert not list(tmp_path.glob("out*"))
