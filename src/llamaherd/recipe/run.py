"""Runs a recipe: each step that is not finished yet, one line for each, and the report at the end."""

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..core.artifacts import MANIFEST, Artifact, find_artifact, locked, open_artifact, versions
from ..core.config import ConfigError, dump
from ..core.errors import UserError
from ..core.files import read_json, read_rows, write_json
from ..core.progress import clock, show
from .chain import Step, chain
from .checks import problems
from .config import RecipeConfig
from .forecast import work
from .schedule import Schedule
from .workers import Workers

Say = Callable[[str], None]
RECIPE = "recipe.json"
"""The resolved settings, by which a folder is known as a run."""
SECONDS = "seconds.json"
"""How long the run has worked, over all its starts."""


def run_recipe(recipe: RecipeConfig, out: Path, say: Say) -> None:
    """Brings the run in `out` to its end, from wherever it stands.

    Raises UserError when the recipe cannot work, `out` is no run, was begun with other settings, or is being worked on.
    """
    steps = chain(recipe, out)
    if _begun(recipe, out):
        if is_finished(steps, out):
            summary = read_json(out / "summary.json")
            say(f"{out} is finished ({clock(summary['seconds'])} of work); its report is {out / 'report.html'}")
            return
    elif found := problems(recipe):
        raise ConfigError(found)
    with locked(out / "lock", str(out)):
        if not _begun(recipe, out):  # another process may have begun it between the question and the lock
            write_json(out / RECIPE, dump(recipe))
        _work(recipe, steps, out, say)


def is_finished(steps: list[Step], out: Path) -> bool:
    """Whether every step and the report are there."""
    whole = all((out / step.name / MANIFEST).is_file() for step in steps)
    return whole and (out / "summary.json").is_file() and (out / "report.html").is_file()


def _begun(recipe: RecipeConfig, out: Path) -> bool:
    """Whether `out` holds a run of this recipe; False when there is nothing yet. Raises UserError when it holds another one."""
    if not out.exists():
        return False
    if not out.is_dir():
        raise UserError(f"{out}: is a file; --out takes a folder, new or of an earlier run")
    if (out / RECIPE).is_file():
        differing = list(_differences(_of_the_results(read_json(out / RECIPE)), _of_the_results(dump(recipe))))
        if differing:
            lines = "".join(f"\n  {line}" for line in differing)
            raise UserError(f"{out} was begun with other settings; give the same ones, choose another --out, or remove it:{lines}")
        return True
    # A kill in the first moment leaves the lock and perhaps a half-written recipe.
    if any(entry.name != "lock" and not entry.name.startswith(f".{RECIPE}.") for entry in out.iterdir()):
        raise UserError(f"{out} is not empty and holds no run of a recipe; choose another --out")
    return False


def _of_the_results(recipe: dict[str, Any]) -> dict[str, Any]:
    """The settings that results depend on: how many steps run side by side is none of them, nor what the electricity is made of."""
    return {name: value for name, value in recipe.items() if name not in ("workers", "co2_g_per_kwh")}


def _differences(before: Any, now: Any, name: str = "") -> Iterator[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            yield from _differences(before.get(key), now.get(key), f"{name}.{key}" if name else key)
    elif before != now:
        yield f"{name}: was {json.dumps(before)}, is now {json.dumps(now)}"


def _work(recipe: RecipeConfig, steps: list[Step], out: Path, say: Say) -> None:
    from ..core.device import set_threads
    from ..report.build import build_report
    from ..report.text import version_table

    set_threads(recipe.threads)
    schedule = Schedule(steps, out, {step.name: work(step, recipe) for step in steps})
    pace, samples = Pace(), Samples(out)
    before, began = read_json(out / SECONDS) if (out / SECONDS).is_file() else 0.0, time.perf_counter()
    finished = {step.name: artifact for step in steps if (artifact := find_artifact(out / step.name))}
    for name, artifact in finished.items():
        pace.done(schedule.expected_s[name], float(artifact.manifest["seconds"]))
        # A kill between publishing and cleaning up leaves this behind.
        shutil.rmtree(out / f"{name}.partial", ignore_errors=True)
    done, width = list(finished), max(len(step.name) for step in steps)
    with Workers(out, recipe.workers) as workers:
        moving = MovingLine()
        while len(done) < len(steps):
            while len(workers.running) < recipe.workers and (ready := schedule.next(done, workers.running)):
                workers.start(ready)
            name, message = workers.wait()
            if "progress" in message:
                moving.update(name, message["progress"])
                continue
            moving.clear(name)
            done.append(name)
            pace.done(schedule.expected_s[name], message["seconds"])
            left = clock(schedule.left_s(done, recipe.workers) * pace.factor)
            came_out = f"{message['headline']} ({clock(message['seconds'])})"
            sample = samples.next(open_artifact(out / name))
            say(f"[{len(done):2d}/{len(steps)}] {left:>5} left  {name:{width}}  {came_out}  |  {sample}")
            write_json(out / SECONDS, before + time.perf_counter() - began)
    report = build_report(out)
    say("")
    say(version_table(report.summary))
    say(f"report: {out / 'report.html'}")


class MovingLine:
    """The moving lines of all steps at work, as one; nothing where there is no terminal."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}

    def update(self, step: str, text: str) -> None:
        self.texts[step] = text
        self._show("   ".join(filter(None, self.texts.values())))

    def clear(self, step: str) -> None:
        """A step is done, and the terminal's line free for other words until the next update."""
        self.texts.pop(step, None)
        self._show("")

    def _show(self, text: str) -> None:
        if sys.stderr.isatty():
            show(text)


class Pace:
    """How much longer steps take on this machine than expected, so far."""

    TRUST_S = 5.0
    """Seconds of finished work after which what was measured counts as much as the expectation."""

    def __init__(self) -> None:
        self.due_s = self.spent_s = self.TRUST_S

    def done(self, expected_s: float, seconds: float) -> None:
        self.due_s += expected_s
        self.spent_s += seconds

    @property
    def factor(self) -> float:
        return self.spent_s / self.due_s


class Samples:
    """What the newest model says to the fixed prompts, one after the other."""

    def __init__(self, run: Path):
        self.run, self.lines, self.place = run, list[str](), 0

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
            return "no model yet"
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
            return [f"base continues: {' '.join(text.split())[:100]}"]
        file = self.run / "world" / "samples.jsonl"
        prompts = [parse_prompt(row, f"{file} line {number}") for number, row in read_rows(file)]
        answers = assistant.answers([prompt.dialogue for prompt in prompts], sampling, list(range(len(prompts))))
        name = artifact.path.name
        return [f'{name}: "{prompt.dialogue.asked}" -> "{answer.text}"' for prompt, answer in zip(prompts, answers, strict=True)]
