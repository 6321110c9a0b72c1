"""Sphinx: MyST pages with the furo theme; built with warnings as errors."""

import tomllib
from pathlib import Path

project = "pytest-asyncdb"
author = copyright = "The pytest-asyncdb contributors"
release = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))[
    "project"
]["version"]

extensions = ["myst_parser"]
# ::: fences, terms in the glossary, links to headings.
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
nitpicky = True

html_theme = "furo"
html_title = f"{project} {release}"
