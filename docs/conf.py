"""Sphinx settings of the documentation. Build it with ``nox -s docs``."""

import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.nodes import make_refnode

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "extensions"))
sys.path.insert(0, str(HERE.parent))

project = "polyloss-lightning"
release = metadata.version(project)
copyright = "the authors of polyloss-lightning"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "conditions",
    "mathml",
    "figures",
]
exclude_patterns = ["generated", "build", "jupyter_execute"]
templates_path: list[str] = []
suppress_warnings: list[str] = []

# Every reference must resolve. Other packages are not linked, because their indexes would have to be downloaded.
nitpicky = True
OTHERS = "abc|collections|contextlib|lightning|matplotlib|numpy|optuna|os|pathlib|pl|torch(metrics|vision)?|typing"
nitpick_ignore_regex = [
    (
        r"py:.*",
        rf"({OTHERS})(\..*)?",
    ),
    (
        r"py:.*",
        r"(Any|Callable|Figure|Iterator|Lightning[A-Za-z]*|Literal|Mapping|Mode|Objective|Path|Sequence|Tensor|TracebackType"
        r"|Trainer|optional|timedelta)",
    ),
    (r"py:.*", r"[a-z_.]*\b_[A-Za-z_.]+"),  # private names in annotations
    # Base classes and aliases in annotations that their subpackage does not export.
    (r"py:.*", r"polyloss_lightning(\.[a-z_]+){2,}\.[A-Z]\w*"),
]

html_theme = "furo"
html_title = "polyloss-lightning"
html_static_path = ["static"]
html_css_files = ["custom.css"]
html_favicon = "static/icon.svg"
html_math_renderer = "mathml"
html_copy_source = False
html_show_sourcelink = False

autodoc_inherit_docstrings = False  # leave out hooks without a description of their own
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True  # as they are written, not as objects print themselves
autodoc_default_options = {"members": True, "imported-members": True, "show-inheritance": True}
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True
napoleon_custom_sections = ["Shape", "Reference"]
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "attrs_inline"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 180
nb_merge_streams = True
copybutton_exclude = ".linenos, .gp, .go"


def skip_member(app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Leave out the fields of named tuples, which the docstrings describe under "Attributes"."""
    return True if str(obj.__doc__).startswith("Alias for field number") else None


def find_by_name(app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.Element) -> Any:
    """Resolve a name of this package that a docstring uses without its module, or as a name of the package itself."""
    target = node["reftarget"].removeprefix("polyloss_lightning.")
    if node.get("refdomain") != "py" or "." in target:
        return None
    domain = env.domains.python_domain
    found = domain.find_obj(env, None, None, target, node["reftype"], searchmode=1)
    if len({entry.docname for _, entry in found}) != 1:
        return None
    name, entry = found[0]
    return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, content, name)


def setup(app: Sphinx) -> None:
    """Connect the functions above."""
    app.connect("autodoc-skip-member", skip_member)
    app.connect("missing-reference", find_by_name)
