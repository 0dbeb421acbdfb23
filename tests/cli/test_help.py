"""Help: at once, without torch, with every setting and its default."""

import subprocess
import sys

import pytest

from llamaherd.cli import STAGES

COMMANDS = [
    *STAGES,
    "run",
    "claims",
    "data stats",
    "data show",
    "data preferences",
    "score",
    "evaluate",
    "chat",
    "generate",
    "convert",
    "data",
    "tokenizer",
    "",
]


def test_help_of_every_command_imports_no_torch():
    code = (
        "import sys\nfrom llamaherd.cli import main\n"
        "for command in sys.argv[1:]:\n"
        "    main([*command.split(), '--help'])\n"
        "    assert 'torch' not in sys.modules, command\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *COMMANDS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_help_comes_within_a_second(busy_seconds):
    tries = (busy_seconds([sys.executable, "-m", "llamaherd.cli", "run", "--help"]) for _ in range(9))  # a busy machine slows some
    assert any(0 < seconds < 1 for seconds in tries)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["run"], ["--pretrain.steps=int", "--sft.optimizer.lr=float", "[miniature]", "--out"]),
        (["claims"], ["--claims.hot_lr=float", "[miniature]", "--seeds", "[default: 0,1,2]", "--out"]),
        (["data", "build"], ["--documents=list of Path", "[needed]", "--dedup.threshold=float", "[0.8]", "--out", "--config"]),
        (["ppo"], ["--ppo.clip=float", "Policy ratios outside", "[0.2]"]),
        (["sft"], ["--model=Path", "--epochs=float", "[2.0]"]),
        (["evaluate"], ["--tasks", "--ghost_turns=list of int"]),
        (["generate"], ["--prompt", "--raw", "--max-new-tokens", "[default: 256]"]),
    ],
)
def test_settings_with_types_meanings_and_defaults(command, words, expected):
    outcome = command(*words, "--help")
    assert outcome.code == 0
    text = " ".join(outcome.out.replace("default: miniature", "miniature").split())
    assert [part for part in expected if part not in text] == []


def test_help_for_a_recipe_shows_its_values(command):
    def steps_line(recipe):
        return next(line for line in command("run", recipe, "--help").out.splitlines() if "--pretrain.steps=" in line)

    assert steps_line("tiny") != steps_line("miniature")


def test_the_short_form_and_no_command(command):
    assert command("ppo", "-h").out == command("ppo", "--help").out
    assert "Usage: llamaherd COMMAND" in command().out
