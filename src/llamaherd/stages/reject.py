"""Rejection sampling (paper.md section 6): K answers from the newest model, the best ones into the pool of all versions."""

import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from ..core.artifacts import Artifact, building, model_path, open_artifact
from ..core.chunks import in_chunks
from ..core.config import Config
from ..core.errors import UserError
from ..core.files import read_rows, write_rows
from ..data.inputs import described_by, parents_of
from ..generate.config import SamplingConfig
from ..measures.intervals import mean
from ..miniature.oracle import Oracle
from ..miniature.world import World, WorldConfig
from .common import Paths, data_files, prompts_of

if TYPE_CHECKING:
    from ..data.records import Prompt
    from ..rlhf.rejection import PoolRow


class RejectSettings(Config):
    """How many answers, and how they are sampled."""

    k: int = Field(8, ge=1)
    """Answers to each prompt (not printed in the paper; its figures use up to 100)."""
    temperature: float = Field(1.0, gt=0)
    """The best one shifts with each version (section 6)."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Nucleus."""
    max_new_tokens: int = Field(64, ge=1)
    """Longest answer; an unfinished one is never chosen."""
    judged_k: int = Field(32, ge=1)
    """Answers to each prompt on which best-of-N is judged: more than `k`, to see where choosing by reward turns down."""
    chunk_prompts: int = Field(64, ge=1)
    """Prompts sampled between two saved states."""


class RejectConfig(RejectSettings):
    """Settings and inputs."""

    model: Path
    """The newest chat model."""
    helpfulness: Path
    """Helpfulness reward model."""
    safety: Path
    """Safety reward model."""
    prompts: Paths = ()
    """Files of prompts; empty: best-of-N is judged and nothing sampled for tuning."""
    pool: Paths = ()
    """Earlier samples whose best answers join the pool: folders that hold best.jsonl."""
    judged_prompts: Paths = ()
    """Test prompts on which best-of-N is judged by the miniature's oracle; empty: not judged."""
    world: WorldConfig = WorldConfig()
    """Whose oracle judges the test prompts."""
    version: str = ""
    """The version that these samples tune; empty: the folder's name."""


def run(config: RejectConfig, out: Path, seed: int) -> Artifact:
    """Writes samples.jsonl (all candidates), best.jsonl (this version's best), dialogues.jsonl (the pool, ready for tuning) and
    judged.jsonl (what best-of-N brings on each test prompt). Raises UserError."""
    from ..assistant.local import Assistant
    from ..data.records import Prompt
    from ..reward.combine import Combination
    from ..reward.model import RewardModel
    from ..rlhf.rejection import PoolRow, best_rows, dialogue_of, pooled, sample_answers

    if not config.prompts and not config.judged_prompts:
        raise UserError("neither prompts nor judged_prompts given; name at least one file of prompts")
    folders = [model_path(path) for path in (config.model, config.helpfulness, config.safety)]
    files = data_files(config.prompts, "prompts.jsonl")
    judged_files = data_files(config.judged_prompts, "prompts.jsonl")
    pool_files = data_files(config.pool, "best.jsonl")
    assistant = Assistant.load(folders[0])
    prompts, test_prompts = (prompts_of(some, assistant, optional=not some) for some in (files, judged_files))
    earlier = [PoolRow.of(row, f"{file} line {number}") for file in pool_files for number, row in read_rows(file)]
    parents = parents_of([*(described_by(folder) for folder in folders), *files, *judged_files, *pool_files])
    sampling = SamplingConfig(temperature=config.temperature, top_p=config.top_p, max_new_tokens=config.max_new_tokens)
    with building(out, kind="samples", stage="reject", config=config, parents=parents, seed=seed) as place:
        rewards = Combination(RewardModel.load(folders[1]), RewardModel.load(folders[2]))

        def sampler(k: int) -> Callable[[Sequence[Prompt], int], list[dict[str, Any]]]:
            return lambda chunk, first: sample_answers(assistant, rewards, chunk, first, k, sampling, seed)

        rows = in_chunks(place.state / "train", prompts, config.chunk_prompts, sampler(config.k))
        tests = in_chunks(place.state / "test", test_prompts, config.chunk_prompts, sampler(config.judged_k))
        judged = _judged_rows(tests, test_prompts, config)
        newest = best_rows(rows, config.version or out.name)
        pool = pooled(earlier, newest, rewards)
        write_rows(place.folder / "samples.jsonl", rows)
        write_rows(place.folder / "best.jsonl", [row.to_row() for row in newest])
        write_rows(place.folder / "dialogues.jsonl", [{**dialogue_of(row).to_row(), "safety": row.prompt.safety} for row in pool])
        write_rows(place.folder / "judged.jsonl", judged)
        place.metrics.update(_metrics(rows, pool), **_best_of_curve(judged))
    return open_artifact(out, "samples")


def _metrics(rows: Sequence[dict[str, Any]], pool: "Sequence[PoolRow]") -> dict[str, Any]:
    from ..rlhf.rejection import best_of, candidates_of

    candidates = [candidate for row in rows for candidate in row["candidates"]]
    unusable = Counter(item["unusable"] for item in candidates if item["unusable"])
    return {
        "prompts": len(rows), "candidates": len(candidates), "unusable": dict(sorted(unusable.items())),
        "without_answer": sum(best_of(candidates_of(row)) is None for row in rows),
        "pool": dict(sorted(Counter(row.version for row in pool).items())),
    }  # fmt: skip


def _judged_rows(rows: Sequence[dict[str, Any]], prompts: Sequence[Any], config: RejectConfig) -> list[dict[str, Any]]:
    """For each judged prompt and N = 1, 2, 4 ... and `judged_k`: `best_of`, the oracle's score of the pick, and `max_reward` and
    `median_reward`, the highest and the median combined logit of the first N.

    Where none of the first N may be picked, the first one counts, and an unusable answer has the lowest logit of all, so that
    every N is judged on the same prompts.
    """
    from ..rlhf.rejection import best_of, candidates_of

    oracle = Oracle(World(config.world))

    def score(prompt: "Prompt", text: str) -> float:
        # What the reward models are asked for: safety first where the prompt is adversarial, else help.
        return oracle.safety(prompt.dialogue, text) if prompt.safety else oracle.judge(prompt.dialogue, text).helpfulness

    lowest = min((item.logit for row in rows for item in candidates_of(row) if item.logit is not None), default=0.0)
    counts = sorted({*(2**power for power in range(config.judged_k.bit_length())), config.judged_k})
    judged = []
    for row, prompt in zip(rows, prompts, strict=True):
        candidates = candidates_of(row)
        picks = {str(n): best_of(candidates[:n]) or candidates[0] for n in counts}
        logits = [lowest if item.logit is None else item.logit for item in candidates]
        judged.append({
            "prompt": prompt.dialogue.asked,
            "best_of": {n: score(prompt, pick.text) for n, pick in picks.items()},
            "max_reward": {str(n): max(logits[:n]) for n in counts}, "median_reward": {str(n): statistics.median(logits[:n]) for n in counts},
        })  # fmt: skip
    return judged


def _best_of_curve(judged: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The means over the judged prompts."""
    names = ("best_of", "max_reward", "median_reward") if judged else ()
    return {name: {n: mean([row[name][n] for row in judged]) for n in judged[0][name]} for name in names}


def headline(artifact: Artifact) -> str:
    """What came out, in one line."""
    metrics = artifact.metrics
    pool = sum(metrics["pool"].values())
    curve = metrics.get("best_of", {})
    picks = ", ".join(f"{n}: {figure['value']:.2f}" for n, figure in curve.items() if figure["value"] is not None)
    left_out = ", ".join(f"{count:,} {reason}" for reason, count in metrics["unusable"].items())
    answers = f"{metrics['candidates']:,} answers" + (f" ({left_out})" if left_out else "")
    sampled = f"{answers} to {metrics['prompts']:,} prompts, pool of {pool:,}" if metrics["prompts"] else ""
    return "; ".join(filter(None, (sampled, f"oracle of best of {picks}" if picks else "")))
