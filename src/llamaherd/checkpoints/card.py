"""The model card: `README.md` of a model folder. What it is, how it was made, what is known of it so far, what it is for."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from ..model.config import LoraConfig, ModelConfig

Task = Literal["text-generation", "text-classification"]

USE = (
    "To study and to teach how such models are made, and as a part of later stages. Nothing here says that it is fit for any other",
    "use; who wants one tests it for that use first.",
)
LIMITS = (
    "It knows what its training data says and nothing after it, states wrong things as surely as right ones, and understands no",
    "language but those it was trained on. It can be brought to answer unsafely and can refuse what is harmless. A reward model scores",
    "as its annotators chose, with their errors, and is no judge of other models. Figures measured on the prompts of one world do not",
    "carry over to another.",
)


def model_card(
    title: str, task: Task, config: ModelConfig, parameters: int, made: Mapping[str, Any], facts: Mapping[str, Any],
    library: Literal["transformers", "llamaherd"] = "transformers",
) -> str:  # fmt: skip
    """`made`: stage, seed and `parents` (name to hash); `facts`: the stage's own metrics, known before any evaluation; `library`: what
    loads it.
    """
    shape = (
        f"{parameters:,} parameters: width {config.dim:,}, {config.layers} layers, {config.heads} heads that share {config.kv} key-value heads,",
        f"vocabulary {config.vocab_size:,}, context {config.context:,} tokens.",
    )
    about = (f"A Llama-architecture model made by llamaherd, loadable with `{library}`.", *shape)
    return _page((f"library_name: {library}", f"pipeline_tag: {task}"), title, about, made, facts)


def adapter_card(
    title: str, task: Task, base: str, config: LoraConfig, parameters: int, made: Mapping[str, Any], facts: Mapping[str, Any]
) -> str:
    """As model_card, of an adapter to `base`."""
    about = (
        "A LoRA adapter made by llamaherd, loadable with `peft`; it changes a base and is nothing without it.",
        f"Base: {base}, whose hash `manifest.json` has. {parameters:,} parameters: rank {config.r}, alpha {config.alpha:g}, on",
        f"{', '.join(config.names)}.",
    )
    return _page(("library_name: peft", f"pipeline_tag: {task}"), title, about, made, facts)


def _page(front: Sequence[str], title: str, about: Sequence[str], made: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    plain = {name.replace("_", " "): value for name, value in facts.items() if isinstance(value, (str, int, float)) or _is_figure(value)}
    parents = ", ".join(f"{name} ({str(digest)[:12]})" for name, digest in made["parents"].items())
    lines = [
        "---", *front, "---", "", f"# {title}", "", *about, "",
        "## How it was made", "", f"- stage: {made['stage']}", f"- from: {parents}", f"- seed: {made['seed']}",
        "- all settings, and the hash of every input and file: `manifest.json` beside this page", "",
        "## What its making measured", "", *(f"- {name}: {_text(value)}" for name, value in plain.items()), "",
        "What it can do is measured by an evaluation, which comes later and stands in a folder of its own.", "",
        "## What it is for", "", *USE, "", "## Limits", "", *LIMITS,
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _is_figure(value: Any) -> bool:
    return isinstance(value, Mapping) and value.keys() == {"value", "low", "high", "n"}


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return (
            "not measured" if value["value"] is None else f"{value['value']:.3g} (95% interval {value['low']:.3g} to {value['high']:.3g})"
        )
    if isinstance(value, float):
        return f"{value:.4g}"
    return (
        f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else value if isinstance(value, str) else json.dumps(value)
    )
