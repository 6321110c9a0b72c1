"""Schemas of MySQL and MariaDB with an object of each kind, and changes of all of them.

The statements name no database: the current one is meant. Accounts belong to the whole server, so
rights are given to the account that runs the tests.
"""

from __future__ import annotations

_BOTH = (
    "CREATE TABLE team (id INT PRIMARY KEY AUTO_INCREMENT, name VARCHAR(40) NOT NULL UNIQUE, captain INT)",
    """CREATE TABLE person (
        id INT PRIMARY KEY AUTO_INCREMENT, team_id INT, name VARCHAR(40) NOT NULL DEFAULT 'nobody',
        kind ENUM('a', 'b') DEFAULT 'a', flags SET('x', 'y'), age INT,
        loud VARCHAR(40) AS (upper(name)) VIRTUAL, size INT AS (char_length(name)) STORED,
        born TIMESTAMP NOT NULL DEFAULT '2020-01-01 00:00:00', data JSON, price DECIMAL(9, 2),
        CONSTRAINT grown CHECK (age > 0), INDEX by_age (age), FULLTEXT words (name),
        CONSTRAINT of_team FOREIGN KEY (team_id) REFERENCES team (id) ON DELETE CASCADE)
        COMMENT = 'people'""",
    "CREATE TABLE log (id BIGINT PRIMARY KEY AUTO_INCREMENT, what VARCHAR(40))",
    "CREATE TABLE heap (a INT, b VARCHAR(20) COLLATE utf8mb4_bin)",
    "CREATE TABLE pair (a INT, b VARCHAR(10), c DOUBLE, d BIT(3), e BLOB, PRIMARY KEY (b, a))",
    """CREATE TABLE parts (a INT NOT NULL, b VARCHAR(9)) PARTITION BY RANGE (a) (
        PARTITION p0 VALUES LESS THAN (100), PARTITION p1 VALUES LESS THAN (200))""",
    "CREATE TABLE place (id INT PRIMARY KEY, p POINT NOT NULL, SPATIAL INDEX by_p (p))",
    "CREATE TABLE isam (id INT PRIMARY KEY AUTO_INCREMENT, a INT) ENGINE = MyISAM",
    "CREATE TABLE latin (a VARCHAR(20)) CHARACTER SET latin1 COLLATE latin1_german1_ci",
    "CREATE TABLE `we``ird 50%s :x` (`a``b %s` INT PRIMARY KEY, x INT)",
    "CREATE TABLE hidden (a INT PRIMARY KEY, b INT DEFAULT 7 INVISIBLE)",
    "CREATE VIEW loud AS SELECT id, loud FROM person",
    "CREATE PROCEDURE work() INSERT INTO log (what) VALUES ('x')",
    "CREATE FUNCTION plus(a INT) RETURNS INT DETERMINISTIC RETURN a + 1",
    "CREATE TRIGGER noted BEFORE INSERT ON log FOR EACH ROW SET NEW.what = upper(NEW.what)",
    "CREATE EVENT tick ON SCHEDULE EVERY 1 DAY STARTS '2030-01-01' DO DELETE FROM log",
    "CREATE EVENT tock ON SCHEDULE EVERY 1 DAY STARTS '2030-01-01' DISABLE DO DELETE FROM log",
    "INSERT INTO team (name) VALUES ('one'), ('two')",
    "INSERT INTO person (name, team_id, age, data) VALUES ('ada', 1, 30, '[1]'), ('bob', 2, 40, NULL)",
    "INSERT INTO heap VALUES (1, 'a'), (1, 'a'), (NULL, NULL)",
    "INSERT INTO pair VALUES (1, 'x', 0.1, b'101', x'00ff')",
    "INSERT INTO parts VALUES (1, 'x'), (150, 'y')",
    "INSERT INTO place VALUES (1, ST_GeomFromText('POINT(1 2)'))",
    "INSERT INTO isam (a) VALUES (1)",
    "INSERT INTO latin VALUES ('ä')",
    "INSERT INTO `we``ird 50%s :x` VALUES (1, 1)",
    "INSERT INTO hidden (a, b) VALUES (1, 2)",
)

#: Rights on the database and its objects.
GRANTS = (
    "GRANT SELECT ON team TO CURRENT_USER",
    "GRANT EXECUTE ON PROCEDURE work TO CURRENT_USER",
    "GRANT SELECT ON * TO CURRENT_USER",
)

_CHANGES: dict[str, str | tuple[str, ...]] = {
    # Rows and counters.
    "insert": "INSERT INTO person (name) VALUES ('new')",
    "insert far": "INSERT INTO person (id, name) VALUES (500, 'far')",
    "update": "UPDATE person SET name = 'ADA' WHERE id = 1",
    "update the case": "UPDATE latin SET a = 'Ä'",
    "update a key": "UPDATE person SET id = 77 WHERE id = 2",
    "update a time": "UPDATE person SET born = '2021-01-01' WHERE id = 1",
    "update bits": "UPDATE pair SET d = b'001'",
    "update a float": "UPDATE pair SET c = 0.2",
    "update json": "UPDATE person SET data = '{}' WHERE id = 1",
    "update a point": "UPDATE place SET p = ST_GeomFromText('POINT(9 9)')",
    "update an invisible column": "UPDATE hidden SET b = 9",
    "update an odd name": "UPDATE `we``ird 50%s :x` SET x = 2",
    "delete": "DELETE FROM person WHERE id = 1",
    "delete with a cascade": "DELETE FROM team WHERE id = 1",
    "delete one duplicate": "DELETE FROM heap WHERE a = 1 LIMIT 1",
    "delete and insert again": (
        "DELETE FROM team WHERE id = 2",
        "INSERT INTO team VALUES (2, 'two', NULL)",
    ),
    "replace": "REPLACE INTO team VALUES (2, 'zwei', 7)",
    "upsert": "INSERT INTO team VALUES (1, 'one', 1) ON DUPLICATE KEY UPDATE name = 'uno'",
    "insert into an empty table": "INSERT INTO log (what) VALUES ('x')",
    "insert and delete": ("INSERT INTO log (what) VALUES ('x')", "DELETE FROM log"),
    "insert into MyISAM": "INSERT INTO isam (a) VALUES (2)",
    "update MyISAM": "UPDATE isam SET a = 5",
    "delete from MyISAM": "DELETE FROM isam",
    "move between partitions": "UPDATE parts SET a = 160 WHERE a = 1",
    "truncate": "TRUNCATE heap",
    "truncate MyISAM": "TRUNCATE isam",
    "truncate a partition": "ALTER TABLE parts TRUNCATE PARTITION p0",
    "call a procedure": "CALL work()",
    "counter": "ALTER TABLE person AUTO_INCREMENT = 500",
    "counter of an empty table": "ALTER TABLE log AUTO_INCREMENT = 500",
    "counter of MyISAM": "ALTER TABLE isam AUTO_INCREMENT = 500",
    # Tables.
    "create table": "CREATE TABLE more (id INT)",
    "create table like": "CREATE TABLE more LIKE person",
    "create table as": "CREATE TABLE more AS SELECT * FROM team",
    "create MyISAM": "CREATE TABLE more (id INT) ENGINE = MyISAM",
    "create memory": "CREATE TABLE more (id INT) ENGINE = MEMORY",
    "create csv": "CREATE TABLE more (id INT NOT NULL) ENGINE = CSV",
    "create merge": (
        "CREATE TABLE more (id INT PRIMARY KEY AUTO_INCREMENT, a INT)"
        " ENGINE = MRG_MyISAM UNION = (isam)"
    ),
    "create with charset": "CREATE TABLE more (a VARCHAR(9)) CHARACTER SET latin2",
    "drop table": "DROP TABLE person",
    "drop an empty table": "DROP TABLE log",
    "drop several": "DROP TABLE person, team, heap",
    "drop and create again": ("DROP TABLE heap", "CREATE TABLE heap (a INT, b VARCHAR(20))"),
    "rename table": "RENAME TABLE heap TO heaps",
    "swap tables": "RENAME TABLE heap TO other, pair TO heap, other TO pair",
    "alter rename": "ALTER TABLE heap RENAME TO heaps",
    "table comment": "ALTER TABLE heap COMMENT = 'x'",
    "table engine": "ALTER TABLE heap ENGINE = MyISAM",
    "table charset": "ALTER TABLE heap DEFAULT CHARACTER SET latin1",
    "convert charset": "ALTER TABLE heap CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci",
    "row format": "ALTER TABLE heap ROW_FORMAT = COMPRESSED",
    "key block size": "ALTER TABLE heap KEY_BLOCK_SIZE = 8",
    "stats persistent": "ALTER TABLE heap STATS_PERSISTENT = 1",
    "stats sample pages": "ALTER TABLE heap STATS_SAMPLE_PAGES = 7",
    "stats auto recalc": "ALTER TABLE heap STATS_AUTO_RECALC = 0",
    "max rows": "ALTER TABLE heap MAX_ROWS = 1000",
    "pack keys": "ALTER TABLE isam PACK_KEYS = 1",
    "delay key write": "ALTER TABLE isam DELAY_KEY_WRITE = 1",
    "table checksum": "ALTER TABLE isam CHECKSUM = 1",
    "order by": "ALTER TABLE pair ENGINE = MyISAM, ORDER BY c",
    # Columns.
    "add column": "ALTER TABLE heap ADD COLUMN more INT",
    "add column first": "ALTER TABLE heap ADD COLUMN more INT FIRST",
    "add column instant": "ALTER TABLE heap ADD COLUMN more INT DEFAULT 7, ALGORITHM = INSTANT",
    "drop column": "ALTER TABLE heap DROP COLUMN b",
    "rename column": "ALTER TABLE heap RENAME COLUMN b TO c",
    "change column": "ALTER TABLE heap CHANGE a z BIGINT",
    "column type": "ALTER TABLE heap MODIFY a BIGINT",
    "column order": "ALTER TABLE heap MODIFY a INT AFTER b",
    "column not null": "ALTER TABLE log MODIFY what VARCHAR(40) NOT NULL",
    "column charset": "ALTER TABLE heap MODIFY b VARCHAR(20) CHARACTER SET latin1",
    "column collation": "ALTER TABLE heap MODIFY b VARCHAR(20) COLLATE utf8mb4_general_ci",
    "column comment": "ALTER TABLE heap MODIFY a INT COMMENT 'x'",
    "column default": "ALTER TABLE heap ALTER COLUMN a SET DEFAULT 7",
    "expression default": "ALTER TABLE heap ALTER COLUMN a SET DEFAULT (1 + 1)",
    "drop default": "ALTER TABLE person ALTER COLUMN name DROP DEFAULT",
    "on update": "ALTER TABLE heap ADD COLUMN t TIMESTAMP DEFAULT now() ON UPDATE now()",
    "enum value": "ALTER TABLE person MODIFY kind ENUM('a', 'b', 'c') DEFAULT 'a'",
    "set value": "ALTER TABLE person MODIFY flags SET('x', 'y', 'z')",
    "invisible": "ALTER TABLE heap MODIFY a INT INVISIBLE",
    "visible": "ALTER TABLE hidden MODIFY b INT DEFAULT 7",
    "no auto increment": "ALTER TABLE log MODIFY id BIGINT",
    "add virtual": "ALTER TABLE heap ADD COLUMN c INT AS (a + 1) VIRTUAL",
    "add stored": "ALTER TABLE heap ADD COLUMN c INT AS (a + 1) STORED",
    "virtual, changed": "ALTER TABLE person MODIFY loud VARCHAR(40) AS (lower(name)) VIRTUAL",
    "drop stored": "ALTER TABLE person DROP COLUMN size",
    # Keys, indexes, checks.
    "add primary key": "ALTER TABLE latin ADD PRIMARY KEY (a)",
    "drop primary key": "ALTER TABLE pair DROP PRIMARY KEY",
    "create index": "CREATE INDEX more ON heap (a)",
    "create unique index": "CREATE UNIQUE INDEX more ON log (what)",
    "create prefix index": "CREATE INDEX more ON heap (b(3))",
    "create descending index": "CREATE INDEX more ON heap (a DESC)",
    "create fulltext index": "CREATE FULLTEXT INDEX more ON heap (b)",
    "create spatial index": (
        "CREATE TABLE more (p POINT NOT NULL)",
        "CREATE SPATIAL INDEX more ON more (p)",
    ),
    "index comment": "CREATE INDEX more ON heap (a) COMMENT 'x'",
    "drop index": "DROP INDEX by_age ON person",
    "drop unique index": "ALTER TABLE team DROP INDEX name",
    "drop fulltext index": "DROP INDEX words ON person",
    "drop spatial index": "DROP INDEX by_p ON place",
    "rename index": "ALTER TABLE person RENAME INDEX by_age TO by_years",
    "disable keys": "ALTER TABLE isam DISABLE KEYS, ADD INDEX more (a)",
    "add foreign key": "ALTER TABLE log ADD COLUMN t INT, ADD FOREIGN KEY (t) REFERENCES team (id)",
    "drop foreign key": "ALTER TABLE person DROP FOREIGN KEY of_team",
    "foreign key, replaced": (
        "ALTER TABLE person DROP FOREIGN KEY of_team, ADD CONSTRAINT of_team2"
        " FOREIGN KEY (team_id) REFERENCES team (id) ON DELETE SET NULL"
    ),
    "add check": "ALTER TABLE log ADD CONSTRAINT more CHECK (what <> '')",
    "drop check": "ALTER TABLE person DROP CONSTRAINT grown",
    # Partitions.
    "add partition": "ALTER TABLE parts ADD PARTITION (PARTITION p2 VALUES LESS THAN (300))",
    "drop partition": "ALTER TABLE parts DROP PARTITION p1",
    "reorganize": (
        "ALTER TABLE parts REORGANIZE PARTITION p0 INTO"
        " (PARTITION a VALUES LESS THAN (50), PARTITION b VALUES LESS THAN (100))"
    ),
    "exchange": (
        "CREATE TABLE more (a INT NOT NULL, b VARCHAR(9))",
        "ALTER TABLE parts EXCHANGE PARTITION p0 WITH TABLE more",
    ),
    "remove partitioning": "ALTER TABLE parts REMOVE PARTITIONING",
    "partition by hash": "ALTER TABLE heap PARTITION BY HASH (a) PARTITIONS 3",
    "partition by key": "ALTER TABLE pair PARTITION BY KEY (a) PARTITIONS 2",
    "partition by list": (
        "CREATE TABLE more (a INT) PARTITION BY LIST (a) (PARTITION p VALUES IN (1, 2))"
    ),
    # Views, routines, triggers, events.
    "create view": "CREATE VIEW more AS SELECT 1 AS a",
    "replace view": "CREATE OR REPLACE VIEW loud AS SELECT id, loud FROM person WHERE id > 1",
    "alter view": "ALTER VIEW loud AS SELECT id FROM person",
    "view algorithm": "ALTER ALGORITHM = MERGE VIEW loud AS SELECT id, loud FROM person",
    "view security": "ALTER SQL SECURITY INVOKER VIEW loud AS SELECT id, loud FROM person",
    "view check option": (
        "CREATE VIEW more AS SELECT id FROM person WHERE id > 1 WITH CASCADED CHECK OPTION"
    ),
    "drop view": "DROP VIEW loud",
    "rename view": "RENAME TABLE loud TO noise",
    "create procedure": "CREATE PROCEDURE more() BEGIN SELECT 1; SELECT 2; END",
    "procedure, changed": ("DROP PROCEDURE work", "CREATE PROCEDURE work() SELECT 1"),
    "procedure comment": "ALTER PROCEDURE work COMMENT 'x'",
    "procedure security": "ALTER PROCEDURE work SQL SECURITY INVOKER",
    "procedure data": "ALTER PROCEDURE work READS SQL DATA",
    "drop procedure": "DROP PROCEDURE work",
    "create function": "CREATE FUNCTION more() RETURNS INT DETERMINISTIC RETURN 1",
    "function, changed": (
        "DROP FUNCTION plus",
        "CREATE FUNCTION plus(a INT) RETURNS INT DETERMINISTIC RETURN a - 1",
    ),
    "function comment": "ALTER FUNCTION plus COMMENT 'x'",
    "drop function": "DROP FUNCTION plus",
    "routine of another sql_mode": (
        "SET sql_mode = 'ANSI_QUOTES'",
        "CREATE PROCEDURE more() SELECT 1",
        "SET sql_mode = DEFAULT",
    ),
    "create trigger": "CREATE TRIGGER more AFTER INSERT ON heap FOR EACH ROW SET @a = 1",
    "trigger order": (
        "CREATE TRIGGER more BEFORE INSERT ON log FOR EACH ROW PRECEDES noted SET @a = 1"
    ),
    "trigger, changed": (
        "DROP TRIGGER noted",
        "CREATE TRIGGER noted BEFORE INSERT ON log FOR EACH ROW SET @a = 1",
    ),
    "drop trigger": "DROP TRIGGER noted",
    "create event": "CREATE EVENT more ON SCHEDULE AT '2035-01-01' DO DELETE FROM log",
    "event, schedule": "ALTER EVENT tick ON SCHEDULE EVERY 2 DAY",
    "event, disabled": "ALTER EVENT tick DISABLE",
    "event, enabled": "ALTER EVENT tock ENABLE",
    "event, body": "ALTER EVENT tick DO DELETE FROM heap",
    "event, preserved": "ALTER EVENT tick ON COMPLETION PRESERVE",
    "event comment": "ALTER EVENT tick COMMENT 'x'",
    "rename event": "ALTER EVENT tick RENAME TO tack",
    "drop event": "DROP EVENT tick",
    # The database and rights.
    "database charset": "ALTER DATABASE CHARACTER SET latin1",
    "database collation": "ALTER DATABASE COLLATE utf8mb4_bin",
    "grant on table": "GRANT UPDATE ON heap TO CURRENT_USER",
    "grant on column": "GRANT UPDATE (a) ON heap TO CURRENT_USER",
    "grant on database": "GRANT UPDATE ON * TO CURRENT_USER",
    "grant on procedure": "GRANT ALTER ROUTINE ON PROCEDURE work TO CURRENT_USER",
    "grant on function": "GRANT EXECUTE ON FUNCTION plus TO CURRENT_USER",
}
_MYSQL = (
    "CREATE TABLE expression (id INT PRIMARY KEY, a INT, INDEX by_half ((a DIV 2)))",
    "CREATE TABLE multi (id INT PRIMARY KEY, tags JSON, INDEX ((CAST(tags AS UNSIGNED ARRAY))))",
    "INSERT INTO multi VALUES (1, '[1, 2]')",
    "ALTER TABLE person ALTER INDEX by_age INVISIBLE",
    "ANALYZE TABLE person UPDATE HISTOGRAM ON age WITH 4 BUCKETS",
    "CREATE TABLE attributes (a INT) SECONDARY_ENGINE_ATTRIBUTE = '{\"x\": 1}'",
)
_MARIADB = (
    "CREATE SEQUENCE numbers",
    """CREATE TABLE history (id INT PRIMARY KEY, a INT) WITH SYSTEM VERSIONING""",
    "INSERT INTO history VALUES (1, 1)",
    "UPDATE history SET a = 2",
    """CREATE TABLE booked (id INT, f DATE, t DATE, PERIOD FOR stay (f, t),
        UNIQUE (id, stay WITHOUT OVERLAPS))""",
    "CREATE TABLE net (a INET6, u UUID DEFAULT uuid())",
    "CREATE TABLE aria (id INT PRIMARY KEY AUTO_INCREMENT, a INT) ENGINE = Aria PAGE_CHECKSUM = 1",
    "INSERT INTO aria (a) VALUES (1)",
    "SELECT nextval(numbers)",
    "SET sql_mode = ORACLE",
    "CREATE PACKAGE tools AS FUNCTION one RETURN INT; END",
    "CREATE PACKAGE BODY tools AS FUNCTION one RETURN INT AS BEGIN RETURN 1; END; END",
    "SET sql_mode = DEFAULT",
    "ALTER DATABASE COMMENT = 'the template'",
)

_MYSQL_CHANGES: dict[str, str | tuple[str, ...]] = {
    "create archive": "CREATE TABLE more (id INT) ENGINE = ARCHIVE",
    "create blackhole": "CREATE TABLE more (id INT) ENGINE = BLACKHOLE",
    "index visible": "ALTER TABLE person ALTER INDEX by_age VISIBLE",
    "index invisible": "ALTER TABLE team ALTER INDEX name INVISIBLE",
    "functional index": "CREATE INDEX more ON heap ((a + 1))",
    "drop functional index": "DROP INDEX by_half ON expression",
    "multi-valued index": "CREATE INDEX more ON person ((CAST(data AS UNSIGNED ARRAY)))",
    "fulltext parser": "CREATE FULLTEXT INDEX more ON heap (b) WITH PARSER ngram",
    "check, not enforced": "ALTER TABLE person ALTER CHECK grown NOT ENFORCED",
    "histogram": "ANALYZE TABLE heap UPDATE HISTOGRAM ON a",
    "histogram, buckets": "ANALYZE TABLE person UPDATE HISTOGRAM ON age WITH 1 BUCKETS",
    "histogram, auto": "ANALYZE TABLE person UPDATE HISTOGRAM ON age WITH 4 BUCKETS AUTO UPDATE",
    "drop histogram": "ANALYZE TABLE person DROP HISTOGRAM ON age",
    "column engine attribute": "ALTER TABLE heap MODIFY a INT SECONDARY_ENGINE_ATTRIBUTE '{}'",
    "secondary engine attribute": "ALTER TABLE heap SECONDARY_ENGINE_ATTRIBUTE = '{\"a\": 1}'",
    "compression": "ALTER TABLE heap COMPRESSION = 'zlib'",
    "autoextend size": "ALTER TABLE heap AUTOEXTEND_SIZE = 4M",
    "tablespace": "ALTER TABLE heap TABLESPACE innodb_system",
    "srid": "ALTER TABLE place ADD COLUMN s POINT SRID 4326",
    "vector column": "ALTER TABLE heap ADD COLUMN v VECTOR(3)",
    "create library": "CREATE LIBRARY more LANGUAGE JAVASCRIPT AS 'export function f() {}'",
    "json view": "CREATE VIEW more AS SELECT JSON_OBJECT('id', id) AS j FROM person",
    "database read only": "ALTER DATABASE READ ONLY = 1",
    "my row id": ("SET sql_generate_invisible_primary_key = 1", "CREATE TABLE more (a INT)"),
}
_MARIADB_CHANGES: dict[str, str | tuple[str, ...]] = {
    "nextval": "SELECT nextval(numbers)",
    "setval": "SELECT setval(numbers, 5000)",
    "create sequence": "CREATE SEQUENCE more",
    "drop sequence": "DROP SEQUENCE numbers",
    "sequence increment": "ALTER SEQUENCE numbers INCREMENT 7",
    "sequence restart": "ALTER SEQUENCE numbers RESTART 70",
    "sequence cycle": "ALTER SEQUENCE numbers CYCLE",
    "rename sequence": "RENAME TABLE numbers TO digits",
    "update versioned": "UPDATE history SET a = 3",
    "delete versioned": "DELETE FROM history",
    "insert versioned": "INSERT INTO history VALUES (2, 2)",
    "delete history": "DELETE HISTORY FROM history",
    "truncate history": ("DELETE HISTORY FROM history", "DELETE FROM history"),
    "add versioning": "ALTER TABLE heap ADD SYSTEM VERSIONING",
    "drop versioning": "ALTER TABLE history DROP SYSTEM VERSIONING",
    "column without versioning": (
        "SET system_versioning_alter_history = KEEP",
        "ALTER TABLE history MODIFY a INT WITHOUT SYSTEM VERSIONING",
    ),
    "drop period": "ALTER TABLE booked DROP INDEX id, DROP PERIOD FOR stay",
    "add period": "ALTER TABLE net ADD f DATE, ADD t DATE, ADD PERIOD FOR stay (f, t)",
    "create package": (
        "SET sql_mode = ORACLE",
        "CREATE PACKAGE more AS FUNCTION one RETURN INT; END",
        "SET sql_mode = DEFAULT",
    ),
    "package body": (
        "SET sql_mode = ORACLE",
        "CREATE OR REPLACE PACKAGE BODY tools AS"
        " FUNCTION one RETURN INT AS BEGIN RETURN 2; END; END",
        "SET sql_mode = DEFAULT",
    ),
    "drop package": ("SET sql_mode = ORACLE", "DROP PACKAGE tools", "SET sql_mode = DEFAULT"),
    "drop package body": (
        "SET sql_mode = ORACLE",
        "DROP PACKAGE BODY tools",
        "SET sql_mode = DEFAULT",
    ),
    "aggregate function": (
        "CREATE AGGREGATE FUNCTION more(x INT) RETURNS INT BEGIN DECLARE c INT DEFAULT 0;"
        " DECLARE CONTINUE HANDLER FOR NOT FOUND RETURN c;"
        " LOOP FETCH GROUP NEXT ROW; SET c = c + x; END LOOP; END"
    ),
    "index ignored": "ALTER TABLE person ALTER INDEX by_age IGNORED",
    "replace table": "CREATE OR REPLACE TABLE heap (a INT)",
    "replace procedure": "CREATE OR REPLACE PROCEDURE work() SELECT 1",
    "replace trigger": (
        "CREATE OR REPLACE TRIGGER noted BEFORE INSERT ON log FOR EACH ROW SET @a = 1"
    ),
    "replace event": "CREATE OR REPLACE EVENT tick ON SCHEDULE EVERY 3 DAY DO DELETE FROM log",
    "compressed column": "ALTER TABLE heap MODIFY b VARCHAR(20) COMPRESSED",
    "page compressed": "ALTER TABLE heap PAGE_COMPRESSED = 1",
    "convert partition": "ALTER TABLE parts CONVERT PARTITION p1 TO TABLE more",
    "transactional Aria": "ALTER TABLE aria TRANSACTIONAL = 0",
    "insert into Aria": "INSERT INTO aria (a) VALUES (2)",
    "delete from Aria": "DELETE FROM aria",
    "counter of Aria": "ALTER TABLE aria AUTO_INCREMENT = 50",
    "uuid column": "ALTER TABLE heap ADD COLUMN u UUID",
    "database comment": "ALTER DATABASE COMMENT = 'x'",
    "grant delete history": "GRANT DELETE HISTORY ON heap TO CURRENT_USER",
}

SCHEMA = {"mysql": (*_BOTH, *_MYSQL), "mariadb": (*_BOTH, *_MARIADB)}
CHANGES = {"mysql": _CHANGES | _MYSQL_CHANGES, "mariadb": _CHANGES | _MARIADB_CHANGES}
_SAMPLE = (
    *("insert", "update MyISAM", "truncate", "counter", "add column", "drop trigger"),
    *("event comment", "grant on table", "database charset"),
)
SAMPLE = {"mysql": (*_SAMPLE, "histogram"), "mariadb": (*_SAMPLE, "update versioned")}
