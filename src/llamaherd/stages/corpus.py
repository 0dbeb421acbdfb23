"""Documents to a corpus (section 2): cleaned, filtered, without duplicates, with statistics of what is left."""

import json
from pathlib import Path

from ..core.artifacts import Artifact, building, open_artifact
from ..core.config import Config
from ..core.files import naming, write_json
from ..data.dedup import EXACT, NEAR, DedupConfig, deduplicated
from ..data.documents import CORPUS_FILE, Tally, read_documents
from ..data.filters import FilterConfig, filtered, filters_of
from ..data.inputs import parents_of
from ..data.statistics import StatisticsConfig, score_by_words, statistics
from .common import SomePaths, plain_files


class CorpusSettings(Config):
    """How documents are cleaned."""

    filters: FilterConfig = FilterConfig()
    """What is kept out."""
    dedup: DedupConfig = DedupConfig()
    """What counts as a duplicate."""
    statistics: StatisticsConfig = StatisticsConfig()
    """What is measured of the result."""


class CorpusConfig(CorpusSettings):
    """Settings and inputs."""

    documents: SomePaths
    """Files of documents {"text", "source", "url"}: .jsonl, .jsonl.gz, .jsonl.zst or .parquet."""


def run(config: CorpusConfig, out: Path, seed: int) -> Artifact:
    """Builds `documents.jsonl` and `statistics.json`. Raises UserError for bad lines or when no document is left."""
    files = plain_files(config.documents, CORPUS_FILE)
    parents = parents_of(files)
    filters = filters_of(config.filters)
    tally = Tally([*filters, EXACT, *([NEAR] if config.dedup.near else [])])
    with building(out, kind="corpus", stage="corpus", config=config, parents=parents, seed=seed) as place:
        file = place.folder / CORPUS_FILE
        kept = filtered(read_documents(files), filters, tally)
        with naming(file), file.open("w", encoding="utf-8", newline="\n") as lines:
            for document in deduplicated(kept, config.dedup, tally):
                lines.write(json.dumps(document.to_row(), ensure_ascii=False, allow_nan=False) + "\n")
        tally.demand_some(files)
        words = config.statistics.toxic_words
        measured = statistics(read_documents([file]), config.statistics, seed, score=score_by_words(words) if words else None)
        write_json(place.folder / "statistics.json", {"filters": tally.to_dict(), **measured})
        place.metrics.update(
            read=tally.read.total(), kept=tally.kept, cleaned=tally.cleaned.total(), dropped=tally.counts(),
            characters=measured["characters"], languages=measured["languages"],
        )  # fmt: skip
    return open_artifact(out, "corpus")


def headline(artifact: Artifact) -> str:
    """What came out, in one line."""
    metrics = artifact.metrics
    dropped = ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in metrics["dropped"].items() if count)
    kept = f"{metrics['kept']:,} of {metrics['read']:,} documents, {metrics['characters']:,} characters"
    return f"{kept}; dropped: {dropped or 'none'}"
