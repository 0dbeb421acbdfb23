"""Everything that a server's routes share: the models by name, the guard, the limits, and whether it is loading, ready or draining."""

import asyncio
import logging
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ..assistant.local import Assistant
from ..assistant.open import adapter_places
from ..checkpoints.adapted import demand_base
from ..core.device import free_memory_bytes
from ..core.errors import UserError, did_you_mean
from ..model.packed import pack
from .config import ServeConfig
from .errors import ApiError
from .grammar import Grammars
from .guard import Guard
from .metrics import Metrics
from .rewards import Rewards, named
from .store.conversations import Conversations
from .store.database import Database
from .turns import Turns
from .worker import Worker

State = Literal["loading", "ready", "draining", "failed"]

log = logging.getLogger(__name__)


@dataclass
class Base:
    """A folder of weights, and the adapters on it by name."""

    name: str
    folder: Path
    adapters: dict[str, Path] = field(default_factory=dict)
    worker: Worker | None = None
    grammars: Grammars | None = None


@dataclass(frozen=True)
class Served:
    """A name that clients ask for: a base alone, or under an adapter."""

    name: str
    base: Base
    adapter: str | None
    created_s: int

    @property
    def worker(self) -> Worker:
        assert self.base.worker is not None, "nothing is asked of a model that is still being loaded"
        return self.base.worker

    @property
    def grammars(self) -> Grammars:
        assert self.base.grammars is not None, "nothing is asked of a model that is still being loaded"
        return self.base.grammars


class Service:
    """Made before anything is loaded: raises UserError for names, folders and adapters that cannot be served."""

    def __init__(self, config: ServeConfig):
        self.config = config
        self.state: State = "loading"
        self.why = ""
        """Of a state that is not ready, for people."""
        self.compute = Turns()
        """Held by whatever computes, so that models and reward models that share a processor take turns."""
        self.metrics = Metrics()
        self.guard: Guard | None = None
        self._loader: threading.Thread | None = None
        self._bases = _bases(config)
        names: list[tuple[str, Base, str | None]] = [(base.name, base, None) for base in self._bases]
        names += [(adapter, base, adapter) for base in self._bases for adapter in base.adapters]
        self.started_s = int(time.time())
        self.models: dict[str, Served] = {}
        for name, base, adapter in names:
            if name in self.models:
                raise UserError(f"two models are called {name!r}; give one another name, as in OTHER={base.folder}")
            self.models[name] = Served(name, base, adapter, self.started_s)
        self.rewards = Rewards(config, self.models)
        self.metrics.watch(self)
        self.store = Conversations(Database(config.store.database, config.folder), config.store)

    @property
    def bases(self) -> list[Base]:
        """Every folder of weights that is served, loaded or not."""
        return self._bases

    def load(self) -> None:
        """Loads guard and models; takes as long as that takes, so in a thread of its own. What fails is kept in `state` and `why`."""
        compute, limits = self.compute, self.config.limits
        try:
            self.rewards.load()
            if (guard := self.rewards.guard) and guard.model:
                self.guard = Guard(guard.model, guard.name, self.config.guard, compute, self.metrics, self.config.invariant, limits.waiting)
            for base in self._bases:
                assistant = Assistant.load(base.folder, base.name, base.adapters, self.config.invariant)
                if not base.adapters and not self.config.invariant:
                    pack(assistant.model, free_memory_bytes("cpu") or 0)
                base.grammars = Grammars(assistant.tokenizer, assistant.stop_ids, self.config.grammar)
                memory_bytes = int(self.config.memory_gib * (1 << 30))
                base.worker = Worker(assistant, limits.waiting, compute, self.config.rows, memory_bytes, limits.deadline_s)
                base.worker.stats.observer = self.metrics.observer(base.name)
            if self.state == "loading":  # not when it was told to end meanwhile
                self.state = "ready"
        except (UserError, OSError, RuntimeError, MemoryError) as error:  # the server is up already and says so to whoever asks
            self.state, self.why = "failed", str(error)
            if not isinstance(error, UserError):
                log.exception("loading failed")

    async def start(self) -> None:
        """Loads beside the event loop, in a thread that does not hold up the end of the process."""
        self._loader = threading.Thread(target=self.load, name="loading", daemon=True)
        self._loader.start()
        while self.loading:
            await asyncio.sleep(0.02)
        if self.state == "loading":
            self.state, self.why = "failed", "an error of its own, see the log"

    @property
    def loading(self) -> bool:
        """Whether models are being read, also after the server was told to end."""
        return self._loader is not None and self._loader.is_alive()

    @property
    def health(self) -> State:
        """`state`, and `failed` as well once the thread of a model has died."""
        dead = self.state == "ready" and not all(base.worker and base.worker.alive for base in self._bases)
        return "failed" if dead else self.state

    def close(self) -> None:
        """Ends all workers."""
        for base in self._bases:
            if base.worker:
                base.worker.close()
            if base.grammars:
                base.grammars.close()
        if self.guard:
            self.guard.close()
        self.rewards.close()
        self.store.database.close()

    def demand_ready(self) -> None:
        """Raises ApiError while models are loaded, or after the server was told to end."""
        if self.state != "ready":
            said = {"loading": "the model is being loaded", "draining": "the server is ending", "failed": f"loading failed: {self.why}"}
            raise ApiError(503, f"{said[self.state]}; try again later", code=self.state, headers={"Retry-After": "5"})

    def model(self, name: str) -> Served:
        """Raises ApiError for a name that is not served, and while nothing is ready."""
        self.demand_ready()
        if name not in self.models:
            there = ", ".join(self.models)
            raise ApiError(404, f"no model {name!r}{did_you_mean(name, self.models)}; there are {there}", "model", "model_not_found")
        return self.models[name]


def _bases(config: ServeConfig) -> list[Base]:
    bases = [Base(*named(spec)) for spec in config.models]
    for name, place in adapter_places(config.adapters).items():
        _base_of(place, bases).adapters[name] = place
    return bases


def _base_of(adapter: Path, bases: Iterable[Base]) -> Base:
    """The base that an adapter was made for. Raises the last complaint when none fits."""
    complaint: UserError | None = None
    for base in bases:
        try:
            demand_base(adapter, base.folder)
        except UserError as error:
            complaint = error
        else:
            return base
    assert complaint is not None
    raise complaint
