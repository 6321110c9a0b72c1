"""Two backends of pytest-asyncdb, and a dialect of SQLAlchemy."""
