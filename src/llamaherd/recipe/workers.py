"""The other end of `worker.py`: starts workers, gives them steps, hears what comes of them."""

import json
import queue
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from ..core.errors import UserError
from .steps import Step, order_for


class Worker:
    """One process; `step` is the name of what it works on."""

    def __init__(self, heard: "queue.Queue[tuple[Worker, dict[str, Any]]]"):
        command = [sys.executable, "-m", "llamaherd.recipe.worker"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8")
        self.heard, self.step = heard, ""
        threading.Thread(target=self._listen, daemon=True).start()

    def give(self, step: Step, folder: Path, threads: int | None) -> None:
        assert self.process.stdin is not None
        self.step = step.name
        self.process.stdin.write(json.dumps(order_for(step, folder, threads)) + "\n")
        self.process.stdin.flush()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.heard.put((self, json.loads(line)))
        self.heard.put((self, {"gone": self.process.wait()}))


class Workers:
    """Processes for the steps of a folder, each with so many threads. A context: its end is theirs."""

    def __init__(self, folder: Path, threads: int | None):
        self.heard: queue.Queue[tuple[Worker, dict[str, Any]]] = queue.Queue()
        self.folder, self.threads = folder, threads
        self.all: list[Worker] = []

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.all:
            worker.process.kill()
            worker.process.wait()

    @property
    def running(self) -> set[str]:
        """Names of the steps at work."""
        return {worker.step for worker in self.all if worker.step}

    def start(self, step: Step) -> None:
        """Gives the step to an idle worker, a new one if need be."""
        idle = next((worker for worker in self.all if not worker.step), None)
        if idle is None:
            idle = Worker(self.heard)
            self.all.append(idle)
        idle.give(step, self.folder, self.threads)

    def wait(self) -> tuple[str, dict[str, Any]]:
        """The next message, `done` or `progress`, and the step it is about. Raises what the step raised."""
        worker, message = self.heard.get()
        step = worker.step
        if "progress" in message:
            return step, message
        worker.step = ""
        if "user_error" in message:
            raise UserError(message["user_error"])
        if "os_error" in message:
            raise OSError(*message["os_error"])
        if "gone" in message:
            told = "see its message above." if message["gone"] > 0 else "is memory short?"
            raise UserError(
                f"the process that worked on {step or 'nothing yet'} ended with code {message['gone']}; {told} The same command goes on from here"
            )
        return step, message
