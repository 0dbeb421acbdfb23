"""The arithmetic by hand, what changes it, and what it says of processes that really ran."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llamaherd.checkpoints.huggingface import save_model
from llamaherd.core.errors import UserError
from llamaherd.core.files import write_rows
from llamaherd.model.config import PRESETS, ModelConfig
from llamaherd.model.transformer import new_model, scorer_from
from llamaherd.plan.forecast import Forecast, Question, forecast, task_of, weights_bytes
from llamaherd.plan.machine import HELD_BYTES, Machine, machine
from llamaherd.plan.target import Target, target
from llamaherd.tokenizer.sentencepiece import Tokenizer

SEVEN = Target("llama2-7b", PRESETS["llama2-7b"])
HERE = Machine("cpu", 10**12, 0, 1e12, 1e10)


def of(task: str, model: Target = SEVEN, machine: Machine = HERE, context: int | None = None, **settings: Any) -> Forecast:
    return forecast(Question(task_of(task), model, {name.replace("__", "."): value for name, value in settings.items()}, context), machine)


def test_all_weights_of_7b_in_training() -> None:
    parts = of("sft", micro_rows=1).moment.parts
    assert PRESETS["llama2-7b"].parameters == 6_738_415_616
    assert parts["weights"] == 4 * 6_738_415_616
    assert parts["optimizer"] == 8 * 6_738_415_616


def test_qlora_of_7b_by_hand() -> None:
    parts = of("qlora", machine=Machine("cuda", 10**12, 0), row_tokens=512, batch_rows=4, micro_rows=4, checkpointing=True).moment.parts
    # 32 blocks: four matrices of 4096 x 4096 and three of 4096 x 11008; r 16 on both sides of each.
    adapter = 32 * 16 * (4 * 2 * 4096 + 3 * (4096 + 11008))
    in_blocks = 32 * (4 * 4096**2 + 3 * 4096 * 11008)
    rest = 2 * 32000 * 4096 + 65 * 4096
    assert adapter == 39_976_960
    assert parts["weights"] == pytest.approx(in_blocks * (0.5 + 1 / 64 + 1 / 4096) + 2 * rest + 4 * adapter, rel=1e-6)
    assert parts["optimizer"] == 8 * adapter
    assert of("qlora", machine=Machine("cuda", 10**12, 0), row_tokens=512, micro_rows=4, checkpointing=True).total_bytes < 8e9


def test_chat_by_hand() -> None:
    found = of("chat", context=512, max_new_tokens=12)
    assert found.moment.parts["weights"] == 4 * 6_738_415_616
    # 32 blocks, keys and values, 32 heads of 128, in float32; and a mask of 32 numbers.
    assert found.moment.parts["cache"] == 512 * (4 * 2 * 32 * 4096 + 4 * 32)
    assert found.disk_bytes == 0
    reading = 512 * 0.5 * 2 * 32 * 4096 * 2  # attention of half a square, queries by keys and by values
    assert found.seconds is not None
    assert found.seconds > 12 * 4 * 6_738_415_616 / 1e10 + 2 * 500 * 6.4e9 / 1e12 + reading / 1e12


@pytest.mark.parametrize(("bits", "bytes_each"), [(8, 1.0), (4, 0.625), (16, 2.0), (32, 4.0)])
def test_weights_that_answer(bits: int, bytes_each: float) -> None:
    shape = PRESETS["llama2-7b"]
    plain = bits in (16, 32)
    expected = (
        shape.parameters * bytes_each if plain else (shape.trunk_parameters + 32000 * 4096) * bytes_each + 4 * (32000 * 4096 + 65 * 4096)
    )
    assert weights_bytes(shape, bits, on_gpu=False) == pytest.approx(expected)


def test_less_of_anything_needs_less() -> None:
    whole = of("sft").total_bytes
    smaller: list[dict[str, Any]] = [
        {"micro_rows": 2}, {"row_tokens": 1024}, {"checkpointing": True}, {"lora__r": 16}, {"optimizer__kind": "adamw-8bit"}
    ]  # fmt: skip
    for change in smaller:
        assert of("sft", **change).total_bytes < whole, change
    assert of("lora").total_bytes > of("qlora").total_bytes > of("qlora", checkpointing=True).total_bytes
    assert of("reward", micro_pairs=4).total_bytes < of("reward").total_bytes
    assert of("reward", lora__r=16, base__bits=4).total_bytes < of("reward", lora__r=16).total_bytes < of("reward").total_bytes
    assert of("ppo", ppo__micro_batch=4).total_bytes < of("ppo").total_bytes


def test_time_goes_with_steps_and_is_unknown_without_them() -> None:
    ten, twenty = of("sft", steps=10), of("sft", steps=20)
    assert ten.seconds is not None
    assert twenty.seconds == pytest.approx(2 * ten.seconds)
    assert of("sft").seconds is None
    assert of("sft").seconds_per_step == ten.seconds_per_step
    assert of("sft", machine=Machine("cpu", 10**12, 0), steps=10).seconds is None


def test_disk_is_the_model_and_three_states() -> None:
    weights = 4 * 6_738_415_616
    assert of("sft").disk_bytes == weights + 3 * (weights + 2 * weights)


@pytest.mark.parametrize(
    ("task", "settings", "told"),
    [
        ("sft", {"batch_rowz": 1}, "batch_rowz: unknown setting (did you mean 'batch_rows'?)"),
        ("sft", {"row_tokens": 5000}, "row_tokens is 5000 and the model's context 4096"),
        ("sft", {"base.bits": 4}, "add --lora.r=16"),
        ("chat", {"bits": 5}, "bits: given 5"),
        ("sft", {"data": "x.jsonl"}, "give the model's folder"),
        ("ppo", {"ppo.batch": 10, "ppo.mini_batch": 4}, "not a multiple"),
    ],
)
def test_bad_settings(task: str, settings: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told.replace("(", r"\(").replace(")", r"\)").replace("?", r"\?")) as error:
        forecast(Question(task_of(task), SEVEN, settings), HERE)
    assert "\n" not in str(error.value)


def test_a_context_that_the_model_does_not_have() -> None:
    with pytest.raises(UserError, match="expected 2 to 4096"):
        of("chat", context=4097)


def test_an_unknown_task() -> None:
    with pytest.raises(UserError, match=r"no task 'rewards' \(did you mean 'reward'\?\)"):
        task_of("rewards")


def test_data_is_counted_where_it_is_given(tiny_folder: Path, tiny_inputs: Path) -> None:
    model = target(str(tiny_folder / "v0"))
    counted = of("sft", model, data=str(tiny_inputs / "dialogues.jsonl"), batch_rows=4, micro_rows=2)
    assert counted.steps is not None
    assert counted.seconds is not None
    assert counted.total_bytes < of("sft", model, batch_rows=4, micro_rows=2).total_bytes
    rewarding = of("reward", model, data=str(tiny_inputs / "preferences.jsonl"), batch_pairs=64, micro_pairs=64)
    assert rewarding.total_bytes < of("reward", model, batch_pairs=64, micro_pairs=64).total_bytes
    asked = {"ppo.batch": 8, "ppo.mini_batch": 4, "ppo.micro_batch": 2, "ppo.iterations": 3, "ppo.max_new_tokens": 16}
    answering = forecast(Question("ppo", model, {**asked, "prompts": str(tiny_inputs / "prompts.jsonl")}), HERE)
    assert answering.steps == 2 + 1 + 2  # 12 prompts: of every two batches the second has half as many
    assert answering.total_bytes < forecast(Question("ppo", model, asked), HERE).total_bytes


PEAK = """
import sys
from llamaherd.cli import main
main(sys.argv[1:])
lines = dict(line.split(":", 1) for line in open("/proc/self/status"))
print("PEAK", int(lines["VmHWM"].split()[0]) * 1024)
"""


def measured(*words: str) -> int:
    """The most memory that the process of a command held."""
    done = subprocess.run([sys.executable, "-c", PEAK, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split("PEAK ")[-1])


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peaks are read from /proc")
@pytest.mark.parametrize(
    "shape",
    [
        ModelConfig(dim=128, layers=4, heads=4, kv_heads=2, ffn=352, vocab_size=340, context=512),
        ModelConfig(dim=512, layers=8, heads=8, multiple_of=32, vocab_size=340, context=512, tied=True),
    ],
    ids=["miniature", "42m"],
)
def test_predictions_are_within_15_percent_of_measured_peaks(shape: ModelConfig, tokenizer: Tokenizer, tmp_path: Path) -> None:
    model, rows = new_model(shape, 0), []
    save_model(model, tokenizer, tmp_path / "model")
    save_model(scorer_from(model), tokenizer, tmp_path / "scorer")
    for number in range(120):
        asked, said = f"Where does Ada live{'?' * (number % 9)}", "Ada lives in Lima. " * (1 + number % 6)
        rows.append(
            {
                "messages": [{"role": "user", "content": asked}],
                "chosen": said,
                "rejected": said[:-9],
                "grade": "better",
                "domain": "helpfulness",
            }
        )
    write_rows(tmp_path / "pairs.jsonl", [{"chosen_safe": None, "rejected_safe": None, "batch": "a"} | row for row in rows])
    write_rows(
        tmp_path / "dialogues.jsonl",
        [{"messages": [*row["messages"], {"role": "assistant", "content": row["chosen"]}]} for row in rows],  # type: ignore[misc]
    )
    write_rows(tmp_path / "prompts.jsonl", [{"messages": row["messages"], "safety": False} for row in rows[:16]])
    place, held = str(tmp_path / "model"), str(tmp_path / "scorer")
    commands = {
        "sft": ["--data", str(tmp_path / "dialogues.jsonl"), "--row-tokens=256", "--batch-rows=4", "--micro-rows=2", "--steps=4"],
        "lora": ["--data", str(tmp_path / "dialogues.jsonl"), "--row-tokens=256", "--batch-rows=4", "--micro-rows=2", "--steps=4",
                 "--lora.r=8"],
        "qlora": ["--data", str(tmp_path / "dialogues.jsonl"), "--row-tokens=256", "--batch-rows=4", "--micro-rows=4", "--steps=4",
                  "--lora.r=8", "--base.bits=4", "--checkpointing=true"],
        "reward": ["--data", str(tmp_path / "pairs.jsonl"), "--domain=helpfulness", "--batch-pairs=16", "--micro-pairs=8"],
        "ppo": ["--helpfulness", held, "--safety", held, "--prompts", str(tmp_path / "prompts.jsonl"), "--ppo.iterations=2",
                "--ppo.batch=8", "--ppo.mini-batch=4", "--ppo.micro-batch=2", "--ppo.max-new-tokens=48"],
    }  # fmt: skip
    missed = {}
    for task, words in commands.items():
        planned = subprocess.run(
            [sys.executable, "-m", "llamaherd.cli", "plan", task, place, *words, "--json"], capture_output=True, text=True, check=True
        )
        peak = measured("sft" if "lora" in task else task, "--model", place, *words, "--out", str(tmp_path / task))
        missed[task] = json.loads(planned.stdout)["total_bytes"] / peak - 1
    assert max(map(abs, missed.values())) < 0.15, missed


@pytest.mark.slow
def test_what_python_and_torch_hold_is_near_the_figure_that_stands_for_it() -> None:
    code = "from llamaherd.plan.machine import machine; print(machine('cpu', None, True).held_bytes)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == pytest.approx(HELD_BYTES, rel=0.4)
    assert machine("cpu", "8GB", False) == Machine("cpu", 8 * 10**9, HELD_BYTES)
