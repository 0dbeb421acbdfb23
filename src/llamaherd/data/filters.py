"""What is kept out of the corpus (section 2): hosts with personal data, and what is no text. Each filter counts its drops.

There is deliberately no toxicity filter: the paper leaves toxic text in, so that the model can recognise it, groups of
people are not erased with the words used about them, and safety tuning needs fewer examples. Toxicity is measured
(statistics.py), not removed.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pydantic import Field

from ..core.config import Config
from ..core.errors import UserError
from .documents import Document, Tally

Filter = Callable[[Document], bool]
"""True for a document to drop."""


class FilterConfig(Config):
    blocked_hosts: tuple[str, ...] = ()
    """Hosts whose documents are dropped, each with its subdomains (sites high in personal data, section 2)."""
    block_list: Path | None = None
    """File with more such hosts, one a line; text after # is a comment."""
    min_characters: int = Field(default=1, ge=1)
    """Shorter documents are dropped, after cleaning."""
    max_characters: int | None = Field(default=None, ge=1)
    """Longer documents are dropped; null: no limit."""
    max_repetition: float = Field(default=0.5, gt=0, le=1)
    """Documents where a larger share of the word triples stood earlier in the document are dropped."""
    max_garbled: float = Field(default=0.01, ge=0, le=1)
    """Documents with a larger share of replacement characters (text decoded wrongly) are dropped."""


def clean(text: str) -> str:
    """Line ends as \\n, canonical Unicode (NFC), no control characters, no space at the ends."""
    text = re.sub("\r\n|[\r\v\f\x85]", "\n", unicodedata.normalize("NFC", text))
    return re.sub("[\x00-\x08\x0e-\x1f\x7f-\x9f\ufeff]", "", text).strip()


DOTS = str.maketrans(dict.fromkeys("\u3002\uff0e\uff61", "."))
"""What browsers take for a dot in a host, besides the dot."""
NO_HOST = re.compile(r"[\x00-\x20\x7f#%/:<>?@\[\\\]^|]")
"""Characters that no host holds."""


def host_of(url: str) -> str | None:
    """Host of an address as browsers understand it, with or without scheme; None when it has none that can be read.

    Lower case, Unicode names in their ASCII form (`xn--...`), so that all spellings of a host are one.
    """
    url = re.sub("[\t\r\n]", "", url).strip("".join(map(chr, range(33)))).replace("\\", "/")
    url = re.sub(r"^(https?|ftp):/?(?!/)", r"\1://", url, flags=re.IGNORECASE)
    try:
        host = urlsplit(url if re.match(r"([a-z][a-z0-9+.-]*:)?//", url, re.IGNORECASE) else f"//{url}").hostname or ""
    except ValueError:
        return None
    if "%" in host:
        host = unquote(host)
        if NO_HOST.search(host):
            return None
    return ".".join(_ascii(label) for label in host.translate(DOTS).split(".")).rstrip(".") or None


def _ascii(label: str) -> str:
    try:
        return label.encode("idna").decode("ascii").lower()
    except UnicodeError:  # too long or with forbidden characters: no host of the network, but two such may still be equal
        return label.lower()


def is_blocked(host: str, blocked: frozenset[str]) -> bool:
    """Whether `host` or a domain above it is blocked."""
    parts = host.split(".")
    return any(".".join(parts[start:]) in blocked for start in range(len(parts)))


def repetition(text: str) -> float:
    """Share of the word triples that stood earlier in the text; 0 for fewer than two triples."""
    words = text.casefold().split()
    triples = list(zip(words, words[1:], words[2:]))
    return 1 - len(set(triples)) / len(triples) if triples else 0.0


def _listed_host(entry: str, where: str) -> str:
    host = None if any(space in entry for space in " \t") else host_of(entry)
    if host is None:
        raise UserError(f"{where}: {entry!r} is not a host; expected one such as people.example")
    return host


def read_hosts(path: Path) -> list[str]:
    """Hosts of a block list, one a line. Raises UserError for a missing file or a line that is no host."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a block list, one host a line: {error}") from None
    entries = ((number, line.partition("#")[0].strip()) for number, line in enumerate(lines, 1))
    return [_listed_host(entry, f"{path} line {number}") for number, entry in entries if entry]


def filters_of(config: FilterConfig) -> dict[str, Filter]:
    """The filters by name, in the order in which they are asked. Raises UserError for a bad block list."""
    listed = [_listed_host(entry, "blocked_hosts") for entry in config.blocked_hosts]
    blocked = frozenset([*listed, *(read_hosts(config.block_list) if config.block_list else [])])
    limit = config.max_characters
    return {
        "empty": lambda document: not document.text,
        # A host that cannot be read cannot be held against the block list, so the document does not pass.
        "unreadable_url": lambda document: bool(document.url) and host_of(document.url or "") is None,
        "blocked_host": lambda document: bool(document.url) and is_blocked(host_of(document.url or "") or "", blocked),
        "too_short": lambda document: len(document.text) < config.min_characters,
        "too_long": lambda document: limit is not None and len(document.text) > limit,
        "garbled": lambda document: document.text.count("\ufffd") > config.max_garbled * len(document.text),
        "repetitive": lambda document: repetition(document.text) > config.max_repetition,
    }


def filtered(documents: Iterable[Document], filters: Mapping[str, Filter], tally: Tally) -> Iterator[Document]:
    """Cleaned documents that no filter drops; the first one that does is on the tally."""
    for document in documents:
        tally.read[document.source] += 1
        text = clean(document.text)
        if text != document.text:
            tally.cleaned[document.source] += 1
            document = document.with_text(text)
        reason = next((name for name, drops in filters.items() if drops(document)), None)
        if reason:
            tally.drop(reason, document)
        else:
            yield document
