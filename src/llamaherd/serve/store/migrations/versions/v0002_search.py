"""Texts without their case beside them, since no database folds every script: what a search looks through."""

import unicodedata

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Adds the columns, and fills them for what is there. The folding is written out: a revision must not change with the code."""
    connection = op.get_bind()
    for table, text in (("conversations", "title"), ("nodes", "content")):
        op.add_column(table, sa.Column("folded", sa.Text, nullable=False, server_default=""))
        rows = sa.table(table, sa.column("key", sa.Integer), sa.column(text, sa.Text), sa.column("folded", sa.Text))
        last = 0
        while found := connection.execute(
            sa.select(rows.c.key, rows.c[text]).where(rows.c.key > last).order_by(rows.c.key).limit(100)
        ).all():
            last = found[-1].key
            for key, said in found:
                folded = unicodedata.normalize("NFC", said).casefold()
                connection.execute(sa.update(rows).where(rows.c.key == key).values(folded=folded))
