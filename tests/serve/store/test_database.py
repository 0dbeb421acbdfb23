"""Opening: rights, schemas old and new, two at once, and what cannot be opened; and the end of a server by SIGKILL."""

import asyncio
import json
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from tests.serve.postgres import binaries

from llamaherd.core.errors import UserError
from llamaherd.serve.errors import ApiError
from llamaherd.serve.store import database as module
from llamaherd.serve.store.conversations import Conversations, NewNode
from llamaherd.serve.store.database import Database

Open = Callable[..., Conversations]


def test_the_file_is_in_the_state_folder_and_nobody_elses(tmp_path: Path) -> None:
    Database(None, tmp_path / "state").close()
    file = tmp_path / "state" / "llamaherd.db"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    with sqlite3.connect(file) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_sqlite_keeps_its_promises(tmp_path: Path) -> None:
    database = Database(None, tmp_path)
    with database.reading() as session:
        values = [session.execute(text(f"PRAGMA {name}")).scalar() for name in ("foreign_keys", "synchronous", "busy_timeout")]
    database.close()
    assert values == [1, 1, 30_000]


def upgraded_to(url: str, revision: str) -> None:
    engine = module._engine(module._url(url, Path()))
    with engine.execution_options(writes=True).begin() as connection:
        module._migrate(connection, url, url.startswith("sqlite"), to=revision)
    engine.dispose()


def test_what_the_first_schema_kept_is_there_and_found(url: str, open_store: Open) -> None:
    upgraded_to(url, "0001")
    engine = create_engine(url)
    id, node = str(uuid.uuid4()), str(uuid.uuid4())
    with engine.begin() as connection:
        kept = "INSERT INTO conversations (owner, id, title, settings, leaf, created_s, updated_s) VALUES ('ada', :id, 'Übung', '{}', :node, 1, 2)"
        connection.execute(text(kept), {"id": id, "node": node})
        for number in range(250):  # more than one round of the revision
            row = (
                "INSERT INTO nodes (conversation, id, parent, depth, role, content, model, meta, created_s)"
                " VALUES (1, :id, NULL, 0, 'user', :said, NULL, '{}', 1)"
            )
            connection.execute(text(row), {"id": node if number == 249 else str(uuid.uuid4()), "said": f"Große Welt {number:03}"})
    engine.dispose()
    store = open_store(url)
    assert len(json.loads(store.get("ada", id))["nodes"]) == 250
    assert store.list("ada", "ÜBUNG", 5, None)["data"][0]["id"] == id
    found = store.list("ada", "GROSSE WELT 249", 5, None)["data"][0]
    assert (found["snippet"], found["hit"]["node"]) == ("Große Welt 249", node)
    store.add("ada", id, NewNode(str(uuid.uuid4()), node, "assistant", "new"))


def test_a_newer_schema_is_refused_in_one_line_and_left_alone(url: str) -> None:
    Database(url, Path()).close()
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(UserError, match="has schema 9999, and this llamaherd knows those up to 0002") as refused:
        Database(url, Path())
    assert "\n" not in str(refused.value)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar() == "9999"
    engine.dispose()


def test_servers_that_start_at_once_migrate_once(url: str) -> None:
    with ThreadPoolExecutor(6) as threads:
        for database in list(threads.map(lambda _: Database(url, Path()), range(6))):
            database.close()


def test_a_migration_that_fails_leaves_what_was(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    upgraded_to(url, "0001")

    def failing(*_: object) -> str:
        raise OSError("no more")

    engine = create_engine(url)
    with engine.begin() as connection:
        row = "INSERT INTO conversations (owner, id, title, settings, created_s, updated_s) VALUES ('ada', 'x', 'T', '{}', 1, 1)"
        connection.execute(text(row))
    with monkeypatch.context() as patch:
        patch.setattr("unicodedata.normalize", failing)
        with pytest.raises(UserError, match="no more"):
            Database(url, Path())
    with engine.connect() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar() == "0001"
        assert len(connection.execute(text("SELECT * FROM conversations")).one()) == 8
    engine.dispose()
    Database(url, Path()).close()


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ("llamaherd.db", "not a URL; expected sqlite:///FILE or postgresql"),
        ("mysql://a:secret@b/c", r"mysql://a:\*\*\*@b/c: expected sqlite"),
        ("sqlite://", "expected sqlite:///FILE"),
        ("postgresql://ada:secret@127.0.0.1:1/x", r"postgresql\+psycopg://ada:\*\*\*@127.0.0.1:1/x: cannot be used as the database"),
        ("sqlite:////proc/no/such/file.db", "cannot be used as the database of conversations"),
    ],
)
def test_databases_that_cannot_be_used(given: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=complaint) as refused:
        Database(given, tmp_path)
    assert "secret" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_files_that_are_something_else(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_bytes(b"no database\n" * 1000)
    with pytest.raises(UserError, match="file is not a database"):
        Database(f"sqlite:///{tmp_path / 'text.db'}", tmp_path)
    with sqlite3.connect(tmp_path / "other.db") as connection:
        connection.execute("CREATE TABLE conversations (x)")
    connection.close()
    with pytest.raises(UserError, match="a table `conversations` that is not llamaherd's"):
        Database(f"sqlite:///{tmp_path / 'other.db'}", tmp_path)


def test_without_the_driver_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(UserError, match=r"needs the package psycopg; pip install 'llamaherd\[postgres\]'"):
        Database("postgresql://a@b/c", tmp_path)


def test_a_database_that_fails_is_a_503_without_what_was_said(store: Conversations, caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> None:
        with store.database.writing() as session:
            session.execute(text("SELECT * FROM nowhere WHERE said = :said"), {"said": "secret"})

    with pytest.raises(ApiError) as failed:
        asyncio.run(store.database.do(broken))
    assert failed.value.status == 503
    assert "secret" not in caplog.text + str(failed.value)
    assert "(SQLITE_ERROR)" in caplog.text or "(42P01)" in caplog.text  # what it is, for whoever looks after it
    assert json.loads(asyncio.run(store.database.do(store.create, "ada", None, "", {})))["nodes"] == []


WRITER = """
import sys, uuid
from pathlib import Path
from llamaherd.serve.config import StoreConfig
from llamaherd.serve.store.conversations import Conversations, NewNode
from llamaherd.serve.store.database import Database
import json, threading
store = Conversations(Database(sys.argv[1], Path()), StoreConfig())
def write():
    while True:
        id = json.loads(store.create("ada", None, "T", {}))["id"]
        node = NewNode(str(uuid.uuid4()), None, "user", "x" * 5000)
        store.add("ada", id, node)
        sys.stdout.write(f"{id} {node.id}\\n")
        sys.stdout.flush()
for _ in range(3):
    threading.Thread(target=write).start()
"""


def test_after_a_kill_in_the_middle_of_commits_nothing_is_lost_or_half(url: str, open_store: Open) -> None:
    answered: list[list[str]] = []
    for _ in range(2):
        process = subprocess.Popen([sys.executable, "-c", WRITER, url], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        first = process.stdout.readline()
        time.sleep(0.15)
        os.kill(process.pid, signal.SIGKILL)
        lines = [first, *process.stdout.readlines()]
        process.wait()
        process.stdout.close()
        answered += [line.split() for line in lines if line.endswith("\n")]
    assert len(answered) > 10
    store = open_store(url)
    for id, node in answered:
        found = json.loads(store.get("ada", id))
        assert [(one["id"], len(one["content"])) for one in found["nodes"]] == [(node, 5000)]
        assert found["leaf"] == node
    with store.database.reading() as session:
        lone = "SELECT count(*) FROM nodes WHERE conversation NOT IN (SELECT key FROM conversations) OR length(content) != 5000"
        assert session.execute(text(lone)).scalar() == 0
        leaves = "SELECT count(*) FROM conversations c WHERE leaf IS NOT NULL AND NOT EXISTS (SELECT 1 FROM nodes n WHERE n.conversation = c.key AND n.id = c.leaf)"
        assert session.execute(text(leaves)).scalar() == 0
        if url.startswith("sqlite"):
            assert session.execute(text("PRAGMA integrity_check")).scalar() == "ok"


@pytest.mark.skipif(binaries() is None, reason="PostgreSQL is not installed (make test-system)")
def test_migrations_of_both_databases_make_the_tables_that_the_code_reads(url: str) -> None:
    """What alembic would still change after the newest revision: nothing."""
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    from llamaherd.serve.store.tables import Base

    Database(url, Path()).close()
    engine = create_engine(url)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
    engine.dispose()
