"""Rejection sampling (paper.md section 6): K answers from the newest model, the best ones into the pool of all versions."""

import shutil
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, model_validator

from ..core.artifacts import Artifact, Workplace, building, model_path, open_artifact
from ..core.chunks import chunked
from ..core.config import Config
from ..core.errors import UserError
from ..core.files import read_rows, write_rows
from ..core.shares import Parts, Share, keep_chunks, parts_of, share_of
from ..data.inputs import described_by, parents_of
from ..generate.config import SamplingConfig
from ..measures.intervals import mean, rate
from ..miniature.world import WorldConfig
from .common import (
    Bits,
    How,
    Numbers,
    Paths,
    about_judge,
    answering,
    data_files,
    demand_rewards,
    judge_of,
    judge_paths,
    prompts_of,
    reward_paths,
    rewards_of,
)

if TYPE_CHECKING:
    from ..assistant.local import Assistant
    from ..data.records import Prompt
    from ..reward.combine import Rewards
    from ..rlhf.rejection import Pool, PoolRow


class RejectSettings(Config):
    """How many answers, how they are sampled, and which one is best."""

    k: int = Field(8, ge=1)
    """Answers to each prompt (not printed in the paper; its figures use up to 100)."""
    temperature: float = Field(1.0, gt=0)
    """The best one shifts with each version (section 6)."""
    temperatures: Numbers[Annotated[float, Field(ge=0)]] = ()
    """Several, such as 0.8,1.0,1.2, in place of the one: the K draws take them in turn, so each gets K / (their number), give or take
    one. At 0 all draws are equal."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Nucleus."""
    top_k: int = Field(0, ge=0)
    """Only so many of the likeliest tokens; 0 keeps all."""
    min_p: float = Field(0.0, ge=0, le=1)
    """Only tokens with at least this share of the likeliest one's probability."""
    repetition_penalty: float = Field(1.0, gt=0)
    """Above 1: what was said becomes less likely."""
    max_new_tokens: int = Field(64, ge=1)
    """Longest answer; an unfinished one is never chosen."""
    combination: How = "gate"
    """Which reward is highest in the best answer: the paper's piecewise gate over both reward models, or one of them alone."""
    gate: float = Field(0.15, gt=0, lt=1)
    """Safety scores below this make the gate judge an answer by safety; so does a prompt's tag."""
    judged_k: int = Field(32, ge=1)
    """Answers to each prompt on which best-of-N is judged: more than `k`, to see where choosing by reward turns down."""
    bits: Bits | None = None
    """Of the one base that the chat model and the reward models stand on, as adapters or as the base itself; null: each has weights of its
    own, in 32."""
    chunk_prompts: int = Field(64, ge=1)
    """Prompts sampled between two saved states; a stop loses no more than these."""


class RejectConfig(RejectSettings):
    """Settings and inputs."""

    model: Path
    """The newest chat model."""
    helpfulness: Path | None = None
    """Helpfulness reward model."""
    safety: Path | None = None
    """Safety reward model."""
    prompts: Paths = ()
    """Files of prompts; empty: best-of-N is judged and nothing sampled for tuning."""
    pool: Paths = ()
    """Earlier samples whose best answers join the pool: folders that hold best.jsonl."""
    judged_prompts: Paths = ()
    """Test prompts on which best-of-N is judged; empty: not judged."""
    judge: Path | None = None
    """Who judges real text: a helpfulness reward model that nothing is tuned on, with heuristics of safety; null: the miniature's oracle."""
    world: WorldConfig = WorldConfig()
    """Whose oracle judges the test prompts."""
    version: str = ""
    """The version that these samples tune; empty: the folder's name."""
    rank: int | None = None
    """Which of `world_size` processes this is, each of which makes a part at OUT.parts; null: RANK, as torchrun sets it, else the only one."""
    world_size: int | None = None
    """How many processes share the prompts; null: WORLD_SIZE, else 1."""
    join: bool = False
    """Only joins: a part that is missing is an error. Without this, what no part holds yet is sampled. What comes of it is to the byte
    what one process would have made."""

    @model_validator(mode="after")
    def _rewards_are_given(self) -> "RejectConfig":
        demand_rewards(self.combination, self.helpfulness, self.safety)
        return self


def run(config: RejectConfig, out: Path, seed: int) -> Artifact:
    """Writes samples.jsonl (all candidates), best.jsonl (this version's best), dialogues.jsonl (the pool, ready for tuning) and
    judged.jsonl (what best-of-N brings on each test prompt); a rank of several writes its part of the candidates. Raises UserError."""
    from ..core.device import take_own_gpu
    from ..rlhf.rejection import PoolRow

    if not config.prompts and not config.judged_prompts:
        raise UserError("neither prompts nor judged_prompts given; name at least one file of prompts")
    share = share_of(config.rank, config.world_size, config.join)
    take_own_gpu()
    folder = model_path(config.model)
    rewarding = reward_paths(config.combination, config.helpfulness, config.safety)
    judging = judge_paths(config.judge, *rewarding)
    files, judged_files = data_files(config.prompts, "prompts.jsonl"), data_files(config.judged_prompts, "prompts.jsonl")
    pool_files = data_files(config.pool, "best.jsonl")
    assistant, judges = answering(folder, rewarding, config.bits)
    prompts, test_prompts = (prompts_of(some, assistant, optional=not some) for some in (files, judged_files))
    earlier = [PoolRow.of(row, f"{file} line {number}") for file in pool_files for number, row in read_rows(file)]
    parents = parents_of([*(described_by(path) for path in (folder, *rewarding, *judging)), *files, *judged_files, *pool_files])
    place_of_share = share.place(out)
    with building(place_of_share, kind="samples", stage="reject", config=share.noted(config), parents=parents, seed=seed) as place:
        parts = parts_of(out, place, config.join)
        rewards = rewards_of(config.combination, judges, config.gate)
        sampler = _Sampler(config, assistant, rewards, place, share, parts, seed)
        chunks, tests = sampler.chunks("prompts", prompts, config.k), sampler.chunks("judged prompts", test_prompts, config.judged_k)
        if share.whole:
            tally = _Tally(folder, config.version or out.name)
            write_rows(place.folder / "samples.jsonl", tally.counted(chunks))
            _demand_answers(tally, config, place)
            _write_pool(tally.best, earlier, rewards, place)
            judged = _judged_rows([row for rows in tests for row in rows], test_prompts, config, judging) if test_prompts else []
            write_rows(place.folder / "judged.jsonl", judged)
            place.metrics.update(tally.metrics(config), **place.metrics, **_best_of_curve(judged))
            if judging and judged:
                place.metrics["judge"] = about_judge(judging[0])
        else:
            done = sum(len(rows) for some in (chunks, tests) for rows in some)
            keep_chunks(place)
            place.metrics.update(rank=share.rank, world_size=share.world_size, prompts=done)
    return open_artifact(place_of_share, "samples")


@dataclass(frozen=True)
class _Sampler:
    config: RejectConfig
    assistant: "Assistant"
    rewards: "Rewards"
    place: Workplace
    share: Share
    parts: Parts
    seed: int

    def chunks(self, name: str, prompts: "Sequence[Prompt]", k: int) -> Iterator[list[dict[str, Any]]]:
        """Rows of K candidates to each prompt of this share, chunk by chunk."""
        from ..rlhf.rejection import sample_answers

        config = self.config
        samplings = [
            SamplingConfig(
                temperature=temperature, top_p=config.top_p, top_k=config.top_k, min_p=config.min_p,
                repetition_penalty=config.repetition_penalty, max_new_tokens=config.max_new_tokens,
            )
            for temperature in config.temperatures or (config.temperature,)
        ]  # fmt: skip

        def work(chunk: "Sequence[Prompt]", first: int) -> list[dict[str, Any]]:
            return sample_answers(self.assistant, self.rewards, chunk, first, k, samplings, self.seed)

        return chunked(self.place.state / name, prompts, config.chunk_prompts, self.parts.work(name, work), self.share)


@dataclass
class _Tally:
    """What is kept of the candidates while they pass: the best answers and counts."""

    model: Path
    version: str
    prompts: int = 0
    candidates: int = 0
    unusable: Counter[str] = field(default_factory=Counter)
    drawn: Counter[float] = field(default_factory=Counter)
    best: "list[PoolRow]" = field(default_factory=list)

    def counted(self, chunks: Iterable[list[dict[str, Any]]]) -> Iterator[dict[str, Any]]:
        from ..checkpoints.adapted import base_artifact
        from ..rlhf.rejection import best_rows

        model_hash = base_artifact(self.model).hash
        for rows in chunks:
            items = [item for row in rows for item in row["candidates"]]
            self.prompts += len(rows)
            self.candidates += len(items)
            self.unusable.update(item["unusable"] for item in items if item["unusable"])
            self.drawn.update(item["temperature"] for item in items)
            self.best += best_rows(rows, self.version, model_hash)
            yield from rows

    def metrics(self, config: RejectConfig) -> dict[str, Any]:
        chosen = Counter(row.lineage["temperature"] for row in self.best)
        found = {
            "prompts": self.prompts, "candidates": self.candidates, "unusable": dict(sorted(self.unusable.items())),
            "without_answer": self.prompts - len(self.best),
        }  # fmt: skip
        if len(config.temperatures) > 1:
            found["chosen_by_temperature"] = {f"{at:g}": rate(chosen[at], len(self.best)) for at in sorted(self.drawn)}
        return found


def _demand_answers(tally: _Tally, config: RejectConfig, place: Workplace) -> None:
    """Raises UserError when no prompt has an answer that may become data; there is nothing then to go on from."""
    if tally.prompts and not tally.best:
        shutil.rmtree(place.state)
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in tally.unusable.most_common())
        raise UserError(
            f"{config.model}: none of {tally.candidates:,} answers to {tally.prompts:,} prompts may become data ({reasons}); "
            f"raise max_new_tokens ({config.max_new_tokens}) if they are unfinished, or tune the model on answers that end"
        )


def _write_pool(newest: "Sequence[PoolRow]", earlier: "Sequence[PoolRow]", rewards: "Rewards", place: Workplace) -> None:
    from ..rlhf.rejection import pooled, tuning_row

    pool: Pool = pooled(earlier, newest, rewards)
    write_rows(place.folder / "best.jsonl", (row.to_row() for row in newest))
    write_rows(place.folder / "dialogues.jsonl", map(tuning_row, pool.rows))
    place.metrics["pool"] = dict(sorted(Counter(row.version for row in pool.rows).items()))
    place.metrics["pool_left_out"] = {"equal answers": pool.equal_answers, "worse answers": pool.beaten, "too long": pool.too_long}


def _judged_rows(
    rows: Sequence[dict[str, Any]], prompts: "Sequence[Prompt]", config: RejectConfig, judging: Sequence[Path]
) -> list[dict[str, Any]]:
    """For each judged prompt and N = 1, 2, 4 ... and `judged_k`: `best_of`, the judge's score of the pick, and `max_reward` and
    `median_reward`, the highest and the median combined logit of the first N.

    Where none of the first N may be picked, the first one counts, and an unusable answer has the lowest logit of all, so that
    every N is judged on the same prompts.
    """
    from ..rlhf.rejection import best_of, candidates_of

    lowest = min((item.logit for row in rows for item in candidates_of(row) if item.logit is not None), default=0.0)
    counts = sorted({*(2**power for power in range(config.judged_k.bit_length())), config.judged_k})
    picks = [{str(n): best_of(candidates[:n]) or candidates[0] for n in counts} for candidates in map(candidates_of, rows)]
    texts = [(index, text) for index, own in enumerate(picks) for text in dict.fromkeys(pick.text for pick in own.values())]
    scores = judge_of(judging, config.world).worth_all([prompts[index] for index, _ in texts], [text for _, text in texts])
    score = dict(zip(texts, scores, strict=True))
    judged = []
    for index, (row, prompt) in enumerate(zip(rows, prompts, strict=True)):
        candidates = candidates_of(row)
        logits = [lowest if item.logit is None else item.logit for item in candidates]
        judged.append({
            "prompt": prompt.dialogue.asked,
            "best_of": {n: score[index, pick.text] for n, pick in picks[index].items()},
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
    if "rank" in metrics:
        ranks = f"rank {metrics['rank']} of {metrics['world_size']}"
        return f"{ranks} sampled its {metrics['prompts']:,} prompts; once all ranks have, the same command with --join makes the whole"
    pool = sum(metrics["pool"].values())
    curve, judge = metrics.get("best_of", {}), "judge" if "judge" in metrics else "oracle"
    picks = ", ".join(f"{n}: {figure['value']:.2f}" for n, figure in curve.items() if figure["value"] is not None)
    left_out = ", ".join(f"{count:,} {reason}" for reason, count in metrics["unusable"].items())
    answers = f"{metrics['candidates']:,} answers" + (f" ({left_out})" if left_out else "")
    sampled = f"{answers} to {metrics['prompts']:,} prompts, pool of {pool:,}" if metrics["prompts"] else ""
    return "; ".join(filter(None, (sampled, f"{judge} of best of {picks}" if picks else "")))
