import pytest

from llamaherd.chat.dialogue import Dialogue, Message, checked
from llamaherd.data.records import Domain, Grade, Preference
from llamaherd.reward.accuracy import accuracy_report, comparison_rows

PROMPT = checked([Message("user", "Hello")])


class ByLength:
    """Prefers the longer answer."""

    def logits(self, dialogues: list[Dialogue], names: list[str] | None = None) -> list[float]:
        return [float(len(dialogue.last.content)) for dialogue in dialogues]


def row(chosen: str, rejected: str, grade: Grade | None = "better", domain: Domain = "helpfulness", batch: str | None = "v1") -> Preference:
    return Preference(PROMPT, chosen, rejected, grade, domain, batch=batch)


ROWS = [
    row("long", "no", "significantly"),
    row("long", "no", "significantly", batch="v2"),
    row("no", "long", "better"),
    row("same", "size", "better"),
    row("long", "no", None, batch=None),
    row("long", "no", "slightly", "safety"),
    row("no", "long", "negligibly", "safety", "v2"),
]


def compared(model: object = None) -> list[dict[str, object]]:
    return comparison_rows(model or ByLength(), ROWS)  # type: ignore[arg-type]


def test_a_row_says_what_it_is_about_and_both_logits() -> None:
    assert [found["agrees"] for found in compared()] == [True, True, False, False, True, True, False]
    first = {name: value for name, value in compared()[0].items() if name != "id"}
    assert first == {
        "domain": "helpfulness", "batch": "v1", "grade": "significantly", "chosen_logit": 4.0, "rejected_logit": 2.0,
        "source": "", "chosen_safe": None, "rejected_safe": None, "chosen_chars": 4, "rejected_chars": 2, "agrees": True,
    }  # fmt: skip


def test_hand_counted() -> None:
    report = accuracy_report(compared(), "helpfulness")

    def counted(figure: dict[str, float]) -> tuple[float | None, int]:
        return figure["value"], int(figure["n"])

    own = {name: counted(figure) for name, figure in report["own"].items()}
    assert own == {"all": (0.6, 5), "significantly": (1.0, 2), "better": (0.0, 2), "slightly": (None, 0), "negligibly": (None, 0)}
    other = {name: counted(figure) for name, figure in report["other"].items()}
    assert other == {"all": (0.5, 2), "significantly": (None, 0), "better": (None, 0), "slightly": (1.0, 1), "negligibly": (0.0, 1)}
    by_batch = {name: counted(figure) for name, figure in report["by_batch"].items()}
    assert by_batch == {"v1": (pytest.approx(1 / 3), 3), "v2": (1.0, 1)}


def test_the_domains_swap_sides() -> None:
    helpful, safe = (accuracy_report(compared(), domain) for domain in ("helpfulness", "safety"))
    assert (helpful["own"], helpful["other"]) == (safe["other"], safe["own"])
    assert {name: figure["n"] for name, figure in safe["by_batch"].items()} == {"v1": 1, "v2": 1}


def test_nothing_to_test_on() -> None:
    report = accuracy_report([], "safety")
    assert report["own"]["all"]["n"] == 0
    assert report["by_batch"] == {}


def test_rows_of_two_models_have_partners() -> None:
    class ByShortness:
        def logits(self, dialogues: list[Dialogue], names: list[str] | None = None) -> list[float]:
            return [-float(len(dialogue.last.content)) for dialogue in dialogues]

    ours, theirs = compared(), compared(ByShortness())
    assert [row["id"] for row in ours] == [row["id"] for row in theirs]
    assert len({row["id"] for row in ours}) == 3, "the id is of prompt and both answers in their order"
    assert [row["agrees"] for row in theirs] == [False, False, True, False, False, False, True]
