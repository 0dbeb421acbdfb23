"""The commands. Each imports what it needs when it is called, so that help and a finished run answer at once."""

import importlib
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, CycloptsError, Parameter

from .core.errors import UserError

app = App(
    name="llamaherd",
    help="The whole Llama 2 recipe: pretraining, chat tuning, reward models, RLHF, safety, evaluation.",
    help_format="plaintext",
    result_action="return_value",
)
data = App(name="data", help="Documents, shards and a look at what is trained.", help_format="plaintext", result_action="return_value")
tokenizer = App(name="tokenizer", help="The vocabulary.", help_format="plaintext", result_action="return_value")
app.command(data)
app.command(tokenizer)

Settings = Annotated[str, Parameter(allow_leading_hyphen=True, show=False)]
"""`--a.b=value` tokens that no parameter takes: overrides of settings."""

STAGES = {
    "pretrain": ("pretrain", "PretrainConfig"),
    "sft": ("sft", "SftConfig"),
    "reward": ("reward", "RewardConfig"),
    "reject": ("reject", "RejectConfig"),
    "ppo": ("ppo", "PpoStageConfig"),
    "ghost": ("ghost", "GhostConfig"),
    "distill": ("distill", "DistillConfig"),
    "data build": ("corpus", "CorpusConfig"),
    "data shards": ("shards", "ShardsConfig"),
    "tokenizer train": ("tokenizer", "TokenizerStageConfig"),
}
"""Commands that build one artifact: their stage module and its settings."""


def _stage(command: str) -> tuple[Any, Any]:
    name, settings = STAGES[command]
    module = importlib.import_module(f".stages.{name}", __package__)
    return module, getattr(module, settings)


def _stage_command(command: str) -> Any:
    def run_stage(*settings: Settings, out: Path, config: Path | None = None, seed: int = 0) -> None:
        from .core.config import load

        module, settings_class = _stage(command)
        checked = load(settings_class, config, settings)
        if module.__name__.rpartition(".")[2] in ("pretrain", "sft", "reward", "reject", "ppo", "ghost", "distill"):
            from .core.device import set_threads

            set_threads()
        artifact = module.run(checked, out, seed)
        print(f"{out}: {module.headline(artifact)}")

    run_stage.__doc__ = f"""{_about(command)}

    Parameters
    ----------
    out
        Folder to write; it must not exist yet.
    config
        YAML file of settings.
    seed
        Where all randomness starts.
    """
    return run_stage


_ABOUT = {
    "pretrain": "Train a base model on token shards.",
    "sft": "Tune a model on dialogues: --model MODEL --data FILE --out DIR.",
    "reward": "Train a reward model on preferences: --model MODEL --data FILE --domain helpfulness|safety --out DIR.",
    "reject": "Sample K answers to each prompt and keep the best in the pool.",
    "ppo": "Tune a chat model by PPO on two reward models.",
    "ghost": "Make Ghost Attention dialogues.",
    "distill": "Make safety dialogues by context distillation.",
    "data build": "Clean and deduplicate documents into a corpus: --documents FILE --out DIR.",
    "data shards": "Encode a corpus into token shards: --corpus DIR --tokenizer DIR --out DIR.",
    "tokenizer train": "Train a vocabulary on a corpus and dialogues: --corpus DIR --out DIR.",
}


def _about(command: str) -> str:
    return _ABOUT[command]


for _command in STAGES:
    _group, _, _verb = _command.rpartition(" ")
    {"": app, "data": data, "tokenizer": tokenizer}[_group].command(_stage_command(_command), name=_verb)


@app.command
def run(recipe: str = "miniature", *settings: Settings, out: Path | None = None) -> None:
    """Run a recipe from documents to the last version and its report, or go on where it was.

    Parameters
    ----------
    recipe
        A packaged name, or a YAML file.
    out
        The run's folder (default: runs/ and the recipe's name).
    """
    from .recipe.config import load_recipe
    from .recipe.run import run_recipe

    if recipe.startswith("--"):
        recipe, settings = "miniature", (recipe, *settings)
    config = load_recipe(recipe, list(settings))
    run_recipe(config, out or Path("runs") / Path(recipe).stem, lambda line: print(line, flush=True))


@data.command
def stats(*files: Path, toxicity: Path | None = None) -> None:
    """Count documents, sources, languages and pronouns of document files, as JSON.

    Parameters
    ----------
    files
        Files of documents, or folders of corpora.
    toxicity
        A safety reward model whose low scores count as toxic.
    """
    import json

    from .data.documents import CORPUS_FILE, read_documents
    from .data.statistics import StatisticsConfig, statistics
    from .stages.common import data_file

    if not files:
        raise UserError("no file given; data stats takes files of documents or folders of corpora")
    if toxicity is not None:
        raise UserError("--toxicity is not available")
    documents = read_documents([data_file(file, CORPUS_FILE) for file in files])
    print(json.dumps(statistics(documents, StatisticsConfig(), 0), indent=2, ensure_ascii=False))


@data.command
def show(file: Path, *, model: str, limit: int | None = None) -> None:
    """Print rows of a file as the model reads them, coloured by what is trained.

    Parameters
    ----------
    file
        Dialogues, prompts, preferences or documents as JSON lines.
    model
        Whose tokenizer: a folder, RUN or RUN:VERSION.
    limit
        How many rows (default: all).
    """
    from .core.artifacts import resolve
    from .data.show import show as show_rows
    from .tokenizer.sentencepiece import Tokenizer

    show_rows(file, Tokenizer.load(resolve(model)), sys.stdout, limit)


@app.command
def score(reward_model: str, file: Path) -> None:
    """Print the dialogues of a file with their "score" (0 to 1) and "logit".

    Parameters
    ----------
    reward_model
        Folder of a reward model, or RUN:NAME.
    file
        Dialogues that end with an assistant, as JSON lines.
    """
    from .core.device import set_threads
    from .stages.score import run as run_score

    set_threads()
    _encode_output(encoding="utf-8")
    for line in run_score(reward_model, file):
        print(line)


@app.command
def evaluate(model: str, *settings: Settings, tasks: str | None = None, out: Path | None = None, config: Path | None = None, seed: int = 0) -> None:
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

    from .core.config import load
    from .core.device import set_threads
    from .stages.evaluate import EvaluateConfig
    from .stages.evaluate import run as run_evaluate

    overrides = [f"--model={model}", *([f"--tasks={tasks}"] if tasks else []), *settings]
    checked = load(EvaluateConfig, config, overrides)
    set_threads()
    with tempfile.TemporaryDirectory() as beside:
        artifact = run_evaluate(checked, out or Path(beside) / "evaluation", seed)
        print((artifact.path / "evaluation.json").read_text(encoding="utf-8"), end="")


@app.command
def chat(model: str, *, system: str | None = None, temperature: float = 0.6, top_p: float = 0.9, max_new_tokens: int = 256, seed: int | None = None) -> None:
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
    from .stages.chat import ChatConfig
    from .stages.chat import run as run_chat

    run_chat(_built(ChatConfig, model=model, system=system, seed=seed, sampling=_sampling(temperature, top_p, max_new_tokens)))


@app.command
def generate(
    model: str, *, prompt: str, raw: bool = False, system: str | None = None, max_new_tokens: int = 256,
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
    from .stages.generate import GenerateConfig
    from .stages.generate import run as run_generate

    run_generate(_built(
        GenerateConfig, model=model, prompt=prompt, raw=raw, system=system, seed=seed,
        sampling=_sampling(temperature, top_p, max_new_tokens),
    ))  # fmt: skip


def _sampling(temperature: float, top_p: float, max_new_tokens: int) -> dict[str, Any]:
    return {"temperature": temperature, "top_p": top_p, "max_new_tokens": max_new_tokens}


def _built(settings: Any, **values: Any) -> Any:
    from .core.config import build

    return build(settings, values)


def _settings_help(tokens: Sequence[str]) -> str:
    """The settings of the stage that `... --help` asks about, as text."""
    words = [token for token in tokens if not token.startswith("-")]
    for length in (2, 1):
        command = " ".join(words[:length])
        if command in STAGES:
            from .core.config import describe

            rows = describe(_stage(command)[1])
            width = min(46, max(len(name) for name, _, _ in rows))
            return "Settings (in --config, or here):\n" + "\n".join(f"  {name:{width}}  {about} [{default}]" for name, default, about in rows)
    return ""


def main(tokens: Sequence[str] | None = None) -> None:
    """Runs one command; every user error is one message on standard error and exit code 2, a failing disk or system 1."""
    arguments = list(sys.argv[1:] if tokens is None else tokens)
    # What a terminal cannot show does not end a run, an answer or a table.
    _encode_output(errors="backslashreplace")
    try:
        app(arguments, exit_on_error=False, print_error=False)
        if "--help" in arguments and (settings := _settings_help(arguments)):
            print(settings)
    except CycloptsError as error:
        _fail(str(error).replace("\n", " "), 2)
    except UserError as error:
        _fail(str(error), 2)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _fail(f"{where}{error.strerror or error}; nothing finished is lost, the same command goes on from here once that is mended", 1)
    except KeyboardInterrupt:
        _fail("stopped; the same command goes on from here", 130)


def _encode_output(**how: str) -> None:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(**how)


def _fail(message: str, code: int) -> None:
    print(f"llamaherd: {message}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
