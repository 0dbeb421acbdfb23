"""The database of a server: SQLite in WAL mode, or PostgreSQL; opened at the newest schema, written by one at a time."""

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.orm import Session

from ...core.errors import UserError, one_line
from ..errors import ApiError

T = TypeVar("T")
BUSY_S = 30.0
"""So long one writer waits for another, of this process or of another one."""
THREADS = 4
MIGRATING = 6_011_957
"""The number under which servers that start at once take turns in PostgreSQL."""

log = logging.getLogger(__name__)


class Database:
    """Opened and brought to the newest schema; raises UserError, in one line, for what cannot be used.

    `given` is a URL of SQLAlchemy (`sqlite:///FILE`, `postgresql+psycopg://USER@HOST/NAME`), or None for a file in `folder`.
    """

    def __init__(self, given: str | None, folder: Path):
        url = _url(given, folder)
        self.name = url.render_as_string(hide_password=True)
        sqlite = url.get_backend_name() == "sqlite"
        try:
            if sqlite and url.database:
                _prepare(Path(url.database))
            self._engine = _engine(url)
            self._alone: Any = threading.Lock() if sqlite else nullcontext()
            with self._writing() as connection:
                _migrate(connection, self.name, sqlite)
        except ModuleNotFoundError as error:
            raise UserError(f"{self.name}: needs the package {error.name}; pip install 'llamaherd[postgres]'") from None
        except (SQLAlchemyError, OSError) as error:
            why = one_line(str(getattr(error, "orig", None) or error))
            raise UserError(f"{self.name}: cannot be used as the database of conversations: {why}") from None
        self._threads = ThreadPoolExecutor(THREADS, "store")

    @property
    def url(self) -> str:
        """With its password, for another process that opens the same one."""
        return self._engine.url.render_as_string(hide_password=False)

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with self._alone, self._engine.execution_options(writes=True).begin() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """All that the block writes, or nothing."""
        with self._writing() as connection, Session(connection) as session:
            yield session
            session.flush()

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """One state of the database, whatever is written meanwhile."""
        with self._engine.begin() as connection, Session(connection) as session:
            yield session

    async def do(self, work: Callable[..., T], *arguments: Any) -> T:
        """`work(*arguments)` off the event loop. Raises ApiError 503 when the database fails; what was sent to it is not logged."""

        def guarded() -> T:
            try:
                return work(*arguments)
            except SQLAlchemyError as error:
                why = getattr(error, "orig", None) or error
                code = getattr(why, "sqlite_errorname", None) or getattr(why, "sqlstate", None)
                log.error("%s: %s%s", self.name, type(why).__name__, f" ({code})" if code else "")
                raise ApiError(503, "the database of conversations does not answer; try again later", code="database") from None

        return await asyncio.get_running_loop().run_in_executor(self._threads, guarded)

    def close(self) -> None:
        """After what is at work."""
        self._threads.shutdown()
        self._engine.dispose()


def _url(given: str | None, folder: Path) -> URL:
    if given is None:
        return URL.create("sqlite", database=str(folder / "llamaherd.db"))
    try:
        url = make_url(given)
    except (ArgumentError, ValueError):
        raise UserError("database: not a URL; expected sqlite:///FILE or postgresql+psycopg://USER@HOST/NAME") from None
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    if url.drivername not in ("sqlite", "postgresql+psycopg") or (url.drivername == "sqlite" and url.database in (None, "", ":memory:")):
        said = url.render_as_string(hide_password=True)
        raise UserError(f"database: {said:.80}: expected sqlite:///FILE or postgresql+psycopg://USER@HOST/NAME")
    return url


def _prepare(file: Path) -> None:
    """The file, which nobody else may read; those that SQLite puts beside it get the same rights."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o600))


def _engine(url: URL) -> Engine:
    if url.get_backend_name() != "sqlite":
        return create_engine(url, hide_parameters=True, pool_pre_ping=True, pool_size=THREADS, connect_args={"connect_timeout": 10})
    engine = create_engine(url, hide_parameters=True, pool_size=THREADS, connect_args={"timeout": BUSY_S, "check_same_thread": False})

    @event.listens_for(engine, "connect")
    def settings(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # the driver would begin transactions of its own, and never for reading
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A transaction that turns from reading to writing would fail at once beside another writer; this one waits.
        connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writes") else "BEGIN")

    return engine


def _migrate(connection: Connection, name: str, sqlite: bool, to: str = "head") -> None:
    """To the newest schema within the transaction of `connection`. SQLite's is the only writer already."""
    if not sqlite:
        connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": MIGRATING})
    config = AlembicConfig()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    scripts = ScriptDirectory.from_config(config)
    known = [script.revision for script in scripts.walk_revisions()]
    there = MigrationContext.configure(connection).get_current_revision()
    if there is None and inspect(connection).has_table("conversations"):
        raise UserError(f"{name}: has a table `conversations` that is not llamaherd's; name another database")
    if there is not None and there not in known:
        raise UserError(f"{name}: has schema {there}, and this llamaherd knows those up to {known[0]}; use the newer one that wrote it")
    if there != known[0]:
        command.upgrade(config, to)
