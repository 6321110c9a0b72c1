"""Migrates what it is given as "connection", else the database of the settings."""

import os

from alembic import context
from blog import Base
from sqlalchemy import create_engine, pool

URL = os.environ.get("BLOG_URL", "postgresql+psycopg://blog:secret@db.blog.invalid/blog")

connectable = context.config.attributes.get("connection")
if connectable is None:
    connectable = create_engine(URL, poolclass=pool.NullPool)

with connectable.connect() as connection:
    context.configure(connection=connection, target_metadata=Base.metadata)
    with context.begin_transaction():
        context.run_migrations()
