"""VMs that their clients run by themselves."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_NAME = sa.String(255)


def upgrade() -> None:
    op.create_table(
        "guests",
        sa.Column("server", _NAME, primary_key=True),
        sa.Column("vm_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("name", _NAME, nullable=False),
        sa.Column("client", _NAME, nullable=False),
        sa.Column("hypervisor", _NAME, nullable=False),
        sa.Column("memory_bytes", sa.BigInteger, nullable=False),
        sa.Column("devices", sa.JSON, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("guests")
