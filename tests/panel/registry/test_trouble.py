"""Databases that can't be used: one line that says which, why, and what to do."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from commandline import AT_MOST_S
from ownpostgres import PostgreSql
from sqlalchemy import inspect, make_url, text

from devserver.panel.default_registry import default_registry
from devserver.panel.registry.database import make_engine
from devserver.panel.registry.errors import Locked, RegistryError, Unreachable, WrongSchema
from devserver.panel.registry.registry import Registry, upgrade
from devserver.panel.registry.tables import Base


def revise(url: str, *statements: str) -> None:
    """Does something to a database behind the registry's back."""
    engine = make_engine(url)
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


def test_an_older_schema_is_upgraded_when_that_is_asked_for(url: str) -> None:
    Registry(url, "one").close()
    revise(
        url,
        "DROP TABLE guests",
        "DROP TABLE blobs",
        "ALTER TABLE vms DROP COLUMN epoch",
        "ALTER TABLE vms DROP COLUMN exit_status",
        "UPDATE alembic_version SET version_num = '0001'",
    )
    with pytest.raises(WrongSchema, match=r"has schema 0001.*devserver registry upgrade"):
        Registry(url, "one")
    assert upgrade(url) == "0005"
    with closing(Registry(url, "one")) as registry:
        assert registry.vms() == []


def test_a_newer_schema_is_left_alone(url: str) -> None:
    Registry(url, "one").close()
    revise(url, "UPDATE alembic_version SET version_num = '9999'")
    for attempt in (lambda: Registry(url, "one"), lambda: upgrade(url)):
        with pytest.raises(WrongSchema, match=r"9999.*a newer version made it"):
            attempt()


def test_another_program_s_database_is_left_alone(url: str) -> None:
    revise(url, "CREATE TABLE theirs (number INTEGER)")
    with pytest.raises(WrongSchema, match="another program"):
        Registry(url, "one")


def test_the_migrations_make_the_tables_that_are_used(url: str) -> None:
    Registry(url, "one").close()
    engine = make_engine(url)
    there = inspect(engine)
    assert set(Base.metadata.tables) == set(there.get_table_names()) - {"alembic_version"}
    for name, table in Base.metadata.tables.items():
        columns = {column["name"]: column["nullable"] for column in there.get_columns(name)}
        assert columns == {column.name: column.nullable for column in table.columns}
    engine.dispose()


def test_a_locked_database_is_waited_for_and_then_given_up(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    with closing(Registry(f"sqlite:///{path}", "one", busy_seconds=0.05)) as registry:
        with closing(sqlite3.connect(path)) as holder:
            holder.execute("BEGIN EXCLUSIVE")
            with pytest.raises(Locked, match=r"locked by another program.*try again"):
                registry.vms()
        assert registry.vms() == []


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("nonsense", "is not a database URL"),
        ("sqlite:////tmp/\udcff.db", "is not a database URL"),
        ("postgresql://host:port/db", "is not a database URL"),
        ("oracle://host/db", "'oracle' databases are not supported"),
        ("sqlite:////nowhere/registry.db", "can't be opened.*does its folder exist"),
        ("postgresql://127.0.0.1:1/db", "can't be reached.*is PostgreSQL up at 127.0.0.1"),
        ("postgresql://user:secret@127.0.0.1:1/db", r"user:\*\*\*@"),
    ],
)
def test_a_database_that_is_not_there_is_named(url: str, why: str) -> None:
    with pytest.raises(Unreachable, match=why) as caught:
        Registry(url, "one")
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"no database" * 100)
    with pytest.raises(RegistryError, match="is not a SQLite database"):
        Registry(f"sqlite:///{tmp_path}/file", "one")


def test_a_database_in_memory_will_do() -> None:
    with closing(Registry("sqlite://", "one")) as registry:
        registry.new_vm("vm", "a")
        assert [vm["name"] for vm in registry.vms()] == ["vm"]


@pytest.mark.postgresql
def test_a_postgresql_without_the_database_or_the_user_is_up(own_postgresql: PostgreSql) -> None:
    there = make_url(own_postgresql.new_database())
    missing = there.set(database="nosuch").render_as_string()
    with pytest.raises(Unreachable, match=r"refuses: .*does not exist; 'createdb nosuch' makes it"):
        Registry(missing, "one")
    stranger = there.set(username="nobody2").render_as_string()
    with pytest.raises(Unreachable, match=r"refuses: .*nobody2.*; look at the user"):
        Registry(stranger, "one")


def test_a_database_that_is_made_is_its_owner_s_alone(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    with closing(Registry(f"sqlite:///{path}", "one")) as registry:
        registry.new_vm("vm", "a")
        files = list(tmp_path.iterdir())
        assert path in files
        assert [file.stat().st_mode & 0o777 for file in files] == [0o600] * len(files)


def test_the_default_database_is_in_a_folder_of_its_owner_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "state" / "kvmshim").mkdir(parents=True, mode=0o755)
    default_registry("tcp://127.0.0.1:1")
    assert (tmp_path / "state" / "kvmshim").stat().st_mode & 0o777 == 0o700


@pytest.mark.postgresql
def test_a_lock_that_is_held_for_a_moment_is_waited_for(own_postgresql: PostgreSql) -> None:
    url = own_postgresql.new_database()
    with closing(Registry(url, "one")) as registry:
        engine = make_engine(url)
        with engine.begin() as holder:
            holder.execute(text("LOCK TABLE vms IN ACCESS EXCLUSIVE MODE"))
            with ThreadPoolExecutor(1) as pool:
                reading = pool.submit(registry.vms)
                waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
                while holder.execute(text(waiting)).scalar_one() == 0:
                    assert not reading.done(), reading.exception()
                with pytest.raises(TimeoutError):
                    reading.result(0.3)
                holder.rollback()
                assert reading.result(AT_MOST_S) == []
        engine.dispose()


@pytest.mark.process
@pytest.mark.postgresql
def test_a_database_that_hangs_is_given_up_with_a_line(own_postgresql: PostgreSql) -> None:
    url = own_postgresql.new_database()
    with closing(Registry(url, "one", busy_seconds=0.1)) as registry:
        registry.vms()
        unanswered = r"can't be reached: .*(answer|timeout)"
        with own_postgresql.stopped(), pytest.raises(Unreachable, match=unanswered):
            registry.vms()
        assert registry.vms() == []
