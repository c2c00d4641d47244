"""The site: `uv run --extra docs sphinx-build -W -b html docs docs/_build/html`. Nothing is fetched, no notebook is executed."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
os.environ.setdefault("JAX_PLATFORMS", "cpu")  # the API is imported, nothing of it is run
sys.path.insert(0, str(ROOT / "docs" / "_ext"))

from jaxdyn import __version__

project = "jaxdyn"
author = "The jaxdyn founders"
copyright = "The jaxdyn founders, Apache-2.0"
version = release = __version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "myst_nb",
    "sphinx_design",
    "sphinx_copybutton",
    "api",
    "committed",
    "verdicts",
]
exclude_patterns = ["_build", "_ext"]
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb"}

myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # tests/test_docs.py runs the code blocks, notebooks/execute.py the notebooks
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_use_ivar = True
napoleon_use_rtype = False
python_use_unqualified_type_names = True
python_display_short_literal_types = True
python_maximum_signature_line_length = 88
add_module_names = False
toc_object_entries_show_parents = "hide"
suppress_warnings = ["mystnb.unknown_mime_type"]

html_theme = "furo"
html_title = f"jaxdyn {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
pygments_style = "tango"
pygments_dark_style = "monokai"
