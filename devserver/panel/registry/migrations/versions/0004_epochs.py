"""Each VM has an epoch, which grows whenever somebody else is to have it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    column = sa.Column("epoch", sa.BigInteger, nullable=False, server_default="0")
    op.add_column("vms", column)


def downgrade() -> None:
    op.drop_column("vms", "epoch")
