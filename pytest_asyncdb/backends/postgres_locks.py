"""Who waits for whose lock on PostgreSQL: queries, as ``Backend.waits`` and others want them."""

from __future__ import annotations

#: "waitstart" is not known before 14.
WAITS = """
SELECT extract(epoch FROM clock_timestamp() - coalesce(
        (
            SELECT min((to_jsonb(l) ->> 'waitstart')::timestamptz)
            FROM pg_locks l WHERE l.pid = w.pid
        ),
        w.query_start
    ))::float,
    w.pid, w.usename::text, w.application_name, b.pid, h.usename::text, h.application_name
FROM pg_stat_activity w
CROSS JOIN LATERAL unnest(pg_blocking_pids(w.pid)) AS b(pid)
LEFT JOIN pg_stat_activity h ON h.pid = b.pid
WHERE w.datname = '{database}' AND w.wait_event_type = 'Lock'
"""

HOLDERS = """
SELECT a.pid, a.usename::text, a.application_name, bool_or(l.mode <> 'AccessShareLock')
FROM pg_stat_activity a JOIN pg_locks l ON l.pid = a.pid
WHERE a.datname = '{database}' AND l.granted AND l.locktype <> 'virtualxid'
    AND a.pid <> pg_backend_pid()
GROUP BY a.pid, a.usename, a.application_name
"""

#: Only where it still waits.
CANCEL = """
SELECT pg_cancel_backend(pid) FROM pg_stat_activity
WHERE pid = {session} AND cardinality(pg_blocking_pids(pid)) > 0
"""
