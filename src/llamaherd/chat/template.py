"""The chat format of Llama 2 (paper section 14): a dialogue as ids with a loss mask. No other module knows the format.

Every user message and its answer make one pair, encoded as one ordinary text between begin and end:

    <s>[INST] user [/INST] answer </s><s>[INST] user [/INST]

The system text is folded into the first user message. Tags are plain text, so `chat.dialogue` refuses them in messages.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ..tokenizer.sentencepiece import Tokenizer
from .dialogue import Dialogue, Role


@dataclass(frozen=True)
class Rendered:
    """Ids of a dialogue, and for each of them 1 where it is trained on, else 0; both of length T."""

    ids: list[int]
    mask: list[int]


def _pairs(dialogue: Dialogue) -> list[tuple[str, str]]:
    """(text of the prompt, text of the answer with its spaces) of each pair; the answer to come is empty."""
    system = dialogue.system
    rest = [message.content for message in dialogue.messages[system is not None :]]
    if system is not None:
        rest[0] = f"<<SYS>>\n{system}\n<</SYS>>\n\n{rest[0]}"
    answers = [f" {answer.strip()} " for answer in rest[1::2]]
    if dialogue.last.role == "user":
        answers.append("")
    return [(f"[INST] {user.strip()} [/INST]", answer) for user, answer in zip(rest[0::2], answers, strict=True)]


def pair_texts(dialogue: Dialogue) -> list[str]:
    """The text of each pair as it is encoded: what a tokenizer trains on."""
    return [prompt + answer for prompt, answer in _pairs(dialogue)]


def encode_dialogue(dialogue: Dialogue, tokenizer: Tokenizer) -> Rendered:
    """A dialogue that ends with an answer, for training.

    The mask is 1 on a pair's ids after its prompt (the answer, its final space, end), 0 on begin and prompt; under
    `trained == "last"` (Ghost Attention, section 7) the earlier answers are 0 too.
    """
    assert dialogue.last.role == "assistant", "a dialogue to train on ends with an answer"
    ids: list[int] = []
    mask: list[int] = []
    pairs = _pairs(dialogue)
    for index, (prompt, answer) in enumerate(pairs):
        prompt_ids, pair_ids = tokenizer.encode(prompt), tokenizer.encode(prompt + answer)
        # At generation the answer follows exactly these ids.
        assert pair_ids[: len(prompt_ids)] == prompt_ids, "the tokenizer merges across the end of the prompt"
        trained = int(dialogue.trained == "all" or index == len(pairs) - 1)
        ids += [tokenizer.bos_id, *pair_ids, tokenizer.eos_id]
        mask += [0] * (1 + len(prompt_ids)) + [trained] * (len(pair_ids) - len(prompt_ids) + 1)
    return Rendered(ids, mask)


def supervision(rendered: Sequence[Rendered], eos_id: int) -> dict[str, int]:
    """What is trained of dialogues: `tokens` in all, `trained` ones, `runs` of them on end (one for each answer), and `ends`, the
    trained ends of sequence.
    """
    counts = {"tokens": 0, "trained": 0, "runs": 0, "ends": 0}
    for one in rendered:
        counts["tokens"] += len(one.ids)
        counts["trained"] += sum(one.mask)
        counts["runs"] += sum(flag > before for before, flag in zip([0, *one.mask], one.mask, strict=False))
        counts["ends"] += sum(flag for id, flag in zip(one.ids, one.mask, strict=True) if id == eos_id)
    return counts


def message_spans(dialogue: Dialogue, tokenizer: Tokenizer) -> list[tuple[Role, int, int]]:
    """(role, first, end) of every message's own ids in `encode_dialogue`, without tags, begin and end.

    A piece that joins a message and the tag behind it belongs to neither.
    """
    spans: list[tuple[Role, int, int]] = []
    first = 1
    for index, (prompt, answer) in enumerate(_pairs(dialogue)):
        system = dialogue.system if index == 0 else None
        opening = len("[INST] <<SYS>>\n")
        user = len("[INST] ") if system is None else opening + len(f"{system}\n<</SYS>>\n\n")
        cuts: list[tuple[Role, int, int]] = [] if system is None else [("system", opening, opening + len(system))]
        cuts += [("user", user, len(prompt) - len(" [/INST]")), ("assistant", len(prompt), len(prompt + answer) - 1)]
        ids = tokenizer.encode(prompt + answer)
        for role, start, end in cuts:
            # The space before a message belongs to its first piece.
            before, through = (tokenizer.encode((prompt + answer)[:cut].rstrip(" ")) for cut in (start, end))
            spans.append((role, first + _shared(before, ids), first + _shared(through, ids)))
        first += len(ids) + 2
    return spans


def _shared(beginning: Sequence[int], ids: Sequence[int]) -> int:
    """How many ids two encodings have in common from the start on."""
    return next((index for index, pair in enumerate(zip(beginning, ids)) if pair[0] != pair[1]), min(len(beginning), len(ids)))


def encode_prompt(dialogue: Dialogue, tokenizer: Tokenizer) -> list[int]:
    """Ids of a dialogue that ends with a user, up to where the answer begins."""
    assert dialogue.last.role == "user", "a prompt ends with a user message"
    return _open(pair_texts(dialogue), tokenizer)


def encode_continued(dialogue: Dialogue, tokenizer: Tokenizer) -> list[int]:
    """Ids of a dialogue whose last message, an assistant's, goes on: those of the pair without its last space, and without end.

    Space at the end of what was said so far goes too: the tokens of words hold the space before them. An empty answer leaves the prompt.
    """
    assert dialogue.last.role == "assistant", "what goes on is an answer"
    texts = pair_texts(dialogue)
    return _open([*texts[:-1], texts[-1].rstrip()], tokenizer)


def _open(texts: Sequence[str], tokenizer: Tokenizer) -> list[int]:
    """Ids of pairs, the last of which has no end yet."""
    ids: list[int] = []
    for text in texts:
        ids += [tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id]
    return ids[:-1]


def read_answer(ids: Sequence[int], tokenizer: Tokenizer) -> str:
    """The answer that sampled ids say, without the spaces that the format puts around it."""
    return tokenizer.decode(ids).strip()


CHAT_TEMPLATE = r"""
{%- set folded = '' -%}
{%- set turns = messages -%}
{%- if messages and messages[0]['role'] == 'system' -%}
    {%- set folded = '<<SYS>>\n' + messages[0]['content'] + '\n<</SYS>>\n\n' -%}
    {%- set turns = messages[1:] -%}
{%- endif -%}
{%- if not turns -%}
    {{- raise_exception('a dialogue needs at least one user message') -}}
{%- endif -%}
{%- for message in messages -%}
    {%- set number = loop.index -%}
    {%- for tag in ['[INST]', '[/INST]', '<<SYS>>', '<</SYS>>'] -%}
        {%- if tag in message['content'] -%}
            {{- raise_exception('message ' ~ number ~ ' contains the template tag ' ~ tag) -}}
        {%- endif -%}
    {%- endfor -%}
{%- endfor -%}
{%- for message in turns -%}
    {%- if message['role'] != ('user' if loop.index0 % 2 == 0 else 'assistant') -%}
        {{- raise_exception('roles go [system] user assistant user assistant ...') -}}
    {%- endif -%}
    {%- if message['role'] == 'user' -%}
        {{- bos_token + '[INST] ' + ((folded if loop.first else '') + message['content']) | trim + ' [/INST]' -}}
    {%- else -%}
        {{- ' ' + message['content'] | trim + ' ' + eos_token -}}
    {%- endif -%}
{%- endfor -%}
""".strip()
"""The same format for transformers and others that read Jinja; rendered text is to be tokenized without adding `<s>`."""
