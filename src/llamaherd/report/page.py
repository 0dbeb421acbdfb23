"""The page: sections laid into one HTML file that loads nothing from elsewhere."""

import re
from collections.abc import Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined

from .sections import Section


def anchor(title: str) -> str:
    """`Best of N` -> `best-of-n`."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def render(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """The whole HTML text; everything but our own SVG is escaped."""
    environment = Environment(
        loader=PackageLoader("llamaherd.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["anchor"] = anchor
    return environment.get_template("report.html.j2").render(title=title, subtitle=subtitle, sections=sections)
