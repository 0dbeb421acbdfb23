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
from ..core.artifacts import model_path
from ..core.device import free_memory_bytes
from ..core.errors import UserError, did_you_mean
from ..model.packed import pack
from ..reward.model import RewardModel
from .config import ServeConfig
from .errors import ApiError
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


class Service:
    """Made before anything is loaded: raises UserError for names, folders and adapters that cannot be served."""

    def __init__(self, config: ServeConfig):
        self.config = config
        self.state: State = "loading"
        self.why = ""
        """Of a state that is not ready, for people."""
        self.guard: RewardModel | None = None
        self._bases = _bases(config)
        names: list[tuple[str, Base, str | None]] = [(base.name, base, None) for base in self._bases]
        names += [(adapter, base, adapter) for base in self._bases for adapter in base.adapters]
        now = int(time.time())
        self.models: dict[str, Served] = {}
        for name, base, adapter in names:
            if name in self.models:
                raise UserError(f"two models are called {name!r}; give one another name, as in OTHER={base.folder}")
            self.models[name] = Served(name, base, adapter, now)
        if config.guard.model:
            model_path(config.guard.model)

    def load(self) -> None:
        """Loads guard and models; takes as long as that takes, so in a thread of its own. What fails is kept in `state` and `why`."""
        compute = threading.Lock()
        try:
            if self.config.guard.model:
                self.guard = RewardModel.load(self.config.guard.model)
            for base in self._bases:
                assistant = Assistant.load(base.folder, base.name, base.adapters, self.config.invariant)
                if not base.adapters and not self.config.invariant:
                    pack(assistant.model, free_memory_bytes("cpu") or 0)
                memory_bytes = int(self.config.memory_gib * (1 << 30))
                base.worker = Worker(assistant, self.config.limits.waiting, compute, self.config.rows, memory_bytes)
            self.state = "ready"
        except (UserError, OSError, RuntimeError, MemoryError) as error:  # the server is up already and says so to whoever asks
            self.state, self.why = "failed", str(error)
            log.exception("loading failed")

    async def start(self) -> None:
        """Loads beside the event loop."""
        await asyncio.to_thread(self.load)

    def close(self) -> None:
        """Ends all workers."""
        for base in self._bases:
            if base.worker:
                base.worker.close()

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
    bases = [_named(spec) for spec in config.models]
    for name, place in adapter_places(config.adapters).items():
        _base_of(place, bases).adapters[name] = place
    return bases


def _named(spec: str) -> Base:
    name, equals, place = spec.partition("=")
    if not equals or Path(spec).exists():
        folder = model_path(spec)
        return Base(folder.name, folder)
    return Base(name, model_path(place))


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
