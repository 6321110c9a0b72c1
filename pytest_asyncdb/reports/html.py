"""The report as one HTML page, which loads nothing.

The content is JSON in the page. ``page.js`` makes every text of it a text node. The policy of the
page lets no other script run.
"""

from __future__ import annotations

import json
from base64 import b64encode
from hashlib import sha256
from pathlib import Path
from typing import Any


def page(content: dict[str, Any]) -> str:
    """Return the whole page for a report's content."""
    html, style, script = (
        Path(__file__).with_name(f"page.{kind}").read_text(encoding="utf-8")
        for kind in ("html", "css", "js")
    )
    data = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    parts = {
        "hash": b64encode(sha256(script.encode()).digest()).decode(),
        "style": style,
        "script": script,
        # Inserted last, because it may contain the names of parts.
        "data": data.replace("<", "\\u003c"),
    }
    for name, text in parts.items():
        html = html.replace(f"{{{{ {name} }}}}", text, 1)
    return html
