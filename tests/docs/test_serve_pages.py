"""The commands and the Python of docs/serve*.md work as they stand there, on small models of the names that they use."""

import contextlib
import doctest
import io
import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import webbrowser
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from openai import OpenAI
from tests.conftest import random_scorer
from tests.docs.pages import DOCS, blocks, serve_once
from tests.serve.conftest import Running, running

from llamaherd import cli
from llamaherd.checkpoints.huggingface import save_model
from llamaherd.checkpoints.peft import write_adapter
from llamaherd.model.config import LoraConfig
from llamaherd.model.lora import add_adapter, new_changes
from llamaherd.model.transformer import Transformer
from llamaherd.serve import server
from llamaherd.tokenizer.sentencepiece import Tokenizer

PAGES = {path.stem: path.read_text("utf-8") for path in sorted(DOCS.glob("serve*.md"))}
BLOCKS = [(page, *block) for page, text in PAGES.items() for block in blocks(text)]
SHELL = [block for _, kind, block in BLOCKS if kind == "sh"]
CURLS = [block for block in SHELL if block.startswith("curl")]
CURLS += [one for _, kind, block in BLOCKS if kind == "console" for one in re.findall(r"^\$ (curl .*(?:\n +.*)*)", block, re.MULTILINE)]
LINES = [line.partition("  #")[0].strip() for block in SHELL if block not in CURLS for line in block.replace("\\\n", " ").splitlines()]
SERVES = [line for line in LINES if line.startswith("llamaherd serve")]
KEYS = [line for line in LINES if line.startswith("llamaherd keys")]
PYTHON = [pytest.param(block, id=page) for page, kind, block in BLOCKS if kind == "python"]
ELSEWHERE = ("pip install", "createdb", "pg_dump", "lm_eval")
"""What needs a network, a PostgreSQL of one's own, or a data set (tests/serve/test_lm_eval.py runs lm-eval)."""


@pytest.fixture(scope="module")
def place(make_tiny: Callable[[int], Transformer], tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the runs, files and state that the pages speak of."""
    folder = tmp_path_factory.mktemp("pages")
    run = folder / "runs" / "miniature"
    model = make_tiny(3)
    model.config = model.config.model_copy(update={"context": 2048})
    for name in ("v0", "v5"):
        save_model(model, tokenizer, run / name)
    save_model(random_scorer(make_tiny(0), 1), tokenizer, run / "v5-safety")
    (folder / "MODEL").symlink_to(run / "v5")
    (folder / "runs" / "newest").symlink_to(run / "v5")
    lora = LoraConfig(r=2)
    add_adapter(model, "brief", new_changes(model, lora, 0), 1.0)
    write_adapter(model, "brief", lora, str(run / "v5"), folder / "runs" / "brief")
    made = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=127.0.0.1 -keyout key.pem -out cert.pem"
    subprocess.run(["openssl", *made.split()], cwd=folder, check=True, capture_output=True)
    before = Path.cwd()
    os.chdir(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLAMAHERD_STATE", str(folder / "state"))
        yield folder
    os.chdir(before)


@pytest.fixture(scope="module")
def up(place: Path) -> Iterator[Running]:
    run = place / "runs" / "miniature"
    with running(models=[str(run / "v5")], guard={"model": str(run / "v5-safety"), "threshold": 0.001}) as found:
        yield found


def test_every_command_is_known() -> None:
    assert {kind for _, kind, _ in BLOCKS} <= {"sh", "console", "python", "nginx", ""}
    assert len(CURLS) == sum(block.count("curl ") for _, _, block in BLOCKS)
    known = {*SERVES, *KEYS, 'sqlite3 llamaherd.db ".backup kept.db"'}
    assert not [line for line in LINES if line not in known and not line.startswith(ELSEWHERE)]
    for page, kind, block in BLOCKS:
        assert kind or not re.search(r"^(\$ )?(llamaherd|curl|pip) ", block, re.MULTILINE), f"{page}: commands are marked as sh"


def test_the_pages_know_each_other() -> None:
    for page, text in PAGES.items():
        for name, anchor in re.findall(r"\]\(([\w.-]*\.md)?(?:#([\w-]+))?\)", text):
            target = (DOCS / name).read_text("utf-8") if name else text
            heads = {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in re.findall(r"^#+ (.*)", target, re.MULTILINE)}
            assert not anchor or anchor in heads, f"{page}: {name}#{anchor}"
        assert page == "serve" or ("(serve.md)" in text and f"({page}.md)" in PAGES["serve"])


@pytest.mark.parametrize("command", [line for line in SERVES if "--database" not in line])
def test_servers_start_and_end(command: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    words = shlex.split(command)[1:]
    words = [word.replace("runs/miniature", "runs/newest") if word == "runs/miniature" else word for word in words]
    models = serve_once(words, monkeypatch)
    assert len(opened) == words.count("--open")
    assert models == {"v5", "early", "brief"} or len(models) == 1


def test_a_database_that_is_not_there(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("psycopg")
    monkeypatch.setattr(server, "complain_in_lines", lambda: None)
    [command] = [line for line in SERVES if "--database" in line]
    with pytest.raises(SystemExit) as ended:
        cli.main([*shlex.split(command.replace("db.example", "127.0.0.1:1"))[1:], "--port", "0"])
    assert ended.value.code == 2
    assert "postgresql" in capsys.readouterr().err


def test_keys(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = []
    for command in KEYS:
        cli.main(shlex.split(command)[1:])
        said.append(capsys.readouterr().out)
    assert [" ".join(command.split()[1:3]) for command in KEYS] == ["keys add", "keys list", "keys remove"]
    assert said[0].strip()
    assert "ann" in said[1]


@pytest.mark.parametrize("command", CURLS)
def test_what_curl_asks(command: str, up: Running) -> None:
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command.replace("localhost:8000", up.url)], capture_output=True, text=True, check=True
    )
    assert done.stdout
    assert '"error"' not in done.stdout


@pytest.mark.parametrize("block", PYTHON)
def test_python(block: str, up: Running) -> None:
    typed = doctest.DocTestParser().get_examples(block)
    source = "".join(example.source for example in typed) or block
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(source.replace("http://127.0.0.1:8000/v1", up.v1), {"client": OpenAI(base_url=up.v1, api_key="none"), "__name__": "page"})
    assert len(said.getvalue().splitlines()) == sum(example.want.count("\n") for example in typed) + ("\nprint(" in block)


def test_a_backup_while_a_server_runs(place: Path, up: Running) -> None:
    if not shutil.which("sqlite3"):
        pytest.skip("sqlite3 is not installed")
    [command] = [line for line in LINES if line.startswith("sqlite3")]
    subprocess.run(shlex.split(command), cwd=place / "state", check=True)
    with sqlite3.connect(place / "state" / "kept.db") as kept:
        assert kept.execute("select count(*) from conversations").fetchone() == (0,)
