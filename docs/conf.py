"""Sphinx: MyST pages with the furo theme; built with warnings as errors."""

import re
import tomllib
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx

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


def show_file_names(app: Sphinx, doctree: nodes.document) -> None:
    """Put the name in ``<!-- file: NAME -->`` above the block of code that follows it.

    tests/docs/test_blocks.py reads the same comments.
    """
    for comment in list(doctree.findall(nodes.raw)):
        match = re.fullmatch(r"<!--\s*file:\s*(\S+)\s*-->", comment.astext().strip())
        block = comment.next_node(descend=False, siblings=True)
        if match and isinstance(block, nodes.literal_block):
            # The nodes that ":caption:" of Sphinx's code-block makes.
            caption = nodes.caption("", "", nodes.Text(match[1]))
            wrapper = nodes.container("", literal_block=True, classes=["literal-block-wrapper"])
            doctree.note_implicit_target(wrapper)  # Sphinx wants an id for it
            block.replace_self(wrapper)
            wrapper += [caption, block]


def setup(app: Sphinx) -> None:
    app.connect("doctree-read", show_file_names)
