"""The commands. Each imports what it needs when it is called, so that help and a finished run answer at once."""

import importlib
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from cyclopts import App, CycloptsError, Parameter

from .core.errors import UserError

_PLAIN: dict[str, Any] = {"help_format": "plaintext", "result_action": "return_value", "suppress_keyboard_interrupt": False}
app = App(name="llamaherd", help="The whole Llama 2 recipe: pretraining, chat tuning, reward models, RLHF, safety, evaluation.", **_PLAIN)
data = App(name="data", help="Documents, shards and a look at what is trained.", **_PLAIN)
tokenizer = App(name="tokenizer", help="The vocabulary.", **_PLAIN)
app.command(data)
app.command(tokenizer)

Settings = Annotated[str, Parameter(allow_leading_hyphen=True, show=False)]
"""`--a.b=value` tokens that no parameter takes: overrides of settings."""


Text = Annotated[str, Parameter(allow_leading_hyphen=True)]
"""Words of people, which may begin with a hyphen."""


class Stage(NamedTuple):
    """A command that builds one artifact."""

    module: str
    settings: str
    about: str
    trains: bool = True
    """Whether it runs a model, and so fixes torch's threads first."""


STAGES = {
    "pretrain": Stage("pretrain", "PretrainConfig", "Train a base model: --shards DIR --out DIR."),
    "sft": Stage("sft", "SftConfig", "Tune a model on dialogues: --model MODEL --data FILE --out DIR."),
    "reward": Stage(
        "reward", "RewardConfig", "Train a reward model on preferences: --model MODEL --data FILE --domain helpfulness|safety --out DIR."
    ),
    "reject": Stage("reject", "RejectConfig", "Sample K answers to each prompt and keep the best in the pool: --config FILE --out DIR."),
    "ppo": Stage("ppo", "PpoStageConfig", "Tune a chat model by PPO on two reward models: --config FILE --out DIR."),
    "ghost": Stage("ghost", "GhostConfig", "Make Ghost Attention dialogues: --config FILE --out DIR."),
    "distill": Stage("distill", "DistillConfig", "Make safety dialogues by context distillation: --config FILE --out DIR."),
    "data build": Stage("corpus", "CorpusConfig", "Clean and deduplicate documents into a corpus: --documents FILE --out DIR.", False),
    "data shards": Stage("shards", "ShardsConfig", "Encode a corpus into token shards: --corpus DIR --tokenizer DIR --out DIR.", False),
    "tokenizer train": Stage(
        "tokenizer", "TokenizerStageConfig", "Train a vocabulary on a corpus and dialogues: --corpus DIR --out DIR.", False
    ),
}


def _of_stage(module: str, name: str) -> Any:
    return getattr(importlib.import_module(f".stages.{module}", __package__), name)


def _stage_command(stage: Stage) -> Any:
    def run_stage(*settings: Settings, out: Path, config: Path | None = None, seed: int = 0) -> None:
        from .core.config import load
        from .core.device import set_threads

        checked = load(_of_stage(stage.module, stage.settings), config, settings)
        if stage.trains:
            set_threads()
        artifact = _of_stage(stage.module, "run")(checked, out, seed)
        print(f"{out}: {_of_stage(stage.module, 'headline')(artifact)}")

    run_stage.__doc__ = f"""{stage.about}

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


for _command, _stage in STAGES.items():
    _group, _, _verb = _command.rpartition(" ")
    {"": app, "data": data, "tokenizer": tokenizer}[_group].command(_stage_command(_stage), name=_verb)


@app.command
def run(recipe: Annotated[str, Parameter(allow_leading_hyphen=True)] = "miniature", *settings: Settings, out: Path | None = None) -> None:
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
    run_recipe(load_recipe(recipe, settings), out or Path("runs") / Path(recipe).stem, lambda line: print(line, flush=True))


@app.command
def claims(
    recipe: Annotated[str, Parameter(allow_leading_hyphen=True)] = "miniature",
    *settings: Settings,
    seeds: str = "0,1,2",
    out: Path | None = None,
) -> None:
    """Hold the paper's claims against a recipe: its run for every seed, what the claims need beyond it, and the ledger.

    Parameters
    ----------
    recipe
        A packaged name, or a YAML file.
    seeds
        Seeds with commas between; what is measured is pooled over them.
    out
        Folder of a run for each seed, ledger.json and ledger.html; given again, the command goes on where it was (default:
        runs/claims, of other recipes than the miniature runs/claims- and the recipe's name).
    """
    from .recipe.claims.run import run_claims
    from .recipe.config import load_recipe

    if recipe.startswith("--"):
        recipe, settings = "miniature", (recipe, *settings)
    if any(token.partition("=")[0] == "--seed" for token in settings):
        raise UserError("claims takes --seeds, such as --seeds=0,1,2, and no --seed")
    usual = Path("runs") / ("claims" if recipe == "miniature" else f"claims-{Path(recipe).stem}")
    run_claims(load_recipe(recipe, settings), _seeds(seeds), out or usual, lambda line: print(line, flush=True))


def _seeds(text: str) -> list[int]:
    parts = text.split(",")
    if not all(part.strip().isdecimal() for part in parts) or len(set(map(int, parts))) < len(parts):
        raise UserError(f"--seeds {text!r}: expected different numbers with commas between, such as 0,1,2")
    return list(map(int, parts))


@data.command
def stats(*files: Path) -> None:
    """Count documents, sources, languages and pronouns of document files, as JSON.

    Parameters
    ----------
    files
        Files of documents, or folders of corpora.
    """
    import json

    from .data.documents import CORPUS_FILE, read_documents
    from .data.statistics import StatisticsConfig, statistics
    from .stages.common import data_file

    if not files:
        raise UserError("no file given; data stats takes files of documents or folders of corpora")
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

    if limit is not None and limit < 0:
        raise UserError(f"--limit is {limit}; expected a number of rows")
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

    from .core.config import build, merged, parse_overrides, read_yaml
    from .core.device import set_threads
    from .stages.evaluate import EvaluateConfig
    from .stages.evaluate import run as run_evaluate

    given = parse_overrides(settings) | {"model": model} | ({} if tasks is None else {"tasks": tasks})
    checked = build(EvaluateConfig, merged(read_yaml(config) if config else {}, given))
    set_threads()
    with tempfile.TemporaryDirectory() as beside:
        artifact = run_evaluate(checked, out or Path(beside) / "evaluation", seed)
        print((artifact.path / "evaluation.json").read_text(encoding="utf-8"), end="")


@app.command
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
    from .stages.chat import ChatConfig
    from .stages.chat import run as run_chat

    run_chat(_built(ChatConfig, model=model, system=system, seed=seed, sampling=_sampling(temperature, top_p, max_new_tokens)))


@app.command
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
    """The settings of the command that `... --help` asks about, as text; empty for a command without any."""
    from .core.config import describe

    words = [token for token in tokens if not token.startswith("-")]
    command = next((name for name in (" ".join(words[:2]), *words[:1]) if name in (*STAGES, "run", "claims", "evaluate")), None)
    if command is None:
        return ""
    if command in ("run", "claims"):
        from .recipe.config import RecipeConfig, load_recipe

        rows = describe(RecipeConfig, defaults=load_recipe(words[1] if len(words) > 1 else "miniature"))
    else:
        stage = STAGES.get(command)
        rows = describe(_of_stage(stage.module, stage.settings) if stage else _of_stage("evaluate", "EvaluateConfig"))
    width = min(46, max(len(name) for name, _, _ in rows))
    return "Settings (in --config, or here):\n" + "\n".join(f"  {name:{width}}  {about} [{default}]" for name, default, about in rows)


def main(tokens: Sequence[str] | None = None) -> None:
    """Runs one command; every user error is one message on standard error and exit code 2, a failing disk or system 1."""
    arguments = list(sys.argv[1:] if tokens is None else tokens)
    # What a terminal cannot show does not end a run, an answer or a table.
    _encode_output(errors="backslashreplace")
    try:
        app(arguments, exit_on_error=False, print_error=False)
        if {"--help", "-h"} & set(arguments) and (settings := _settings_help(arguments)):
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
        _fail("stopped; given again, a command with --out goes on from here", 130)


def _encode_output(**how: Any) -> None:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(**how)


def _fail(message: str, code: int) -> None:
    print(f"llamaherd: {message}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
