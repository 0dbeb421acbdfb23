"""A look at data: counts, and what is trained of it."""

import sys
from pathlib import Path

from ..core.errors import UserError


def stats(*files: Path) -> None:
    """Count documents, sources, languages and pronouns of document files, as JSON.

    Parameters
    ----------
    files
        Files of documents, folders of corpora, or data sets as hub:OWNER/NAME.
    """
    import json

    from ..data.documents import CORPUS_FILE, read_documents
    from ..data.statistics import StatisticsConfig, statistics
    from ..stages.common import data_files

    if not files:
        raise UserError("no file given; data stats takes files of documents or folders of corpora")
    documents = read_documents(data_files(files, CORPUS_FILE))
    print(json.dumps(statistics(documents, StatisticsConfig(), 0), indent=2, ensure_ascii=False))


def show(file: Path, *, model: str, limit: int | None = None) -> None:
    """Print rows of a file as the model reads them, coloured by what is trained.

    Parameters
    ----------
    file
        Dialogues, prompts, preferences or documents as JSON lines.
    model
        Whose tokenizer: a folder, RUN or RUN:VERSION.
    limit
        How many rows (default: all).
    """
    from ..core.artifacts import resolve
    from ..data.show import show as show_rows
    from ..stages.common import rows_file
    from ..tokenizer.sentencepiece import Tokenizer

    if limit is not None and limit < 0:
        raise UserError(f"--limit is {limit}; expected a number of rows")
    show_rows(rows_file(file), Tokenizer.load(resolve(model)), sys.stdout, limit)
