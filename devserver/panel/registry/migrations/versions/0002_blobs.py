"""Images of VMs that are registered in advance, and the states of suspended ones."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    vm = sa.ForeignKey("vms.vm_id", ondelete="CASCADE")
    op.create_table(
        "blobs",
        sa.Column("vm_id", _NUMBER, vm, primary_key=True),
        sa.Column("what", sa.String(255), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("last", sa.Boolean, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("blobs")
