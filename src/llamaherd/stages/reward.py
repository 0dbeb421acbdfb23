"""Reward models (paper.md section 5): comparisons to a scalar head on a chat checkpoint, with a report of what came of it.

All weights are trained, or with `lora` an adapter and the head on a frozen base, in 4 bits if so wished.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from ..core.artifacts import Artifact, Workplace, building, model_path, open_artifact
from ..core.config import Config
from ..core.errors import UserError
from ..core.files import write_json, write_rows, write_text
from ..core.seeds import python_rng, seed_for
from ..data.inputs import described_by, parents_of
from ..data.preferences import PREFERENCES_FILE
from ..losses.margins import Margin
from ..measures.intervals import Figure, pooled
from ..model.config import BaseConfig, LoraConfig, ModelConfig
from ..model.memory import FLOAT, Frozen, Pass, forward_buffers, parameters, widest
from ..train.config import OptimizerConfig
from ..train.memory import Moment, Trained, step_moments
from .common import Paths, SomePaths, data_files, finish_adapter, finish_model

if TYPE_CHECKING:
    from ..data.records import Preference
    from ..model.transformer import Scorer
    from ..reward.model import RewardModel
    from ..reward.pairs import Pair
    from ..tokenizer.sentencepiece import Tokenizer
    from ..train.loop import LossSum
    from ..train.loop import Source as Batches
    from ..train.state import ModelFiles


TESTED_TOKENS = 8192
"""Tokens that held-out comparisons are scored in at a time, as in `reward/model.py`."""


class RewardSettings(Config):
    """How a reward model is trained; defaults are the paper's where it prints them."""

    margin: Margin = "small"
    """Margin by grade (table 27); which one the paper's final model used is not printed."""
    safety_weight: float = Field(1.0, ge=0)
    """Weight of the auxiliary loss on safety labels (safety model only; not printed in the paper)."""
    unlabelled: Literal["safe"] | None = None
    """What the auxiliary loss takes the answers of helpfulness comparisons without labels for: safe, or null: nothing. A safety model that
    sees no harmless answer labelled safe learns a gate that fires on harmless prompts."""
    mix: Literal["own", "all", "helpfulness", "safety", "open"] | None = None
    """What it learns from, by name: own comparisons alone, all, the paper's two mixes (section 5), or published ones alone (a general
    model, to guard the others against drift); null: own ones and `other_share` of the other domain."""
    other_share: float = Field(1.0, ge=0)
    """With no mix named: comparisons of the other domain for each one of the own (the paper: 1 for helpfulness, about 0.11 for safety)."""
    rest_share: float | None = Field(None, ge=0)
    """With a mix named: comparisons of the rest for each one that is taken in any case; null: the paper's, 1 for helpfulness and a ninth for
    safety, and none for the others."""
    open_sources: tuple[str, ...] | None = None
    """The sources in the data that others published, as opposed to comparisons collected for this model."""
    shares: dict[str, Annotated[float, Field(ge=0)]] | None = None
    """How much of a source or of a domain goes into the mix, by its name (0.5: half of it, seeded; 2: twice); others: all."""
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
    checkpointing: bool = False
    """Blocks keep only their input and are run again for the gradient: the same result, less memory, about a third more time."""
    bad_rows: Literal["refuse", "leave out"] | None = None
    """Rows that hold no comparison to learn from (ties, empty or equal answers, tags ...); null: refused where the row is of our own schema, left out and counted where it is of another form."""


class RewardConfig(RewardSettings):
    """Settings and inputs."""

    model: Path
    """The chat model whose trunk it starts from: a folder, RUN or RUN:VERSION."""
    data: SomePaths
    """Files of preferences in our schema or any form of docs/preferences.md, or folders that hold preferences.jsonl."""
    test: Paths = ()
    """Files of held-out preferences; empty: a share of `data`."""
    domain: Literal["helpfulness", "safety"]
    """Which reward model this is, and the domain of comparisons that state none."""
    lora: LoraConfig | None = None
    """An adapter and the head to train in place of all weights, such as --lora.r=16; null: none."""
    base: BaseConfig = BaseConfig()
    """What an adapter is trained on."""

    @model_validator(mode="after")
    def _fits_together(self) -> "RewardConfig":
        if self.lora is None and self.base.bits != 32:
            raise ValueError(f"base.bits {self.base.bits} is for a frozen base under an adapter; add --lora.r=16, or leave it out")
        if self.lora is not None and "output" in self.lora.names:
            raise ValueError("lora.layers: a reward model has no vocabulary head; leave `output` out")
        if self.mix in ("helpfulness", "safety") and self.mix != self.domain:
            raise ValueError(
                f"mix {self.mix} is that of the {self.mix} model, and domain is {self.domain}; give mix {self.domain}, all or own"
            )
        if self.mix == "open" and not self.open_sources:
            raise ValueError("mix open needs the names of the published sources, such as --open_sources=[webgpt,hh]")
        if self.mix is None and self.rest_share is not None:
            raise ValueError("rest_share is for a mix with a name; give --mix, or other_share")
        return self


@dataclass(frozen=True)
class Started:
    """What is trained, how it goes to disk, and what becomes of it."""

    model: "RewardModel"
    files: "ModelFiles"
    described: Sequence[Path]
    parents: Mapping[str, Artifact]
    finish: Callable[[Workplace, str], None]


def run(config: RewardConfig, out: Path, seed: int) -> Artifact:
    """Trains a reward model and tests it: tested.jsonl has every held-out comparison, report.json and report.html what came of them;
    comparisons longer than the context are left out, counted, and named in left-out.jsonl.

    Raises UserError for bad rows and when no comparison is of its domain.
    """
    from ..core.device import best_device
    from ..reward.accuracy import accuracy_report, comparison_rows
    from ..reward.mixes import mix_report
    from ..reward.pairs import encode_pair, fitting, too_long
    from ..train.batches import steps_in
    from ..train.loop import train
    from ..train.optimizer import demand_optimizer

    demand_optimizer(config.optimizer, best_device())
    folder = model_path(config.model)
    files = data_files(config.data, PREFERENCES_FILE)
    test_files = data_files(config.test, "test.jsonl")
    rows, tests, contradicting, unread = _comparisons(config, files, test_files, seed)
    started = _adapter(folder, config.lora, config.base.bits, seed) if config.lora else _all_weights(folder)
    parents = parents_of([*started.described, *files, *test_files], **started.parents)
    model = started.model
    model.scorer.checkpointing = config.checkpointing
    # Left out before mixing, so that the shares of the mix are those that are trained on.
    kept, tested = fitting(rows, model), fitting(tests, model)
    left_out = [*too_long(rows, kept, model, "train"), *too_long(tests, tested, model, "test")]
    mixed = _mixed(config, kept, seed) if kept else []
    pairs = [encode_pair(preference, model, config.margin) for preference in mixed]
    if not pairs:
        raise UserError(_all_too_long(config.domain, model.scorer.config.context))
    with building(out, kind="reward-model", stage="reward", config=config, parents=parents, seed=seed) as place:
        done = train(
            model.scorer, _loss(config, model.scorer, pairs), _batches(config, len(pairs), seed),
            total_steps=steps_in(config.epochs, len(pairs), config.batch_pairs), config=config.optimizer,
            files=started.files, state=place.state, metrics=place.log, label=f"{config.domain} reward",
        )  # fmt: skip
        judged = comparison_rows(model, tested)
        write_rows(place.folder / "tested.jsonl", judged)
        if left_out:
            write_rows(place.folder / "left-out.jsonl", left_out)
        _report(place.folder, out.name, judged, config.domain)
        place.metrics.update(
            domain=config.domain, pairs=len(pairs), test_pairs=len(tested), steps=done.steps, loss=done.loss,
            dropped_unsafe_chosen_over_safe=contradicting, dropped_too_long=len(left_out), mix=mix_report(mixed, config.domain),
            accuracy=accuracy_report(judged, config.domain), annotator_agreement=_annotator_agreement(test_files, config.domain),
        )  # fmt: skip
        if unread:
            place.metrics["left_out"] = unread
        if seen := _also_trained_on(mixed, tested):
            place.metrics["test_prompts_trained_on"] = seen
        started.finish(place, f"{out.name}: {config.domain} reward model")
    return open_artifact(out, "reward-model")


def _all_weights(folder: Path) -> Started:
    from ..checkpoints.huggingface import HuggingFaceFiles, load_model
    from ..core.device import best_device
    from ..model.transformer import scorer_from
    from ..reward.model import RewardModel

    language_model, tokenizer = load_model(folder, best_device())
    scorer = scorer_from(language_model)
    del language_model  # its trunk was copied: as much memory again

    def finish(place: Workplace, title: str) -> None:
        finish_model(place, scorer, tokenizer, title, place.metrics)

    return Started(RewardModel(scorer, tokenizer), HuggingFaceFiles(scorer, tokenizer), [described_by(folder)], {}, finish)


def _adapter(folder: Path, lora: LoraConfig, bits: int, seed: int) -> Started:
    from ..checkpoints.adapted import base_artifact, load_frozen
    from ..checkpoints.peft import AdapterFiles
    from ..core.device import best_device
    from ..model.lora import add_adapter, new_changes
    from ..model.transformer import scorer_on
    from ..reward.model import RewardModel

    base, tokenizer = load_frozen(folder, bits, best_device())
    scorer = scorer_on(base)
    add_adapter(scorer, "reward", new_changes(scorer, lora, seed), lora.scale, lora.dropout)
    scorer.score.requires_grad_(True)
    files = AdapterFiles(scorer, "reward", lora, str(folder))

    def finish(place: Workplace, title: str) -> None:
        finish_adapter(place, files, tokenizer, f"{title}, as an adapter", place.metrics)

    return Started(RewardModel(scorer, tokenizer), files, [], {"base": base_artifact(folder)}, finish)


def _mixed(config: RewardConfig, rows: "Sequence[Preference]", seed: int) -> "list[Preference]":
    """What is learned from, as the settings declare it. Raises UserError for sources that are not there."""
    from ..reward.mixes import assumed_safe, declared_mix, mix, some_of, taken

    if config.unlabelled == "safe":
        rows = assumed_safe(rows)
    rows = taken(rows, config.shares or {}, seed)
    if config.mix is None:
        mixed = mix(rows, config.domain, config.other_share, seed)
    else:
        mixed = declared_mix(rows, config.domain, config.mix, config.open_sources or (), config.rest_share, seed)
    return some_of(mixed, config.most_pairs, seed)


def _loss(config: RewardConfig, scorer: "Scorer", pairs: "Sequence[Pair]") -> "Callable[[Any], LossSum]":
    """Of micro-batches of pairs, by their indices."""
    from ..reward.pairs import pair_loss

    safety_weight = config.safety_weight if config.domain == "safety" else 0.0

    def loss(micro: Sequence[int]) -> "LossSum":
        part = pair_loss(scorer, [pairs[index] for index in micro], safety_weight)
        part.flops *= 2 / 3 if config.lora else 1.0  # a frozen base needs no gradients of weights
        return part

    return loss


def _batches(config: RewardConfig, pairs: int, seed: int) -> "Batches":
    import torch

    from ..train.batches import epochs, split

    def batches(standing: Any) -> Iterator[tuple[list[Sequence[int]], Any]]:
        for indices, position in epochs(pairs, config.batch_pairs, seed_for(seed, "reward", config.domain), standing):
            if config.lora:  # dropout of a step depends on which step it is, and so not on where training was interrupted
                torch.manual_seed(seed_for(seed, "dropout", position["epoch"], position["start"]))
            yield split(indices, config.micro_pairs), position

    return batches


def _report(folder: Path, name: str, judged: Sequence[Mapping[str, Any]], domain: str) -> None:
    """Writes report.json and report.html of the tested comparisons."""
    from ..report.reward_page import reward_page
    from ..reward.report import reward_report

    found = {"models": {name: reward_report(judged, domain)}, "agreement": {}}  # type: ignore[arg-type]
    write_json(folder / "report.json", found)
    write_text(folder / "report.html", reward_page(found))


def _all_too_long(domain: str, context: int) -> str:
    return f"all comparisons of domain {domain} are longer than the model's context ({context}); shorten them"


def _comparisons(
    config: RewardConfig, files: Sequence[Path], test_files: Sequence[Path], seed: int
) -> "tuple[list[Preference], list[Preference], int, dict[str, int]]":
    """What is trained on, what is tested on, how many were left out since the unsafe answer was chosen over the safe one, and what
    else was, by reason."""
    from ..data.preferences import Counts, read_comparisons

    counts = Counts()
    read, read_tests = (
        [row for file in some for row in read_comparisons(file, config.domain, counts, config.bad_rows)] for some in (files, test_files)
    )
    rows, tests = ([row for row in some if not row.contradicts] for some in (read, read_tests))
    contradicting = len(read) + len(read_tests) - len(rows) - len(tests)
    if not any(row.domain == config.domain for row in rows):
        domains = sorted({row.domain for row in rows})
        left_out = f"; left out: {counts.reasons}" if counts.left_out else ""
        raise UserError(
            f"no comparison of domain {config.domain} in {', '.join(map(str, files))} (found {', '.join(domains) or 'none'}){left_out}"
        )
    if not test_files:
        rows, tests = _held_out(rows, config.test_share, seed)
    if not any(row.domain == config.domain for row in rows):
        raise UserError(
            f"all comparisons of domain {config.domain} are held out for testing; give --test FILE, or comparisons of more prompts"
        )
    return rows, tests, contradicting, dict(counts.left_out)


def _held_out(rows: Sequence[Any], share: float, seed: int) -> tuple[list[Any], list[Any]]:
    """Training and test comparisons; all comparisons of one prompt stay on one side."""
    prompts = list(dict.fromkeys(row.prompt for row in rows))
    chosen = set(python_rng(seed, "reward", "test").sample(range(len(prompts)), max(1, round(share * len(prompts)))) if prompts else [])
    test = {prompt for index, prompt in enumerate(prompts) if index in chosen}
    return [row for row in rows if row.prompt not in test], [row for row in rows if row.prompt in test]


def _also_trained_on(rows: "Sequence[Preference]", tests: "Sequence[Preference]") -> int:
    """How many test comparisons have a prompt that is trained on, which only test files of one's own can bring about."""
    prompts = {row.prompt for row in rows}
    return sum(row.prompt in prompts for row in tests)


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
    named = {"too long": " (left-out.jsonl names them)"}
    unread = {**dropped, **artifact.metrics.get("left_out", {})}
    left_out = "".join(f", {count:,} {name}{named.get(name, '')}" for name, count in unread.items() if count)
    settings = artifact.manifest["config"]
    if settings["mix"] == "safety" and settings["safety_weight"] and not artifact.metrics["mix"]["safe_helpfulness"]:
        left_out += ", no helpfulness pair labelled safe (its gate may fire on harmless prompts; --unlabelled=safe takes them for safe)"
    if seen := artifact.metrics.get("test_prompts_trained_on"):
        left_out += f", {seen:,} of {artifact.metrics['test_pairs']:,} test comparisons have a prompt that was trained on"
    return f"{artifact.metrics['pairs']:,} pairs{left_out}, accuracy {percent(own['all'])} (by grade {grades}; other domain {percent(other['all'])})"


def passes(config: RewardConfig, shape: ModelConfig, tokenizer: "Tokenizer", seed: int) -> tuple[list[list[Pass]], int]:
    """Forward passes of each step, as `run` would do them on its data, and how many steps there are. Raises UserError as it does."""
    import torch

    from ..model.transformer import Scorer
    from ..reward.model import RewardModel
    from ..reward.pairs import encode_pair, fitting
    from ..train.batches import epochs, split, steps_in

    files = data_files(config.data, PREFERENCES_FILE)
    rows, *_ = _comparisons(config, files, data_files(config.test, "test.jsonl"), seed)
    with torch.device("meta"):
        model = RewardModel(Scorer(shape), tokenizer)
    kept = fitting(rows, model)
    pairs = [encode_pair(preference, model, config.margin) for preference in (_mixed(config, kept, seed) if kept else [])]
    if not pairs:
        raise UserError(_all_too_long(config.domain, shape.context))
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


def memory(config: RewardConfig, shape: ModelConfig, step: Sequence[Pass], first_only: bool, on_gpu: bool = False) -> list[Moment]:
    """The fullest moments. `first_only`: there is one step alone, before whose end the optimizer holds nothing."""
    frozen = Frozen(config.lora, config.base.bits) if config.lora else None
    model = Trained(shape, scorer=True, frozen=frozen, checkpointing=config.checkpointing, on_gpu=on_gpu)
    copied = Moment("copying the trunk", {"weights": model.weights, "copies": 0 if frozen else parameters(shape) * FLOAT})
    optimizer = model.optimizer(config.optimizer)
    moments = [
        moment.beside(weights=model.weights, optimizer=0 if first_only else optimizer)
        for moment in step_moments(model, widest(step), len(step) > 1)
    ]
    stepping = Moment("optimizer's step", {"weights": model.weights, "gradients": model.gradients, "optimizer": optimizer})
    most = max(1, TESTED_TOKENS // shape.context) * (min(shape.context, TESTED_TOKENS),)
    testing = {
        "weights": model.weights,
        "gradients": model.gradients,
        "activations": forward_buffers(shape, Pass(most, len(most)), model.item),
    }
    return [copied, *moments, stepping, Moment("testing", testing)]
