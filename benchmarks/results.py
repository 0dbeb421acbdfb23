"""The tables of docs/results.md, from what was measured: `python -m benchmarks.results [--claims DIR] [--people DIR] [--real RUN]`.

`--claims` is the folder of `llamaherd claims`, `--people` that of `python -m benchmarks.people`, `--real` a run such as `llamaherd run
real-small`. Each table replaces what stands between its mark and the next `<!-- end -->`; those whose folder is not given stay as they are.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from llamaherd.core.errors import UserError
from llamaherd.core.files import read_json, write_text
from llamaherd.data.records import DOMAINS, GRADES
from llamaherd.measures.intervals import effect, mean, over_seeds
from llamaherd.report.claims.parts import SeedRun
from llamaherd.report.effects import differences, helpfulness, rewards, violations
from llamaherd.report.figures import figure_text, short
from llamaherd.report.folder import RunFolder, per_prompt

from .pages import RESULTS, filled, markdown
from .people.tables import table as people_table
from .real import real_tables

ABLATIONS = ("margins", "auxiliary-loss", "joint-reward-model", "fresh-preferences", "reward-scaling", "pool-of-all-versions")
"""Claims of the ledger that are the ablations of preferences, reward models and rejection sampling."""
ByPrompt = Mapping[str, float]
MEASURES: Mapping[str, Callable[[RunFolder, str], ByPrompt]] = {
    "helpfulness, the oracle": helpfulness,
    "violations, the oracle": violations,
    "helpfulness reward": lambda run, version: rewards(run, version, domain="helpfulness"),
    "safety reward": lambda run, version: rewards(run, version, domain="safety"),
}
"""Of each prompt, a version's answer at temperature 1: two by the oracle, which nothing is trained on, and two by the last reward models."""
LOWER_IS_BETTER = {"violations, the oracle"}


def runs_of(claims: Path) -> list[SeedRun]:
    """The seeds' runs of a folder of claims. Raises UserError when there is none."""
    folders = sorted(claims.glob("seed-*"), key=lambda folder: int(folder.name.removeprefix("seed-")))
    if not folders:
        raise UserError(f"{claims}: holds no seed-0, seed-1 ...; give the folder of `llamaherd claims`")
    return [SeedRun(folder) for folder in folders]


def versions_table(seeds: Sequence[SeedRun]) -> str:
    """Every version by every measure: mean over seeds with its interval, and under it the seeds' own means."""
    first = seeds[0].run
    rows = []
    for version in first.versions:
        cells = []
        for measure in MEASURES.values():
            values = [measure(seed.run, version) for seed in seeds]
            own = ", ".join(short(mean(list(one.values()))) if one else "-" for one in values)
            cells.append(f"{figure_text(over_seeds(values))}<br>{own}")
        rows.append([first.label(version), *cells])
    return markdown(["version", *MEASURES], rows)


def _change(seeds: Sequence[SeedRun], measure: str, before: str, after: str) -> str:
    """A paired difference in words: the figure, and whether it is a gain."""
    read = MEASURES[measure]
    here = over_seeds([differences(read(seed.run, before), read(seed.run, after)) for seed in seeds])
    better, worse = ("below", "above") if measure in LOWER_IS_BETTER else ("above", "below")
    verdict = "better" if effect(here, better) == "shown" else "worse" if effect(here, worse) == "shown" else "undecided"  # type: ignore[arg-type]
    return f"{figure_text(here)}, {verdict}"


def steps_table(seeds: Sequence[SeedRun]) -> str:
    """Every version against the one before, and the last against the first, on the same prompts."""
    run = seeds[0].run
    pairs = [*zip(run.versions, run.versions[1:], strict=False), (run.versions[0], run.last)]
    rows = [
        [f"{run.label(before)} to {run.label(after)}", *(_change(seeds, measure, before, after) for measure in MEASURES)]
        for before, after in pairs
    ]
    return markdown(["from, to", *MEASURES], rows)


def grades_table(seeds: Sequence[SeedRun]) -> str:
    """Accuracy of the last reward models on held-out comparisons of their own domain, by grade."""
    rows = []
    for domain in DOMAINS:
        by_grade = [
            over_seeds(
                [
                    per_prompt(seed.run.rows(seed.last(domain), "tested.jsonl"), lambda row: row["agrees"], domain=domain, grade=grade)
                    for seed in seeds
                ]
            )
            for grade in GRADES
        ]
        rows.append([domain, *map(figure_text, by_grade)])
    return markdown(["reward model", *GRADES], rows)


def ablations_table(claims: Path) -> str:
    """The ledger's rows of the ablations. Raises UserError when there is no ledger."""
    ledger = claims / "ledger.json"
    if not ledger.is_file():
        raise UserError(f"{ledger}: no such file; `llamaherd claims --out {claims}` writes it")
    found = {claim["id"]: claim for claim in read_json(ledger)["claims"]}
    rows = []
    for name in ABLATIONS:
        claim = found.get(name, {"claim": name, "rows": [{"name": "not in this ledger", "here": None, "shown": "undecided"}]})
        rows += [[claim["claim"], row["name"], figure_text(row["here"]), row["shown"]] for row in claim["rows"]]
    return markdown(["claim", "figure", "difference", "verdict"], rows)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.results", description=__doc__)
    parser.add_argument("--claims", type=Path, help="folder of llamaherd claims")
    parser.add_argument("--people", type=Path, help="folder of python -m benchmarks.people")
    parser.add_argument("--real", type=Path, help="folder of llamaherd run real-small")
    parser.add_argument("--page", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    tables: dict[str, str] = {}
    try:
        if options.claims:
            seeds = runs_of(options.claims)
            tables["versions"], tables["steps"] = versions_table(seeds), steps_table(seeds)
            tables["grades"], tables["ablations"] = grades_table(seeds), ablations_table(options.claims)
        if options.people:
            file = options.people / "results.json"
            if not file.is_file():
                raise UserError(f"{file}: no such file; `python -m benchmarks.people --out {options.people}` writes it")
            tables["people"] = people_table(read_json(file))
        if options.real:
            tables["real"] = real_tables(RunFolder(options.real))
        write_text(options.page, filled(options.page.read_text(encoding="utf-8"), tables))
    except UserError as error:
        sys.exit(f"error: {error}")
    print("\n".join(tables.values()))


if __name__ == "__main__":
    main()
