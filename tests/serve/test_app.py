"""The server as OpenAI's own client sees it."""

from openai import OpenAI
from tests.serve.conftest import Running


def test_an_answer_whole_and_streamed(up: Running) -> None:
    client = OpenAI(base_url=up.v1, api_key="none")
    asked = {"model": "short", "messages": [{"role": "user", "content": "Where does Ada live?"}], "seed": 7, "max_completion_tokens": 20}
    whole = client.chat.completions.create(**asked).choices[0].message.content
    pieces = [chunk.choices[0].delta.content or "" for chunk in client.chat.completions.create(**asked, stream=True)]
    assert "".join(pieces) == whole
    assert up.open == 0
