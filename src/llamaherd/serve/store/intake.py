"""Files of conversations are read in a process of their own: whatever one holds, it holds up nobody here, in time or in memory."""

import asyncio
import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from ...core.errors import UserError
from ..config import StoreConfig
from ..errors import ApiError
from .conversations import Conversations
from .database import Database
from .exchange import take_in

LIMIT_S = 300.0
MEMORY_BYTES = 4 << 30
"""Most that reading one file may take, where the system can be told."""
UNREAD = ApiError(400, "the file takes too long or too much memory to read; split it", code="too_large")


async def taken_in(kept: Conversations, owner: str, file: bytes) -> dict[str, Any]:
    """What `take_in` says of a file, or raises. One file at a time."""
    asked = {"database": kept.database.url, "config": kept.config.model_dump(mode="json"), "owner": owner}
    async with kept.importing:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "llamaherd.serve.store.intake",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            said, _ = await asyncio.wait_for(process.communicate(json.dumps(asked).encode() + b"\n" + file), LIMIT_S)
        except TimeoutError:
            raise UNREAD from None
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
    try:
        answer: dict[str, Any] = json.loads(said)
    except ValueError:  # it ended before it could say anything
        raise UNREAD from None
    if "refused" in answer:
        raise ApiError(**answer["refused"])
    return answer


def _read(asked: dict[str, Any], file: bytes) -> dict[str, Any]:
    try:
        text = file.decode()
    except UnicodeDecodeError as error:
        raise ApiError(400, f"the file is not UTF-8: {error.reason} at byte {error.start}") from None
    database = Database(asked["database"], Path())
    try:
        return take_in(Conversations(database, StoreConfig(**asked["config"])), asked["owner"], text)
    finally:
        database.close()


def _answer(asked: dict[str, Any], file: bytes) -> dict[str, Any]:
    try:
        return _read(asked, file)
    except ApiError as error:
        refused = error
    except UserError as error:
        refused = ApiError(400, str(error))
    except SQLAlchemyError:
        refused = ApiError(503, "the database of conversations does not answer; try again later", code="database")
    except MemoryError:
        refused = UNREAD
    return {"refused": {"status": refused.status, "message": refused.message, "param": refused.param, "code": refused.code}}


def main() -> None:
    """A line that says what is asked, then the file; the answer is one line."""
    if os.name != "nt":
        import resource

        os.nice(5)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    asked = json.loads(sys.stdin.buffer.readline())
    print(json.dumps(_answer(asked, sys.stdin.buffer.read())))


if __name__ == "__main__":
    main()
