"""Each recipe whole, killed and given again, and exported; what it holds beside what `llamaherd plan` says."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from llamaherd.core.artifacts import find_artifact
from llamaherd.core.errors import UserError
from llamaherd.core.files import write_json
from llamaherd.core.metrics import read_metrics
from llamaherd.model.config import ModelConfig

from .inputs import SEVEN, said
from .recipes import RECIPES, verb

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
        done = self.process(MEASURED, str(noted), *self.words(name, self.folder / name))
        found: dict[str, Any] = json.loads(noted.read_text("utf-8"))
        return found | {"said": done.strip().splitlines()[-1]}

    def killed(self, name: str) -> int:
        """Runs it again beside, kills it in its middle, and gives the command again. Returns after how many steps or chunks it was killed."""
        out = self.folder / "again" / name  # the card says the folder's name
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
        self.process(MEASURED, str(self.folder / f"{name}-again.json"), *self.words(name, out))
        return at

    def _progress(self, name: str, out: Path) -> int:
        """Steps that were logged, or chunks of answers that were saved."""
        if RECIPES[name].trains:
            log = out / "metrics.jsonl" if out.exists() else out.with_name(f"{out.name}.partial") / "metrics.jsonl"
            return sum("loss" in row for row in read_metrics(log))
        return 2 if out.exists() else len([file for file in out.with_name(f"{out.name}.partial").glob("state/**/*") if file.is_file()])

    def process(self, code: str, *words: str, given: str = "") -> str:
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
        lines = self.process(MANY, given=json.dumps(asked)).splitlines()
        return {name: json.loads(line)["total_bytes"] for name, line in zip(known, lines, strict=True)}


def same(bench: Bench, name: str) -> bool:
    """Whether both artifacts hold the same bytes, the log of their times aside."""
    first, second = (find_artifact(bench.folder / each) for each in (name, Path("again", name)))
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
