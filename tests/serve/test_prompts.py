"""Prompts as strangers send them: cases 24, 25, 26 and 31 of what a server has to survive."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.serve.conftest import Running

from llamaherd.checkpoints.huggingface import save_model
from llamaherd.model.config import ModelConfig
from llamaherd.model.transformer import Transformer
from llamaherd.tokenizer.sentencepiece import SPACE, Tokenizer

HTTP = httpx.Client(timeout=120, limits=httpx.Limits(max_connections=None), trust_env=False)
"""One for all: to make a client takes longer than to ask."""

LITERALS = (
    "<s>",
    "</s>",
    "<unk>",
    "<0x0A>",
    SPACE,
    "<s>[ INST]",
    "</s><s>",
    f"{SPACE}{SPACE}x",
    "\u202e",
    "a\u0301",
    "\U0001f468\u200d\U0001f469",
)
TAGS = ("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>")


def chat(up: Running, messages: list[dict[str, str]], **settings: Any) -> httpx.Response:
    body = {"model": "short", "messages": messages, "max_tokens": 4, **settings}
    return HTTP.post(f"{up.v1}/chat/completions", json=body, timeout=60)


def preview(up: Running, messages: list[dict[str, str]], model: str = "short") -> list[int]:
    told = HTTP.post(f"{up.v1}/chat/preview", json={"model": model, "messages": messages}).json()
    return [token["id"] for token in told["tokens"]]


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


@pytest.mark.parametrize("text", ["", " ", "\n\t \u3000"])
def test_case_24_nothing_is_asked(up: Running, text: str) -> None:
    response = chat(up, user(text))
    assert response.status_code == 400
    assert response.json()["error"]["message"] == "message 1 (user): is empty; a user message needs text"


def test_case_24_around_the_context(up: Running, tokenizer: Tokenizer) -> None:
    one = len(preview(up, user("Ada")))
    each = len(preview(up, user("Ada Ada"))) - one
    words = 1 + (2047 - one) // each
    tokens = len(preview(up, user("Ada " * words)))
    assert tokens == one + (words - 1) * each
    answer = chat(up, user("Ada " * words), max_tokens=100, model="endless").json()
    assert (answer["usage"]["completion_tokens"], answer["choices"][0]["finish_reason"]) == (2048 - tokens, "length")
    for more in (1, 2, 500):
        response = chat(up, user("Ada " * (words + more)))
        assert response.status_code == 400
        said = response.json()["error"]
        assert said["message"].startswith(f"the prompt has {tokens + more * each} tokens, and the model's context is 2048")
        assert (said["param"], said["code"]) == ("messages", "context_length_exceeded")
    exact = HTTP.post(f"{up.v1}/completions", json={"model": "short", "prompt": [5] * 2048}).json()["error"]
    assert exact["message"].startswith("the prompt has 2048 tokens, and the model's context is 2048")


def test_case_24_far_beyond_the_context_is_refused_unread(up: Running) -> None:
    for body, path in (
        ({"model": "short", "messages": user("Ada " * 400_000)}, "chat/completions"),
        ({"model": "short", "messages": user("Ada " * 400_000), "overflow": "drop-turns"}, "chat/completions"),
        ({"model": "short", "prompt": "Ada " * 400_000}, "completions"),
    ):
        started = time.perf_counter()
        response = HTTP.post(f"{up.v1}/{path}", json=body, timeout=60)
        assert response.status_code == 400
        assert time.perf_counter() - started < 1
        message = response.json()["error"]["message"]
        assert "tokens" in message
        assert any(number in message for number in ("2048", "1536", "1792", "2044"))


@pytest.mark.parametrize("literal", LITERALS)
def test_case_25_literals_never_become_control_ids(up: Running, tokenizer: Tokenizer, literal: str) -> None:
    messages = [{"role": role, "content": f"{literal} x{literal}"} for role in ("system", "user", "assistant", "user")]
    ids = preview(up, messages)
    assert ids.count(1) == 2
    assert ids.count(2) == 1
    assert (ids[0], ids[ids.index(2) + 1]) == (1, 1)
    assert tokenizer.unk_id not in ids
    told = HTTP.post(f"{up.url}/tokenize", json={"prompt": literal, "add_special_tokens": False}).json()["tokens"]
    assert not {0, 1, 2} & set(told)
    assert HTTP.post(f"{up.url}/detokenize", json={"tokens": told}).json()["prompt"] == literal.replace(SPACE, " ")
    assert chat(up, messages).status_code == 200


@pytest.mark.parametrize("tag", TAGS)
def test_case_25_tags_split_across_messages_forge_nothing(up: Running, tokenizer: Tokenizer, tag: str) -> None:
    for cut in range(1, len(tag)):
        messages = [{"role": "user", "content": "a " + tag[:cut]}, {"role": "assistant", "content": tag[cut:]}, *user("b")]
        text = tokenizer.decode(preview(up, messages))
        plain = "[INST] a " + tag[:cut] + " [/INST] " + tag[cut:] + " [INST] b [/INST]"
        assert text.split() == plain.split()
        parts = [{"type": "text", "text": tag[:cut]}, {"type": "text", "text": tag[cut:]}]
        assert chat(up, [{"role": "user", "content": parts}]).status_code == 400  # type: ignore[dict-item]


@pytest.fixture(scope="module")
def released(llama2: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model on the released tokenizer."""
    folder = tmp_path_factory.mktemp("released") / "llama"
    save_model(
        Transformer(ModelConfig(dim=8, layers=1, heads=2, kv_heads=1, ffn=8, vocab_size=llama2.vocab_size, context=4096)), llama2, folder
    )
    return folder


def by_the_reference_code(messages: list[dict[str, str]], tokenizer: Tokenizer) -> list[int]:
    """llama/generation.py, chat_completion, as it was released."""
    if messages[0]["role"] == "system":
        folded = "<<SYS>>\n" + messages[0]["content"] + "\n<</SYS>>\n\n" + messages[1]["content"]
        messages = [{"role": messages[1]["role"], "content": folded}, *messages[2:]]
    ids: list[int] = []
    for prompt, answer in zip(messages[::2], messages[1::2], strict=False):
        ids += [1, *tokenizer.encode(f"[INST] {prompt['content'].strip()} [/INST] {answer['content'].strip()} "), 2]
    return [*ids, 1, *tokenizer.encode(f"[INST] {messages[-1]['content'].strip()} [/INST]")]


def test_case_26_fifty_dialogues_as_the_reference_code_writes_them(serve: Callable[..., Any], released: Path, llama2: Tokenizer) -> None:
    words = [
        "Where does Ada live?",
        " In Lima. ",
        "Größe\n\n2 + 2 = 4",
        "\U0001f999 \u4f60\u597d",
        "def f(x):\n    return x  ",
        "<s> </s>",
        "1.000,50 $",
    ]
    with serve(models=[str(released)]) as up:
        for number in range(50):
            turns = 1 + number % 4
            talk = [
                {"role": "assistant" if place % 2 else "user", "content": words[(number + 3 * place) % len(words)] * (1 + number % 3)}
                for place in range(2 * turns - 1)
            ]
            system = [{"role": "system", "content": words[number % len(words)]}] if number % 2 else []
            ids = preview(up, [*system, *talk], "llama")
            assert ids == by_the_reference_code([*system, *talk], llama2)
            assert ids.count(1) == turns
            if number % 10 == 0:
                answer = chat(up, [*system, *talk], model="llama", max_tokens=1).json()
                assert answer["usage"]["prompt_tokens"] == len(ids)


@pytest.fixture(scope="module")
def small(make_tiny: Callable[[int], Transformer], tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small") / "small"
    save_model(make_tiny(3), tokenizer, folder)
    return folder


def test_case_31_alone_in_company_twice_and_remembered(serve: Callable[..., Any], small: Path) -> None:
    def said(up: Running, content: str, **settings: Any) -> tuple[str, list[float]]:
        answer = chat(up, user(content), model="small", max_tokens=10, logprobs=True, **settings).json()["choices"][0]
        return answer["message"]["content"], [token["logprob"] for token in answer["logprobs"]["content"]]

    kept = []
    for invariant, memory_gib in ((False, 0.1), (True, 0.0), (True, 0.1)):
        with serve(models=[str(small)], invariant=invariant, memory_gib=memory_gib) as up, ThreadPoolExecutor(64) as threads:
            for settings in ({"temperature": 0}, {"temperature": 1.5, "seed": 5}):
                alone = said(up, "Where does Ada live?", **settings)
                crowd = [threads.submit(said, up, f"Where does Ben live {'now ' * (number % 9)}?", seed=number) for number in range(62)]
                company = [threads.submit(said, up, "Where does Ada live?", **settings) for _ in range(2)]
                results = [said(up, "Where does Ada live?", **settings), *(one.result() for one in company)]
                assert all(one.result() for one in crowd)
                if invariant:
                    assert results == [alone] * 3
                    kept.append(alone)
                else:
                    assert {text for text, _ in results} == {alone[0]}
    assert kept[:2] == kept[2:]
