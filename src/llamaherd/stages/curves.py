"""Where to sample (paper.md section 6, figures 7 and 8): the best and the median of N answers over N and over temperature.

Any chat model, any prompts, any reward models; no oracle.
"""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, model_validator

from ..core.artifacts import Artifact, building, model_path, open_artifact
from ..core.chunks import in_chunks
from ..core.config import Config
from ..core.files import write_rows
from ..core.seeds import seed_for
from ..core.shares import keep_chunks, parts_of, share_of
from ..data.inputs import described_by, parents_of
from ..generate.config import SamplingConfig
from ..measures.calibration import sigmoid
from ..measures.intervals import Figure, mean, of_means_over_seeds, rate
from .common import Bits, How, Numbers, SomePaths, answering, data_files, demand_rewards, prompts_of, reward_paths, rewards_of

if TYPE_CHECKING:
    from ..data.records import Prompt


class CurvesConfig(Config):
    """Settings and inputs."""

    model: Path
    """A chat model: a folder, RUN or RUN:VERSION."""
    prompts: SomePaths
    """Files of prompts."""
    helpfulness: Path | None = None
    """Helpfulness reward model."""
    safety: Path | None = None
    """Safety reward model."""
    combination: How = "gate"
    """What an answer earns: by the piecewise gate over both reward models, or by one of them alone."""
    gate: float = Field(0.15, gt=0, lt=1)
    """Safety scores below this make the gate judge an answer by safety; so does a prompt's tag."""
    samples: int = Field(20, ge=1)
    """N, the most answers to each prompt at each temperature (the paper's figures go to 100)."""
    temperatures: Numbers[Annotated[float, Field(ge=0)]] = Field((0.6, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5), min_length=1)
    """The paper's sweep."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Nucleus."""
    max_new_tokens: int = Field(256, ge=1)
    """Longest answer; an unfinished, empty or too long one earns nothing, as does one with a tag."""
    bits: Bits | None = None
    """As in rejection sampling: of the one base that all models stand on; null: each has weights of its own, in 32."""
    chunk_prompts: int = Field(16, ge=1)
    """Prompts sampled between two saved states."""
    rank: int | None = None
    """As in rejection sampling: which of `world_size` processes this is."""
    world_size: int | None = None
    """How many processes share the prompts."""
    join: bool = False
    """Only joins the parts of all ranks."""

    @model_validator(mode="after")
    def _makes_sense(self) -> "CurvesConfig":
        demand_rewards(self.combination, self.helpfulness, self.safety)
        if len(set(self.temperatures)) < len(self.temperatures):
            raise ValueError(f"temperatures {', '.join(map(str, self.temperatures))}: one stands twice")
        return self


def run(config: CurvesConfig, out: Path, seed: int) -> Artifact:
    """Writes rows.jsonl: for each prompt and temperature the highest and the median score among the first N answers. Raises UserError."""
    from ..core.device import take_own_gpu

    share = share_of(config.rank, config.world_size, config.join)
    take_own_gpu()
    folder = model_path(config.model)
    rewarding = reward_paths(config.combination, config.helpfulness, config.safety)
    files = data_files(config.prompts, "prompts.jsonl")
    assistant, judges = answering(folder, rewarding, config.bits)
    prompts = prompts_of(files, assistant)
    parents = parents_of([*(described_by(path) for path in (folder, *rewarding)), *files])
    with building(share.place(out), kind="samples", stage="curves", config=share.noted(config), parents=parents, seed=seed) as place:
        parts = parts_of(out, place, config.join)
        rewards = rewards_of(config.combination, judges, config.gate)
        rows: list[dict[str, Any]] = []
        for temperature in config.temperatures:

            def work(chunk: "Sequence[Prompt]", first: int, temperature: float = temperature) -> list[dict[str, Any]]:
                from ..rlhf.rejection import sample_answers

                sampling = SamplingConfig(temperature=temperature, top_p=config.top_p, max_new_tokens=config.max_new_tokens)
                found = sample_answers(assistant, rewards, chunk, first, config.samples, sampling, seed_for(seed, "curves"))
                return [{"index": first + place, **_row(row, temperature, config.samples)} for place, row in enumerate(found)]

            name = f"temperature {temperature:g}"
            rows += in_chunks(place.state / name, prompts, config.chunk_prompts, parts.work(name, work), share)
        if share.whole:
            write_rows(place.folder / "rows.jsonl", rows)
            place.metrics.update(_figures(rows, config))
        else:
            keep_chunks(place)
            place.metrics.update(rank=share.rank, world_size=share.world_size, rows=len(rows))
    return open_artifact(share.place(out), "samples")


def counts(samples: int) -> list[int]:
    """N = 1, 2, 4 ... and the most."""
    return sorted({*(2**power for power in range(samples.bit_length())), samples})


def _row(row: dict[str, Any], temperature: float, samples: int) -> dict[str, Any]:
    logits = [item["logit"] for item in row["candidates"]]
    scores = [0.0 if logit is None else sigmoid(logit) for logit in logits]
    return {
        "prompt": row["messages"][-1]["content"], "temperature": temperature, "unusable": logits.count(None),
        "max": {str(n): max(scores[:n]) for n in counts(samples)}, "median": {str(n): statistics.median(scores[:n]) for n in counts(samples)},
    }  # fmt: skip


def _figures(rows: Sequence[dict[str, Any]], config: CurvesConfig) -> dict[str, Any]:
    """Means over prompts, the best temperature at each N, and the curves there."""
    found, names = {}, [str(n) for n in counts(config.samples)]
    for temperature in config.temperatures:
        own = [row for row in rows if row["temperature"] == temperature]
        found[f"{temperature:g}"] = {
            **{what: {n: mean([row[what][n] for row in own]) for n in names} for what in ("max", "median")},
            "unusable": rate(sum(row["unusable"] for row in own), len(own) * config.samples),
        }
    best = {n: _best_temperature(rows, config.temperatures, n) for n in names}
    there = found[f"{best[names[-1]]['value']:g}"]
    return {
        "best_temperature": best[names[-1]], "best_temperature_by_n": best, "max_score": there["max"], "median_score": there["median"],
        "by_temperature": found,
    }  # fmt: skip


def _best_temperature(rows: Sequence[dict[str, Any]], temperatures: Sequence[float], n: str) -> Figure:
    """Where the best of N earns most, bootstrapped over prompts; the lowest of equals."""
    earned: dict[str, list[float]] = {}
    for row in rows:  # temperature by temperature, in the settings' order
        earned.setdefault(str(row["index"]), []).append(row["max"][n])
    return of_means_over_seeds([earned], lambda means: temperatures[int(means.argmax())])


def headline(artifact: Artifact) -> str:
    """What came out, in one line."""
    metrics = artifact.metrics
    if "rank" in metrics:
        return (
            f"rank {metrics['rank']} of {metrics['world_size']} is done; once all ranks are, the same command with --join makes the whole"
        )
    best, curve = metrics["best_temperature"], metrics["max_score"]
    *_, most = curve
    rise = ", ".join(f"{n}: {figure['value']:.3f}" for n, figure in curve.items())
    return (
        f"best temperature {best['value']:g} ({best['low']:g} to {best['high']:g}) for the best of {most} answers to {best['n']:,} prompts; "
        f"score there by N: {rise}; median of {most}: {metrics['median_score'][most]['value']:.3f}"
    )
