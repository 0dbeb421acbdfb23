import re
from collections import Counter

import pytest

from llamaherd.core.errors import UserError
from llamaherd.data.public.scripts import VALUES, constraints, scripts_to_ask, scripts_to_tune
from llamaherd.data.statistics import LanguageFinder

ASKED = [*(f"Question number {number}?" for number in range(40)), "Do you like TENNIS?", "Who was Napoleon?"]


def test_a_constraint_is_said_whole_or_shortened_and_a_program_can_check_it() -> None:
    found = {one.value: one for one in constraints("seen")}
    assert (found["tennis"].whole, found["tennis"].short) == ("You enjoy tennis. Mention it in every answer.", "Hobby: tennis.")
    assert (found["Napoleon"].whole, found["Napoleon"].short) == ("Act as Napoleon. Say your name in every answer.", "Figure: Napoleon.")
    assert (found["French"].whole, found["French"].short) == ("Speak in French.", "Language: French.")
    assert found["gardening"].check == {"kind": "mentions", "any": ["gardening", "garden"]}
    assert found["French"].check == {"kind": "language", "code": "fr"}
    assert not {one.value for one in constraints("held_out")} & set(found)


@pytest.fixture(scope="module")
def language_of() -> LanguageFinder:
    return LanguageFinder()


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("fr", "Le chat dort sur la table de la cuisine."), ("de", "Die Katze schläft auf dem Tisch in der Küche."),
        ("es", "El gato duerme sobre la mesa de la cocina."), ("it", "Il gatto dorme sul tavolo della cucina."),
        ("pt", "O gato dorme em cima da mesa da cozinha."), ("nl", "De kat slaapt op de tafel in de keuken."),
    ],
)  # fmt: skip
def test_every_language_is_one_that_is_recognised(language_of: LanguageFinder, code: str, text: str) -> None:
    codes = {signs[0] for values in VALUES.values() for signs in values["language"].values()}
    assert code in codes
    assert len(codes) == 6, "each of them has a line here"
    assert language_of(text) == code


def test_training_scripts() -> None:
    found = scripts_to_tune(ASKED, 400, (2, 4), 0.1, 0)
    assert found == scripts_to_tune(ASKED, 400, (2, 4), 0.1, 0) != scripts_to_tune(ASKED, 400, (2, 4), 0.1, 1)
    assert Counter(len(row["users"]) for row in found).keys() == {2, 3, 4}
    assert all(len(set(row["users"])) == len(row["users"]) for row in found)
    held_out = {value for values in VALUES["held_out"].values() for value in values}
    assert not any(value in row["instruction"] for row in found for value in held_out)
    said = [re.findall(r"Hobby:|You enjoy|Figure:|Act as|Language:|Speak in", row["instruction"]) for row in found]
    assert 0.05 < sum(len(parts) == 2 for parts in said) / len(said) < 0.15
    assert {len(parts) for parts in said} == {1, 2}
    shortened = [part.endswith(":") for parts in said for part in parts]
    assert 0.4 < sum(shortened) / len(shortened) < 0.6
    for row in found:
        if "tennis" in row["instruction"]:
            assert "Do you like TENNIS?" not in row["users"], "it would bring about what is asked for"
    assert scripts_to_tune(ASKED, 5, (1, 1), 1.0, 0)[0]["instruction"].count(".") >= 2


def test_test_scripts_have_every_value_in_turn_and_say_how_to_check() -> None:
    seen, held_out = len(constraints("seen")), len(constraints("held_out"))
    found = scripts_to_ask(ASKED, seen + 1, 20, 0)
    assert Counter(row["set"] for row in found) == {"seen": seen + 1, "held_out": seen + 1}
    said = {name: Counter(row["instruction"] for row in found if row["set"] == name) for name in VALUES}
    assert sorted(said["seen"].values()) == [1] * (seen - 1) + [2]
    assert len(said["held_out"]) == held_out
    assert max(said["held_out"].values()) - min(said["held_out"].values()) <= 1
    for row in found:
        assert len(set(row["users"])) == 20
        assert row["check"] in [one.check for one in constraints(row["set"]) if one.whole == row["instruction"]]
        assert not (row["check"].get("any") == ["Napoleon"] and "Who was Napoleon?" in row["users"])
    assert found == scripts_to_ask(ASKED, seen + 1, 20, 0) != scripts_to_ask(ASKED, seen + 1, 20, 1)


def test_too_few_messages_are_told() -> None:
    with pytest.raises(UserError, match=r"asks for 9 different messages; 2 of 2 do not name .*; ask for fewer turns"):
        scripts_to_tune(["One?", "Two?"], 1, (9, 9), 0.0, 0)
