"""Tunings on dialogues: what was trained, token by token, held against the same dialogues rendered again with the model's own tokenizer.

The golden rule of the template: what is trained of an answer says the answer and nothing else, and its last id is the end of sequence.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from ..chat.dialogue import TAGS, Dialogue
from ..chat.template import Rendered, encode_dialogue, read_answer, supervision
from ..core.artifacts import Artifact
from ..core.errors import UserError
from ..core.files import read_json
from ..data.inputs import parents_of
from ..data.packing import pack
from ..data.shares import taken
from ..tokenizer.sentencepiece import Tokenizer
from .config import Thresholds
from .finding import Check, Finding
from .patient import Patient

GOLDEN = Check(
    "tuning-template", "its tokenizer renders dialogues so that other tokens than the answers' are trained",
    "train with a tokenizer whose pieces do not join a prompt and its answer, and keep the tokenizer's files with the model",
)  # fmt: skip
MASK = Check(
    "tuning-mask", "other tokens were trained than the answers'",
    "tune again with masks of chat.template; `llamaherd data show FILE --model MODEL` colours what is trained",
)  # fmt: skip
END = Check(
    "tuning-end", "the end of sequence was not trained",
    "tune again with the end of each answer in the mask: a model that never saw it trained never stops",
)  # fmt: skip
LEFT_OUT = Check("tuning-left-out", "many dialogues were left out, being too long", "raise row_tokens, or shorten or split the dialogues")
LEFT_OUT_SHARE = 0.05
"""More than a few long ones: what is left out is not drawn at random, it is the long answers."""


def look(patient: Patient, limits: Thresholds) -> Iterator[Finding]:
    """Every model that was tuned on dialogues, and every adapter."""
    for name, artifact in patient.of("sft"):
        left_out, kept = artifact.metrics.get("dropped_too_long"), artifact.metrics.get("dialogues")
        if left_out is not None and kept is not None:
            part = left_out / max(1, left_out + kept)
            said = f"{left_out:,} of {left_out + kept:,} dialogues are longer than a row"
            yield LEFT_OUT.found(name, part > LEFT_OUT_SHARE, said, f"at most {LEFT_OUT_SHARE:.0%}", left_out=left_out, kept=kept)
        try:
            yield from _supervision(patient, name, artifact, limits)
        except UserError as error:
            yield MASK.absent(name, f"its dialogues cannot be rendered again: {error}")
            yield END.absent(name, f"its dialogues cannot be rendered again: {error}")


def _supervision(patient: Patient, name: str, artifact: Artifact, limits: Thresholds) -> Iterator[Finding]:
    files, missing = patient.files(artifact, "data", "dialogues.jsonl")
    changed = [file for file in files if _changed(artifact, file)]
    order = [] if missing or changed else list(_trained_on(patient, artifact, files))
    why = f"{', '.join(missing)}: not there any more" if missing else f"{changed[0]}: not what it was then" if changed else ""
    why = why or ("its manifest names no dialogues" if not order else "")
    if len(order) > limits.most_dialogues:
        why = f"{len(order):,} dialogues are more than most_dialogues, {limits.most_dialogues:,}"
    if why:
        yield MASK.absent(name, why)
        yield END.absent(name, why)
        return
    tokenizer = Tokenizer.load(artifact.path)
    rendered = patient.cache.setdefault(("rendered", tokenizer.hash), {})
    try:
        for file, index, dialogue in order:
            if (file, index) not in rendered:
                one = encode_dialogue(dialogue, tokenizer)
                rendered[file, index] = one, keeps_the_rule(one, dialogue, tokenizer)
    except AssertionError as error:
        yield GOLDEN.found(name, True, str(error), "the same beginning with and without the answer")
        return
    found = [rendered[file, index] for file, index, _ in order]
    row_tokens = artifact.manifest["config"].get("row_tokens") or read_json(artifact.path / "config.json")["max_position_embeddings"]
    skipped = set(pack([len(one.ids) for one, _ in found], row_tokens)[1])
    faulty = sum(not whole for _, whole in found)
    said = f"{faulty:,} of {len(found):,} dialogues say something else in their trained tokens than their answers and an end"
    yield GOLDEN.found(name, faulty > 0, said, "none", faulty=faulty, dialogues=len(found))
    yield from _compared(name, artifact, supervision([one for at, (one, _) in enumerate(found) if at not in skipped], tokenizer.eos_id))


def _compared(name: str, artifact: Artifact, due: dict[str, int]) -> Iterator[Finding]:
    """What the stage counted against what the golden rule gives."""
    told = artifact.metrics.get("supervision")
    trained = told["trained"] if told else artifact.metrics.get("trained_tokens")
    if trained is None:
        yield MASK.absent(name, "its manifest does not say how many tokens were trained")
        yield END.absent(name, "its manifest does not say how many tokens were trained")
        return
    more = trained - due["trained"]
    said = f"{trained:,} tokens were trained of {due['tokens']:,}; the answers and their ends are {due['trained']:,}"
    if more > 0:
        said += f": {more:,} tokens of prompts were trained"
    elif more == -due["runs"]:
        said += f": one of each of the {due['runs']:,} answers is missing, its first token or its end"
    elif more < 0:
        said += f": {-more:,} tokens of answers were not"
    yield MASK.found(name, more != 0, said, "the same number", trained=trained, due=due["trained"])
    if told is None:
        yield END.absent(name, "its manifest counts no ends of sequence; it was made by an earlier version")
        return
    said = f"{told['ends']:,} ends of sequence were trained of the {due['ends']:,} that the answers have"
    yield END.found(name, told["ends"] < due["ends"], said, "all of them", ends=told["ends"], due=due["ends"])


def _changed(artifact: Artifact, file: Path) -> bool:
    """Whether a file is another one than the artifact was made of, as far as its manifest knows."""
    [now] = parents_of([file]).values()
    known = [str(one.get("hash")) for one in artifact.manifest.get("parents", {}).values()]
    return bool(known) and now.hash not in known


def _trained_on(patient: Patient, artifact: Artifact, files: Sequence[Path]) -> Iterator[tuple[Path, int, Dialogue]]:
    """File, place and dialogue of all that a model was tuned on, as often as it was."""
    config, seed = artifact.manifest["config"], int(artifact.manifest["seed"])
    shares = config.get("shares") or [1.0] * len(files)
    for file, share in zip(files, shares, strict=True):
        found = patient.dialogues(file, config.get("bad_rows", "refuse"))
        tagged = [index for index, (_, row) in enumerate(found) if row.get("safety") is True]
        for index in taken(len(found), tagged, float(share), float(config.get("safety_share", 1.0)), seed, file):
            yield file, index, found[index][0]


def keeps_the_rule(rendered: Rendered, dialogue: Dialogue, tokenizer: Tokenizer) -> bool:
    """Whether the runs of trained ids, one for each answer that carries loss, begin where the prompt ends, say the answer and close with
    the end."""
    ids, mask = rendered.ids, rendered.mask
    starts = [at for at, flag in enumerate(mask) if flag and not (at and mask[at - 1])]
    stops = [at + 1 for at, flag in enumerate(mask) if flag and not any(mask[at + 1 : at + 2])]
    answers = [message.content for message in dialogue.messages if message.role == "assistant"]
    answers = answers if dialogue.trained == "all" else answers[-1:]
    if len(starts) != len(answers):
        return False
    for start, stop, answer in zip(starts, stops, answers, strict=True):
        begin = max(at for at in range(start + 1) if at == 0 or ids[at] == tokenizer.bos_id)
        prompt, said = tokenizer.decode(ids[begin + 1 : start]), read_answer(ids[start : stop - 1], tokenizer)
        if not prompt.endswith(TAGS[1]) or said != answer.strip() or ids[stop - 1] != tokenizer.eos_id:
            return False
    return True
