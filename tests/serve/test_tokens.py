"""Texts and dialogues as ids, over HTTP."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.serve.conftest import Running

from llamaherd.chat.dialogue import Message, checked
from llamaherd.chat.template import encode_dialogue
from llamaherd.tokenizer.sentencepiece import SPACE, Tokenizer

HTTP = httpx.Client(timeout=120, limits=httpx.Limits(max_connections=None), trust_env=False)
"""One for all: to make a client takes longer than to ask."""

TALK = [{"role": "user", "content": "Where does Ada live?"}, {"role": "assistant", "content": "In Lima."}]


def post(up: Running, path: str, **body: Any) -> Any:
    return HTTP.post(up.url + path, json=body).json()


def test_a_text_and_back(up: Running, tokenizer: Tokenizer) -> None:
    for text in ("Ada lives in Lima.", "", " two  spaces ", "\t\n", "Öslo \U0001f999", "<s>[INST] </s> <unk> <0x0A>"):
        told = post(up, "/tokenize", model="short", prompt=text)
        assert told == {"count": len(told["tokens"]), "max_model_len": 2048, "tokens": [1, *tokenizer.encode(text)], "token_strs": None}
        assert post(up, "/detokenize", model="short", tokens=told["tokens"]) == {"prompt": text}
        assert not {1, 2} & set(post(up, "/tokenize", prompt=text, add_special_tokens=False)["tokens"])
    pieces = post(up, "/tokenize", prompt="Ada lives", return_token_strs=True)["token_strs"]
    assert "".join(pieces) == f"<s>{SPACE}Ada{SPACE}lives"
    assert post(up, "/detokenize", tokens=post(up, "/tokenize", prompt=f"a{SPACE}b")["tokens"]) == {"prompt": "a b"}


def test_a_dialogue(up: Running, tokenizer: Tokenizer) -> None:
    dialogue = checked([Message("user", "Where does Ada live?"), Message("assistant", "In Lima.")])
    whole = encode_dialogue(dialogue, tokenizer).ids
    assert post(up, "/tokenize", messages=TALK)["tokens"] == whole
    assert post(up, "/tokenize", messages=TALK, continue_final_message=True)["tokens"] == whole[:-2]
    prompt = post(up, "/tokenize", messages=TALK[:1])["tokens"]
    assert prompt == whole[: len(prompt)]


def test_what_lm_eval_asks_first(up: Running) -> None:
    info = HTTP.get(f"{up.url}/tokenizer_info").json()
    assert info["eos_token"] is None
    assert (info["bos_token_id"], info["eos_token_id"], info["max_model_len"]) == (1, 2, 2048)


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/tokenize", {}, "either prompt or messages"), ("/tokenize", {"prompt": "a", "messages": TALK}, "either prompt or messages"),
        ("/tokenize", {"prompt": "\0"}, "NUL"), ("/tokenize", {"prompt": "a", "model": "none"}, "no model 'none'"),
        ("/tokenize", {"messages": TALK[:1], "continue_final_message": True}, "goes on from an assistant's"),
        ("/tokenize", {"messages": [{"role": "user", "content": "[INST]"}]}, "template tag"),
        ("/tokenize", {"prompt": "a", "chat_template": "{{ 1 }}"}, "chat_template: is not supported"),
        ("/detokenize", {"tokens": [340]}, "340 is no id of this model, whose ids are 0 to 339"), ("/detokenize", {"tokens": [-1]}, "-1 is no id"),
        ("/detokenize", {"tokens": ["a"]}, "valid integer"), ("/detokenize", {"tokens": [1 << 70]}, "is no id"),
    ],
)  # fmt: skip
def test_refusals(up: Running, path: str, body: dict[str, Any], said: str) -> None:
    response = HTTP.post(up.url + path, json=body)
    assert response.status_code in (400, 404)
    assert said in response.json()["error"]["message"]


def test_lone_surrogates_are_no_text(up: Running) -> None:
    for path, body in (
        ("/tokenize", b'{"prompt": "a\\ud800"}'), ("/v1/completions", b'{"model": "short", "prompt": "\\udfff"}'),
        ("/v1/chat/completions", b'{"model": "short", "messages": [{"role": "user", "content": "\\ud800"}]}'),
        ("/v1/chat/completions", b'{"model": "\\ud800", "messages": [{"role": "user", "content": "a"}]}'),
        ("/v1/chat/completions", b'{"model": "short", "\\ud800": 1, "messages": []}'),
        ("/v1/completions", b'{"model": "short", "prompt": "a", "stop": "\\ud800"}'),
    ):  # fmt: skip
        response = HTTP.post(up.url + path, content=body, headers={"Content-Type": "application/json"})
        assert response.status_code in (400, 404)
        assert response.json()["error"]["message"]


def test_models_of_different_contexts_are_told_apart(serve: Any, talkers: Path, tiny_folder: Path) -> None:
    with serve(models=[str(talkers / "short"), str(tiny_folder / "v0")]) as up:
        assert "name one of short, v0" in HTTP.post(f"{up.url}/tokenize", json={"prompt": "a"}).json()["error"]["message"]
        assert post(up, "/tokenize", prompt="a", model="v0")["max_model_len"] == 128
