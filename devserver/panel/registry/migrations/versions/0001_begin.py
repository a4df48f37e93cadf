"""The first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_NAME = sa.String(255)
_MOMENT = sa.DateTime(timezone=True)


def _of(parent: str, key: str) -> sa.Column[int]:
    link = sa.ForeignKey(f"{parent}.{key}", ondelete="CASCADE")
    return sa.Column(key, _NUMBER, link, primary_key=True)


def upgrade() -> None:
    op.create_table(
        "servers",
        sa.Column("server_id", _NUMBER, primary_key=True),
        sa.Column("name", _NAME, unique=True, nullable=False),
        sa.Column("address", _NAME, nullable=False),
        sa.Column("owner", _NAME, nullable=False),
        sa.Column("up", sa.Boolean, nullable=False),
        sa.Column("heard", _MOMENT, nullable=False),
    )
    op.create_table(
        "clients",
        sa.Column("client_id", _NUMBER, primary_key=True),
        sa.Column("name", _NAME, unique=True, nullable=False),
        sa.Column("hostname", _NAME, nullable=False),
        sa.Column("server", _NAME, nullable=False),
        sa.Column("registered", sa.Boolean, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "hypervisors",
        _of("clients", "client_id"),
        sa.Column("kind", _NAME, primary_key=True),
        sa.Column("version", _NAME, nullable=False),
        sa.Column("capabilities", sa.JSON, nullable=False),
    )
    op.create_table(
        "vms",
        sa.Column("vm_id", _NUMBER, primary_key=True),
        sa.Column("name", _NAME, unique=True, nullable=False),
        sa.Column("server", _NAME, nullable=False),
        sa.Column("client", _NAME, nullable=False),
        sa.Column("hypervisor", _NAME, nullable=False),
        sa.Column("state", _NAME, nullable=False),
        sa.Column("why", sa.Text, nullable=False),
        sa.Column("memory_bytes", sa.BigInteger, nullable=False),
        sa.Column("registered", sa.Boolean, nullable=False),
        sa.Column("machine", sa.Text, nullable=False),
        sa.Column("image_name", _NAME, nullable=False),
        sa.Column("changed", _MOMENT, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "devices",
        _of("vms", "vm_id"),
        sa.Column("name", _NAME, primary_key=True),
        sa.Column("kind", _NAME, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("place", _NAME, nullable=False),
    )


def downgrade() -> None:
    for table in ("devices", "vms", "hypervisors", "clients", "servers"):
        op.drop_table(table)
