"""Which sessions hold locks in a PostgreSQL database: the query of ``Backend.holders``."""

from __future__ import annotations

HOLDERS = """
SELECT a.pid, a.usename::text, a.application_name, bool_or(l.mode <> 'AccessShareLock')
FROM pg_stat_activity a JOIN pg_locks l ON l.pid = a.pid
WHERE a.datname = '{database}' AND l.granted AND l.locktype <> 'virtualxid'
    AND a.pid <> pg_backend_pid()
GROUP BY a.pid, a.usename, a.application_name
"""
