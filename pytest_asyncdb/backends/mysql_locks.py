"""Who waits for whose lock on MySQL and MariaDB: queries, as ``Backend.waits`` wants them.

A row's lock is told by InnoDB, a table's (a metadata lock) by MySQL's performance schema, which
MariaDB has switched off: there those may hold it that are in a transaction.
"""

from __future__ import annotations

#: InnoDB's times are the server's, whatever a session's time zone is.
_SECONDS = (
    "timestampdiff(SECOND, r.trx_wait_started, convert_tz(utc_timestamp(), '+00:00', 'SYSTEM'))"
)

#: Who waits for whose lock of a row.
_ROWS = f"""
SELECT {_SECONDS}, r.trx_mysql_thread_id, w.user, '', b.trx_mysql_thread_id, h.user, ''
FROM {{lock_waits}} d
JOIN information_schema.innodb_trx r ON r.trx_id = d.requesting{{trx_id}}
JOIN information_schema.innodb_trx b ON b.trx_id = d.blocking{{trx_id}}
JOIN {{processlist}} w ON w.id = r.trx_mysql_thread_id
LEFT JOIN {{processlist}} h ON h.id = b.trx_mysql_thread_id
WHERE w.db = '{{{{database}}}}'
UNION
"""
_MYSQL_ROWS = _ROWS.format(
    lock_waits="performance_schema.data_lock_waits",
    trx_id="_engine_transaction_id",
    processlist="performance_schema.processlist",
)
_MARIADB_ROWS = _ROWS.format(
    lock_waits="information_schema.innodb_lock_waits",
    trx_id="_trx_id",
    processlist="information_schema.processlist",
)

MYSQL_WAITS = f"""
{_MYSQL_ROWS}
SELECT w.processlist_time, w.processlist_id, w.processlist_user, '',
    h.processlist_id, h.processlist_user, ''
FROM performance_schema.metadata_locks p
JOIN performance_schema.metadata_locks g ON g.object_type = p.object_type
    AND g.object_schema <=> p.object_schema AND g.object_name <=> p.object_name
    AND g.owner_thread_id <> p.owner_thread_id
JOIN performance_schema.threads w ON w.thread_id = p.owner_thread_id
JOIN performance_schema.threads h ON h.thread_id = g.owner_thread_id
WHERE p.lock_status = 'PENDING' AND g.lock_status = 'GRANTED'
    AND w.processlist_db = '{{database}}'
"""

MARIADB_WAITS = f"""
{_MARIADB_ROWS}
SELECT w.time, w.id, w.user, '', h.id, h.user, ''
FROM information_schema.processlist w
JOIN information_schema.processlist h ON h.db = w.db AND h.id <> w.id
JOIN information_schema.innodb_trx b ON b.trx_mysql_thread_id = h.id
WHERE w.db = '{{database}}' AND w.state = 'Waiting for table metadata lock'
"""

HOLDERS = """
SELECT trx_mysql_thread_id, h.user, '', trx_lock_structs > 0
FROM information_schema.innodb_trx
JOIN {processlist} h ON h.id = trx_mysql_thread_id
WHERE h.db = '{database}'
"""
