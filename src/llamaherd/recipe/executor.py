"""Works through the steps of a folder: each that is not finished yet, side by side where none waits for another."""

import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..core.artifacts import Artifact, find_artifact, open_artifact
from ..core.files import read_json, write_json
from ..core.progress import clock, show
from .schedule import Schedule
from .steps import Step
from .workers import Workers

Say = Callable[[str], None]
SECONDS = "seconds.json"
"""How long a folder was worked on, over all its starts."""


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


@dataclass
class Executor:
    """How chains of steps are worked through; one for all chains of a command."""

    workers: int
    """Steps that run side by side."""
    threads: int | None
    """Of each of them."""
    say: Say
    pace: Pace = field(default_factory=Pace)
    later_s: float = 0.0
    """Expected seconds of what comes after the chain at work."""

    def work_through(
        self, steps: list[Step], folder: Path, expected_s: Mapping[str, float], sample: Callable[[Artifact], str] | None = None
    ) -> None:
        """Makes what is not finished in `folder`; a line for each step, with `sample(artifact)` at its end. Raises what a step raises."""
        schedule, by_name = Schedule(steps, folder, expected_s), {step.name: step for step in steps}
        before, began = worked_s(folder), time.perf_counter()
        done, width = self._finished(steps, folder, expected_s), max(map(len, by_name))
        with Workers(folder, self.threads) as workers:
            moving = MovingLine()
            while len(done) < len(steps):
                while len(workers.running) < self.workers and (ready := schedule.next(done, workers.running)):
                    workers.start(by_name[ready])
                name, message = workers.wait()
                if "progress" in message:
                    moving.update(name, message["progress"])
                    continue
                moving.clear(name)
                done.append(name)
                self.pace.done(expected_s[name], message["seconds"])
                left = clock((schedule.left_s(done, self.workers) + self.later_s) * self.pace.factor)
                line = f"[{len(done):2d}/{len(steps)}] {left:>5} left  {name:{width}}  {message['headline']} ({clock(message['seconds'])})"
                self.say(f"{line}  |  {sample(open_artifact(folder / name))}" if sample else line)
                write_json(folder / SECONDS, before + time.perf_counter() - began)

    def _finished(self, steps: list[Step], folder: Path, expected_s: Mapping[str, float]) -> list[str]:
        """Names of the steps that are there already."""
        done = []
        for step in steps:
            if artifact := find_artifact(folder / step.name):
                done.append(step.name)
                self.pace.done(expected_s[step.name], float(artifact.manifest["seconds"]))
                # A kill between publishing and cleaning up leaves this behind.
                shutil.rmtree(folder / f"{step.name}.partial", ignore_errors=True)
        return done


def worked_s(folder: Path) -> float:
    """Seconds of work in a folder so far."""
    return float(read_json(folder / SECONDS)) if (folder / SECONDS).is_file() else 0.0


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
