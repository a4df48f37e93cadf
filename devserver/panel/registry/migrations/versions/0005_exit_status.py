"""What a VM that has ended exited with."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("vms", sa.Column("exit_status", sa.Integer, nullable=True))


def downgrade() -> None:
    op.drop_column("vms", "exit_status")
