"""An adapter folded into its base: one model again, in the type that the base is stored in, and how far its answers drift by that."""

from math import prod
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from ..core.artifacts import Artifact, building, find_artifact, model_path, open_artifact, resolve
from ..core.config import Config
from ..core.errors import UserError
from ..core.files import write_text

TEXT = (
    "A lighthouse keeper writes down the weather every evening. Today the wind came from the west, the sea was rough, and two fishing "
    "boats returned before noon with 340 kilograms of herring.\n\nQuestion: Why did they return so early? Answer: Because the waves were "
    "too high for their nets. She closed the book, lit the lamp, and waited for the night ferry; it was late, as it often is in November."
)
"""What drift is measured on when no other text is given."""


class MergeConfig(Config):
    """What is folded into what."""

    model: Path
    """The base: the one that the adapter was trained on."""
    adapter: Path
    """Folder of an adapter that llamaherd or peft wrote."""
    into: Literal["base", "dequantised"] | None = None
    """base: the weights as they are stored; dequantised: what four bits leave of them. null: whichever the adapter was trained on."""
    max_drift: float = Field(0.05, ge=0)
    """Largest mean difference of log-probabilities, in nats, between base with adapter and merged model."""
    text: Path | None = None
    """Text to measure on, as much of it as fits the context; null: a short one that comes along."""


def run(config: MergeConfig, out: Path, seed: int) -> Artifact:
    """Writes the merged model weight by weight: memory for one block. A reward model's adapter makes a whole reward model. Raises UserError
    when the two do not belong together, or when the merged model drifts further than `max_drift`; nothing is left behind then.
    """
    from ..checkpoints.adapted import as_trained, base_artifact, bits_of, demand_base, demand_tokenizer, dequantised, drift, folded, headed
    from ..checkpoints.card import Task, model_card
    from ..checkpoints.huggingface import write_hugging_face
    from ..checkpoints.peft import is_adapter, read_adapter
    from ..checkpoints.source import intact, open_source

    base, folder = model_path(config.model), resolve(config.adapter)
    adapter, bits = read_adapter(folder), bits_of(folder)
    if is_adapter(base):
        raise UserError(f"{base}: is an adapter; expected its base, such as {read_adapter(base).base or 'the model it was trained on'}")
    demand_base(folder, base)
    source = open_source(base)
    if source.kind != "model":
        raise UserError(f"{base}: architecture LlamaForSequenceClassification, expected LlamaForCausalLM (a language model)")
    demand_tokenizer(source, folder)
    into = config.into or ("dequantised" if bits == 4 else "base")
    merged = folded(dequantised(source) if into == "dequantised" else source, adapter)
    ids = _ids(config.text, source)
    parents = {"base": base_artifact(base), "adapter": base_artifact(folder)}
    with building(out, kind=merged.kind, stage="merge", config=config, parents=parents, seed=seed) as place, intact(base):
        write_hugging_face(merged, place.folder)
        found = drift(headed(as_trained(bits)(source), adapter), adapter, open_source(place.folder), ids)
        if found["drift_mean_nats"] > config.max_drift:
            trained = "the base in 4 bits" if bits == 4 else "the base as it is stored"
            raise UserError(
                f"the merged model drifts by {found['drift_mean_nats']:.3g} nats on average ({found['drift_max_nats']:.3g} at most), "
                f"more than max_drift {config.max_drift:g}; the adapter was trained on {trained}: merge --into "
                f"{'dequantised' if bits == 4 else 'base'}, or raise --max-drift"
            )
        place.metrics.update(found, into=into, trained_on_bits=bits, **_domain(folder))
        parameters = sum(map(prod, merged.shapes.values()))
        title = f"{out.name}: {base.name} with {folder.name} merged in"
        task: Task = "text-generation" if merged.kind == "model" else "text-classification"
        write_text(place.folder / "README.md", model_card(title, task, source.config, parameters, place.made, place.metrics))
    return open_artifact(out, merged.kind)


def _domain(adapter: Path) -> dict[str, str]:
    """What a reward model's manifest declares it to judge, for the manifest of the merged one."""
    found = find_artifact(adapter)
    return {"domain": found.metrics["domain"]} if found and "domain" in found.metrics else {}


def _ids(file: Path | None, source: Any) -> list[int]:
    """As much of the text as fits the context. Raises UserError for a file that holds none."""
    from ..evaluation.perplexity import read_text

    ids = [source.tokenizer.bos_id, *source.tokenizer.encode(read_text(file) if file else TEXT)]
    return ids[: source.config.context]


def headline(artifact: Artifact) -> str:
    """What came out, in one line."""
    found, scores = artifact.metrics, artifact.kind == "reward-model"
    same = "" if scores else f"; the likeliest token is the same for {found['same_likeliest']:.1%}"
    return (
        f"merged into the {'base' if found['into'] == 'base' else 'dequantised base'}; {'scores' if scores else 'log-probabilities'} drift by "
        f"{found['drift_mean_nats']:.2g} {'logits' if scores else 'nats'} on average, {found['drift_max_nats']:.2g} at most, over {found['measured_tokens']} tokens{same}"
    )
