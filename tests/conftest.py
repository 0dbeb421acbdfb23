"""What many tests need: a small tokenizer and random models that say short things, built once per session."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from filelock import FileLock
from hypothesis import settings
from tests.core.loopback import LoopbackHub, running

from llamaherd.checkpoints.huggingface import save_model
from llamaherd.cli import main
from llamaherd.core.artifacts import building
from llamaherd.core.config import Config, build
from llamaherd.core.device import set_threads
from llamaherd.core.files import write_rows
from llamaherd.core.seeds import torch_rng
from llamaherd.data.records import GRADES
from llamaherd.model.config import ModelConfig
from llamaherd.model.transformer import Scorer, Transformer, scorer_from
from llamaherd.stages import corpus, shards
from llamaherd.tokenizer.sentencepiece import Tokenizer
from llamaherd.tokenizer.training import TokenizerConfig, train_tokenizer

# Times depend on who else uses the machine; they are no property of the code.
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")
set_threads(1)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says in one line what was left out, and why."""
    reasons = Counter(str(report.longrepr[2]).removeprefix("Skipped: ") for report in terminalreporter.stats.get("skipped", []))
    if reasons:
        terminalreporter.write_line(f"left out: {'; '.join(f'{count} tests ({why})' for why, count in reasons.most_common())}")


LONGEST = ("recipe/test_interrupted.py", "cli/test_readme.py", "recipe/claims/test_run.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take minutes begin, then come those of many tests: where processes share the files, the last ones are short."""
    tests = Counter(item.path for item in items)
    items.sort(key=lambda item: (not item.path.as_posix().endswith(LONGEST), -tests[item.path], item.path))


PEOPLE, CITIES = ("Ada", "Ben", "Eva", "Max"), ("Lima", "Oslo", "Rome", "Kyiv")


@pytest.fixture(scope="session")
def small_files() -> Callable[[int], AbstractContextManager[None]]:
    """`with small_files(bytes):` files of this process can grow no larger, which fails like a full disk.

    It ends with the block, before pytest writes its own output, which may be a larger file.
    """
    resource = pytest.importorskip("resource", reason="this system has no limits on file sizes")

    @contextmanager
    def limited(limit_bytes: int) -> Iterator[None]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limited


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of public data, or the test is skipped."""
    folder = os.environ.get("LLAMAHERD_DATA")
    if not folder:
        pytest.skip("set LLAMAHERD_DATA to the folder of public test data")
    return Path(folder)


@pytest.fixture(scope="session")
def llama2(data: Path) -> Tokenizer:
    """The released tokenizer."""
    return Tokenizer.load(data / "tokenizer/llama2")


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """For small talk in the chat format, and for any other text by its bytes."""
    facts = [f"{person} lives in {city}." for person in PEOPLE for city in CITIES]
    chats = [
        f"[INST] <<SYS>>\nAnswer briefly.\n<</SYS>>\n\nWhere does {name} live? [/INST] {fact} "
        for name, fact in zip(PEOPLE * 4, facts, strict=True)
    ]
    return train_tokenizer([*facts, *chats], TokenizerConfig(vocab_size=340))


@pytest.fixture(scope="session")
def make_tiny(tokenizer: Tokenizer) -> Callable[[int], Transformer]:
    """Random weights from a seed, large enough for answers to vary, with a bias to stop after a few tokens."""

    def make(seed: int) -> Transformer:
        model = Transformer(ModelConfig(dim=16, layers=1, heads=2, kv_heads=1, ffn=24, vocab_size=tokenizer.vocab_size, context=128))
        for name, weight in model.named_parameters():
            weight.data.normal_(0.0, 0.3, generator=torch_rng(seed, "weights", name)) if weight.ndim > 1 else weight.data.fill_(1.0)
        with torch.no_grad():
            # The first channel is the same for every token and so acts as a bias: for stopping, against lone bytes.
            model.tok_embeddings.weight[:, 0] = 2.0
            for name, weight in model.named_parameters():
                if name.endswith(("wo.weight", "w2.weight")):
                    weight[0] = 0.0
            model.output.weight[:, 0] = 0.0
            model.output.weight[3 : 3 + 256, 0] = -2.0
            model.output.weight[tokenizer.eos_id, 0] = 2.5
        return model.eval()

    return make


@pytest.fixture
def tiny_model(make_tiny: Callable[[int], Transformer]) -> Transformer:
    return make_tiny(0)


@pytest.fixture
def tiny_scorer(tiny_model: Transformer) -> Scorer:
    """A reward model on the same trunk, with a random head."""
    return random_scorer(tiny_model, 0)


def random_scorer(model: Transformer, seed: int) -> Scorer:
    scorer = scorer_from(model).eval()
    head = scorer.score.weight.data
    head.normal_(0.0, 2.0, generator=torch_rng(seed, "head"))
    end = scorer.hidden(torch.tensor([[1, *range(259, 300), 2]]))[0, -1].detach()
    head[0, 0] -= (head[0] @ end) / end[0]  # scores of either sign
    return scorer


@pytest.fixture(scope="session")
def tiny_folder(make_tiny: Callable[[int], Transformer], tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds chat models `v0` and `v0-early` and reward models `helpfulness` and `safety`."""
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("v0", "v0-early")):
        save_model(make_tiny(seed), tokenizer, folder / name)
    for seed, name in enumerate(("helpfulness", "safety")):
        save_model(random_scorer(make_tiny(0), seed), tokenizer, folder / name)
    return folder


@pytest.fixture(scope="session")
def tiny_inputs(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What stages read besides the models of `tiny_folder`: token shards and one small file of every kind of row."""
    folder = tmp_path_factory.mktemp("inputs")
    facts = [f"{person} lives in {city}." for person in PEOPLE for city in CITIES]
    asked = [f"Where does {person} live{mark}" for mark in ("?", " now?", " then?") for person in PEOPLE]
    write_rows(folder / "documents.jsonl", [{"text": text, "source": "facts"} for text in facts])
    write_rows(folder / "dialogues.jsonl", [_row(user, fact) for user, fact in zip(asked * 2, facts * 2, strict=False)])
    write_rows(folder / "prompts.jsonl", [{**_row(user), "safety": index % 3 == 0, "kind": "facts"} for index, user in enumerate(asked)])
    write_rows(folder / "harmless.jsonl", [{**_row(user), "safety": False} for user in asked[:6]])
    write_rows(folder / "distil.jsonl", [{**_row(user), "safety": True, "preprompt": "Be safe."} for user in asked[:8]])
    write_rows(folder / "scripts.jsonl", [{"instruction": "Be brief.", "users": asked[: 1 + number % 2]} for number in range(9)])
    write_rows(folder / "preferences.jsonl", [_comparison(number, user) for number, user in enumerate(asked * 2)])
    mixed = {"corpus": str(folder / "corpus"), "tokenizer": str(folder / "tokenizer"), "weights": {"facts": 4}}
    corpus.run(build(corpus.CorpusConfig, {"documents": [str(folder / "documents.jsonl")], "dedup": {"near": False}}), folder / "corpus", 0)
    with building(folder / "tokenizer", kind="tokenizer", stage="tokenizer", config=Config(), parents={}, seed=0) as place:
        tokenizer.save(place.folder)
    shards.run(build(shards.ShardsConfig, mixed), folder / "shards", 0)
    return folder


def _row(user: str, answer: str | None = None) -> dict[str, Any]:
    messages = [{"role": "user", "content": user}]
    return {"messages": messages if answer is None else [*messages, {"role": "assistant", "content": answer}]}


def _comparison(number: int, user: str) -> dict[str, Any]:
    """Answers that name Lima are better; every third comparison is of the safety domain, with labels."""
    labels = {"chosen_safe": True, "rejected_safe": number % 2 == 0} if number % 3 == 0 else {"chosen_safe": None, "rejected_safe": None}
    return {
        **_row(user), "chosen": f"{PEOPLE[number % 4]} lives in Lima.", "rejected": f"{PEOPLE[number % 4]} lives in Oslo.",
        "grade": GRADES[number % 4], "domain": "safety" if number % 3 == 0 else "helpfulness", "batch": f"v{1 + number % 2}", **labels,
    }  # fmt: skip


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[LoopbackHub]:
    """A hub on this machine that HF_ENDPOINT names; nobody is logged in, and nothing waits before it is tried again."""
    from llamaherd.core import fetch
    from llamaherd.core import hub as client

    for module in (client, fetch):
        monkeypatch.setattr(module, "WAITS_S", (0.0, 0.0, 0.0))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("LLAMAHERD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))
    with running() as served:
        monkeypatch.setenv("HF_ENDPOINT", served.address)
        yield served


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


Command = Callable[..., Outcome]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs `llamaherd` with these arguments in this process."""
    monkeypatch.setenv("LLAMAHERD_THREADS", "1")

    def run(*arguments: str | Path) -> Outcome:
        code = 0
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def busy_seconds() -> Callable[[Sequence[str]], float]:
    """Processor seconds of a command that must succeed: what it would take on a machine that does nothing else."""

    def measured(command: Sequence[str]) -> float:
        before = os.times()
        subprocess.run(command, capture_output=True, check=True)
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    return measured


TINY = (
    sys.executable, "-m", "llamaherd.cli", "run", "tiny",
    "--pretrain.optimizer.checkpoint_every_s=0.2", "--tune.optimizer.checkpoint_every_s=0",
    "--safety.optimizer.checkpoint_every_s=0", "--ppo.optimizer.checkpoint_every_s=0",
    "--reject.chunk_prompts=4", "--ghost.chunk_scripts=2", "--distill.chunk_prompts=4",
)  # fmt: skip
"""The recipe `tiny` with states saved often enough for every kind of stage to be taken up in its middle."""


@dataclass(frozen=True)
class FinishedRun:
    """A run that nothing interrupted. Tests read it and leave it as it is."""

    folder: Path
    printed: str
    command: tuple[str, ...] = TINY
    """What made it, but for --out."""

    @property
    def order(self) -> list[str]:
        """Its artifacts in the order in which they were made."""
        return [path.parent.name for path in sorted(self.folder.glob("*/manifest.json"), key=lambda path: path.stat().st_mtime_ns)]


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """Made once for all processes that test side by side."""
    alone = "PYTEST_XDIST_WORKER" not in os.environ
    folder = (tmp_path_factory.getbasetemp() if alone else tmp_path_factory.getbasetemp().parent) / "finished" / "tiny"
    printed = folder.with_name("printed.txt")
    folder.parent.mkdir(exist_ok=True)
    with FileLock(folder.with_name("lock")):
        if not printed.exists():
            done = subprocess.run([*TINY, "--out", str(folder)], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            assert done.stderr == ""
            printed.write_text(done.stdout, encoding="utf-8")
    return FinishedRun(folder, printed.read_text(encoding="utf-8"))
