"""Two backends and a server provider of pytest-asyncdb, and a dialect of SQLAlchemy."""
