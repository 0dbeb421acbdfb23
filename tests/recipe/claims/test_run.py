"""`llamaherd claims` on a finished run: what is there is not made again, an interrupted command goes on, other settings are refused."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llamaherd.core.artifacts import locked
from llamaherd.core.config import ConfigError
from llamaherd.core.errors import UserError
from llamaherd.core.files import read_json
from llamaherd.recipe.claims import steps
from llamaherd.recipe.claims.run import run_claims
from llamaherd.recipe.config import MiniatureRecipe, load_recipe

FEW = {"auxiliary-loss": steps.auxiliary_loss, "fresh-preferences": steps.fresh_preferences}
NAMES = ["no-auxiliary", "stale-helpfulness", "fresh-helpfulness", "stale-safety", "fresh-safety"]


@pytest.fixture
def recipe(finished_run: Any) -> MiniatureRecipe:
    return load_recipe("tiny", [token for token in finished_run.command if "=" in token])


@pytest.fixture
def out(finished_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of seed 0 that is finished; of the claims only two are made."""
    monkeypatch.setattr(steps, "CLAIMS", FEW)
    shutil.copytree(finished_run.folder, tmp_path / "claims" / "seed-0")
    return tmp_path / "claims"


def made(out: Path) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in (out / "seed-0").rglob("manifest.json")}


def test_the_ledger_and_nothing_made_twice(recipe: MiniatureRecipe, out: Path) -> None:
    before, said = made(out), list[str]()
    run_claims(recipe, [0], out, said.append)
    assert sorted(made(out).keys() - before.keys()) == sorted(NAMES)
    assert {name: made(out)[name] for name in before} == before
    assert "is finished" in said[0]
    assert [line[:6] for line in said if " left  " in line] == [f"[ {number}/5]" for number in range(1, 6)]
    ledger = read_json(out / "ledger.json")
    assert ledger["seeds"] == [0]
    found = {claim["id"]: claim["rows"] for claim in ledger["claims"]}
    assert [len(found[f"effect-{number}"]) > 0 for number in range(1, 9)] == [True] * 8
    [fresh] = found["fresh-preferences"]
    assert fresh["here"]["n"] > 0
    assert fresh["by_seed"][0]["value"] == pytest.approx(fresh["here"]["value"])
    assert {row["shown"] for rows in found.values() for row in rows} <= {"shown", "not shown", "undecided"}
    assert all(row["here"] is None for row in found["pool-of-all-versions"]), "not made here, hence not measured"
    assert "fresh-preferences: Reward models need fresh" in said[-2]
    assert said[-1] == f"ledger: {out / 'ledger.html'}"

    again, after = list[str](), made(out)
    run_claims(recipe, [0], out, again.append)
    assert made(out) == after
    assert not [line for line in again if " left  " in line]
    assert again[-2:] == said[-2:]


def test_an_interrupted_command_goes_on(recipe: MiniatureRecipe, out: Path) -> None:
    lines = list[str]()

    def stop_after_two(line: str) -> None:
        lines.append(line)
        if line.startswith("[ 2/5]"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_claims(recipe, [0], out, stop_after_two)
    before = {name: at for name, at in made(out).items() if name in NAMES}
    assert 2 <= len(before) < 5
    assert not (out / "ledger.json").exists()
    run_claims(recipe, [0], out, lines.append)
    assert {name: made(out)[name] for name in before} == before
    assert sorted(name for name in made(out) if name in NAMES) == sorted(NAMES)
    assert not list(out.rglob("*.partial"))


def test_some_claims_alone(recipe: MiniatureRecipe, out: Path) -> None:
    """Only their arms, on no more of the run than they need, and nothing else in the ledger; the others go on from there."""
    run = out / "seed-0"
    unneeded = ("v5", "v5-rejection", "v5-samples", "v5-helpfulness", "v5-evaluation", "v0-evaluation")
    for name in unneeded:
        shutil.rmtree(run / name)
    for file in ("report.html", "summary.json"):
        (run / file).unlink()
    said = list[str]()
    run_claims(recipe, [0], out, said.append, ["auxiliary-loss"])
    assert [path.parent.name for path in (run / "claims").glob("*/manifest.json")] == ["no-auxiliary"]
    assert not any((run / name).exists() for name in (*unneeded, "report.html"))
    ledger = read_json(out / "ledger.json")
    assert [claim["id"] for claim in ledger["claims"]] == ["auxiliary-loss"]
    assert all(row["here"]["n"] > 0 for row in ledger["claims"][0]["rows"])
    assert "Effect 1" not in (out / "ledger.html").read_text("utf-8")


@pytest.mark.slow
def test_other_claims_go_on_from_there(recipe: MiniatureRecipe, out: Path) -> None:
    run, unneeded = out / "seed-0", ("v5", "v5-evaluation")
    for name in unneeded:
        shutil.rmtree(run / name)
    run_claims(recipe, [0], out, lambda line: None, ["auxiliary-loss"])
    assert not (run / "v5").exists()
    run_claims(recipe, [0], out, lambda line: None, ["multi-turn-safety", "auxiliary-loss"])
    assert [claim["id"] for claim in read_json(out / "ledger.json")["claims"]] == ["auxiliary-loss", "multi-turn-safety"]
    assert all((run / name).is_dir() for name in unneeded), "a claim that reads versions needs the whole run"


def test_a_claim_that_nobody_knows(recipe: MiniatureRecipe, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"^no claim 'margin' \(did you mean 'margins'\?\); there are joint-reward-model, hot-ppo, "
    ) as error:
        run_claims(recipe, [0], tmp_path / "out", print, ["margin"])
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def changed(recipe: MiniatureRecipe, **claims: Any) -> MiniatureRecipe:
    return recipe.model_copy(update={"claims": recipe.claims.model_copy(update=claims)})


def test_other_settings_of_the_claims_concern_the_claims_alone(recipe: MiniatureRecipe, out: Path) -> None:
    run_claims(changed(recipe, batch_pairs=9), [0], out, lambda line: None)
    assert read_json(out / "seed-0" / "claims" / "fresh-safety" / "manifest.json")["metrics"]["pairs"] == 9
    with pytest.raises(UserError, match=r"seed-0.claims was begun with other settings.*\n  claims.batch_pairs: was 9, is now 16$"):
        run_claims(recipe, [0], out, lambda line: None)


@pytest.mark.parametrize(
    ("prepare", "expected"),
    [
        (lambda out: shutil.rmtree(out) or out.write_text("mine"), "is a file; --out takes a folder"),
        (lambda out: (out / "thesis.txt").write_text("mine"), "is not empty and holds no claims"),
        (
            lambda out: (out / "seed-0" / "claims").mkdir() or (out / "seed-0" / "claims" / "thesis.txt").write_text("mine"),
            "holds no run of a recipe",
        ),
    ],
)
def test_what_is_in_the_way_is_named(recipe: MiniatureRecipe, out: Path, prepare: Callable[[Path], Any], expected: str) -> None:
    prepare(out)
    with pytest.raises(UserError, match=expected):
        run_claims(recipe, [0], out, lambda line: None)


def test_two_commands_in_one_folder(recipe: MiniatureRecipe, out: Path) -> None:
    with locked(out / "lock", "the first"), pytest.raises(UserError, match="in use by another llamaherd process"):
        run_claims(recipe, [0], out, lambda line: None)


def test_what_cannot_work_is_listed_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="9999 different test prompts"):
        run_claims(load_recipe("tiny", ["--evaluate.borderline_prompts=9999"]), [0], tmp_path / "out", lambda line: None)
    assert list(tmp_path.iterdir()) == []
