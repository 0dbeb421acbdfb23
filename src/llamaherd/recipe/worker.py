"""A process that works on one step after the other: orders in, JSON lines about them out.

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
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from ..core import progress
from ..core.config import build
from ..core.device import set_threads
from ..core.errors import UserError


def work_on(order: Mapping[str, Any]) -> dict[str, Any]:
    """Runs the ordered stage: what came out, or what is to be told to the user, as JSON. A bug ends the process with its traceback."""
    module = importlib.import_module(f"..stages.{order['stage']}", __package__)
    set_threads(order["threads"])
    config = build(module.run.__annotations__["config"], order["settings"])
    started = time.perf_counter()
    try:
        headline = module.headline(module.run(config, Path(order["folder"]) / order["name"], order["seed"]))
    except UserError as error:
        return {"user_error": str(error)}
    except OSError as error:
        return {"os_error": [error.errno, error.strerror or str(error), error.filename and str(error.filename)]}
    return {"done": order["name"], "headline": headline, "seconds": time.perf_counter() - started}


def main(orders: IO[str], replies: IO[str]) -> None:
    """Obeys orders, one JSON line each, until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the one who gives orders decides
    waiting: queue.Queue[str] = queue.Queue()

    def listen() -> None:
        for line in orders:
            waiting.put(line)
        os._exit(0)

    def reply(message: dict[str, Any]) -> None:
        replies.write(json.dumps(message) + "\n")
        replies.flush()

    progress.listener = lambda text: reply({"progress": text})
    threading.Thread(target=listen, daemon=True).start()
    while True:
        reply(work_on(json.loads(waiting.get())))


if __name__ == "__main__":
    protocol = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints must not look like a reply
    main(sys.stdin, protocol)
