"""Which sessions hold locks on MySQL and MariaDB: the query of ``Backend.holders``.

InnoDB knows the transactions that have row locks. One without may still hold the metadata lock
of a table that it has read.
"""

from __future__ import annotations

HOLDERS = """
SELECT trx_mysql_thread_id, h.user, '', trx_lock_structs > 0
FROM information_schema.innodb_trx
JOIN {processlist} h ON h.id = trx_mysql_thread_id
WHERE h.db = '{database}'
"""
