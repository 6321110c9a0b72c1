"""The benchmark: ``python -m benchmarks`` measures the targets that the project set itself.

Whole pytest runs of generated projects, in processes of their own, against one server per
backend that is started once. The variants of a case run in turns, so that what slows the
machine down slows all of them, and what counts is their ratio.

- ``cases.py``: what is measured, and its target: a table.
- ``application.py``: the case of a whole suite, whose files are in ``suite/``.
- ``projects.py``: the generated projects.
- ``runs.py``: one pytest run; ``timing.py`` is the plugin in it, ``blind.py`` one that
  switches off what the reports need.
- ``servers.py``: the servers, and databases for those who bring none.
- ``report.py``: the table, JSON, the page in ``docs/``.
"""
