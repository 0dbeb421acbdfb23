"""The tokenizer as files that transformers loads: `tokenizer.json` and its companions, beside SentencePiece's own model.

The written tokenizer gives the ids of ours, with one difference that is transformers': it reads `<s>`, `</s>` and `<unk>`
in a text as the control ids. Do not give it text of strangers without escaping those.
"""

from pathlib import Path
from typing import Any

from ..chat.template import CHAT_TEMPLATE
from ..core.errors import UserError
from ..core.files import write_json, write_text
from ..tokenizer.sentencepiece import SPACE, Tokenizer


def merges(tokenizer: Tokenizer) -> list[tuple[str, str]]:
    """All pairs of pieces that join into a piece, in the order in which they are to be joined.

    Raises UserError for a SentencePiece model that is not BPE, whose scores mean something else.
    """
    ids = {
        tokenizer.piece(id): id
        for id in range(tokenizer.vocab_size)
        if id != tokenizer.unk_id and not tokenizer.is_control(id) and tokenizer.byte(id) is None
    }
    if any(not tokenizer.score(id).is_integer() for id in ids.values()):
        raise UserError("this SentencePiece model is not of type BPE and has no tokenizer.json form; train one with llamaherd tokenizer")
    found = []
    for piece, id in ids.items():
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in ids and right in ids:
                found.append((-tokenizer.score(id), ids[left], ids[right], left, right))
    return [(left, right) for *_, left, right in sorted(found)]


def tokenizer_json(tokenizer: Tokenizer) -> dict[str, Any]:
    """The content of `tokenizer.json`. Raises UserError when the model is not BPE."""
    special = [id for id in range(tokenizer.vocab_size) if id == tokenizer.unk_id or tokenizer.is_control(id)]
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    bos = tokenizer.piece(tokenizer.bos_id)
    begin = {"SpecialToken": {"id": bos, "type_id": 0}}
    first, second = ({"Sequence": {"id": name, "type_id": index}} for index, name in enumerate("AB"))
    prepend = [{"type": "Prepend", "prepend": SPACE}] if tokenizer.prefixes_space else []
    ends, between = (rf"\A +|[ {SPACE}]+\z", ""), (" {2,}", " ")
    join = [{"type": "Replace", "pattern": {"Regex": some}, "content": left} for some, left in (ends, between) if tokenizer.joins_spaces]
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if tokenizer.prefixes_space else []
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": id, "content": tokenizer.piece(id), **plain} for id in special],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [*join, *prepend, {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}],
        },
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [begin, first],
            "pair": [begin, first, {"SpecialToken": {"id": bos, "type_id": 1}}, second],
            "special_tokens": {bos: {"id": bos, "ids": [tokenizer.bos_id], "tokens": [bos]}},
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                *strip,
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": tokenizer.piece(tokenizer.unk_id),
            # What no text gives: padding with the end of sequence would move where a reward model's score is read.
            "pad_token": tokenizer.piece(tokenizer.unk_id),
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": {tokenizer.piece(id): id for id in range(tokenizer.vocab_size)},
            "merges": [f"{left} {right}" for left, right in merges(tokenizer)],
        },
    }


def write_tokenizer_files(tokenizer: Tokenizer, folder: Path, context_tokens: int | None = None) -> None:
    """Writes `tokenizer.model`, `tokenizer.json`, `tokenizer_config.json`, `special_tokens_map.json`, `chat_template.jinja`.

    `context_tokens` is the longest input of the model they go with. Raises UserError when the model is not BPE.
    """
    names = {
        "bos_token": tokenizer.piece(tokenizer.bos_id),
        "eos_token": tokenizer.piece(tokenizer.eos_id),
        "unk_token": tokenizer.piece(tokenizer.unk_id),
        # What no text gives: padding with the end of sequence would move where a reward model's score is read.
        "pad_token": tokenizer.piece(tokenizer.unk_id),
    }
    config: dict[str, Any] = {
        # The class that takes tokenizer.json as it stands: LlamaTokenizer of transformers 5 replaces the normalizer by
        # one that leaves out the space after <s>, and with it the ids of Meta's format.
        "tokenizer_class": "PreTrainedTokenizerFast",
        **names,
        "add_bos_token": True,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "legacy": False,
        "chat_template": CHAT_TEMPLATE,
    }
    if context_tokens is not None:
        config["model_max_length"] = context_tokens
    content = tokenizer_json(tokenizer)
    tokenizer.save(folder)
    write_json(folder / "tokenizer.json", content)
    write_json(folder / "tokenizer_config.json", config)
    write_json(folder / "special_tokens_map.json", names)
    write_text(folder / "chat_template.jinja", CHAT_TEMPLATE)
