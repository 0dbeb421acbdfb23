"""People's comparisons from the public files, in parts that share no dialogue's first message.

Three sets are of helpfulness (Anthropic's helpful-base, WebGPT, PandaLM) and one is of safety (Anthropic's harmless-base). People's labels of
answers to Do-Not-Answer are a second test of safety: its questions are prompts of the evaluation, so nothing is trained on them. RMB's pairs
were labelled by a model and are not read.

How clear a choice was is known where a set says it (docs/preferences.md): WebGPT's people gave strengths ("much better" is `significantly`,
"better" `better`), PandaLM's pairs have three annotators (all agree: `better`; two, and the third sees a tie: `slightly`; two against one:
`negligibly`). Anthropic's sets and Do-Not-Answer say nothing, and none is made up.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from ...chat.dialogue import DialogueError, Message, checked
from ...core.files import read_rows
from ...core.seeds import python_rng
from ..dedup import normalised
from ..preferences import Counts, read_comparisons
from ..records import EMPTY, MALFORMED, Domain, Preference

LABELLED = "do-not-answer"
SETS: Mapping[str, tuple[str, Domain]] = {
    "hh-helpful": ("preference/hh_rlhf_helpful_base_test.jsonl.gz", "helpfulness"),
    "webgpt": ("preference/webgpt_comparisons_test.jsonl.gz", "helpfulness"),
    "pandalm": ("preference/pandalm_human_testset.jsonl.gz", "helpfulness"),
    "hh-harmless": ("preference/hh_rlhf_harmless_base_test.jsonl.gz", "safety"),
    LABELLED: ("safety/do_not_answer_human_labels.jsonl.gz", "safety"),
}
"""File and domain of every set, by the `source` of its comparisons."""
ONE_SIDED = "no other answer with the other label"

Part = Literal["train", "test", "judge"]


def comparisons(name: str, path: Path, seed: int) -> tuple[list[Preference], Counter[str]]:
    """The comparisons of one of SETS, and why others were left out. Raises UserError for a file of another kind."""
    if name == LABELLED:
        return _labelled(path, seed)
    counts = Counts()
    found = list(read_comparisons(path, SETS[name][1], counts, source=name))
    return found, counts.left_out


def _labelled(path: Path, seed: int) -> tuple[list[Preference], Counter[str]]:
    """For every answer that people called harmful one to the same question that they did not, drawn by `seed`; each is used once."""
    left_out, found = Counter[str](), list[Preference]()
    answers: dict[str, dict[bool, list[Mapping[str, str]]]] = {}
    for _, row in read_rows(path):
        if row.get("harmful") not in ("0", "1") or not isinstance(row.get("prompt"), str) or not isinstance(row.get("response"), str):
            left_out[MALFORMED] += 1
        elif not row["response"].strip():
            left_out[EMPTY] += 1
        else:
            answers.setdefault(row["prompt"], {False: [], True: []})[row["harmful"] == "1"].append(dict(row))
    for prompt, labelled in answers.items():
        harmless = list(labelled[False])
        python_rng(seed, "labelled", prompt).shuffle(harmless)
        pairs = list(zip(harmless, labelled[True], strict=False))
        left_out[ONE_SIDED] += len(harmless) + len(labelled[True]) - 2 * len(pairs)
        for good, bad in pairs:
            try:
                asked = checked([Message("user", prompt)])
                for answer in (good, bad):
                    asked.followed_by("assistant", answer["response"])
            except DialogueError:
                left_out[MALFORMED] += 1
                continue
            found.append(Preference(
                asked, good["response"], bad["response"], None, "safety", chosen_safe=True, rejected_safe=False, source=LABELLED,
                chosen_model=good.get("model"), rejected_model=bad.get("model"),
            ))  # fmt: skip
    return found, left_out


def first_message(one: Preference) -> str:
    """What a dialogue begins with, without regard to case and spaces."""
    return normalised(one.prompt.messages[0].content)


def parts_of(rows: Sequence[Preference], test: float, judge: float, seed: int) -> list[Part]:
    """A part for every row, the same for all rows of dialogues that begin with the same message.

    Of the first messages of every source the shares `test` and `judge`; only those that are all of helpfulness join the judge's. Labelled
    answers of Do-Not-Answer, and what shares a first message with them, are tests.
    """
    sources: dict[str, set[str]] = {}
    for row in rows:
        sources.setdefault(first_message(row), set()).add(row.source)
    part = dict[str, Part]()
    for mixed in sorted({frozenset(found) for found in sources.values()}, key=sorted):
        own = sorted(text for text, found in sources.items() if found == mixed)
        python_rng(seed, "parts", *sorted(mixed)).shuffle(own)
        tested = len(own) if LABELLED in mixed else round(test * len(own))
        judged = round(judge * len(own)) if all(SETS[name][1] == "helpfulness" for name in mixed) else 0
        for place, text in enumerate(own):
            part[text] = "test" if place < tested else "judge" if place < tested + judged else "train"
    return [part[first_message(row)] for row in rows]


def some_of(rows: Sequence[Preference], most: int | None, seed: int) -> list[Preference]:
    """At most so many of each domain, drawn by `seed`, in their order."""
    kept = list[int]()
    for domain in sorted({row.domain for row in rows}):
        own = [index for index, row in enumerate(rows) if row.domain == domain]
        kept += own if most is None or most >= len(own) else python_rng(seed, "most", domain).sample(own, most)
    return [rows[index] for index in sorted(kept)]


def grades_of(rows: Iterable[Preference]) -> dict[str, dict[str, int]]:
    """How many comparisons have each grade, by source; "none" where the set says nothing of it."""
    found: dict[str, Counter[str]] = {}
    for row in rows:
        found.setdefault(row.source, Counter())[row.grade or "none"] += 1
    return {source: dict(counts) for source, counts in found.items()}
