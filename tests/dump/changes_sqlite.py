"""An SQLite schema with an object of each kind, and changes of all of them."""

from __future__ import annotations

SCHEMA = (
    "CREATE TABLE team (id INTEGER PRIMARY KEY, name TEXT UNIQUE, lead INT)",
    """CREATE TABLE person (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL DEFAULT 'nobody',
        team_id INT REFERENCES team (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
        age INT CONSTRAINT grown CHECK (age > 0), loud TEXT AS (upper(name)) STORED,
        size INT AS (length(name)) VIRTUAL, picture BLOB)""",
    "CREATE INDEX by_age ON person (age)",
    "CREATE UNIQUE INDEX by_name ON person (lower(name)) WHERE age > 1",
    "CREATE TABLE log (id INTEGER PRIMARY KEY, what TEXT)",
    "CREATE TABLE heap (a INT, b)",
    "CREATE TABLE pair (a INT, b TEXT COLLATE NOCASE, PRIMARY KEY (a, b)) WITHOUT ROWID",
    "CREATE TABLE strictly (id INTEGER PRIMARY KEY, a ANY) STRICT",
    'CREATE TABLE "50%s \'x"":" ("a ""b" INTEGER PRIMARY KEY, x INT)',
    "CREATE VIRTUAL TABLE docs USING fts5 (title, body)",
    "CREATE VIRTUAL TABLE places USING rtree (id, x0, x1)",
    "CREATE VIEW loud AS SELECT id, loud FROM person",
    "CREATE TRIGGER noted AFTER DELETE ON team BEGIN INSERT INTO log (what) VALUES (OLD.name); END",
    "CREATE TRIGGER through INSTEAD OF INSERT ON loud BEGIN INSERT INTO log (what) VALUES ('x'); END",
    "INSERT INTO team VALUES (1, 'one', NULL), (2, 'two', NULL)",
    "INSERT INTO person (name, team_id, age, picture) VALUES ('ada', 1, 30, x'00ff'), ('bob', 2, 40, x'')",
    "INSERT INTO heap VALUES (1, 'a'), (1, x'61'), (NULL, 1e300)",
    "INSERT INTO pair VALUES (1, 'x'), (2, 'x')",
    "INSERT INTO strictly VALUES (1, '1'), (2, 1)",
    'INSERT INTO "50%s \'x"":" VALUES (1, 1)',
    "INSERT INTO docs VALUES ('one', 'words of one')",
    "INSERT INTO places VALUES (1, 0, 1)",
    "PRAGMA user_version = 3",
    "PRAGMA application_id = 4",
    "ANALYZE",
)

CHANGES: dict[str, str | tuple[str, ...]] = {
    # Rows.
    "insert": "INSERT INTO person (name) VALUES ('new')",
    "insert far": "INSERT INTO person (id, name) VALUES (500, 'far')",
    "insert default": "INSERT INTO person DEFAULT VALUES",
    "insert or replace": "INSERT OR REPLACE INTO team VALUES (1, 'uno', 1)",
    "upsert": "INSERT INTO team VALUES (1, 'x', 1) ON CONFLICT DO UPDATE SET lead = 5",
    "update": "UPDATE person SET name = 'ADA' WHERE id = 1",
    "update a key": "UPDATE person SET id = 77 WHERE id = 2",
    "update a type": "UPDATE strictly SET a = 1 WHERE id = 1",
    "update a blob": "UPDATE person SET picture = x'01' WHERE id = 1",
    "update a rowid": "UPDATE heap SET rowid = 50 WHERE a = 1 AND b = 'a'",
    "update without rowid": "UPDATE pair SET b = 'X' WHERE a = 1",
    "update an odd name": 'UPDATE "50%s \'x"":" SET x = 2',
    "delete": "DELETE FROM person WHERE id = 1",
    "delete with a trigger": "DELETE FROM team WHERE id = 1",
    "delete all": "DELETE FROM heap",
    "delete and insert again": (
        "DELETE FROM pair WHERE a = 2",
        "INSERT INTO pair VALUES (2, 'X')",
    ),
    "insert through a view": "INSERT INTO loud VALUES (1, 'x')",
    "counter": "UPDATE sqlite_sequence SET seq = 500",
    "counter removed": "DELETE FROM sqlite_sequence",
    "insert and delete": (
        "INSERT INTO person (name) VALUES ('x')",
        "DELETE FROM person WHERE id > 2",
    ),
    "insert text": "INSERT INTO docs VALUES ('two', 'more words')",
    "delete text": "DELETE FROM docs",
    "text option": "INSERT INTO docs (docs, rank) VALUES ('rank', 'bm25(10.0)')",
    "text merge": "INSERT INTO docs (docs, rank) VALUES ('automerge', 2)",
    "insert a place": "INSERT INTO places VALUES (2, 5, 6)",
    "statistics": ("INSERT INTO log (what) VALUES ('x')", "ANALYZE log"),
    "statistics removed": "DELETE FROM sqlite_stat1",
    "statistics dropped": "DROP TABLE sqlite_stat1",
    "many rows": (
        "INSERT INTO heap WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n"
        " WHERE i < 5000) SELECT i, 'row ' || i FROM n"
    ),
    "many rows and back": (
        "INSERT INTO heap WITH RECURSIVE n(i) AS (SELECT 10 UNION ALL SELECT i + 1 FROM n"
        " WHERE i < 5000) SELECT i, 'row ' || i FROM n",
        "DELETE FROM heap WHERE a > 9",
    ),
    # Tables and columns.
    "create table": "CREATE TABLE more (id INT)",
    "create table as": "CREATE TABLE more AS SELECT * FROM team",
    "create strict": "CREATE TABLE more (id INT) STRICT",
    "create without rowid": "CREATE TABLE more (id INT PRIMARY KEY) WITHOUT ROWID",
    "create autoincrement": "CREATE TABLE more (id INTEGER PRIMARY KEY AUTOINCREMENT)",
    "create fts": "CREATE VIRTUAL TABLE more USING fts5 (a)",
    "create fts4": "CREATE VIRTUAL TABLE more USING fts4 (a)",
    "create rtree": "CREATE VIRTUAL TABLE more USING rtree (id, a, b)",
    "drop table": "DROP TABLE person",
    "drop and create again": (
        "DROP TABLE log",
        "CREATE TABLE log (id INTEGER PRIMARY KEY, what  TEXT)",
    ),
    "drop fts": "DROP TABLE docs",
    "drop rtree": "DROP TABLE places",
    "rename table": "ALTER TABLE heap RENAME TO heaps",
    "rename a referenced table": "ALTER TABLE team RENAME TO teams",
    "rename fts": "ALTER TABLE docs RENAME TO texts",
    "add column": "ALTER TABLE heap ADD COLUMN more INT",
    "add column with default": "ALTER TABLE heap ADD COLUMN more INT NOT NULL DEFAULT 7",
    "add virtual column": "ALTER TABLE heap ADD COLUMN more INT AS (a + 1)",
    "rename column": "ALTER TABLE heap RENAME COLUMN a TO z",
    "drop column": "ALTER TABLE heap DROP COLUMN b",
    "drop virtual column": "ALTER TABLE person DROP COLUMN size",
    "edited schema": (
        "PRAGMA writable_schema = ON",
        "UPDATE sqlite_schema SET sql = replace(sql, 'age > 0', 'age > 1') WHERE name = 'person'",
        "PRAGMA writable_schema = RESET",
    ),
    # Indexes, views, triggers.
    "create index": "CREATE INDEX more ON heap (a)",
    "create unique index": "CREATE UNIQUE INDEX more ON log (what)",
    "create partial index": "CREATE INDEX more ON heap (a) WHERE a > 1",
    "create expression index": "CREATE INDEX more ON heap (a + 1 DESC)",
    "create collated index": "CREATE INDEX more ON log (what COLLATE NOCASE)",
    "drop index": "DROP INDEX by_age",
    "drop unique index": "DROP INDEX by_name",
    "index, changed": ("DROP INDEX by_age", "CREATE INDEX by_age ON person (age DESC)"),
    "create view": "CREATE VIEW more AS SELECT 1 AS a",
    "view, changed": ("DROP VIEW loud", "CREATE VIEW loud AS SELECT id FROM person"),
    "drop view": "DROP VIEW loud",
    "create trigger": (
        "CREATE TRIGGER more AFTER INSERT ON heap BEGIN INSERT INTO log (what) VALUES ('x'); END"
    ),
    "create trigger of a column": (
        "CREATE TRIGGER more BEFORE UPDATE OF a ON heap WHEN NEW.a > 1 BEGIN SELECT 1; END"
    ),
    "drop trigger": "DROP TRIGGER noted",
    "drop a view's trigger": "DROP TRIGGER through",
    "trigger, changed": (
        "DROP TRIGGER noted",
        "CREATE TRIGGER noted AFTER DELETE ON team BEGIN SELECT 1; END",
    ),
    # The database.
    "user version": "PRAGMA user_version = 7",
    "application id": "PRAGMA application_id = 7",
    "default cache size": "PRAGMA default_cache_size = 77",
    "auto vacuum": ("PRAGMA auto_vacuum = FULL", "VACUUM"),
    "vacuum": ("DELETE FROM heap", "VACUUM"),
}

SAMPLE = (
    *("insert", "counter", "insert text", "statistics removed", "create table", "drop table"),
    *("edited schema", "drop trigger", "user version", "many rows and back"),
)
