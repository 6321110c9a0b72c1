"""A block of code on a rendered page shows the name of its file."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("sphinx", reason="the extra docs is not installed")

CONF = Path(__file__).parents[2] / "docs"

PAGE = """
# A page

<!-- file: tests/conftest.py -->
```python
a = 1
```

<!-- run: passed=1 -->
```console
$ pytest
```

- In a list:

  <!-- file: pytest.ini -->
  ```ini
  [pytest]
  ```
"""


def test_the_comment_above_a_block_becomes_its_caption(tmp_path: Path) -> None:
    """By docs/conf.py, from the comments that test_blocks.py reads; other comments show nothing."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "index.md").write_text(PAGE, encoding="utf-8")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "-c", CONF, source, tmp_path / "html"]
    subprocess.run(command, check=True)
    html = (tmp_path / "html" / "index.html").read_text("utf-8")
    captions = re.findall(r'<span class="caption-text">(.*?)</span>', html)
    assert captions == ["tests/conftest.py", "pytest.ini"]
    assert html.index("tests/conftest.py</span>") < html.index('<span class="mi">1</span>')
