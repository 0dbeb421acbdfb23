"""Reward models (paper.md section 5): comparisons to a scalar head on a chat checkpoint, with accuracy by grade and domain."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from ..core.artifacts import Artifact, building, model_path, open_artifact
from ..core.config import Config
from ..core.errors import UserError
from ..core.files import write_rows
from ..core.seeds import python_rng, seed_for
from ..data.inputs import described_by, parents_of
from ..measures.intervals import Figure, pooled
from ..model.config import ModelConfig
from ..model.memory import FLOAT, Pass, forward_buffers, parameters, widest
from ..train.config import OptimizerConfig
from ..train.memory import Moment, Trained, step_moments
from .common import Paths, SomePaths, data_files, finish_model

if TYPE_CHECKING:
    from ..data.records import Preference
    from ..tokenizer.sentencepiece import Tokenizer


TESTED_TOKENS = 8192
"""Tokens that held-out comparisons are scored in at a time, as in `reward/model.py`."""


class RewardSettings(Config):
    """How a reward model is trained; defaults are the paper's where it prints them."""

    margin: Literal["none", "small", "large"] = "small"
    """Margin by grade (table 27); which one the paper's final model used is not printed."""
    safety_weight: float = Field(1.0, ge=0)
    """Weight of the auxiliary loss on safety labels (safety model only; not printed in the paper)."""
    other_share: float = Field(1.0, ge=0)
    """Comparisons of the other domain for each one of the own (the paper: 1 for helpfulness, about 0.11 for safety)."""
    epochs: float = Field(1.0, gt=0)
    """Passes over the comparisons; more than one over-fits, says the paper."""
    most_pairs: int | None = Field(None, ge=1)
    """Comparisons of the mix that are trained on, drawn if there are more; null: all of them."""
    batch_pairs: int = Field(512, ge=1)
    """Comparisons per step."""
    micro_pairs: int = Field(32, ge=1)
    """Comparisons per forward pass."""
    test_share: float = Field(0.1, gt=0, lt=1)
    """Share of the data held out for testing when no test files are given."""
    optimizer: OptimizerConfig = OptimizerConfig(lr=1e-5, warmup_steps=5, warmup_share=0.03)
    """AdamW and schedule."""


class RewardConfig(RewardSettings):
    """Settings and inputs."""

    model: Path
    """The chat model whose trunk it starts from: a folder, RUN or RUN:VERSION."""
    data: SomePaths
    """Files of preferences, or folders that hold preferences.jsonl."""
    test: Paths = ()
    """Files of held-out preferences; empty: a share of `data`."""
    domain: Literal["helpfulness", "safety"]
    """Which reward model this is."""


def run(config: RewardConfig, out: Path, seed: int) -> Artifact:
    """Trains a reward model and tests it (tested.jsonl has every held-out comparison); comparisons longer than the context are left out and counted.

    Raises UserError for bad rows and when no comparison is of its domain.
    """
    from ..checkpoints.huggingface import HuggingFaceFiles, load_model
    from ..core.device import best_device
    from ..model.transformer import scorer_from
    from ..reward.accuracy import accuracy_report, comparison_rows
    from ..reward.model import RewardModel
    from ..reward.pairs import encode_pair, fitting, mix, pair_loss, some_of
    from ..train.batches import epochs, split, steps_in
    from ..train.loop import train

    folder = model_path(config.model)
    files = data_files(config.data, "preferences.jsonl")
    test_files = data_files(config.test, "test.jsonl")
    rows, tests, contradicting = _comparisons(config, files, test_files, seed)
    language_model, tokenizer = load_model(folder, best_device())
    scorer = scorer_from(language_model)
    del language_model  # its trunk was copied: as much memory again
    model = RewardModel(scorer, tokenizer)
    # Left out before mixing, so that the shares of the mix are those that are trained on.
    kept, tested = fitting(rows, model), fitting(tests, model)
    mixed = some_of(mix(kept, config.domain, config.other_share, seed), config.most_pairs, seed)
    pairs = [encode_pair(preference, model, config.margin) for preference in mixed]
    if not pairs:
        raise UserError(
            f"all comparisons of domain {config.domain} are longer than the model's context ({scorer.config.context}); shorten them"
        )
    safety_weight = config.safety_weight if config.domain == "safety" else 0.0

    def batches(standing: Any) -> Iterator[tuple[list[Sequence[int]], Any]]:
        for indices, position in epochs(len(pairs), config.batch_pairs, seed_for(seed, "reward", config.domain), standing):
            yield split(indices, config.micro_pairs), position

    parents = parents_of([described_by(folder), *files, *test_files])
    with building(out, kind="reward-model", stage="reward", config=config, parents=parents, seed=seed) as place:
        done = train(
            scorer, lambda micro: pair_loss(scorer, [pairs[index] for index in micro], safety_weight), batches,
            total_steps=steps_in(config.epochs, len(pairs), config.batch_pairs), config=config.optimizer,
            files=HuggingFaceFiles(scorer, tokenizer), state=place.state, metrics=place.log,
            label=f"{config.domain} reward",
        )  # fmt: skip
        judged = comparison_rows(model, tested)
        write_rows(place.folder / "tested.jsonl", judged)
        place.metrics.update(
            domain=config.domain, pairs=len(pairs), test_pairs=len(tested), steps=done.steps, loss=done.loss,
            dropped_unsafe_chosen_over_safe=contradicting, dropped_too_long=len(rows) + len(tests) - len(kept) - len(tested),
            accuracy=accuracy_report(judged, config.domain), annotator_agreement=_annotator_agreement(test_files, config.domain),
        )  # fmt: skip
        finish_model(place, scorer, tokenizer, f"{out.name}: {config.domain} reward model", place.metrics)
    return open_artifact(out, "reward-model")


def _comparisons(
    config: RewardConfig, files: Sequence[Path], test_files: Sequence[Path], seed: int
) -> "tuple[list[Preference], list[Preference], int]":
    """What is trained on, what is tested on, and how many were left out since the unsafe answer was chosen over the safe one."""
    from ..data.records import read_preferences

    read, read_tests = ([row for file in some for row in read_preferences(file)] for some in (files, test_files))
    rows, tests = ([row for row in some if not row.contradicts] for some in (read, read_tests))
    contradicting = len(read) + len(read_tests) - len(rows) - len(tests)
    if not any(row.domain == config.domain for row in rows):
        domains = sorted({row.domain for row in rows})
        raise UserError(f"no comparison of domain {config.domain} in {', '.join(map(str, files))} (found {', '.join(domains) or 'none'})")
    if not test_files:
        rows, tests = _held_out(rows, config.test_share, seed)
    if not any(row.domain == config.domain for row in rows):
        raise UserError(
            f"all comparisons of domain {config.domain} are held out for testing; give --test FILE, or comparisons of more prompts"
        )
    return rows, tests, contradicting


def _held_out(rows: Sequence[Any], share: float, seed: int) -> tuple[list[Any], list[Any]]:
    """Training and test comparisons; all comparisons of one prompt stay on one side."""
    prompts = list(dict.fromkeys(row.prompt for row in rows))
    chosen = set(python_rng(seed, "reward", "test").sample(range(len(prompts)), max(1, round(share * len(prompts)))) if prompts else [])
    test = {prompt for index, prompt in enumerate(prompts) if index in chosen}
    return [row for row in rows if row.prompt not in test], [row for row in rows if row.prompt in test]


def _annotator_agreement(test_files: Sequence[Path], domain: str) -> dict[str, Figure]:
    """How often the annotators agreed with their noiseless selves on the test comparisons, in all and by grade.

    Empty where the comparisons come from people.
    """
    found = [artifact.metrics["agreement"][domain] for artifact in parents_of(test_files).values() if "agreement" in artifact.metrics]
    return {name: pooled([one[name] for one in found]) for name in found[0]} if found else {}


def headline(artifact: Artifact) -> str:
    """What came out, in one line."""
    own, other = artifact.metrics["accuracy"]["own"], artifact.metrics["accuracy"]["other"]

    def percent(figure: dict[str, Any]) -> str:
        return "-" if figure["value"] is None else f"{figure['value']:.0%}"

    grades = " ".join(percent(own[grade]) for grade in ("significantly", "better", "slightly", "negligibly"))
    dropped = {name: artifact.metrics[f"dropped_{name.replace(' ', '_')}"] for name in ("too long", "unsafe chosen over safe")}
    left_out = "".join(f", {count:,} {name}" for name, count in dropped.items() if count)
    return f"{artifact.metrics['pairs']:,} pairs{left_out}, accuracy {percent(own['all'])} (by grade {grades}; other domain {percent(other['all'])})"


def passes(config: RewardConfig, shape: ModelConfig, tokenizer: "Tokenizer", seed: int) -> tuple[list[list[Pass]], int]:
    """Forward passes of each step, as `run` would do them on its data, and how many steps there are. Raises UserError as it does."""
    import torch

    from ..model.transformer import Scorer
    from ..reward.model import RewardModel
    from ..reward.pairs import encode_pair, fitting, mix, some_of
    from ..train.batches import epochs, split, steps_in

    files = data_files(config.data, "preferences.jsonl")
    rows, _, _ = _comparisons(config, files, data_files(config.test, "test.jsonl"), seed)
    with torch.device("meta"):
        model = RewardModel(Scorer(shape), tokenizer)
    mixed = some_of(mix(fitting(rows, model), config.domain, config.other_share, seed), config.most_pairs, seed)
    if not mixed:
        raise UserError(f"all comparisons of domain {config.domain} are longer than the model's context ({shape.context}); shorten them")
    pairs = [encode_pair(preference, model, config.margin) for preference in mixed]
    steps, found = steps_in(config.epochs, len(pairs), config.batch_pairs), []
    for indices, _ in epochs(len(pairs), config.batch_pairs, seed_for(seed, "reward", config.domain), None):
        micro = [[pairs[index] for index in part] for part in split(indices, config.micro_pairs)]
        found.append([Pass(tuple(map(len, [*(p.chosen for p in part), *(p.rejected for p in part)])), 2 * len(part)) for part in micro])
        if len(found) == steps:
            return found, steps
    raise AssertionError("epochs are endless")


def assumed_passes(config: RewardSettings, context: int) -> list[Pass]:
    """Those of a step in which every dialogue is `context` tokens long."""
    sizes = [min(config.micro_pairs, config.batch_pairs - start) for start in range(0, config.batch_pairs, config.micro_pairs)]
    return [Pass((context,) * (2 * size), 2 * size) for size in sizes]


def memory(config: RewardSettings, shape: ModelConfig, step: Sequence[Pass], first_only: bool) -> list[Moment]:
    """The fullest moments. `first_only`: there is one step alone, before whose end the optimizer holds nothing."""
    model = Trained(shape, scorer=True)
    copied = Moment("copying the trunk", {"weights": model.weights, "copies": parameters(shape) * FLOAT})
    optimizer = model.optimizer(config.optimizer)
    moments = [
        moment.beside(weights=model.weights, optimizer=0 if first_only else optimizer)
        for moment in step_moments(model, widest(step), len(step) > 1)
    ]
    stepping = Moment("optimizer's step", {"weights": model.weights, "gradients": model.gradients, "optimizer": optimizer})
    most = max(1, TESTED_TOKENS // shape.context) * (min(shape.context, TESTED_TOKENS),)
    testing = {"weights": model.weights, "gradients": model.gradients, "activations": forward_buffers(shape, Pass(most, len(most)))}
    return [copied, *moments, stepping, Moment("testing", testing)]
