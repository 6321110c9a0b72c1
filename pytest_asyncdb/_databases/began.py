"""When this process began to load what the tests are made of, nearly: the plugin is first."""

from __future__ import annotations

import time

#: Seconds, as files have them.
BEGAN = time.time()
