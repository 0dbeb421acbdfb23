"""The requests that Open WebUI sends to an OpenAI-compatible address, field by field."""

import json

import httpx
from tests.serve.conftest import Running

HTTP = httpx.Client(timeout=120, limits=httpx.Limits(max_connections=None), trust_env=False)
"""One for all: to make a client takes longer than to ask."""

HEADERS = {"Authorization": "Bearer sk-anything", "Content-Type": "application/json", "Accept": "*/*"}


def test_the_list_of_models_comes_first(up: Running) -> None:
    listed = HTTP.get(f"{up.v1}/models", headers=HEADERS).json()
    assert listed["object"] == "list"
    assert [model["id"] for model in listed["data"]] == ["short", "endless"]
    assert all(model["object"] == "model" and isinstance(model["created"], int) and model["owned_by"] for model in listed["data"])


def chat_body(**more: object) -> dict[str, object]:
    return {
        "stream": True, "model": "short",
        "messages": [{"role": "system", "content": "Answer briefly."}, {"role": "user", "content": "Where does Ada live?"}],
        "temperature": 0.8, "top_p": 0.9, "max_tokens": 60, "seed": 7, "stop": ["\n\nUser:"], "stream_options": {"include_usage": True},
        "user": "0b4f", "metadata": {"chat_id": "c", "message_id": "m"}, **more,
    }  # fmt: skip


def test_a_streamed_chat(up: Running) -> None:
    lines: list[str] = []
    with HTTP.stream("POST", f"{up.v1}/chat/completions", headers=HEADERS, json=chat_body()) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["x-accel-buffering"] == "no"
        lines = [line for line in response.iter_lines() if line.startswith("data: ")]
    assert lines[-1] == "data: [DONE]"
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-1]["choices"] == []
    assert set(chunks[-1]["usage"]) >= {"prompt_tokens", "completion_tokens", "total_tokens"}
    text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks[:-1])
    whole = HTTP.post(f"{up.v1}/chat/completions", headers=HEADERS, json=chat_body(stream=False, stream_options=None)).json()
    assert whole["choices"][0]["message"]["content"] == text


def test_titles_and_tags_by_the_way(up: Running) -> None:
    asked = (
        "### Task:\nGenerate a concise, 3-5 word title with an emoji summarizing the chat history.\n### Output:\nJSON format: "
        '{ "title": "your concise title here" }\n### Chat History:\n<chat_history>\nUSER: Where does Ada live?\nASSISTANT: Lima.\n</chat_history>'
    )
    for length in ("max_tokens", "max_completion_tokens"):
        body = {
            "model": "short",
            "messages": [{"role": "user", "content": asked}],
            "stream": False,
            length: 1000,
            "metadata": {"task": "title"},
        }
        answer = HTTP.post(f"{up.v1}/chat/completions", headers=HEADERS, json=body, timeout=60)
        assert answer.status_code == 200
        assert isinstance(answer.json()["choices"][0]["message"]["content"], str)


def test_its_stop_button_closes_the_connection(up: Running) -> None:
    with HTTP.stream("POST", f"{up.v1}/chat/completions", headers=HEADERS, json=chat_body(model="endless", max_tokens=2000)) as response:
        lines = response.iter_lines()  # held: its end would close the connection
        next(lines)
        assert up.open == 1
    up.wait_empty()
