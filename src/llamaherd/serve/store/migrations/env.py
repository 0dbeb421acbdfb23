"""What alembic runs: the revisions on the connection that it was given, within the transaction that is open there."""

from alembic import context

from llamaherd.serve.store.tables import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata, transactional_ddl=True)
context.run_migrations()
