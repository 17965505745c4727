"""The database: one engine for each process, with sessions that read and sessions that write."""

import asyncio
import os
from pathlib import Path
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy import event, literal, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from assistant.models import Base, Thread

BUSY_TIMEOUT_MS = 5_000
CHECK_TIMEOUT_SECONDS = 3
# Switching a new file to WAL ignores the busy timeout, so workers that start together retry.
PREPARE_ATTEMPTS = 50
PREPARE_PAUSE_SECONDS = 0.1


class DatabaseUnavailable(Exception):
    """The database cannot be used; the text is short enough for a health answer."""


class Database:
    def __init__(self, url: str) -> None:
        self.engine = create_async_engine(url)
        self._file = sqlite_file(url)
        self._file_identity: tuple[int, int] | None = None
        if self.engine.dialect.name == "sqlite":
            event.listen(self.engine.sync_engine, "connect", set_pragmas)
            event.listen(self.engine.sync_engine, "begin", begin_transaction)
        # A transaction that reads first and writes later can lose the race for the write
        # lock without any waiting, so a writing session takes the lock at its beginning.
        writing_engine = self.engine.execution_options(sqlite_begin="BEGIN IMMEDIATE")
        self.reading = async_sessionmaker(self.engine, expire_on_commit=False)
        self.writing = async_sessionmaker(writing_engine, expire_on_commit=False)

    async def prepare(self) -> None:
        """Creates the tables that are missing; several workers may do so at once."""
        if self._file and not self._file.parent.is_dir():
            raise DatabaseUnavailable(
                f"cannot open database {self._file}: its directory does not exist (is the volume mounted?)"
            )
        for attempt in range(1, PREPARE_ATTEMPTS + 1):
            try:
                async with self.writing.kw["bind"].begin() as connection:
                    await connection.run_sync(Base.metadata.create_all)
                break
            except OperationalError as error:
                if "locked" not in str(error) or attempt == PREPARE_ATTEMPTS:
                    raise
                await asyncio.sleep(PREPARE_PAUSE_SECONDS)
        if self._file:
            self._file_identity = identity(self._file)

    async def check(self) -> None:
        """Raises DatabaseUnavailable unless a table can be read from the file on disk."""
        self._check_file()
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_SECONDS), self.reading() as session:
                # `SELECT 1` alone never touches the file; naming a table makes it do so.
                await session.execute(select(literal(1)).select_from(Thread).limit(1))
        except TimeoutError:
            raise DatabaseUnavailable("no answer in time") from None
        except Exception as error:
            reason = getattr(error, "orig", None) or error
            raise DatabaseUnavailable(str(reason)[:200]) from error

    async def close(self) -> None:
        await self.engine.dispose()

    def _check_file(self) -> None:
        # SQLite goes on answering from a file that was unlinked under it; what is
        # written there is lost, so a file that changed its identity counts as gone.
        if not self._file:
            return
        try:
            current = identity(self._file)
        except OSError:
            raise DatabaseUnavailable("the database file is gone") from None
        if current != self._file_identity:
            raise DatabaseUnavailable("the database file was replaced while in use")


def sqlite_file(url: str) -> Path | None:
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite" or parsed.database in (None, "", ":memory:"):
        return None
    return Path(parsed.database).absolute()


def identity(file: Path) -> tuple[int, int]:
    stat = os.stat(file)
    return stat.st_dev, stat.st_ino


def set_pragmas(dbapi_connection, _record) -> None:
    # The driver's own transaction handling begins too late; `begin_transaction` does it.
    dbapi_connection.isolation_level = None
    cursor = dbapi_connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def begin_transaction(connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("sqlite_begin", "BEGIN"))


def database_of(request: Request) -> Database:
    return request.app.state.database


CurrentDatabase = Annotated[Database, Depends(database_of)]
