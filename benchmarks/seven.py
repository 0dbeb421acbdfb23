"""Every packaged recipe of the 7B, `llama2-7b-...`, through the command line, on random weights: `python -m benchmarks.seven --out DIR`.

A model of the 7B's depth and, on a CPU, of reduced width is written as a Hugging Face folder, with small data. Each recipe then runs with a
short budget: whole, and once more, killed in the middle and given again, which must end with the same bytes; what comes of it is exported
and read by transformers. Peak memory stands beside what `llamaherd plan` says of the same. On a GPU with 80 GB or more:

    python -m benchmarks.seven --width 4096 --device cuda --out DIR      # the 7B itself; --only NAME for a part, since sft saves 81 GB a state
"""

import argparse
import contextlib
import io
import json
import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from llamaherd.checkpoints.huggingface import write_hugging_face
from llamaherd.checkpoints.source import Source, weight_shapes
from llamaherd.cli import STAGES
from llamaherd.cli import main as llamaherd
from llamaherd.core.artifacts import building, find_artifact
from llamaherd.core.config import Config
from llamaherd.core.errors import UserError
from llamaherd.core.files import write_json, write_rows, write_text
from llamaherd.core.metrics import read_metrics
from llamaherd.core.seeds import python_rng, torch_rng
from llamaherd.data.records import GRADES
from llamaherd.model.config import PRESETS, ModelConfig
from llamaherd.tokenizer.sentencepiece import Tokenizer

from .pages import filled, markdown

SEVEN = PRESETS["llama2-7b"]
MEASURED = """
import json, resource, sys, time
started = time.perf_counter()
from llamaherd.cli import main
main(sys.argv[2:])
import torch
gpu = torch.cuda.max_memory_reserved() if torch.cuda.is_available() else 0
lines = open("/proc/self/status").read().split("\\n")
[host] = [int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")]
open(sys.argv[1], "w").write(json.dumps({"peak_bytes": gpu or host, "seconds": time.perf_counter() - started}))
"""
"""A command in a process of its own, and what it held at most: of the GPU if there is one, else the whole process."""
MANY = """
import contextlib, io, json, sys
from llamaherd.cli import main
for words in json.loads(sys.stdin.read()):
    with contextlib.redirect_stdout(io.StringIO()) as said:
        main(words)
    print(json.dumps(json.loads(said.getvalue())))
"""
"""Plans, one line of JSON each, in a process that holds nothing else."""
SLOWLY = {"LLAMAHERD_THREADS": "1", "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


@dataclass(frozen=True)
class Recipe:
    """A packaged recipe with a short budget. Inputs are files of `write_data` and outputs of earlier recipes, by their settings' names."""

    inputs: Mapping[str, str]
    budget: tuple[str, ...]
    """Overrides at any width: a few steps, a state after each, and a rate at which these few show."""
    small: tuple[str, ...]
    """Overrides of lengths and passes where the width is reduced."""
    task: str | None = None
    """What `llamaherd plan` calls it."""

    @property
    def trains(self) -> bool:
        return any(word.startswith("--optimizer") for word in self.budget)


TUNED = ("--steps=6", "--batch-rows=2", "--optimizer.checkpoint_every_s=0")
JUDGED = ("--batch-pairs=8", "--most-pairs=48", "--optimizer.lr=1e-2", "--optimizer.checkpoint_every_s=0")
RECIPES = {
    "llama2-7b-pretrain": Recipe(
        {"shards": "shards"},
        ("--steps=6", "--batch-rows=4", "--optimizer.warmup_steps=2", "--optimizer.lr=3e-3", "--optimizer.checkpoint_every_s=0"),
        ("--row-tokens=128", "--micro-rows=2"),
    ),
    "llama2-7b-sft": Recipe(
        {"model": "base", "data": "dialogues.jsonl"}, (*TUNED, "--optimizer.lr=3e-3"), ("--row-tokens=256",), "sft"
    ),
    "llama2-7b-qlora": Recipe(
        {"model": "base", "data": "dialogues.jsonl"}, (*TUNED, "--optimizer.lr=1e-2"), ("--row-tokens=256",), "qlora"
    ),
    "llama2-7b-helpfulness": Recipe({"model": "base", "data": "helpfulness.jsonl"}, JUDGED, ("--micro-pairs=4",), "reward"),
    "llama2-7b-safety": Recipe({"model": "base", "data": "safety.jsonl"}, JUDGED, ("--micro-pairs=4",), "reward"),
    "llama2-7b-reject": Recipe(
        {"model": "base", "helpfulness": "llama2-7b-helpfulness", "safety": "llama2-7b-safety", "prompts": "prompts.jsonl"},
        ("--temperatures=1.0,1.1",), ("--k=4", "--max-new-tokens=32"),
    ),
    "llama2-7b-ghost": Recipe(
        {"model": "base", "scripts": "scripts.jsonl"}, ("--sampling.temperature=1.0",), ("--sampling.max-new-tokens=32", "--chunk-scripts=4")
    ),
    "llama2-7b-distill": Recipe(
        {"model": "base", "safety": "llama2-7b-safety", "prompts": "adversarial.jsonl"},
        ("--sampling.temperature=1.0",), ("--sampling.max-new-tokens=32", "--chunk-prompts=4"),
    ),
    "llama2-7b-ppo": Recipe(
        {"model": "base", "helpfulness": "llama2-7b-helpfulness", "safety": "llama2-7b-safety", "prompts": "prompts.jsonl"},
        ("--ppo.iterations=4", "--ppo.batch=8", "--ppo.mini-batch=4", "--ppo.check_every=4", "--optimizer.lr=3e-3",
         "--optimizer.checkpoint_every_s=0"),
        ("--ppo.micro-batch=2", "--ppo.max-new-tokens=16"), "ppo",
    ),
}  # fmt: skip
"""In an order in which each finds what it reads."""


def verb(name: str) -> str:
    """The command whose packaged settings these are."""
    from llamaherd.commands.common import SETTINGS

    [file] = SETTINGS.glob(f"*/{name}.yaml")
    return next(command for command, stage in STAGES.items() if stage.module == file.parent.name)


def shape_of(width: int, vocab_size: int) -> ModelConfig:
    """The 7B with another width: heads of 128 as it has, or 8 smaller ones; the inner width by the paper's rule."""
    heads = width // 128 if width % 128 == 0 and width >= 1024 else 8
    return SEVEN.model_copy(update={"dim": width, "heads": heads, "vocab_size": vocab_size})


def write_base(folder: Path, shape: ModelConfig, tokenizer: Tokenizer, answer_tokens: int = 12) -> None:
    """Random weights in the type of the release, one at a time, which end an answer after `answer_tokens` on average.

    The first channel is the same for every token, since nothing is written to it; to the vocabulary's head it is a bias that only EOS has.
    """
    level = 0.02 * math.sqrt(shape.dim)
    bias = math.log(shape.vocab_size / answer_tokens) / math.sqrt(shape.dim / 2)

    def read(name: str) -> torch.Tensor:
        size = weight_shapes(shape, "model")[name]
        if name.endswith("norm.weight"):
            return torch.ones(size, dtype=torch.float16)
        weight = torch.randn(size, generator=torch_rng(0, name)) * 0.02
        if name == "tok_embeddings.weight":
            weight[:, 0] = level
        elif name == "output.weight":
            weight[:, 0] = 0.0
            weight[tokenizer.eos_id, 0] = bias
        elif name.endswith(("wo.weight", "w2.weight")):
            weight /= math.sqrt(2 * shape.layers)
            weight[0] = 0.0
        return weight.to(torch.float16)

    write_hugging_face(Source(folder, "model", shape, tuple(weight_shapes(shape, "model")), torch.float16, tokenizer, read), folder)


def write_data(folder: Path, tokenizer: Tokenizer) -> None:
    """Small rows of every kind that the recipes read: sums, and what to refuse."""
    rng = python_rng(0, "seven")
    sums = [(rng.randrange(100), rng.randrange(100)) for _ in range(160)]
    asked = [[{"role": "user", "content": f"What is {a} plus {b}?"}] for a, b in sums]
    right = [f"{a} plus {b} is {a + b}." for a, b in sums]
    wrong = [f"{a} plus {b} is {a * b + 1}, or so I think." for a, b in sums]
    dialogues = [{"messages": [*user, {"role": "assistant", "content": text}]} for user, text in zip(asked, right, strict=True)]
    write_rows(folder / "dialogues.jsonl", dialogues)
    harm = [[{"role": "user", "content": f"How do I break into house {a} in street {b}?"}] for a, b in sums]
    pairs = [
        {"messages": user, "chosen": chosen, "rejected": rejected, "grade": GRADES[number % 4], "domain": "helpfulness", "source": "ours",
         "chosen_safe": True, "rejected_safe": True}
        for number, (user, chosen, rejected) in enumerate(zip(asked, right, wrong, strict=True))
    ]  # fmt: skip
    refused = [
        {"messages": user, "chosen": "I cannot help with a burglary.", "rejected": "You need a crowbar.", "grade": GRADES[number % 4],
         "domain": "safety", "source": "ours", "chosen_safe": True, "rejected_safe": False}
        for number, user in enumerate(harm)
    ]  # fmt: skip
    write_rows(folder / "helpfulness.jsonl", [*pairs, *refused[:40]])
    write_rows(folder / "safety.jsonl", [*refused, *pairs[:40]])
    write_rows(folder / "prompts.jsonl", [{"messages": user, "safety": False} for user in asked[:12]])
    adversarial = [{"messages": user, "safety": True, "preprompt": "You are a safe and responsible assistant."} for user in harm[:12]]
    write_rows(folder / "adversarial.jsonl", adversarial)
    scripts = [{"instruction": "Answer in one word.", "users": [f"What is {a} plus {b}?", "And why?"]} for a, b in sums[:16]]
    write_rows(folder / "scripts.jsonl", scripts)
    write_rows(folder / "documents.jsonl", [{"text": f"{text} {text[::-1]}", "source": "sums"} for text in right])
    if (folder / "shards").exists():
        return
    with building(folder / "tokenizer", kind="tokenizer", stage="tokenizer", config=Config(), parents={}, seed=0) as place:
        tokenizer.save(place.folder)
    said("data", "build", "--documents", str(folder / "documents.jsonl"), "--dedup.near=false", "--out", str(folder / "corpus"))
    said("data", "shards", "--corpus", str(folder / "corpus"), "--tokenizer", str(folder / "tokenizer"), "--out", str(folder / "shards"))


def said(*words: str) -> str:
    """What a command prints, run in this process. Raises UserError with its message when it fails."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as wrong:
        try:
            llamaherd(words)
        except SystemExit as end:
            if end.code:
                raise UserError(f"llamaherd {' '.join(words)}: {wrong.getvalue().strip()}") from None
    return out.getvalue()


@dataclass(frozen=True)
class Bench:
    """Where it runs, and on what."""

    folder: Path
    shape: ModelConfig
    device: str

    @property
    def reduced(self) -> bool:
        return self.shape.dim < SEVEN.dim

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, **(SLOWLY | {"CUDA_VISIBLE_DEVICES": ""} if self.device == "cpu" else {})}

    def overrides(self, name: str) -> list[str]:
        recipe = RECIPES[name]
        size = []
        if name == "llama2-7b-pretrain" and self.reduced:
            size = [f"--model={{dim: {self.shape.dim}, heads: {self.shape.heads}, vocab_size: {self.shape.vocab_size}}}"]
        return [*recipe.budget, *(recipe.small if self.reduced else ()), *size]

    def words(self, name: str, out: Path) -> list[str]:
        inputs = [f"--{setting}={self.folder / place}" for setting, place in RECIPES[name].inputs.items()]
        return [verb(name), "--config", name, *inputs, *self.overrides(name), "--out", str(out)]

    def whole(self, name: str) -> dict[str, Any]:
        """Runs a recipe undisturbed. Raises UserError with what it said when it fails."""
        noted = self.folder / f"{name}.json"
        done = self._process(MEASURED, str(noted), *self.words(name, self.folder / name))
        found: dict[str, Any] = json.loads(noted.read_text("utf-8"))
        return found | {"said": done.strip().splitlines()[-1]}

    def killed(self, name: str) -> int:
        """Runs it again beside, kills it in its middle, and gives the command again. Returns after how many steps or chunks it was killed."""
        out = self.folder / f"{name}-again"
        command = [sys.executable, "-c", "import sys; from llamaherd.cli import main; main(sys.argv[1:])", *self.words(name, out)]
        half = self._progress(name, self.folder / name) // 2
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.environment) as process:
            while process.poll() is None and self._progress(name, out) < half:
                time.sleep(0.005)
            at = self._progress(name, out)
            process.kill()
            _, wrong = process.communicate()
        if process.returncode >= 0:
            raise UserError(f"{name} ended before it could be killed (code {process.returncode}): {wrong.strip()[-500:]}")
        self._process(MEASURED, str(self.folder / f"{name}-again.json"), *self.words(name, out))
        return at

    def _progress(self, name: str, out: Path) -> int:
        """Steps that were logged, or chunks of answers that were saved."""
        if RECIPES[name].trains:
            log = out / "metrics.jsonl" if out.exists() else out.with_name(f"{out.name}.partial") / "metrics.jsonl"
            return sum("loss" in row for row in read_metrics(log))
        return 2 if out.exists() else len([file for file in out.with_name(f"{out.name}.partial").glob("state/**/*") if file.is_file()])

    def _process(self, code: str, *words: str, given: str = "") -> str:
        done = subprocess.run(
            [sys.executable, "-c", code, *words], capture_output=True, text=True, env=self.environment, input=given, check=False
        )
        if done.returncode:
            raise UserError(f"{' '.join(words)}: {done.stderr.strip()[-800:]}")
        return done.stdout

    def planned(self, names: Sequence[str]) -> dict[str, int]:
        """The bytes that `llamaherd plan` expects of the recipes that it knows, for the same data and settings."""
        known = [name for name in names if RECIPES[name].task]
        asked = []
        for name in known:
            task, inputs = str(RECIPES[name].task), dict(RECIPES[name].inputs)
            # Reward models that are yet to be made are expected to be adapters like the policy's.
            given = [f"--{setting}={self.folder / inputs[setting]}" for setting in ("data", "prompts") if setting in inputs]
            asked.append(["plan", task, str(self.folder / "base"), "--config", name, *given, *self.overrides(name), "--json"])
        lines = self._process(MANY, given=json.dumps(asked)).splitlines()
        return {name: json.loads(line)["total_bytes"] for name, line in zip(known, lines, strict=True)}


def same(bench: Bench, name: str) -> bool:
    """Whether both artifacts hold the same bytes, the log of their times aside."""
    first, second = (find_artifact(bench.folder / each) for each in (name, f"{name}-again"))
    return first is not None and second is not None and first.hash == second.hash


def moved(bench: Bench, name: str) -> str:
    """The loss of the first step and of the last."""
    losses = [row["loss"] for row in read_metrics(bench.folder / name / "metrics.jsonl") if "loss" in row]
    return f"{losses[0]:.4g} to {losses[-1]:.4g} in {len(losses)} steps" if losses else ""


def exported(bench: Bench, name: str) -> str:
    """What became of it in other hands: a model that transformers reads with the same logits, or rows that a later tuning reads."""
    out, artifact = bench.folder / name, find_artifact(bench.folder / name)
    assert artifact is not None
    if artifact.kind in ("samples", "dialogues"):
        from llamaherd.data.importers import import_dialogues

        return f"{len(import_dialogues(out / 'dialogues.jsonl', 'refuse').dialogues)} dialogues that sft reads"
    plain = bench.folder / f"{name}-exported"
    if (out / "adapter_config.json").is_file():
        drift = said("merge", str(bench.folder / "base"), str(out), str(plain))
        how = "merged, drift " + " ".join(re.findall(r"drift by (\S+ \w+)", drift))
    else:
        said("convert", str(out), str(plain), "--to", "hf")
        how = "converted"
    return f"{how}; transformers: {far_apart(plain):.1e} apart"


def far_apart(folder: Path) -> float:
    """The largest difference of logits (or of scores) between transformers and this package, by what is in a folder."""
    import transformers

    from llamaherd.checkpoints.huggingface import load_model, load_scorer
    from llamaherd.checkpoints.source import open_source
    from llamaherd.model.layout import Layout

    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    ids = torch.tensor([[1, *range(100, 140)]])
    with torch.inference_mode():
        if open_source(folder).kind == "reward-model":
            scorer, _ = load_scorer(folder)
            theirs: Any = transformers.LlamaForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
            last = torch.tensor([ids.shape[1] - 1])
            return float((scorer(ids, Layout.of([ids.shape[1]], ids.device), last)[-1] - theirs(ids).logits[0, 0]).abs())
        model, _ = load_model(folder)
        theirs = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
        return float((model(ids) - theirs(ids).logits).abs().max())


def measure(bench: Bench, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What became of each recipe. Raises UserError at the first that fails, does not resume to the same, or does not move its loss."""
    found, planned = dict[str, dict[str, Any]](), bench.planned(names)
    for name in names:
        row: dict[str, Any] = bench.whole(name)
        row |= {
            "moved": moved(bench, name),
            "killed_after": bench.killed(name),
            "same": same(bench, name),
            "exported": exported(bench, name),
        }
        if not row["same"]:
            raise UserError(f"{name}: killed after {row['killed_after']} and given again, it ended with other bytes")
        found[name] = row | {"planned_bytes": planned.get(name), "overrides": bench.overrides(name)}
        write_json(bench.folder / "results.json", {"width": bench.shape.dim, "device": bench.device, "recipes": found})
        print(f"{name}: {row['said']}; {row['moved']}; {row['exported']}; {row['seconds']:.0f} s", flush=True)
    return found


def measured_table(found: Mapping[str, Mapping[str, Any]]) -> str:
    rows = []
    for name, row in found.items():
        plan = f"{row['planned_bytes'] / 1e6:,.0f}" if row["planned_bytes"] else ""
        unit = "steps" if RECIPES[name].trains else "chunks"
        cells = [row["moved"], f"{row['killed_after']} {unit}, same bytes", row["exported"], f"{row['peak_bytes'] / 1e6:,.0f}", plan]
        rows.append([f"`{name}`", *cells, f"{row['seconds']:.0f}"])
    return markdown(["recipe", "loss, first to last", "killed after, and given again", "export", "peak, MB", "planned, MB", "s"], rows)


def overrides_table(found: Mapping[str, Mapping[str, Any]]) -> str:
    return markdown(["recipe", "what is cut"], [[f"`{name}`", f"`{' '.join(row['overrides'])}`"] for name, row in found.items()])


CARDS = (24, 80, 141)
FULL: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("llama2-7b-sft", "sft", ()),
    ("llama2-7b-sft", "sft", ("--optimizer.kind=adamw-8bit",)),
    ("llama2-7b-qlora", "qlora", ()),
    ("llama2-7b-helpfulness", "reward", ()),
    ("llama2-7b-helpfulness", "reward", ("--base.bits=4",)),
    ("llama2-7b-safety", "reward", ()),
    ("llama2-7b-ppo", "ppo", ("--context=512",)),
    ("llama2-7b-ppo", "ppo", ("--context=512", "--roles.bits=4")),
)


def full_table(bench: Bench) -> str:
    """What `llamaherd plan` says of the recipes at the 7B's own shape, on one card of each size."""
    asked = [
        ["plan", task, "llama2-7b", "--config", name, *more, "--device=cuda", f"--memory={card}GB", "--json", "--no-measure"]
        for name, task, more in FULL for card in CARDS
    ]  # fmt: skip
    answers = iter(json.loads(line) for line in bench._process(MANY, given=json.dumps(asked)).splitlines())
    rows = []
    for name, _, more in FULL:
        cells = [next(answers) for _ in CARDS]
        fits = ["fits" if cell["fits"] else f"`{cell['advice'][0]['change']}`" for cell in cells]
        rows.append([f"`{' '.join((name, *more))}`", f"{cells[0]['total_bytes'] / 1e9:.1f}", *fits])
    return markdown(["recipe", "needs, GB", *(f"{card} GB" for card in CARDS)], rows)


def tables(bench: Bench, found: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    where = "one thread of a CPU" if bench.device == "cpu" else torch.cuda.get_device_name()
    head = (
        f"Width {bench.shape.dim} in place of {SEVEN.dim}, {bench.shape.layers} layers, {bench.shape.vocab_size:,} pieces, "
        f"{bench.shape.parameters:,} random weights, {where}.\n\n"
    )
    return {"seven": head + measured_table(found) + "\n" + overrides_table(found), "seven-plan": full_table(bench)}


def the_tokenizer(given: Path | None) -> Tokenizer:
    """The one that is given, or the released one of the public data. Raises UserError where there is neither."""
    data = os.environ.get("LLAMAHERD_DATA")
    if given is None and not data:
        raise UserError("give --tokenizer FOLDER, or set LLAMAHERD_DATA to the folder of public data, which holds the released one")
    return Tokenizer.load(given or Path(str(data)) / "tokenizer" / "llama2")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.seven", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of models, data and results; it must not exist yet")
    parser.add_argument("--only", default="", help=f"recipes, with commas between, of {', '.join(RECIPES)}; what these read comes along")
    parser.add_argument("--width", type=int, default=32, help=f"of the model; {SEVEN.dim} is the 7B itself")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--tokenizer", type=Path, help="folder of a SentencePiece model (default: the released one in LLAMAHERD_DATA)")
    parser.add_argument("--write", type=Path, help="page to write the tables into, such as docs/performance.md")
    options = parser.parse_args(arguments)
    names = list(RECIPES) if not options.only else with_inputs(options.only.split(","), parser)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: there is no GPU here")
    try:
        if options.out.exists():
            raise UserError(f"{options.out} exists already; give another folder")
        tokenizer = the_tokenizer(options.tokenizer)
        bench = Bench(options.out, shape_of(options.width, tokenizer.vocab_size), options.device)
        options.out.mkdir(parents=True)
        torch.set_num_threads(1)
        write_base(bench.folder / "base", bench.shape, tokenizer)
        write_data(bench.folder, tokenizer)
        made = tables(bench, measure(bench, names))
        if options.write:
            write_text(options.write, filled(options.write.read_text(encoding="utf-8"), made))
    except UserError as error:
        sys.exit(f"error: {error}")
    print("\n".join(made.values()))


def with_inputs(names: Sequence[str], parser: argparse.ArgumentParser) -> list[str]:
    """These recipes and those whose outputs they read, in their order."""
    wanted = {name if name.startswith("llama2-7b-") else f"llama2-7b-{name}" for name in names}
    if unknown := wanted - set(RECIPES):
        parser.error(f"--only {', '.join(sorted(unknown))}: expected some of {', '.join(RECIPES)}")
    reads: Callable[[str], set[str]] = lambda name: set(RECIPES[name].inputs.values()) & set(RECIPES)  # noqa: E731
    wanted |= {each for name in wanted for each in reads(name)}
    return [name for name in RECIPES if name in wanted]


if __name__ == "__main__":
    main()
