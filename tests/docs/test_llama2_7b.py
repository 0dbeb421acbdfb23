"""The commands of docs/llama2-7b.md as a shell runs them: each one's settings are read, and all of them run on a model of the 7B's depth."""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.seven.inputs import shape_of, write_base, write_data
from tests.core.loopback import LoopbackHub

from llamaherd.cli import STAGES, _of_stage, main
from llamaherd.commands.common import SETTINGS, settings_file
from llamaherd.core.artifacts import find_artifact
from llamaherd.core.config import load
from llamaherd.tokenizer.sentencepiece import Tokenizer

PAGE = (Path(__file__).parents[2] / "docs" / "llama2-7b.md").read_text("utf-8")
SCRIPT = "".join(re.findall(r"^```sh\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE))
BROUGHT = set(re.findall(r"`([\w-]+\.jsonl)`", PAGE.partition("## What you bring")[2].partition("##")[0]))
CUTS = {
    "sft": ["--steps=2", "--batch_rows=2", "--row_tokens=256"],
    "reward": ["--most_pairs=8", "--batch_pairs=4", "--micro_pairs=2"],
    "reject": ["--k=4", "--max_new_tokens=32", "--temperatures=1.0,1.1"],
    "ghost": ["--sampling.max_new_tokens=32", "--sampling.temperature=1.0"],
    "distill": ["--sampling.max_new_tokens=32", "--sampling.temperature=1.0"],
    "ppo": ["--ppo.iterations=1", "--ppo.batch=4", "--ppo.mini_batch=2", "--ppo.micro_batch=2", "--ppo.max_new_tokens=8"],
    "generate": ["--max-new-tokens=4"],
    "plan": ["--no-measure", "--row-tokens=256"],
}


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    """What the shell makes of the page: the words of each command, in order."""
    folder = tmp_path_factory.mktemp("shell")
    stub = folder / "llamaherd"
    stub.write_text(f"#!{sys.executable} -S\nimport json, sys\nopen('said', 'a').write(json.dumps(sys.argv[1:]) + '\\n')\n", "utf-8")
    stub.chmod(stub.stat().st_mode | stat.S_IXUSR)
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(["sh", "-e", "-c", SCRIPT], cwd=folder, env={**os.environ, "PATH": path}, check=True)
    return [json.loads(line) for line in (folder / "said").read_text("utf-8").splitlines()]


def outcome(words: list[str]) -> str | None:
    """What a command writes."""
    if "--out" in words:
        return words[words.index("--out") + 1]
    place = {"download": "models/Llama-2-7b-hf", "merge": 3, "quantize": 2, "convert": 2}.get(words[0])
    return words[place] if isinstance(place, int) else place


def test_every_setting_is_known_and_every_input_there(commands: list[list[str]]) -> None:
    there, used = set(BROUGHT), set()
    for words in commands:
        told = [name for word in words[1:] for name in re.split(r"[\[\],]", word) if name]
        made = outcome(words)
        for name in told:
            if name in there:
                used.add(name)
            elif re.fullmatch(r"(v\d|ghost$|distilled$|models/).*|.*\.jsonl", name) and name != made:
                assert words[words.index(name) - 1] == "--version", words
        if words[0] in STAGES:
            stage = STAGES[words[0]]
            settings = words[1:]
            for option in ("--out", "--config"):
                at = settings.index(option)
                del settings[at : at + 2]
            named = Path(words[words.index("--config") + 1])
            load(_of_stage(stage.module, stage.settings), settings_file(named, stage.module), settings)
        if made:
            assert made not in there, f"{made} is made twice"
            there.add(made)
    assert used >= BROUGHT
    assert {"v0", "v1", "v2", "v3", "v4", "v5-rejection", "v5", "v5-small"} <= there
    assert [words[0] for words in commands].count("reject") == 5


def test_the_page_names_every_packaged_recipe() -> None:
    names = {file.stem for file in SETTINGS.glob("*/*.yaml")}
    assert names == set(re.findall(r"`(llama2-7b-\w+)`", PAGE))


@pytest.mark.slow
def test_every_command_runs(
    commands: list[list[str]], tokenizer: Tokenizer, hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLAMAHERD_THREADS", "1")
    write_base(tmp_path / "weights", shape_of(32, tokenizer.vocab_size), tokenizer, answer_tokens=40)  # so that hardly one is empty
    hub.add("models/meta-llama/Llama-2-7b-hf", {file.name: file.read_bytes() for file in (tmp_path / "weights").iterdir()})
    monkeypatch.setenv("HF_TOKEN", "hf_me")
    write_data(tmp_path / "data", tokenizer)
    for name, source in (
        ("demonstrations", "dialogues"), ("helpful", "helpfulness"), ("harmless", "safety"), ("prompts", "prompts"),
        ("held-out", "prompts"), ("scripts", "scripts"), ("adversarial", "adversarial"),
    ):  # fmt: skip
        shutil.copy(tmp_path / "data" / f"{source}.jsonl", f"{name}.jsonl")
    for words in commands:
        if words[0] == "serve":  # a server answers other tests
            assert find_artifact(tmp_path / words[1])
            continue
        main([*words, *CUTS.get(words[0], [])])
        assert capsys.readouterr().out.strip(), words
    [v5] = [words for words in commands if words[0] == "merge" and words[-1] == "v5"]
    found = find_artifact(tmp_path / "v5")
    assert found is not None
    assert found.manifest["parents"]["adapter"]["path"].endswith(v5[2])
