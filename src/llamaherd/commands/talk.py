"""Models at work: a conversation, one answer, scores, figures."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from .common import Settings, Text, Texts, built, encode_output

if TYPE_CHECKING:
    from ..core.artifacts import Artifact


@Parameter(name="*")
@dataclass(frozen=True)
class Sampling:
    """How an answer is sampled; the same options for every command that answers.

    Parameters
    ----------
    temperature
        0 takes the most likely token.
    top_p
        Nucleus.
    top_k
        Only so many of the likeliest tokens; 0 for all.
    min_p
        Only tokens with at least this share of the likeliest one's probability.
    repetition_penalty
        Above 1: what was said becomes less likely.
    stop
        Text that ends an answer, which is cut before it; may be given several times.
    max_new_tokens
        Longest answer.
    """

    temperature: float = 0.6
    top_p: float = 0.9
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    stop: Texts = ()
    max_new_tokens: int = 256


USUAL = Sampling()


def chat(
    model: str,
    *,
    system: Text | None = None,
    sampling: Sampling = USUAL,
    seed: int | None = None,
    adapter: list[str] | None = None,
    overflow: Literal["drop-turns", "refuse"] = "drop-turns",
    invariant: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Talk to a model in the terminal.

    Parameters
    ----------
    model
        A folder, RUN (its newest version), RUN:VERSION, or an endpoint http(s)://host/v1#name.
    system
        System text.
    seed
        For the same answers again.
    adapter
        NAME=DIR or DIR of an adapter to the model; given several times, /adapter NAME switches.
    overflow
        When the context is full: leave out the oldest turns (the system text stays), or refuse the message.
    invariant
        The same bits whatever else a model would do at once: a fixed number of slots, slower and with more memory.
    """
    from ..stages.chat import ChatConfig
    from ..stages.chat import run as run_chat

    run_chat(built(
        ChatConfig, model=model, system=system, seed=seed, adapters=adapter or [], overflow=overflow, invariant=invariant,
        sampling=asdict(sampling),
    ))  # fmt: skip


def generate(
    model: str, *, prompt: Text, raw: bool = False, system: Text | None = None, sampling: Sampling = USUAL, seed: int = 0,
    adapter: list[str] | None = None, history: Path | None = None,
    overflow: Literal["drop-turns", "refuse"] = "refuse", invariant: Annotated[bool, Parameter(negative="")] = False,
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
    seed
        For the same answer again; an endpoint gets its last 31 bits, which every server takes.
    adapter
        NAME=DIR or DIR of an adapter to the model.
    history
        File with one dialogue, as messages or in any other form that sft reads, which the prompt goes on with.
    overflow
        When the context is full: leave out the oldest turns (the system text stays), or refuse the prompt.
    invariant
        The same bits whatever else a model would do at once: a fixed number of slots, slower and with more memory.
    """
    from ..stages.generate import GenerateConfig
    from ..stages.generate import run as run_generate

    run_generate(built(
        GenerateConfig, model=model, prompt=prompt, raw=raw, system=system, seed=seed, adapters=adapter or [],
        sampling=asdict(sampling), history=history, overflow=overflow, invariant=invariant,
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
    """Measure a model: in the miniature, on your own prompts by a judge, or on academic benchmarks; figures as JSON.

    Parameters
    ----------
    model
        A folder, RUN or RUN:VERSION; for tasks with a judge also an endpoint http(s)://host/v1#name.
    tasks
        Some of helpfulness, safety, borderline, people, ghost, rewards, samples, with commas between, of the miniature's prompts or
        your own (--asked DIR --judge REWARD_MODEL, see docs/evaluation.md); or, with a judge, of
        win-rate (--opponent SPEC --judge SPEC --prompts FILE) and judge-accuracy (--data FILE), whose settings
        `evaluate --tasks win-rate --help` lists; or, of any model, of bits-per-byte and stories (--held-out FILE), lambada, boolq,
        piqa, arc-easy, arc-challenge, hellaswag, openbookqa, winogrande, copa (public data) and choices, continuations (--data FILE),
        whose settings `evaluate --tasks piqa --help` lists.
    out
        Folder for evaluation.json and rows.jsonl (default: figures are printed only).
    config
        YAML file of settings.
    seed
        Where the sampling starts.
    """
    import tempfile

    from ..core.config import merged, parse_overrides, read_yaml
    from ..core.device import set_threads

    given = parse_overrides(settings) | {"model": model} | ({} if tasks is None else {"tasks": tasks})
    run_stage = _evaluation(merged(read_yaml(config) if config else {}, given))
    set_threads()
    with tempfile.TemporaryDirectory() as beside:
        artifact = run_stage(out or Path(beside) / "evaluation", seed)
        print((artifact.path / "evaluation.json").read_text(encoding="utf-8"), end="")


def _evaluation(given: dict[str, Any]) -> "Callable[[Path, int], Artifact]":
    """The stage that measures these tasks, with its settings. Raises UserError."""
    from ..core.config import build
    from ..core.errors import UserError
    from ..stages import benchmark, evaluate, judge

    tasks = given.get("tasks") or []
    names = set(tasks.split(",") if isinstance(tasks, str) else tasks)
    known = {"a judge": judge.TASKS, "the miniature": evaluate.TASKS, "a benchmark's items": benchmark.TASKS}
    asked = {what: ", ".join(found) for what, tasks in known.items() if (found := sorted(names & {*tasks}))}
    if len(asked) > 1:
        first, *others = asked.items()
        raise UserError(f"tasks {first[1]} need {first[0]}{''.join(f', and {found} {what}' for what, found in others)}; ask apart")
    if "a judge" in asked:
        judged = build(judge.JudgeConfig, given)
        return lambda out, seed: judge.run(judged, out, seed)
    if "a benchmark's items" in asked:
        measured = build(benchmark.BenchmarkConfig, given)
        return lambda out, seed: benchmark.run(measured, out, seed)
    in_miniature = build(evaluate.EvaluateConfig, given)
    return lambda out, seed: evaluate.run(in_miniature, out, seed)
