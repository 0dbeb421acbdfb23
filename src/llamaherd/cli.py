"""The commands. Each imports what it needs when it is called, so that help and a finished run answer at once."""

import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cyclopts import App, CycloptsError, Parameter

from .commands import adapters, health, hub, models, plan, recipes, serve, shrink, talk
from .commands import data as looks
from .commands import keys as holders
from .commands.common import Settings, encode_output, packaged, settings_file
from .core.errors import UserError

_PLAIN: dict[str, Any] = {"help_format": "plaintext", "result_action": "return_value", "suppress_keyboard_interrupt": False}
# An option that may be given several times needs no second one that empties it.
_ONCE = Parameter(negative_iterable=())
app = App(
    name="llamaherd",
    default_parameter=_ONCE,
    help="The whole Llama 2 recipe: pretraining, chat tuning, reward models, RLHF, safety, evaluation.",
    **_PLAIN,
)
data = App(name="data", help="Documents, shards and a look at what is trained.", **_PLAIN)
tokenizer = App(name="tokenizer", help="The vocabulary.", **_PLAIN)
keys = App(name="keys", help="Who may ask a server: keys by name.", **_PLAIN)
app.command(data)
app.command(tokenizer)
app.command(keys)
for _command in (
    recipes.run, recipes.claims, health.doctor, health.versions, plan.plan, talk.chat, talk.generate, talk.score, talk.evaluate,
    models.convert, shrink.quantize, adapters.merge, hub.download, hub.upload,
):  # fmt: skip
    app.command(_command)
app.command(serve.serve, usage="Usage: llamaherd serve MODEL [MODEL ...] [OPTIONS]")
for _look in (looks.stats, looks.show, looks.preferences):
    data.command(_look)
keys.command(holders.add)
keys.command(holders.listed, name="list")
keys.command(holders.remove)


class Stage(NamedTuple):
    """A command that builds one artifact."""

    module: str
    settings: str
    about: str
    trains: bool = True
    """Whether it runs a model, and so fixes torch's threads first."""
    announces: bool = False
    """Whether it says what it will hold in memory before it starts."""


STAGES = {
    "pretrain": Stage("pretrain", "PretrainConfig", "Train a base model: --shards DIR --out DIR."),
    "sft": Stage("sft", "SftConfig", "Tune a model on dialogues: --model MODEL --data FILE --out DIR."),
    "reward": Stage(
        "reward", "RewardConfig", "Train a reward model on preferences: --model MODEL --data FILE --domain helpfulness|safety --out DIR."
    ),
    "reward-report": Stage(
        "reward_report",
        "RewardReportConfig",
        "What reward models are worth on comparisons: --model REWARD_MODEL [--against OTHER] [--data FILE] --out DIR.",
    ),
    "reject": Stage("reject", "RejectConfig", "Sample K answers to each prompt and keep the best in the pool: --config FILE --out DIR."),
    "curves": Stage(
        "curves",
        "CurvesConfig",
        "Score the best and the median of N answers over N and temperature: --model MODEL --prompts FILE --out DIR.",
    ),
    "ppo": Stage("ppo", "PpoStageConfig", "Tune a chat model by PPO on two reward models: --config FILE --out DIR.", announces=True),
    "ghost": Stage("ghost", "GhostConfig", "Make Ghost Attention dialogues: --config FILE --out DIR."),
    "distill": Stage("distill", "DistillConfig", "Make safety dialogues by context distillation: --config FILE --out DIR."),
    "data build": Stage("corpus", "CorpusConfig", "Clean and deduplicate documents into a corpus: --documents FILE --out DIR.", False),
    "data shards": Stage("shards", "ShardsConfig", "Encode a corpus into token shards: --corpus DIR --tokenizer DIR --out DIR.", False),
    "data texts": Stage("texts", "TextsConfig", "Real text from the public files that LLAMAHERD_DATA holds: --out DIR.", False),
    "data comparisons": Stage(
        "comparisons", "ComparisonsConfig", "People's comparisons from the public files, in parts: --out DIR.", False
    ),
    "data prompts": Stage("prompts", "PromptsConfig", "Prompts to tune on and to test with from the public files: --out DIR.", False),
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

        checked = load(_of_stage(stage.module, stage.settings), settings_file(config, stage.module), settings)
        if stage.trains:
            set_threads()
        if stage.announces:
            print(*_of_stage(stage.module, "announced")(checked, seed), sep="\n", flush=True)
        artifact = _of_stage(stage.module, "run")(checked, out, seed)
        print(f"{out}: {_of_stage(stage.module, 'headline')(artifact)}")

    names = ", ".join(packaged(stage.module))
    run_stage.__doc__ = f"""{stage.about}

    Parameters
    ----------
    out
        Folder to write; it must not exist yet.
    config
        YAML file of settings{f", or the name of packaged ones: {names}" if names else ""}.
    seed
        Where all randomness starts.
    """
    return run_stage


for _name, _stage in STAGES.items():
    _group, _, _verb = _name.rpartition(" ")
    # Without a flag of its own, --version is a stage's setting.
    {"": app, "data": data, "tokenizer": tokenizer}[_group].command(_stage_command(_stage), name=_verb, version_flags=())


def _settings_help(tokens: Sequence[str]) -> str:
    """The settings of the command that `... --help` asks about, as text; empty for a command without any."""
    from .core.config import describe

    words = [token for token in tokens if not token.startswith("-")]
    command = next(
        (name for name in (" ".join(words[:2]), *words[:1]) if name in (*STAGES, "run", "claims", "evaluate", "doctor", "serve")), None
    )
    if command is None:
        return ""
    if command in ("run", "claims"):
        from .recipe.config import load_recipe

        recipe = load_recipe(words[1] if len(words) > 1 else "miniature")
        rows = describe(type(recipe), defaults=recipe)
    elif command == "doctor":
        from .doctor.config import Thresholds

        rows = describe(Thresholds)
    elif command == "serve":
        from .serve.config import ServeConfig

        rows = describe(ServeConfig)
    else:
        stage = STAGES.get(command)
        rows = describe(_of_stage(stage.module, stage.settings) if stage else _of_stage(*_evaluated(tokens)))
    rows.sort(key=lambda row: row[1] != "needed")  # what has to be given stands first
    width = min(46, max(len(name) for name, _, _ in rows))
    return "Settings (in --config, or here):\n" + "\n".join(f"  {name:{width}}  {about} [{default}]" for name, default, about in rows)


def _evaluated(tokens: Sequence[str]) -> tuple[str, str]:
    """The stage that `evaluate` stands for here, and its settings."""
    from .stages import benchmark, judge

    words = {word for token in tokens for word in token.removeprefix("--tasks=").split(",")}
    for module, settings, tasks in (("judge", "JudgeConfig", judge.TASKS), ("benchmark", "BenchmarkConfig", benchmark.TASKS)):
        if words & {*tasks}:
            return module, settings
    return "evaluate", "EvaluateConfig"


def main(tokens: Sequence[str] | None = None) -> None:
    """Runs one command; every user error is one message on standard error and exit code 2, a failing disk or system 1."""
    arguments = list(sys.argv[1:] if tokens is None else tokens)
    # What a terminal cannot show does not end a run, an answer or a table.
    encode_output(errors="backslashreplace")
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


def _fail(message: str, code: int) -> None:
    print(f"llamaherd: {message}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
