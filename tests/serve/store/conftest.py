"""Empty databases of both kinds."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from tests.serve.postgres import binaries, cluster

from llamaherd.serve.config import StoreConfig
from llamaherd.serve.store.conversations import Conversations
from llamaherd.serve.store.database import Database


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """A running cluster, or the test is skipped."""
    bin = binaries()
    if bin is None:
        pytest.skip("PostgreSQL is not installed (make test-system)")
    with cluster(bin) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of a database that does not hold anything yet."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'kept.db'}"
    kept = str(request.getfixturevalue("postgres")) + "postgres"  # emptied, which takes far less than another one with all its files
    engine = create_engine(kept, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(
            text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = 'postgres'")
        )
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    engine.dispose()
    return kept


@pytest.fixture
def open_store(tmp_path: Path) -> Iterator[Callable[..., Conversations]]:
    """`open_store(url, nodes=3)`: settings as in StoreConfig."""
    opened: list[Database] = []

    def make(url: str, **settings: int) -> Conversations:
        database = Database(url, tmp_path)
        opened.append(database)
        return Conversations(database, StoreConfig(database=url, **settings))  # type: ignore[arg-type]

    yield make
    for database in opened:
        database.close()


@pytest.fixture
def store(url: str, open_store: Callable[..., Conversations]) -> Conversations:
    return open_store(url)
