"""Which revision a database has, and how it gets to the one that this program needs."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect

from devserver.panel.registry.errors import WrongSchema

_MIGRATIONS = Path(__file__).parent / "migrations"


def head() -> str:
    """The revision that this program needs."""
    found = ScriptDirectory.from_config(_config()).get_current_head()
    assert found is not None
    return found


def make_ready(connection: Connection, url: str) -> None:
    """Makes the tables of an empty database; raises :class:`WrongSchema` for one of another
    revision."""
    found = _current(connection)
    if found is None:
        upgrade(connection, url)
    elif found != head():
        _check_known(found, url)
        raise WrongSchema(
            f"{url} has schema {found}, this program needs {head()}: "
            f"run 'devserver registry upgrade --registry {url}'"
        )


def upgrade(connection: Connection, url: str) -> None:
    """Brings an empty or older database to the head; raises :class:`WrongSchema` for any other."""
    found = _current(connection)
    if found is None and inspect(connection).get_table_names():
        raise WrongSchema(f"{url} holds tables of another program; choose an empty database")
    if found is not None:
        _check_known(found, url)
    command.upgrade(_config(connection), "head")


def _current(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _check_known(found: str, url: str) -> None:
    script = ScriptDirectory.from_config(_config())
    if all(known.revision != found for known in script.walk_revisions()):
        raise WrongSchema(
            f"{url} has schema {found}, which this program does not know (it needs {head()}): "
            f"a newer version made it; use that"
        )


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
