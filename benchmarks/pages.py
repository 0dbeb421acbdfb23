"""Tables of the pages in docs/, which commands write between marks."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from llamaherd.core.errors import UserError

RESULTS = Path(__file__).parents[1] / "docs" / "results.md"


def markdown(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join([f"| {' | '.join(heading)} |", "|" + "---|" * len(heading), *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"


def filled(page: str, tables: Mapping[str, str]) -> str:
    """The page with each table between its mark `<!-- name -->` and the next `<!-- end -->`. Raises UserError for a mark that is not there."""
    for name, text in tables.items():
        before, mark, rest = page.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition("<!-- end -->")
        if not end:
            raise UserError(f"the page has no place <!-- {name} --> ... <!-- end -->; put both marks where the table shall stand")
        page = f"{before}{mark}{text}{end}{after}"
    return page
