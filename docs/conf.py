"""How Sphinx makes the documentation: ``tox -e docs``, which writes it to ``docs/_build``."""

from __future__ import annotations

import asynqueue

project = "AsynQueue"
author = "the AsynQueue maintainers"
release = version = asynqueue.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "sphinx_copybutton"]
napoleon_numpy_docstring = False
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"AsynQueue {release}"

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

# In our docstrings a `name` is a name: a link where there is such an object, and else just code.
default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_typehints = "description"  # in the list of parameters: a signature of overloads with types is unreadable
autodoc_typehints_format = "short"
autodoc_typehints_description_target = "documented"
autodoc_preserve_defaults = True

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
