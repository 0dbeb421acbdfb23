"""Runs a recipe: each step that is not finished yet, one line for each, and the report at the end."""

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..core.artifacts import MANIFEST, Artifact, find_artifact, locked, open_artifact, versions
from ..core.config import ConfigError, dump
from ..core.errors import UserError
from ..core.files import read_json, read_rows, write_json
from ..core.progress import clock
from .chain import chain, sample_prompts
from .checks import problems
from .config import RecipeConfig
from .executor import Executor, Say
from .forecast import work
from .steps import Step

RECIPE = "recipe.json"
"""The resolved settings, by which a folder is known as a run."""
BESIDE_RESULTS = frozenset({"workers", "co2_g_per_kwh"})
"""Settings that no result depends on: how many steps run side by side, and what the electricity is made of."""
OF_NO_RUN = BESIDE_RESULTS | {"claims"}
"""Nor do a run's own results depend on what is made of it afterwards."""
SHOWN_CHARACTERS = 100
"""Of a prompt or an answer on the lines of a run."""


def run_recipe(recipe: RecipeConfig, out: Path, say: Say, executor: Executor | None = None) -> None:
    """Brings the run in `out` to its end, from wherever it stands; `executor`: of the command that this is a part of.

    Raises UserError when the recipe cannot work, `out` is no run, was begun with other settings, or is being worked on.
    """
    steps = chain(recipe, out)
    if begun(recipe, out, OF_NO_RUN):
        if is_finished(steps, out):
            summary = read_json(out / "summary.json")
            say(f"{out} is finished ({clock(summary['seconds'])} of work); its report is {out / 'report.html'}")
            return
    elif found := problems(recipe):
        raise ConfigError(found)
    with locked(out / "lock", str(out)):
        if not begun(recipe, out, OF_NO_RUN):  # another process may have begun it between the question and the lock
            write_json(out / RECIPE, dump(recipe))
        _work(recipe, steps, out, executor or Executor(recipe.workers, recipe.threads, say))


def is_finished(steps: list[Step], out: Path) -> bool:
    """Whether every step and the report are there, and the report is as new as what stands beside the steps, such as curves."""
    whole = all((out / step.name / MANIFEST).is_file() for step in steps)
    if not (whole and (out / "summary.json").is_file() and (out / "report.html").is_file()):
        return False
    written = (out / "report.html").stat().st_mtime
    return all(manifest.stat().st_mtime <= written for manifest in out.glob(f"*/{MANIFEST}"))


def begun(recipe: RecipeConfig, out: Path, aside: frozenset[str]) -> bool:
    """Whether `out` was begun with this recipe, settings `aside` left aside; False when there is nothing yet.

    Raises UserError when it was begun with another one, or holds something else.
    """
    if not out.exists():
        return False
    if not out.is_dir():
        raise UserError(f"{out}: is a file; --out takes a folder, new or of an earlier run")
    if (out / RECIPE).is_file():
        before, now = (
            {name: value for name, value in some.items() if name not in aside} for some in (read_json(out / RECIPE), dump(recipe))
        )
        differing = list(_differences(before, now))
        if differing:
            lines = "".join(f"\n  {line}" for line in differing)
            raise UserError(f"{out} was begun with other settings; give the same ones, choose another --out, or remove it:{lines}")
        return True
    # A kill in the first moment leaves the lock and perhaps a half-written recipe.
    if any(entry.name != "lock" and not entry.name.startswith(f".{RECIPE}.") for entry in out.iterdir()):
        raise UserError(f"{out} is not empty and holds no run of a recipe; choose another --out")
    return False


def _differences(before: Any, now: Any, name: str = "") -> Iterator[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            yield from _differences(before.get(key), now.get(key), f"{name}.{key}" if name else key)
    elif before != now:
        yield f"{name}: was {json.dumps(before)}, is now {json.dumps(now)}"


def _work(recipe: RecipeConfig, steps: list[Step], out: Path, executor: Executor) -> None:
    from ..core.device import set_threads
    from ..report.build import build_report
    from ..report.text import version_table
    from ..report.told import regression_lines

    set_threads(recipe.threads)  # for the answers between the lines
    executor.work_through(steps, out, {step.name: work(step, recipe) for step in steps}, Samples(out, sample_prompts(recipe, out)).next)
    report = build_report(out, told=headlines(steps, out))
    executor.say("")
    executor.say(version_table(report.summary))
    for line in regression_lines(report.summary["versions"]):
        executor.say(line)
    executor.say(f"report: {out / 'report.html'}")


def headlines(steps: list[Step], out: Path) -> dict[str, str]:
    """What came out of each step, in its stage's words."""
    stages = {step.stage: importlib.import_module(f"..stages.{step.stage}", __package__) for step in steps}
    return {step.name: str(stages[step.stage].headline(open_artifact(out / step.name))) for step in steps}


class Samples:
    """What the newest model says to the fixed prompts of a file, one after the other."""

    def __init__(self, run: Path, prompts: Path):
        self.run, self.prompts, self.lines, self.place = run, prompts, list[str](), 0

    def next(self, artifact: Artifact) -> str:
        """A line for people: answers are sampled anew whenever a model was made."""
        early = artifact.path.name.endswith("-early") and versions(self.run)
        if artifact.kind == "model" and not early:
            self.lines = self._answers(artifact)
        elif not self.lines and (newest := versions(self.run)):
            found = find_artifact(self.run / newest[-1])
            assert found is not None
            self.lines = self._answers(found)
        if not self.lines:
            return "nothing to show yet"
        self.place = (self.place + 1) % len(self.lines)
        return self.lines[self.place]

    def _answers(self, artifact: Artifact) -> list[str]:
        from ..assistant.local import Assistant
        from ..data.records import parse_prompt
        from ..generate.config import SamplingConfig

        assistant = Assistant.load(artifact.path)
        sampling = SamplingConfig(temperature=0, top_p=1, max_new_tokens=48)
        if artifact.path.name == "base":
            ids = [assistant.tokenizer.bos_id]
            text = "".join(assistant.stream_ids(ids, sampling.model_copy(update={"temperature": 0.7}), 0))
            return [f"base continues: {_in_short(text)}"]
        if not self.prompts.is_file():  # nothing makes a model wait for them
            return []
        prompts = [parse_prompt(row, f"{self.prompts} line {number}") for number, row in read_rows(self.prompts)]
        answers = assistant.answers([prompt.dialogue for prompt in prompts], sampling, list(range(len(prompts))))
        name = artifact.path.name
        said = [(_in_short(prompt.dialogue.asked), _in_short(answer.text)) for prompt, answer in zip(prompts, answers, strict=True)]
        return [f'{name}: "{asked}" -> "{answer}"' for asked, answer in said]


def _in_short(text: str) -> str:
    """Its beginning, on one line."""
    return " ".join(text.split())[:SHOWN_CHARACTERS]
