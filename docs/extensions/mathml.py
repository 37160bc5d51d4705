"""Renders formulas as MathML, which browsers display without a script or a font of a foreign server."""

import re
from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging

logger = logging.getLogger(__name__)


def _mathml(node: nodes.Element, **options: bool) -> str:
    # Brackets grow with their content in MathML, so TeX's sizes are not needed.
    tex = re.sub(r"\\[bB]igg?[lrm]?(?![A-Za-z])", "", node.astext())
    try:
        return tex2mathml(tex, **options)
    except MathError as error:
        logger.warning("formula %r: %s", tex, error, location=node)
        return tex


def visit_math(self: Any, node: nodes.Element) -> None:
    """Write a formula within a line of text."""
    self.body.append(_mathml(node))
    raise nodes.SkipNode


def visit_displaymath(self: Any, node: nodes.Element) -> None:
    """Write a formula on a line of its own, which can be scrolled if the page is too narrow for it."""
    self.body.append(f'<div class="formula">{_mathml(node, as_block=True)}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the renderer under the name ``mathml``."""
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_displaymath, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
