"""What a server serves, where, and what it refuses."""

import os
import sys
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from ..core.config import Config


def state_folder(given: Path | None) -> Path:
    """Where a server keeps keys and conversations: `given`, LLAMAHERD_STATE, or the folder that the platform has for a user's data."""
    if given is not None:
        return given
    if named := os.environ.get("LLAMAHERD_STATE"):
        return Path(named)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "llamaherd"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "llamaherd"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "llamaherd"


class LimitsConfig(Config):
    """Most of everything that a stranger may ask for at once."""

    body_bytes: int = Field(2 << 20, ge=1 << 10)
    """Longest body of a request."""
    waiting: int = Field(256, ge=1)
    """Sequences that are at work or wait, for each model; what comes beyond is told to come again."""
    answers: int = Field(16, ge=1)
    """Most answers to one prompt (`n`)."""
    prompts: int = Field(128, ge=1)
    """Most prompts of one request for completions."""
    messages: int = Field(4096, ge=1)
    """Most messages of a dialogue."""
    stops: int = Field(16, ge=1)
    """Most stop texts."""
    stop_characters: int = Field(256, ge=1)
    """Longest stop text."""
    new_tokens: int = Field(4096, ge=1)
    """Longest answer, where the context allows it."""
    deadline_s: float = Field(600.0, gt=0)
    """Longest that one request may take, its waiting included."""
    silence_s: float = Field(30.0, gt=0)
    """Longest that a client may take to send its request, or to take in a piece of the answer."""
    drain_s: float = Field(30.0, ge=0)
    """So long requests at work may go on once the server is told to end."""
    receive_s: float = Field(60.0, gt=0)
    """Longest that a client may take to send a whole request."""
    head_bytes: int = Field(32 << 10, ge=4 << 10)
    """Longest request line and headers, together."""
    connections: int = Field(512, ge=1)
    """Most connections at once; what comes beyond is told to come again."""
    values: int = Field(1 << 17, ge=1)
    """Most values (texts, numbers, lists and objects) in a body."""
    objects: int = Field(1 << 14, ge=1)
    """Most objects in a body, such as messages and their parts."""
    depth: int = Field(64, ge=8)
    """Deepest that lists and objects in a body may be nested."""
    fields: int = Field(1024, ge=64)
    """Most fields of one object in a body."""
    digits: int = Field(64, ge=20)
    """Longest whole number in a body."""


class GuardConfig(Config):
    """A safety reward model that reads along (docs/serve-guard.md)."""

    model: str | None = None
    """Folder or RUN:NAME of the reward model, or NAME=one of these; null: no guard."""
    where: Literal["both", "prompts", "answers"] = "both"
    """What it reads."""
    threshold: float = Field(0.5, gt=0, lt=1)
    """What scores less is refused."""
    prompt_threshold: float | None = Field(None, gt=0, lt=1)
    """The same for prompts; null: `threshold`."""
    refusal: str = Field("I can't help with that.", min_length=1)
    """What is said in the place of what is refused."""
    portion_tokens: int = Field(64, ge=1)
    """Streamed text is held back and checked in portions of so many tokens or more."""

    @model_validator(mode="after")
    def _of_somebody(self) -> "GuardConfig":
        given = [name for name, field in GuardConfig.model_fields.items() if getattr(self, name) != field.default]
        if given and self.model is None:
            raise ValueError(f"{', '.join(given)} given, and there is no guard; name one with --guard REWARD_MODEL")
        return self


class AccessConfig(Config):
    """Who may ask, and from where."""

    ask_keys: bool = False
    """Whether keys are asked for on loopback too; beyond it they always are."""
    tls_cert: Path | None = None
    """Certificate chain of the server, PEM; with it and its key it speaks https."""
    tls_key: Path | None = None
    """Private key of that certificate, PEM, without a password."""
    insecure_http: bool = False
    """Whether to listen beyond loopback without TLS, for use behind a proxy that has it."""
    allow_host: tuple[str, ...] = ()
    """Names that clients may call the server by, besides loopback's and the address it listens at."""
    allow_origin: tuple[str, ...] = ()
    """Web pages of others that may ask from a browser, each as https://HOST[:PORT]."""
    session_h: float = Field(168.0, gt=0)
    """So long a browser stays signed in."""
    wrong_keys: int = Field(10, ge=1)
    """Wrong keys that one address may try in a minute; what comes beyond is told to wait."""


class GrammarConfig(Config):
    """JSON schemas and tools, which strangers send and which cost time and memory before anything is answered."""

    schema_bytes: int = Field(64 << 10, ge=64)
    """Longest JSON schema."""
    schema_depth: int = Field(64, ge=4)
    """Deepest nesting of one, in keywords."""
    compile_s: float = Field(5.0, gt=0)
    """Longest that compiling may take, the turn of others included."""
    kept: int = Field(32, ge=1)
    """Compiled grammars that are kept in memory, for each model."""
    tools: int = Field(64, ge=1)
    """Most tools of one request."""
    tools_bytes: int = Field(128 << 10, ge=64)
    """Longest that their names, descriptions and schemas may be together."""
    calls: int = Field(16, ge=1)
    """Most calls of tools in one answer, and in one message."""


class StoreConfig(Config):
    """What the chat page may keep, and where."""

    database: str | None = None
    """URL of the database, `sqlite:///FILE` or `postgresql+psycopg://USER@HOST/NAME`; null: `llamaherd.db` in the state folder."""
    title_characters: int = Field(500, ge=1)
    """Longest title of a conversation."""
    content_characters: int = Field(1_000_000, ge=1)
    """Longest message."""
    meta_bytes: int = Field(1 << 20, ge=2)
    """Most that is kept beside a message, or as the settings of a conversation."""
    nodes: int = Field(20_000, ge=1)
    """Most messages of a conversation, on all of its branches."""
    conversations: int = Field(20_000, ge=1)
    """Most conversations of a user."""
    import_bytes: int = Field(32 << 20, ge=1 << 10)
    """Largest file of conversations that is read in."""


class ServeConfig(Config):
    """One server."""

    models: tuple[str, ...] = Field(min_length=1)
    """Each a folder, RUN or RUN:VERSION, or NAME=one of these."""
    adapters: tuple[str, ...] = ()
    """NAME=DIR or DIR of adapters, each served as a model of its own on the base it was made for."""
    host: str = "127.0.0.1"
    """Address to listen at; any but loopback asks for keys and TLS."""
    port: int = Field(8000, ge=0, le=65535)
    """Port; 0 takes a free one."""
    invariant: bool = False
    """Whether answers are the same bits whatever else is at work (docs/generation.md)."""
    rows: int | None = Field(None, ge=1)
    """Sequences at work at once, for each model; null: the engine's own number."""
    memory_gib: float = Field(2.0, ge=0)
    """Memory for beginnings that were read before, for each model; 0: none is kept."""
    limits: LimitsConfig = LimitsConfig()
    """What is refused."""
    guard: GuardConfig = GuardConfig()
    """Who reads along."""
    grammar: GrammarConfig = GrammarConfig()
    """What is taken of schemas and tools."""
    rewards: tuple[str, ...] = ()
    """Reward models for /v1/rewards, each a folder or RUN:NAME, or NAME=one of these."""
    access: AccessConfig = AccessConfig()
    """Who may ask."""
    state: Path | None = None
    """Folder for keys and conversations; null: LLAMAHERD_STATE, or the platform's folder for a user's data."""
    log: str | None = None
    """File for a line about each request, `-` for standard error; null: none is written."""
    log_text: bool = False
    """Whether those lines hold what users say."""
    store: StoreConfig = StoreConfig()
    """What is kept."""

    @property
    def folder(self) -> Path:
        """Where keys and conversations lie."""
        return state_folder(self.state)
