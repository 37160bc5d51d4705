"""Figures as SVG inside of a page: scalable, in the colours of the page, with names of their own."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING

from polyloss_lightning.plotting import style
from polyloss_lightning.search.report.figures import INK

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Colours that the page replaces by lighter ones on a dark background.
_VARIABLES = {
    INK: "currentColor",
    style.BLUE: "var(--blue)",
    style.GREEN: "var(--green)",
    style.VERMILLION: "var(--vermillion)",
}


def as_svg(figure: Figure, name: str, text: str) -> str:
    """Return ``figure`` as an SVG element.

    Args:
        figure: the figure.
        name: prefix of the ids in it, which differs between the figures of a page.
        text: what it shows, for those who cannot see it.
    """
    from matplotlib import rc_context

    buffer = io.StringIO()
    with rc_context({"svg.hashsalt": name, "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    for color, variable in _VARIABLES.items():
        svg = re.sub(re.escape(color), variable, svg, flags=re.IGNORECASE)
    return svg.replace("<svg", f'<svg role="img" aria-label="{_escaped(text)}"', 1)


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
