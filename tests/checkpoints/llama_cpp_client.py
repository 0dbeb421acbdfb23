"""What llama.cpp makes of a GGUF file, run by an interpreter that has llama-cpp-python, which may have neither torch nor us.

`python llama_cpp_client.py MODEL OUT < REQUEST`, where the request is JSON: `rows` of ids, `texts`, `dialogue` (messages),
`greedy_tokens`. Writes `OUT.npz`, the logits of every position of each row, and prints the rest as JSON.
"""

import json
import sys

import numpy as np
from llama_cpp import Llama
from llama_cpp.llama_chat_format import Jinja2ChatFormatter

FLOAT32 = 0
"""GGML's number for it: keys and values are kept in float16 unless told otherwise."""


def main(model: str, out: str) -> None:
    request = json.load(sys.stdin)
    llama = Llama(model, n_ctx=0, n_threads=1, n_threads_batch=1, logits_all=True, type_k=FLOAT32, type_v=FLOAT32, verbose=False)
    logits = {}
    for number, row in enumerate(request.get("rows", [])):
        llama.reset()
        llama.eval(row)
        logits[str(number)] = llama.scores[: len(row)].copy()
    np.savez(out, **logits)
    answer = {
        "pieces": [llama.tokenize(text.encode(), add_bos=False, special=False) for text in request.get("texts", [])],
        "begun": llama.tokenize(b"a", special=False),
        "metadata": llama.metadata,
    }
    if dialogue := request.get("dialogue"):
        eos, bos = (llama._model.token_get_text(id) for id in (llama.token_eos(), llama.token_bos()))
        chat = Jinja2ChatFormatter(llama.metadata["tokenizer.chat_template"], eos_token=eos, bos_token=bos)(messages=dialogue)
        answer["prompt"] = llama.tokenize(chat.prompt.encode(), add_bos=not chat.added_special, special=True)
    if tokens := request.get("greedy_tokens"):
        llama.reset()
        ids = [llama.token_bos()]
        while len(ids) < tokens:
            llama.eval(ids[-1:])
            ids.append(int(llama.scores[len(ids) - 1].argmax()))
            if ids[-1] == llama.token_bos():
                break
        answer["greedy"] = ids
        answer["greedy_text"] = llama.detokenize(ids).decode()
    print(json.dumps(answer))


if __name__ == "__main__":
    main(*sys.argv[1:])
