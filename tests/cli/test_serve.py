"""`serve` and `keys`: what is understood, and one line for what is not."""

import socket
import subprocess
import sys

import pytest

from llamaherd.commands.serve import _apart
from llamaherd.serve import server


@pytest.fixture
def started(monkeypatch, command):
    """The settings that a command line starts a server with."""
    seen = []
    monkeypatch.setattr(server, "run", lambda config, open_page=False: seen.append((config, open_page)))

    def run(*arguments):
        outcome = command("serve", *arguments)
        assert outcome.code == 0, outcome.err
        return seen.pop()

    return run


def test_models_settings_and_options_in_any_order(started, tmp_path) -> None:
    file = tmp_path / "serve.yaml"
    file.write_text("models: [from-file]\nport: 7000\nlimits: {waiting: 3, drain_s: 5}\naccess: {allow_host: [a.example]}\n", "utf-8")
    config, open_page = started("a", "--limits.body_bytes=4096", "n=b", "--limits.stops", "2", "--port", "0", "--open", "--keys")
    assert (config.models, config.port, open_page) == (("a", "n=b"), 0, True)
    assert (config.limits.body_bytes, config.limits.stops, config.access.ask_keys) == (4096, 2, True)
    config, open_page = started("--config", file, "--limits.waiting=4", "--allow-host", "b.example", "--allow-host", "c.example")
    assert (config.models, config.port, config.host, open_page) == (("from-file",), 7000, "127.0.0.1", False)
    assert (config.limits.waiting, config.limits.drain_s) == (4, 5)
    assert config.access.allow_host == ("b.example", "c.example")
    assert _apart(["--a", "b", "c", "--d=e", "f"]) == (["c", "f"], ["--a", "b", "--d=e"])


def test_how_threads_wait_is_said_before_torch_is_there() -> None:
    """Torch's OpenMP reads it once; threads that spin make a step beside other work a hundred times as long."""
    asked = """
import sys
from llamaherd import cli
from llamaherd.core import device
device.set_threads = lambda: print("torch" in sys.modules)
cli.main(["serve", "nowhere"])
"""
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True)
    assert "nowhere" in done.stderr
    assert done.stdout == "False\n"


def test_help_tells_every_setting(command) -> None:
    said = command("serve", "--help").out
    for part in (
        "--host",
        "--tls-cert",
        "--insecure-http",
        "--limits.body_bytes=int",
        "--access.session_h=float",
        "--guard.threshold=float",
        "[2097152]",
    ):
        assert part in said, part


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "models: "),
        (["x", "--prot=1"], "prot: unknown setting (did you mean 'port'?)"),
        (["x", "--limits.body_byte=1"], "limits.body_byte: unknown setting (did you mean 'body_bytes'?)"),
        (["x", "--port", "70000"], "port: given 70000, expected less than or equal to 65535"),
        (["x", "--limits.waiting=0"], "limits.waiting: given 0"),
        (["x", "--host", "0.0.0.0"], "--host 0.0.0.0 is reached from other machines, so give --tls-cert FILE --tls-key FILE"),
        (["x", "--tls-cert", "none.pem"], "--tls-key is missing"),
        (["x", "--tls-cert", "none.pem", "--tls-key", "none.pem"], "--tls-cert none.pem: cannot be read"),
        (["x", "--log-text"], "--log-text says what goes into the log"),
        (["nowhere"], "nowhere"),
        (["x", "--config", "none.yaml"], "none.yaml: no such file"),
    ],
)  # fmt: skip
def test_what_cannot_be_served(refused, monkeypatch, tmp_path, arguments, message) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in refused("serve", *arguments)


def test_names_that_are_none_and_a_port_that_is_taken(refused, workshop, monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(workshop.folder)
    monkeypatch.setenv("LLAMAHERD_STATE", str(tmp_path))
    for option, value in (
        ("--allow-host", "*"),
        ("--allow-host", "a:1"),
        ("--allow-origin", "*"),
        ("--allow-origin", "a.example"),
        ("--allow-origin", "ftp://a"),
    ):
        assert refused("serve", "chat", "--port", "0", option, value).startswith(f"{option} {value}: expected")
    assert refused("serve", "chat", "--port", "0", "--log", "none/log").startswith("--log none/log: cannot be written: No such file")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"--port {port}: something listens at 127.0.0.1 already" in refused("serve", "chat", "--port", str(port))


def test_keys_are_made_listed_and_removed(command, refused, tmp_path) -> None:
    made = command("keys", "add", "ann", "--state", tmp_path)
    assert len(made.out.strip()) == 46
    assert "shown this once" in made.err
    assert command("keys", "add", "ben", "--state", tmp_path).code == 0
    assert command("keys", "list", "--state", tmp_path).out == "ann\nben\n"
    assert refused("keys", "add", "ann", "--state", tmp_path) == "there is a key of ann already; remove it first, or choose another name"
    assert refused("keys", "remove", "anne", "--state", tmp_path).startswith("no key of 'anne' (did you mean 'ann'?)")
    assert command("keys", "remove", "ann", "--state", tmp_path).out == "the key of ann is no more\n"
    assert command("keys", "list", "--state", tmp_path).out == "ben\n"
    (tmp_path / "keys.json").write_text("[", "utf-8")
    assert "keys.json: not JSON" in refused("keys", "list", "--state", tmp_path)
