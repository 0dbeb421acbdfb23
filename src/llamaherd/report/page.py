"""The page: sections laid into one HTML file that loads nothing from elsewhere."""

from collections.abc import Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined

from .drawing import slug
from .sections import Section


def render(title: str, subtitle: str, sections: Sequence[Section], closing: str = "") -> str:
    """The whole HTML text; everything but our own SVG and markup is escaped. `closing`: what its foot says of the figures; empty: what it
    says of those of the miniature."""
    environment = Environment(
        loader=PackageLoader("llamaherd.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["anchor"] = slug
    return environment.get_template("report.html.j2").render(title=title, subtitle=subtitle, sections=sections, closing=closing)
