"""The server."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from .common import Settings, Text

Flag = Annotated[bool, Parameter(negative="")]


@Parameter(name="*")
@dataclass(frozen=True)
class Judging:
    """Reward models beside the models that answer.

    Parameters
    ----------
    guard
        MODEL or NAME=MODEL of a safety reward model that reads along (docs/serve-guard.md).
    guard_threshold
        Prompts and answers that score less, 0 to 1, are refused (0.5).
    guard_where
        What it reads: both, prompts or answers.
    refusal
        What is said in the place of what is refused.
    reward
        MODEL or NAME=MODEL of a reward model for /v1/rewards; may be given several times.
    """

    guard: str | None = None
    guard_threshold: float | None = None
    guard_where: Literal["both", "prompts", "answers"] | None = None
    refusal: Text | None = None
    reward: list[str] | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """By their names in ServeConfig."""
        guard = {"model": self.guard, "threshold": self.guard_threshold, "where": self.guard_where, "refusal": self.refusal}
        return {f"guard.{name}": value for name, value in guard.items()} | {"rewards": self.reward}


@Parameter(name="*")
@dataclass(frozen=True)
class Sharing:
    """Who may ask, and how.

    Parameters
    ----------
    keys
        Ask for keys on loopback too.
    tls_cert
        Certificate chain, PEM.
    tls_key
        Its private key, PEM.
    insecure_http
        Beyond loopback without TLS: behind a proxy that has it.
    allow_host
        One more name that clients may call the server by; may be given several times.
    allow_origin
        https://HOST[:PORT] whose pages may ask from a browser; may be given several times.
    """

    keys: Flag = False
    tls_cert: Path | None = None
    tls_key: Path | None = None
    insecure_http: Flag = False
    allow_host: list[str] | None = None
    allow_origin: list[str] | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """Under their dotted names; what was not given is null, or false."""
        return {f"access.{'ask_keys' if name == 'keys' else name}": value for name, value in vars(self).items()}


UNGUARDED, ALONE = Judging(), Sharing()


def serve(
    *model: Settings, adapter: list[str] | None = None, judging: Judging = UNGUARDED, host: Text | None = None, port: int | None = None,
    open_page: Annotated[bool, Parameter(name="--open", negative="")] = False, invariant: Flag = False, sharing: Sharing = ALONE,
    state: Path | None = None, database: str | None = None, log: Text | None = None, log_text: Flag = False, config: Path | None = None,
) -> None:  # fmt: skip
    """Serve models to a browser and to OpenAI's clients, on this machine alone unless --host says otherwise.

    MODEL is a folder, RUN (its newest version), RUN:VERSION, or NAME=one of these. Ctrl+C ends it in order; again, at once.

    Parameters
    ----------
    model
        MODEL [MODEL ...], and settings as --a.b=value.
    adapter
        NAME=DIR or DIR of an adapter, which is served as a model of that name.
    host
        Address to listen at (127.0.0.1). Any but loopback asks for TLS and for keys; the first key is made and shown once.
    port
        Port (8000); 0 takes a free one.
    open_page
        Open the chat page in the browser.
    invariant
        The same bits whatever else is at work: a fixed number of slots, slower and with more memory.
    state
        Folder for keys and conversations (LLAMAHERD_STATE, or the platform's folder for a user's data).
    log
        File for a line about each request, without what users say; - for standard error.
    database
        postgresql+psycopg://USER@HOST/NAME or sqlite:///FILE for conversations (llamaherd.db in the state folder).
    log_text
        Write into it what users and models say, too.
    config
        YAML file of settings.
    """
    from ..core.config import build, merged, parse_overrides, read_yaml
    from ..core.device import set_threads
    from ..serve.config import ServeConfig

    models, settings = _apart(model)
    given = {
        "models": models, "adapters": adapter, "host": host, "port": port, "invariant": invariant, "state": state,
        "store.database": database, "log": log, "log_text": log_text, **judging.settings, **sharing.settings,
    }  # fmt: skip
    asked = {name: value for name, value in given.items() if not (value is None or value is False or value == [])}
    built = build(ServeConfig, merged(read_yaml(config) if config else {}, parse_overrides(settings) | asked), str(config or ""))
    set_threads()  # before anything else loads torch, which reads once how its threads wait
    from ..serve.server import run  # takes seconds, and wrong settings are told before

    run(built, open_page)


def _apart(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Models, and settings with their values."""
    models: list[str] = []
    settings: list[str] = []
    for before, word in zip(["", *words], words):
        is_value = before.startswith("--") and "=" not in before
        (settings if word.startswith("--") or is_value else models).append(word)
    return models, settings
