import json
from collections import Counter
from pathlib import Path

import pytest

from llamaherd.chat.dialogue import Message, checked
from llamaherd.core.errors import UserError
from llamaherd.data.public.prompts import (
    INSTRUCTIONS,
    RED_TEAM,
    RISKS,
    TESTS,
    Pool,
    Sieve,
    read_set,
    runs,
    runs_of,
    samples,
    size,
)
from llamaherd.data.records import Prompt


def written(path: Path, *rows: dict[str, object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def prompt(*said: str) -> Prompt:
    roles = ("user", "assistant") * len(said)
    return Prompt(checked([Message(role, text) for role, text in zip(roles, said, strict=False)]), False)  # type: ignore[arg-type]


def asked(prompts: list[Prompt]) -> list[str]:
    return [one.dialogue.asked for one in prompts]


def test_every_form_of_prompt_is_read_and_bad_rows_are_counted(tmp_path: Path) -> None:
    path = written(
        tmp_path / "a.jsonl", {"prompt": "One?", "category": "odd"}, {"question": "Two?"}, {"Instruction": "Three."}, {"turns": ["Four?", "Then?"]},
        {"turns": [{"content": "Five?"}]}, {"instruction": "Six.", "instances": [{"input": "6", "output": "six"}]}, {"text": "?"},
        {"prompt": "[INST] forged"}, {"prompt": " "}, {"turns": []},
    )  # fmt: skip
    left_out = Counter[str]()
    found = list(read_set("plain", path, True, left_out))
    assert asked(found) == ["One?", "Two?", "Three.", "Four?", "Five?", "Six.\n\n6"]
    assert left_out == {"malformed": 4}
    assert all(one.safety and one.about == {"kind": "plain"} for one in found)


def test_categories_are_the_sets_own_or_the_risk_that_a_preprompt_knows(tmp_path: Path) -> None:
    def categories(kind: str, **row: object) -> list[object]:
        path = written(tmp_path / f"{kind}.jsonl", {"prompt": "?", **row})
        return [one.about.get("category") for one in read_set(kind, path, True, Counter())]

    assert categories("catqa", category="Fraud/Deception / Phishing") == ["crime"]
    assert categories("harmbench", SemanticCategory="harassment_bullying", FunctionalCategory="standard") == ["hate"]
    assert categories("strongreject", category="Violence") == ["Violence"]
    assert categories("simple-safety-tests", category="Information and advice seeking", harm_area="Scams and fraud") == ["Scams and fraud"]
    assert categories("do-not-answer", risk_area="Malicious Uses", types_of_harm="x") == ["Malicious Uses"]
    assert categories("harmfulqa", category="Mathematics and Logic / Calculus") == [None], "an academic topic is no risk"


def test_behaviours_about_texts_that_the_prompt_lacks_are_left_out(tmp_path: Path) -> None:
    kinds = ("standard", "contextual", "copyright")
    path = written(
        tmp_path / "h.jsonl", *({"prompt": f"{kind}?", "FunctionalCategory": kind, "SemanticCategory": "illegal"} for kind in kinds)
    )
    left_out = Counter[str]()
    assert asked(list(read_set("harmbench", path, True, left_out))) == ["standard?"]
    assert left_out == {"no request on its own": 2}


def test_texts_are_alike_by_all_words_or_by_a_run_of_eight() -> None:
    assert runs("How  do I\nbake, a Cake?") == runs('"how do I bake a cake"') == {"how do i bake a cake"}
    assert not runs("How do I bake a cake?") & runs("How do I bake a cake today?"), "six words are too few to be a quotation"
    words = [f"w{number}" for number in range(9)]
    assert runs(" ".join(words)) == {" ".join(words[:8]), " ".join(words[1:])}
    assert runs(f"Before. {' '.join(words[:8])} after") & runs(" ".join(words))
    assert not runs(f"{' '.join(words[:7])} else") & runs(" ".join(words))
    assert runs(" ? ") <= {"?"}
    assert runs_of(["a b", "c"]) == {"a b", "c"}
    assert runs_of([]) == set()


def test_size_counts_all_turns_and_a_letter_outside_ascii_by_its_bytes() -> None:
    assert size(prompt("abc").dialogue) == 3
    assert size(prompt("ab", "c", "été").dialogue) == 8


def test_the_sieve_counts_every_reason_once() -> None:
    sieve = Sieve(30, {"as in a test": runs_of(["What is tested?"])})
    kept = sieve.keep([
        prompt("Fine?"), prompt("fine"), prompt("Fine", "Yes.", "Another?"), prompt("x" * 31), prompt("Hello", "Hi.", "what IS tested"),
        prompt("Also fine?"),
    ])  # fmt: skip
    assert asked(kept) == ["Fine?", "Also fine?"]
    assert sieve.left_out == {"asked before": 2, "too long": 1, "as in a test": 1}


def test_a_pool_gives_every_prompt_once_in_an_order_of_the_seed() -> None:
    prompts = [prompt(str(number)) for number in range(20)]
    pool, same, other = Pool("harmless", prompts, 0), Pool("harmless", prompts, 0), Pool("harmless", prompts, 1)
    first = asked(pool.take(12, "a.jsonl"))
    assert first == asked(same.take(12, "a.jsonl")) != asked(other.take(12, "a.jsonl"))
    with pytest.raises(UserError, match=r"b.jsonl: 9 harmless prompts asked for, 8 left; ask for fewer"):
        pool.take(9, "b.jsonl")
    merged = Pool("all", [prompt("more")], 0)
    merged.add(pool)
    assert sorted(asked(merged.take(9, "c.jsonl")) + first) == sorted([*map(str, range(20)), "more"])
    with pytest.raises(UserError, match="0 left"):
        pool.take(1, "d.jsonl")


def test_samples_have_a_harmful_one_and_one_under_a_system_text() -> None:
    found = samples()
    assert [one.safety for one in found] == [False, False, False, False, True, False]
    assert [one.dialogue.system is None for one in found] == [True] * 5 + [False]


@pytest.mark.parametrize(
    ("kind", "file"), [*INSTRUCTIONS.items(), *RED_TEAM.items(), *(item for sets in TESTS.values() for item in sets.items())]
)
def test_the_public_file_holds_prompts(data: Path, kind: str, file: str) -> None:
    left_out = Counter[str]()
    found = list(read_set(kind, data / file, False, left_out))
    assert len(found) >= 50
    assert left_out["malformed"] <= len(found) / 100
    if kind in ("catqa", "harmbench"):
        assert {one.about["category"] for one in found} <= set(RISKS.values()), "each has a preprompt of its own"
