"""Models at work: a conversation, one answer, scores, figures."""

from pathlib import Path
from typing import Any

from .common import Settings, Text, built, encode_output


def chat(
    model: str,
    *,
    system: Text | None = None,
    temperature: float = 0.6,
    top_p: float = 0.9,
    max_new_tokens: int = 256,
    seed: int | None = None,
) -> None:
    """Talk to a model in the terminal.

    Parameters
    ----------
    model
        A folder, RUN (its newest version), RUN:VERSION, or an endpoint http(s)://host/v1#name.
    system
        System text.
    temperature
        0 takes the most likely token.
    top_p
        Nucleus.
    max_new_tokens
        Longest answer.
    seed
        For the same answers again.
    """
    from ..stages.chat import ChatConfig
    from ..stages.chat import run as run_chat

    run_chat(built(ChatConfig, model=model, system=system, seed=seed, sampling=_sampling(temperature, top_p, max_new_tokens)))


def generate(
    model: str, *, prompt: Text, raw: bool = False, system: Text | None = None, max_new_tokens: int = 256,
    temperature: float = 0.6, top_p: float = 0.9, seed: int = 0,
) -> None:  # fmt: skip
    """Print the answer to one prompt, and nothing else.

    Parameters
    ----------
    model
        A folder, RUN (its newest version), RUN:VERSION, or an endpoint http(s)://host/v1#name.
    prompt
        What the user says; with --raw, text to continue.
    raw
        Without the chat format; an empty prompt starts from the beginning-of-sequence id alone.
    system
        System text.
    max_new_tokens
        Longest answer.
    temperature
        0 takes the most likely token.
    top_p
        Nucleus.
    seed
        For the same answer again.
    """
    from ..stages.generate import GenerateConfig
    from ..stages.generate import run as run_generate

    run_generate(built(
        GenerateConfig, model=model, prompt=prompt, raw=raw, system=system, seed=seed,
        sampling=_sampling(temperature, top_p, max_new_tokens),
    ))  # fmt: skip


def score(reward_model: str, file: Path) -> None:
    """Print the dialogues of a file with their "score" (0 to 1) and "logit".

    Parameters
    ----------
    reward_model
        Folder of a reward model, or RUN:NAME.
    file
        Dialogues that end with an assistant, as JSON lines.
    """
    from ..core.device import set_threads
    from ..stages.score import run as run_score

    set_threads()
    encode_output(encoding="utf-8")
    for line in run_score(reward_model, file):
        print(line)


def evaluate(
    model: str, *settings: Settings, tasks: str | None = None, out: Path | None = None, config: Path | None = None, seed: int = 0
) -> None:
    """Measure a chat model in the miniature; figures as JSON.

    Parameters
    ----------
    model
        A folder, RUN or RUN:VERSION.
    tasks
        Some of helpfulness, safety, borderline, people, ghost, rewards, samples, with commas between.
    out
        Folder for evaluation.json and rows.jsonl (default: figures are printed only).
    config
        YAML file of settings.
    seed
        Where the sampling starts.
    """
    import tempfile

    from ..core.config import build, merged, parse_overrides, read_yaml
    from ..core.device import set_threads
    from ..stages.evaluate import EvaluateConfig
    from ..stages.evaluate import run as run_evaluate

    given = parse_overrides(settings) | {"model": model} | ({} if tasks is None else {"tasks": tasks})
    checked = build(EvaluateConfig, merged(read_yaml(config) if config else {}, given))
    set_threads()
    with tempfile.TemporaryDirectory() as beside:
        artifact = run_evaluate(checked, out or Path(beside) / "evaluation", seed)
        print((artifact.path / "evaluation.json").read_text(encoding="utf-8"), end="")


def _sampling(temperature: float, top_p: float, max_new_tokens: int) -> dict[str, Any]:
    return {"temperature": temperature, "top_p": top_p, "max_new_tokens": max_new_tokens}
