"""Engines, and what databases say put into one line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from sqlalchemy import Connection, create_engine, event
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import StaticPool

from devserver.panel.registry.errors import Locked, RegistryError, Unreachable

#: For so long a lock of somebody else's is waited for.
BUSY_SECONDS = 5.0
#: A database that does not answer is waited for so many times longer.
ANSWER_FACTOR = 4

#: What PostgreSQL calls a lock that did not come in time, and a deadlock (its manual, appendix A).
_LOCKED = ("55P03", "40P01")


def make_engine(url: str, busy_seconds: float = BUSY_SECONDS) -> Engine:
    """An engine for a SQLite or PostgreSQL URL; nothing is connected to yet.

    Raises :class:`Unreachable` if it is none.
    """
    try:
        url.encode()  # a database's name is text, also where a file's is not
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise Unreachable(f"'{url}' is not a database URL; try sqlite:////FOLDER/FILE") from error
    backend = parsed.drivername.partition("+")[0]
    try:
        if backend == "sqlite":
            return _sqlite(parsed, busy_seconds)
        if backend == "postgresql":
            return _postgresql(parsed, busy_seconds)
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        raise Unreachable(f"{error}; pip install 'kvmshim[postgresql]' brings it") from error
    raise Unreachable(f"'{backend}' databases are not supported; use sqlite or postgresql")


def _sqlite(url: URL, busy_seconds: float) -> Engine:
    options: dict[str, Any] = {}
    if url.database in (None, "", ":memory:"):
        options["poolclass"] = StaticPool  # one connection is one database
    arguments = {"timeout": busy_seconds, "check_same_thread": False}
    engine = create_engine(url, connect_args=arguments, **options)

    @event.listens_for(engine, "do_connect")
    def _make_private(_dialect: object, _record: object, _args: object, _more: object) -> None:
        # What VMs hold in memory is nobody else's; SQLite gives its other files the same mode.
        if url.database and "poolclass" not in options:
            with suppress(OSError):  # it is there, or connecting says why it can't be
                os.close(os.open(url.database, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))

    @event.listens_for(engine, "connect")
    def _prepare(raw: Any, _record: object) -> None:
        raw.isolation_level = None  # BEGIN is said below
        raw.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # One that reads first and then writes would fail at once if another had written in between.
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _postgresql(url: URL, busy_seconds: float) -> Engine:
    milliseconds = max(1, int(busy_seconds * 1000))
    engine = create_engine(
        url.set(drivername="postgresql+psycopg"),
        pool_pre_ping=True,
        connect_args={"connect_timeout": 5, "options": f"-c lock_timeout={milliseconds}"},
    )
    # Here, since psycopg need not be there.
    from devserver.panel.registry.patience import PatientConnection  # noqa: PLC0415

    @event.listens_for(engine, "do_connect")
    def _connect(_dialect: object, _record: object, args: list[Any], more: dict[str, Any]) -> Any:
        connection = PatientConnection.connect(*args, **more)
        connection.answer_s = ANSWER_FACTOR * busy_seconds  # a lock's limit comes first
        return connection

    return engine


@contextmanager
def one_line(url: URL) -> Iterator[None]:
    """Turns a database's error into one of ours."""
    try:
        yield
    except DBAPIError as error:
        raise said(url, error.orig) from error
    except SQLAlchemyError as error:
        raise said(url, error) from error


def said(url: URL, error: BaseException | None) -> RegistryError:
    """A database's error as one of ours."""
    named = url.set(drivername=url.drivername.partition("+")[0])
    shown = f"the registry {named.render_as_string(hide_password=True)}"
    reason = (str(error).strip().splitlines() or ["no reason given"])[0]
    state = getattr(error, "sqlstate", None)
    if "is locked" in reason or state in _LOCKED:
        return Locked(f"{shown} is locked by another program: {reason}; try again")
    if "readonly" in reason:
        return Unreachable(f"{shown} can't be written: {reason}; look at its permissions")
    if "unable to open" in reason:
        return Unreachable(f"{shown} can't be opened: {reason}; does its folder exist?")
    if "not a database" in reason:
        return Unreachable(f"{shown} is not a SQLite database: choose another file")
    if named.drivername == "postgresql" and state is None:
        if "FATAL" in reason:  # somebody is up who says so
            return Unreachable(f"{shown} refuses: {reason}; {_advice(url, reason)}")
        where = url.host or url.query.get("host", "this machine")
        return Unreachable(f"{shown} can't be reached: {reason}; is PostgreSQL up at {where}?")
    return RegistryError(f"{shown}: {reason}")


def _advice(url: URL, reason: str) -> str:
    if "database" in reason and "does not exist" in reason:
        return f"'createdb {url.database}' makes it"
    return "look at the user, the password and pg_hba.conf"
