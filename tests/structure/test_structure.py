"""The house rules, read from the source: levels, sizes, settings, words and calls that have no place in it.

Every check is a function from source text to complaints, so that it can be shown bad examples too.
"""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "llamaherd"
FILES = sorted(PACKAGE.rglob("*.py"))

LEVELS = {
    "core": 0,
    "tokenizer": 1, "model": 1, "losses": 1, "measures": 1,
    "chat": 2, "generate": 2, "train": 2,
    "checkpoints": 3, "data": 3,
    "assistant": 4, "reward": 4,
    "rlhf": 5, "annotate": 5, "evaluation": 5, "miniature": 5, "report": 5, "doctor": 5,
    "stages": 6, "serve": 6,
    "recipe": 7, "plan": 7,
    "commands": 8, "cli": 9, "__main__": 10,
}  # fmt: skip

MOST_FILE_LINES, MOST_FUNCTION_LINES, MOST_SETTINGS, SELF_EVIDENT_LINES = 400, 60, 25, 6

WORDS = re.compile(r"\b(TODO|FIXME|NotImplementedError|placeholder|for now)\b", re.IGNORECASE)
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
FORBIDDEN_CALLS = {"eval", "exec", "torch.load", "torch.save", "__import__"}
FORBIDDEN_ARGUMENTS = {"trust_remote_code": True, "weights_only": False, "allow_pickle": True, "shell": True}

READS_PICKLES = "src/llamaherd/checkpoints/pth.py"
SERVES_OTHERS = "src/llamaherd/serve/worker.py"
"""Where one request that fails, however it does, must not end those beside it."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def imported(source: str, module: str) -> Iterator[tuple[int, str]]:
    """(line, absolute name) of everything that `module` (`llamaherd.a.b`) imports from the package, lazily or not."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = module.split(".")[: -node.level] if node.level else []
            start = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{start}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from ((node.lineno, name) for name in names if name.split(".")[0] == "llamaherd")


def import_complaints(source: str, module: str) -> list[str]:
    """Imports of a higher level, of a sibling folder, or of one stage by another."""
    folder, *rest = module.split(".")[1:]
    if folder not in LEVELS:
        return [f"{module}: {folder!r} stands on no level"]
    found = []
    for line, name in imported(source, module):
        target, *inner = name.split(".")[1:] or [""]
        where = f"{module} line {line}: imports {name}"
        if target not in LEVELS:
            found.append(f"{where}, which stands on no level")
        elif target != folder and LEVELS[target] >= LEVELS[folder]:
            found.append(f"{where} of level {LEVELS[target]} from level {LEVELS[folder]}")
        elif target == folder == "stages" and inner[:1] != ["common"] and inner[:1] != rest[:1]:
            found.append(f"{where}; stages meet in artifacts, not in imports")
    return found


def size_complaints(source: str, name: str) -> list[str]:
    """Files, functions and settings that are too long to be read at one go."""
    lines = source.count("\n")
    found = [f"{name}: {lines} lines"] if lines > MOST_FILE_LINES else []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, Function):
            length = (node.end_lineno or 0) - node.lineno + 1
            if length > MOST_FUNCTION_LINES:
                found.append(f"{name} line {node.lineno}: {node.name} has {length} lines")
        elif isinstance(node, ast.ClassDef):
            settings = sum(isinstance(item, ast.AnnAssign) for item in node.body)
            if settings > MOST_SETTINGS:
                found.append(f"{name} line {node.lineno}: {node.name} has {settings} fields")
    return found


def is_settings(node: ast.stmt) -> bool:
    return isinstance(node, ast.ClassDef) and any(ast.unparse(base) == "Config" for base in node.bases)


def settings_complaints(source: str, name: str) -> list[str]:
    """Settings without a docstring under them."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef) and is_settings(node):
            for item, after in zip(node.body, [*node.body[1:], None], strict=True):
                told = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str)
                if isinstance(item, ast.AnnAssign) and not told and not ast.unparse(item.annotation).startswith("ClassVar"):
                    found.append(f"{name} line {item.lineno}: {node.name}.{ast.unparse(item.target)} has no docstring")
    return found


def weights_alone(call: ast.Call, name: str) -> bool:
    """The one way to read a pickle: in the module that looks at it first, and with a literal `weights_only=True`."""
    literal = any(
        word.arg == "weights_only" and isinstance(word.value, ast.Constant) and word.value.value is True for word in call.keywords
    )
    return ast.unparse(call.func) == "torch.load" and name == READS_PICKLES and literal


def danger_complaints(source: str, name: str) -> list[str]:
    """Ways to run code that came as data, and nets that catch every error."""
    found = []
    for node in ast.walk(ast.parse(source)):
        bad: list[str] = []
        if isinstance(node, ast.Import):
            bad = [alias.name for alias in node.names if alias.name.split(".")[0] in FORBIDDEN_MODULES]
        elif isinstance(node, ast.ImportFrom):
            bad = [node.module] if node.module and not node.level and node.module.split(".")[0] in FORBIDDEN_MODULES else []
            bad += [f"{node.module}.{alias.name}" for alias in node.names if f"{node.module}.{alias.name}" in FORBIDDEN_CALLS]
        elif isinstance(node, ast.Call):
            bad = [ast.unparse(node.func)] if ast.unparse(node.func) in FORBIDDEN_CALLS and not weights_alone(node, name) else []
            bad += [
                f"{word.arg}={ast.unparse(word.value)}"
                for word in node.keywords
                if word.arg in FORBIDDEN_ARGUMENTS
                and isinstance(word.value, ast.Constant)
                and word.value.value is FORBIDDEN_ARGUMENTS[word.arg]
            ]
        elif isinstance(node, ast.ExceptHandler):
            caught = ast.unparse(node.type) if node.type else "everything"
            raises = any(isinstance(inner, ast.Raise) and inner.exc is None for inner in ast.walk(node))
            bad = (
                [f"except {caught}"]
                if caught in ("everything", "Exception", "BaseException") and not raises and name != SERVES_OTHERS
                else []
            )
        found += [f"{name} line {node.lineno}: {what}" for what in bad]  # type: ignore[attr-defined]
    return found


def word_complaints(source: str, name: str) -> list[str]:
    """Words that promise work instead of doing it."""
    return [f"{name} line {number}: {line.strip()}" for number, line in enumerate(source.splitlines(), 1) if WORDS.search(line)]


def docstring_complaints(source: str, name: str) -> list[str]:
    """Modules, and public functions and classes of more than a few lines, that do not say what they are for.

    Settings are told field by field.
    """
    tree = ast.parse(source)
    found = [] if ast.get_docstring(tree) or not source else [f"{name}: has no docstring"]
    for node in tree.body:
        if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_") and not is_settings(node):
            length = (node.end_lineno or 0) - node.lineno + 1
            if length > SELF_EVIDENT_LINES and not ast.get_docstring(node):
                found.append(f"{name} line {node.lineno}: {node.name} has no docstring")
    return found


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


CHECKS = [size_complaints, settings_complaints, danger_complaints, word_complaints, docstring_complaints]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removesuffix("_complaints"))
def test_every_file_keeps_the_rule(check) -> None:  # type: ignore[no-untyped-def]
    found = [complaint for path in FILES for complaint in check(path.read_text("utf-8"), path.relative_to(ROOT).as_posix())]
    assert not found, "\n".join(found)


def test_a_folder_imports_from_lower_levels_only() -> None:
    modules = [path for path in FILES if path.name != "__init__.py"]
    found = [complaint for path in modules for complaint in import_complaints(path.read_text("utf-8"), module_name(path))]
    assert not found, "\n".join(found)


def test_package_files_are_empty_and_every_folder_has_one() -> None:
    folders = {path.parent for path in FILES}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").exists()] == []
    assert [str(path) for path in FILES if path.name == "__init__.py" and path.read_text("utf-8")] == []


def test_settings_and_commands_are_read_without_torch() -> None:
    light = [
        *PACKAGE.glob("stages/*.py"),
        *PACKAGE.glob("recipe/*.py"),
        *PACKAGE.glob("*/config.py"),
        *PACKAGE.glob("commands/*.py"),
        *PACKAGE.glob("cli.py"),
    ]
    light += [path for path in FILES if re.search(r"^class \w+\(Config\):", path.read_text("utf-8"), re.MULTILINE)]
    modules = sorted({module_name(path) for path in light})
    assert "llamaherd.core.config" in modules
    code = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "    if 'torch' in sys.modules: sys.exit(name)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *modules], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"imports torch, or fails: {done.stderr}"


def test_constraints_leave_torch_to_the_machine_and_pin_the_rest() -> None:
    def names(lines: list[str]) -> set[str]:
        found = (re.match(r"[A-Za-z0-9._-]+", line) for line in lines)
        return {re.sub(r"[-_.]+", "-", match[0]).lower() for match in found if match}

    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = names([*project["dependencies"], *project["optional-dependencies"]["dev"]])
    pinned = names((ROOT / "constraints.txt").read_text("utf-8").splitlines())
    assert wanted - pinned == {"torch"}
    assert [name for name in pinned if re.match("torch|nvidia|triton|cuda", name)] == []


def test_the_dependency_page_names_every_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    page = (ROOT / "docs" / "dependencies.md").read_text("utf-8")
    listed = [re.match(r"[A-Za-z0-9-]+", line) for line in [*project["dependencies"], *project["optional-dependencies"]["dev"]]]
    assert [match[0] for match in listed if match and f"| {match[0]} |" not in page] == []


# What follows shows the checks bad examples: each must complain, and its harmless twin must not.


@pytest.mark.parametrize(
    ("module", "bad", "good"),
    [
        ("llamaherd.model.attention", "from ..tokenizer import x", "from ..core import files"),
        ("llamaherd.model.attention", "from llamaherd.losses.gae import gae", "from .rope import rope"),
        ("llamaherd.core.files", "def f():\n    import llamaherd.model", "def f():\n    import numpy"),
        ("llamaherd.core.files", "from .. import cli", "from . import errors"),
        ("llamaherd.rlhf.pool", "from ..miniature.oracle import judge", "from ..reward.gate import gate"),
        ("llamaherd.stages.sft", "from .pretrain import run", "from .common import open_model"),
        ("llamaherd.stages.sft", "from . import reward", "from . import common"),
        ("llamaherd.stages.sft", "from llamaherd.stages.reward import run", "from llamaherd.train.loop import run"),
        ("llamaherd.recipe.chain", "from ..cli import main", "from ..stages.sft import run"),
        ("llamaherd.cli", "import llamaherd.elsewhere.x", "from .recipe.chain import run"),
        ("llamaherd.attic.x", "import os", "import os"),
    ],
)
def test_imports_across_the_levels_are_found(module: str, bad: str, good: str) -> None:
    assert len(import_complaints(bad, module)) == 1
    assert module.startswith("llamaherd.attic") or import_complaints(good, module) == []


def body(lines: int) -> str:
    return "".join(f"    x = {number}\n" for number in range(lines))


FIELDS = "".join(f"    f{number}: int = 0\n" for number in range(MOST_SETTINGS))
CASES = [
    (size_complaints, "x = 1\n" * (MOST_FILE_LINES + 1), "x = 1\n" * MOST_FILE_LINES),
    (size_complaints, f"def f():\n{body(MOST_FUNCTION_LINES)}", f"def f():\n{body(MOST_FUNCTION_LINES - 1)}"),
    (size_complaints, f"class A:\n  async def f():\n{body(MOST_FUNCTION_LINES)}", "class A: pass"),
    (size_complaints, f"class A(Config):\n{FIELDS}    g: int = 0\n", f"class A(Config):\n{FIELDS}"),
    (settings_complaints, "class A(Config):\n    x: int = 1\n", 'class A(Config):\n    x: int = 1\n    """Why."""\n'),
    (settings_complaints, 'class A(Config):\n    x: int\n    y: int\n    """Why."""\n', "class A(Other):\n    x: int\n"),
    (danger_complaints, "import pickle", "import json"),
    (danger_complaints, "def f():\n    from dill import loads", "from .dill import loads_safely"),
    (danger_complaints, "torch.load(path)", "safetensors.torch.load_file(path)"),
    (danger_complaints, "from torch import load", "from torch import nn"),
    (danger_complaints, "eval(text)", "model.eval()"),
    (danger_complaints, "exec(text)", "execute(text)"),
    (danger_complaints, "f(trust_remote_code=True)", "f(trust_remote_code=False)"),
    (danger_complaints, "f(weights_only=False)", "f(weights_only=True)"),
    (danger_complaints, "numpy.load(x, allow_pickle=True)", "numpy.load(x)"),
    (danger_complaints, "try: f()\nexcept: pass", "try: f()\nexcept OSError: pass"),
    (danger_complaints, "try: f()\nexcept Exception: pass", "try: f()\nexcept BaseException:\n    g()\n    raise"),
    (word_complaints, "x = 1  # TODO: more", "todos = 1"),
    (word_complaints, "# a list, for now", "# waits for nowhere"),
    (word_complaints, "raise NotImplementedError", "raise UserError"),
    (docstring_complaints, f'"""M."""\ndef f():\n{body(SELF_EVIDENT_LINES)}', f'"""M."""\ndef _f():\n{body(SELF_EVIDENT_LINES)}'),
    (docstring_complaints, f'"""M."""\nclass A:\n{body(SELF_EVIDENT_LINES)}', f'"""M."""\ndef f():\n    """D."""\n{body(9)}'),
    (docstring_complaints, "x = 1\n", ""),
]


def test_a_pickle_is_read_in_one_place_and_only_its_weights() -> None:
    assert danger_complaints("torch.load(file, weights_only=True)", READS_PICKLES) == []
    assert len(danger_complaints("torch.load(file, weights_only=True)", "src/llamaherd/checkpoints/meta.py")) == 1
    for call in ("torch.load(file)", "torch.load(file, weights_only=flag)", "torch.load(file, **how)", "torch.save(x, weights_only=True)"):
        assert len(danger_complaints(call, READS_PICKLES)) == 1, call


@pytest.mark.parametrize(("check", "bad", "good"), CASES)
def test_the_checks_find_bad_examples_and_spare_good_ones(check, bad: str, good: str) -> None:  # type: ignore[no-untyped-def]
    assert len(check(bad, "x.py")) == 1
    assert check(good, "x.py") == []


def test_the_tests_that_the_house_names_exist() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "docs" / "architecture.md").read_text("utf-8"))
    assert named
    assert [f"{file}::{name}" for file, name in named if f"\ndef {name}(" not in (ROOT / file).read_text("utf-8")] == []
