"""Conversations as trees of messages."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Makes both tables."""
    op.create_table(
        "conversations",
        sa.Column("key", sa.Integer, primary_key=True),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("settings", sa.Text, nullable=False),
        sa.Column("leaf", sa.Text),
        sa.Column("created_s", sa.Double, nullable=False),
        sa.Column("updated_s", sa.Double, nullable=False),
        sa.UniqueConstraint("owner", "id"),
    )
    op.create_index("conversations_by_time", "conversations", ["owner", "updated_s", "key"])
    op.create_table(
        "nodes",
        sa.Column("key", sa.Integer, primary_key=True),
        sa.Column("conversation", sa.Integer, sa.ForeignKey("conversations.key"), nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("parent", sa.Text),
        sa.Column("depth", sa.Integer, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("model", sa.Text),
        sa.Column("meta", sa.Text, nullable=False),
        sa.Column("created_s", sa.Double, nullable=False),
        sa.UniqueConstraint("conversation", "id"),
        sa.ForeignKeyConstraint(["conversation", "parent"], ["nodes.conversation", "nodes.id"]),
    )
    op.create_index("nodes_by_parent", "nodes", ["conversation", "parent"])
