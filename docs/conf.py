"""Sphinx configuration; pages for mixers and models are generated from the registries before each build."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from generate import write_pages

from mixlab import __version__

project = "mixlab"
author = "the mixlab founders"
release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
myst_enable_extensions = ["colon_fence", "deflist"]
# The generated ones are parts of other pages.
exclude_patterns = ["_build", "generated/models.md", "generated/dense.md", "generated/decoders.md", "results/tables"]
html_theme = "furo"
html_title = "mixlab"
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
suppress_warnings = ["ref.python"]

write_pages(Path(__file__).parent / "generated")
