"""What a server serves, where, and what it refuses."""

from pydantic import Field

from ..core.config import Config


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


class GuardConfig(Config):
    """A safety reward model that reads along."""

    model: str | None = None
    """Folder or RUN:NAME of the reward model; null: no guard."""
    threshold: float = Field(0.5, gt=0, lt=1)
    """Answers that score less are replaced."""
    refusal: str = "I can't help with that."
    """What is said in their place."""


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
