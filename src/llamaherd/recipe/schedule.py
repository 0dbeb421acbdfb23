"""Which steps of a folder may run now, which of them first, and when all will be done."""

import heapq
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from .steps import Step


def needs(step: Step, folder: Path) -> frozenset[str]:
    """Names of the folder's artifacts that a step reads: those it names, and every path in its settings that lies in the folder."""
    paths = _paths(step.config.model_dump())
    return frozenset([*step.reads, *(path.relative_to(folder).parts[0] for path in paths if path.is_relative_to(folder))])


def _paths(value: Any) -> Iterator[Path]:
    if isinstance(value, Path):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _paths(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _paths(item)


class Schedule:
    """The steps of a folder, what each waits for, and the expected seconds of each."""

    def __init__(self, steps: list[Step], folder: Path, expected_s: Mapping[str, float]):
        self.needs = {step.name: needs(step, folder) for step in steps}
        self.expected_s = expected_s
        self.chain_s: dict[str, float] = {}
        """From the start of a step to the end of the longest chain of steps that wait for it."""
        for step in reversed(steps):
            after = [self.chain_s[name] for name, waits in self.needs.items() if step.name in waits]
            self.chain_s[step.name] = expected_s[step.name] + max(after, default=0.0)

    def next(self, done: Collection[str], running: Collection[str]) -> str | None:
        """The step to start now: of those that wait for nothing, the one with the longest chain behind it."""
        ready = [name for name, waits in self.needs.items() if name not in done and name not in running and waits <= set(done)]
        return max(ready, key=lambda name: self.chain_s[name], default=None)

    def left_s(self, done: Collection[str], workers: int) -> float:
        """Expected seconds until all is done with so many workers; steps at work count from their start."""
        finished, now, at_work = set(done), 0.0, list[tuple[float, str]]()
        while len(finished) < len(self.needs):
            while len(at_work) < workers and (name := self.next(finished, {name for _, name in at_work})):
                heapq.heappush(at_work, (now + self.expected_s[name], name))
            now, name = heapq.heappop(at_work)
            finished.add(name)
        return now
