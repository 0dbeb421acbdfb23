"""The server as LangChain's ChatOpenAI sees it."""

import asyncio

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from tests.serve.conftest import Running

langchain_openai = pytest.importorskip("langchain_openai")


@pytest.fixture
def model(up: Running) -> "langchain_openai.ChatOpenAI":
    return langchain_openai.ChatOpenAI(
        model="short", base_url=up.v1, api_key="none", temperature=0.9, seed=3, max_tokens=24, n=1, top_p=0.95, max_retries=0, stop=["\n"]
    )


MESSAGES = [SystemMessage("Answer briefly."), HumanMessage("Where does Ada live?"), AIMessage("Lima."), HumanMessage("And Ben?")]


def test_an_answer_and_its_counts(model: "langchain_openai.ChatOpenAI") -> None:
    answer = model.invoke(MESSAGES)
    assert isinstance(answer.content, str)
    assert answer.response_metadata["finish_reason"] in ("stop", "length")
    assert answer.response_metadata["model_name"] == "short"
    assert answer.usage_metadata["total_tokens"] == answer.usage_metadata["input_tokens"] + answer.usage_metadata["output_tokens"]
    assert model.invoke(MESSAGES).content == answer.content


def test_a_stream_adds_up(model: "langchain_openai.ChatOpenAI", up: Running) -> None:
    whole = model.invoke(MESSAGES).content
    assert "".join(chunk.content for chunk in model.stream(MESSAGES)) == whole
    chunks = list(model.stream(MESSAGES, stream_usage=True))
    assert sum(chunk.usage_metadata["total_tokens"] for chunk in chunks if chunk.usage_metadata) > 0
    up.wait_empty()


def test_batches_and_log_probabilities(model: "langchain_openai.ChatOpenAI") -> None:
    questions = ["Where does Ada live?", "Where does Ben live?", "Where does Eva live?"]
    together = [answer.content for answer in model.batch(questions)]
    assert together == [model.invoke(question).content for question in questions]
    assert asyncio.run(model.ainvoke(questions[0])).content == together[0]
    told = model.bind(logprobs=True, top_logprobs=2).invoke(questions[0]).response_metadata["logprobs"]["content"]
    assert all(len(token["top_logprobs"]) == 2 for token in told)
