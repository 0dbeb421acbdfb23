"""A process that works on one step of a run after the other: the name of a step in, JSON lines about it out.

It ends when its input does, so no worker outlives the process that started it, however that one ends.
"""

import importlib
import json
import os
import queue
import signal
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any

from ..core import progress
from ..core.config import build
from ..core.device import set_threads
from ..core.errors import UserError
from ..core.files import read_json
from ..core.seeds import seed_for
from .chain import Step, chain
from .config import RecipeConfig


def work_on(step: Step, recipe: RecipeConfig, run: Path) -> dict[str, Any]:
    """Runs the step's stage: what came out, or what is to be told to the user, as JSON. A bug ends the process with its traceback."""
    module = importlib.import_module(f"..stages.{step.stage}", __package__)
    # All versions are asked with the same draws, so that the models are what differs.
    seed = seed_for(recipe.seed, "evaluate" if step.stage == "evaluate" else step.name)
    started = time.perf_counter()
    try:
        headline = module.headline(module.run(step.config, run / step.name, seed))
    except UserError as error:
        return {"user_error": str(error)}
    except OSError as error:
        return {"os_error": [error.errno, error.strerror or str(error), error.filename and str(error.filename)]}
    return {"done": step.name, "headline": headline, "seconds": time.perf_counter() - started}


def main(run: Path, orders: IO[str], replies: IO[str]) -> None:
    """Obeys orders until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the one who gives orders decides
    recipe = build(RecipeConfig, read_json(run / "recipe.json"))
    set_threads(recipe.threads)
    steps = {step.name: step for step in chain(recipe, run)}
    waiting: queue.Queue[str] = queue.Queue()

    def listen() -> None:
        for line in orders:
            waiting.put(line.strip())
        os._exit(0)

    def reply(message: dict[str, Any]) -> None:
        replies.write(json.dumps(message) + "\n")
        replies.flush()

    progress.listener = lambda text: reply({"progress": text})
    threading.Thread(target=listen, daemon=True).start()
    while True:
        reply(work_on(steps[waiting.get()], recipe, run))


if __name__ == "__main__":
    protocol = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints must not look like a reply
    main(Path(sys.argv[1]), sys.stdin, protocol)
