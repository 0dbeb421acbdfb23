"""The reward models of a server by name: the guard's own, and those that are there to be asked."""

import asyncio
from collections.abc import Callable, Container
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ..checkpoints.source import open_source
from ..core.artifacts import model_path
from ..core.errors import UserError, did_you_mean
from ..reward.model import RewardModel
from .config import ServeConfig
from .errors import ApiError, busy

T = TypeVar("T")


@dataclass
class Reward:
    """One reward model; `model` is None until it is loaded."""

    name: str
    folder: Path
    model: RewardModel | None = None


class Rewards:
    """Scores one request after another in a thread of its own, so that the scores of a request depend on nothing else.

    Raises UserError for folders that hold no reward model, and for a name that is taken.
    """

    def __init__(self, config: ServeConfig, taken: Container[str] = ()):
        guard = config.guard.model
        self._most = config.limits.waiting
        self._open = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rewards")
        self.models: dict[str, Reward] = {}
        self.guard: Reward | None = None
        for spec in dict.fromkeys([*([guard] if guard else []), *config.rewards]):
            name, folder = named(spec)
            if name in self.models or name in taken:
                raise UserError(f"two models are called {name!r}; give one another name, as in OTHER={folder}")
            if (kind := open_source(folder).kind) != "reward-model":
                raise UserError(f"{folder} is a {kind}; the guard, and whatever gives rewards, is a reward model")
            self.models[name] = Reward(name, folder)
            if spec == guard:
                self.guard = self.models[name]

    def load(self) -> None:
        """Loads all; takes as long as that takes. Raises UserError."""
        for one in self.models.values():
            one.model = RewardModel.load(one.folder)

    def close(self) -> None:
        """Ends its thread, after the request that it is at."""
        self._thread.shutdown(cancel_futures=True)

    def named(self, name: str | None) -> Reward:
        """The one of this name; without a name the only one there is. Raises ApiError."""
        if not self.models:
            raise ApiError(404, "this server has no reward model; start it with --reward DIR or --guard DIR", "model", "no_reward_model")
        there = ", ".join(self.models)
        if name is None and len(self.models) > 1:
            raise ApiError(400, f"there are several reward models; name one: {there}", "model")
        if name is not None and name not in self.models:
            said = f"no reward model {name!r}{did_you_mean(name, self.models)}; there are {there}"
            raise ApiError(404, said, "model", "model_not_found")
        return self.models[name] if name is not None else next(iter(self.models.values()))

    async def scored(self, work: Callable[[], T], texts: int) -> T:
        """What `work` returns, which scores so many texts, in this object's thread. Raises ApiError when too many wait already."""
        if self._open + texts > self._most:
            raise busy()
        self._open += texts
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        finally:
            self._open -= texts


def named(spec: str) -> tuple[str, Path]:
    """(name, folder) of a folder, RUN, RUN:VERSION, or NAME=one of these. Raises UserError."""
    name, equals, place = spec.partition("=")
    if not equals or Path(spec).exists():
        folder = model_path(spec)
        return folder.name, folder
    return name, model_path(place)
