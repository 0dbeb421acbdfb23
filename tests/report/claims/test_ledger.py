"""The ledger as files and as text; what was not made is said to be not measured."""

import re

import pytest

from llamaherd.core.errors import UserError
from llamaherd.core.files import read_json
from llamaherd.recipe.claims.steps import CLAIMS as MADE
from llamaherd.report.claims import ledger
from llamaherd.report.claims.ledger import CLAIMS, build_ledger, run_effects

from .conftest import Make, answers

CHANGES = {"v0-evaluation": 0.2, "v2-evaluation": 0.5}


def scored(shift: float = 0.0, count: int = 12) -> dict[str, dict[str, object]]:
    """Helpfulness of the first and the last version on the same prompts."""
    return {
        name: {"rows": answers("helpfulness", [value + shift + 0.01 * place for place in range(count)])} for name, value in CHANGES.items()
    }


def test_every_claim_stands_there_measured_or_not(seed: Make) -> None:
    made = [seed(number, {}, scored(0.1 * number)) for number in (3, 7)]
    out = made[0].path.parent
    done = build_ledger([one.path for one in made], out)
    found = read_json(done.json)
    assert found["seeds"] == [3, 7]
    assert len(found["claims"]) == 8 + len(CLAIMS)
    assert [claim["id"] for claim in found["claims"][8:]] == list(CLAIMS) == list(MADE), (
        "an id is one in the steps, the ledger and its title"
    )
    assert {claim["shown"] for claim in found["claims"]} <= {"shown", "not shown", "undecided"}
    [gain] = [
        row
        for claim in found["claims"]
        for row in claim["rows"]
        if row["name"].startswith("v2 over v0: helpfulness by the oracle, sampled")
    ]
    assert gain["here"]["value"] == pytest.approx(0.3)
    assert gain["here"]["n"] == 12, "the same prompts in both seeds"
    assert [figure["value"] for figure in gain["by_seed"]] == pytest.approx([0.3, 0.3])
    assert gain["shown"] == "shown"
    html = done.html.read_text("utf-8")
    for claim in found["claims"]:
        assert claim["claim"] in html.replace("&#39;", "'"), claim["id"]
    assert not re.search(r'(src|href)="(?!#)', html), "it loads nothing"
    assert "not measured" in html
    assert done.text.count("undecided") >= len(CLAIMS) - 1
    lines = done.text.splitlines()
    assert max(map(len, lines)) < 140
    assert re.search(r"^  shown      0\.300 \(0\.300 to 0\.300\) +0\.240 +sampled$", done.text, re.MULTILINE)


def test_an_effect_that_needs_another_one_is_not_shown_without_it(seed: Make) -> None:
    """No false refusals, yet violations do not fall: refusing nothing is no merit."""
    unsafe = [*answers("safety", [False] * 12, "safe", seen=False, attack_seen=False)]
    rows = {name: {"rows": unsafe} for name in CHANGES}
    run = seed(0, {}, rows)
    figure = {"value": 0.0, "low": 0.0, "high": 0.2, "n": 40}
    file = run.path / "v2-evaluation" / "evaluation.json"
    file.write_text(f'{{"tasks": {{"borderline": {{"held_out": {str(figure).replace(chr(39), chr(34))}}}}}}}', "utf-8")
    [safer] = [claim for claim in run_effects([run]) if claim.id == "effect-5"]
    refusals = safer.rows[-1].effect
    assert refusals.here == figure
    assert refusals.shown == "not shown"


def test_seeds_with_different_prompts_are_averaged(seed: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures without a number for each prompt are pooled from their intervals."""

    def measured(run: object) -> list[ledger.Effect]:
        return [ledger.Effect("one", None, {"value": 1.0, "low": 0.0, "high": 2.0, "n": 20}, number=3)]

    monkeypatch.setattr(ledger, "measure_effects", measured)
    claims = run_effects([seed(0), seed(1)])
    [row] = claims[2].rows
    half = 2**0.5 / 2
    assert row.effect.here == {"value": 1.0, "low": pytest.approx(1 - half), "high": pytest.approx(1 + half), "n": 40}
    assert [len(claim.rows) for claim in claims] == [0, 0, 1, 0, 0, 0, 0, 0]


def test_a_ledger_of_nothing(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("none")
    with pytest.raises(UserError, match="at least one seed"):
        build_ledger([], folder)
    with pytest.raises(UserError, match="nothing finished there"):
        build_ledger([folder], folder)


def test_a_ledger_of_some_claims(seed: Make) -> None:
    one = seed(0, {}, scored())
    done = build_ledger([one.path], one.path.parent, ["margins", "hot-ppo"])
    assert [claim["id"] for claim in read_json(done.json)["claims"]] == ["hot-ppo", "margins"]
    html = done.html.read_text("utf-8")
    assert "What each run shows by itself" not in html
    assert "of 2 claims" in html
    assert "sampled" not in done.text
