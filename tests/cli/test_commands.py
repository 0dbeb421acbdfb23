"""Every command form, on a user's own small files."""

import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llamaherd.core.artifacts import open_artifact
from llamaherd.core.files import read_json, read_rows, write_rows

KINDS = {
    "corpus": "corpus", "tokenizer": "tokenizer", "shards": "shards", "base": "model", "chat": "model", "help": "reward-model",
    "safe": "reward-model", "samples": "samples", "after-ppo": "model", "ghost": "dialogues", "distilled": "dialogues",
}  # fmt: skip


@pytest.fixture(autouse=True)
def there(workshop, monkeypatch):
    monkeypatch.chdir(workshop.folder)


def rows_of(path):
    return [row for _, row in read_rows(path)]


def test_every_command_wrote_its_artifact(workshop):
    assert {name: open_artifact(workshop.folder / name).kind for name in workshop.printed} == KINDS
    assert not list(workshop.folder.glob("*.partial"))


def test_single_empty_documents_are_dropped_and_counted(workshop):
    metrics = open_artifact(workshop.folder / "corpus").metrics
    assert metrics["dropped"]["empty"] == 1
    assert metrics["kept"] == len(rows_of(workshop.folder / "documents.jsonl")) - sum(metrics["dropped"].values())


def test_own_dialogues_are_learned(workshop):
    assert open_artifact(workshop.folder / "chat").metrics["dialogues"] == 25
    rows = rows_of(workshop.folder / "chat" / "metrics.jsonl")
    assert rows[-1]["loss"] < rows[0]["loss"] / 2


def test_preferences_without_grades_labels_or_annotators_train_a_reward_model(workshop):
    for name, domain in (("help", "helpfulness"), ("safe", "safety")):
        metrics = open_artifact(workshop.folder / name, "reward-model").metrics
        assert metrics["domain"] == domain
        assert metrics["pairs"] + metrics["test_pairs"] == 25


def test_samples_become_dialogues_to_tune_on(workshop):
    pool = rows_of(workshop.folder / "samples" / "dialogues.jsonl")
    assert 0 < len(pool) <= 25
    assert all(row["messages"][-1]["role"] == "assistant" for row in pool)


def test_an_artifact_remembers_the_hash_of_every_input(workshop):
    manifest = open_artifact(workshop.folder / "chat").manifest
    assert set(manifest["parents"]) == {"base", "dialogues.jsonl"}
    assert manifest["parents"]["base"]["hash"] == open_artifact(workshop.folder / "base").hash


def test_data_stats(command):
    outcome = command("data", "stats", "corpus")
    assert outcome.code == 0
    statistics = json.loads(outcome.out)
    from_file = json.loads(command("data", "stats", "corpus/documents.jsonl").out)
    assert statistics == from_file
    assert statistics["documents"] == open_artifact("corpus").metrics["kept"]


def test_data_show_prints_what_is_trained(command):
    outcome = command("data", "show", "dialogues.jsonl", "--model", "chat", "--limit", "1")
    assert outcome.code == 0
    shown = outcome.out.replace("│", "").replace("▁", " ")
    assert "⟦ Anna lives in Rome. </s>⟧" in shown
    assert "1 rows: " in shown


def test_score_adds_two_fields_and_changes_nothing_else(command):
    outcome = command("score", "help", "dialogues.jsonl")
    assert outcome.code == 0
    scored = [json.loads(line) for line in outcome.out.splitlines()]
    rows = rows_of(Path("dialogues.jsonl"))
    assert [{key: value for key, value in row.items() if key not in ("score", "logit")} for row in scored] == rows
    assert all(0 < row["score"] < 1 and (row["score"] > 0.5) == (row["logit"] > 0) for row in scored)


def test_evaluate_prints_and_writes_the_same(command, tmp_path):
    few = ["--people_prompts=3", "--borderline_prompts=3", "--sampling.max_new_tokens=8"]
    outcome = command("evaluate", "chat", "--tasks", "borderline,people", "--out", tmp_path / "evaluation", *few)
    assert outcome.code == 0
    printed = json.loads(outcome.out)
    assert printed == read_json(tmp_path / "evaluation" / "evaluation.json")
    assert set(printed["tasks"]) == {"borderline", "people"}
    assert command("evaluate", "chat", "--tasks", "people,borderline", *few).out == outcome.out


def test_evaluate_own_prompts_under_a_reward_model(command, refused, write):
    own = [{"messages": [{"role": "user", "content": f"Where does {name} live?"}]} for name in ("Anna", "Berta", "Clara")]
    folder = write("helpfulness.jsonl", *own).parent
    outcome = command("evaluate", "chat", "--asked", folder, "--judge", "help", "--tasks", "helpfulness", "--sampling.max_new_tokens=8")
    assert outcome.code == 0, outcome.err
    printed = json.loads(outcome.out)
    assert printed["tasks"]["helpfulness"]["sampled"]["n"] == 3
    assert printed["asked"] == {"helpfulness": {"rows": 3, "equal": 0, "asked": 3}}
    assert "holds no safety.jsonl" in refused("evaluate", "chat", "--asked", folder, "--judge", "help", "--tasks", "helpfulness,safety")
    assert "add --judge REWARD_MODEL" in refused("evaluate", "chat", "--asked", folder)
    assert "add --asked FOLDER" in refused("evaluate", "chat", "--judge", "help")


def test_evaluate_on_items_of_ones_own(command, refused, tmp_path):
    items = [{"query": f"Berna has {number}", "choices": ["cats", "dogs", "no pets"], "gold": number % 3} for number in range(12)]
    write_rows(tmp_path / "mine.jsonl", items)
    outcome = command("evaluate", "base", "--tasks=choices", "--data", tmp_path / "mine.jsonl", "--out", tmp_path / "evaluation")
    printed = json.loads(outcome.out)
    assert printed == read_json(tmp_path / "evaluation" / "evaluation.json")
    assert (printed["tasks"]["choices"]["items"], printed["tasks"]["choices"]["majority"]) == (12, 4 / 12)
    assert "--held_out=" in command("evaluate", "--tasks", "piqa,boolq", "--help").out
    assert refused("evaluate", "chat", "--tasks=piqa,people,win-rate") == (
        "tasks win-rate need a judge, and people the miniature, and piqa a benchmark's items; ask apart"
    )
    assert "lambada" in refused("evaluate", "chat", "--tasks=piqa,fun")


def test_evaluate_rewards_alone_and_without_a_reward_model(command, refused):
    few = ["--helpfulness_prompts=3", "--sampling.max_new_tokens=8"]
    outcome = command("evaluate", "chat", "--tasks=rewards", "--helpfulness=help", *few)
    assert json.loads(outcome.out)["tasks"]["rewards"].keys() == {"helpfulness"}
    assert "no reward model given; add --helpfulness MODEL" in refused("evaluate", "chat", "--tasks=rewards")


def test_generate_prints_the_answer_alone_and_the_same_for_a_seed(command):
    arguments = ["generate", "chat", "--prompt", "Where does Anna live?", "--max-new-tokens", "40", "--temperature", "1"]
    outcome = command(*arguments, "--seed", "3")
    assert outcome.code == 0
    assert outcome.err == ""
    assert command(*arguments, "--seed", "3").out == outcome.out
    assert len({command(*arguments, "--seed", str(seed)).out for seed in range(4)}) > 1


def test_generate_raw_from_nothing(command):
    outcome = command("generate", "base", "--prompt", "", "--raw", "--max-new-tokens", "8", "--temperature", "0")
    assert outcome.code == 0
    assert outcome.out.strip()


def test_chat_answers_in_turns(command, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("Where does Anna live?\n/system Be brief.\n/temperature 0\n/reset\n"))
    outcome = command("chat", "chat", "--seed", "1", "--max-new-tokens", "8")
    assert outcome.code == 0


def test_a_run_can_be_named_instead_of_a_folder(command, finished_run):
    arguments = ["--prompt", "Hi there.", "--temperature", "0", "--max-new-tokens", "4"]
    newest = command("generate", finished_run.folder, *arguments)
    assert newest.code == 0
    assert command("generate", f"{finished_run.folder}:v5", *arguments).out == newest.out
    assert command("generate", finished_run.folder / "v5", *arguments).out == newest.out


def test_corrected_settings_work_in_the_same_folder(command, refused, tmp_path):
    out = tmp_path / "base"
    arguments = [
        "pretrain",
        "--shards",
        "shards",
        "--model",
        "tiny",
        "--steps",
        "2",
        "--row_tokens",
        "32",
        "--optimizer.warmup_steps=1",
        "--out",
        out,
    ]
    assert "stopped before the step" in refused(*arguments, "--optimizer.lr", "1e30")
    assert not list(tmp_path.iterdir())
    assert command(*arguments, "--optimizer.lr", "1e-3").code == 0


@pytest.mark.parametrize("text", ["- be nice", "-5 plus 3", "-hello", "--a.b=c"])
def test_words_of_people_may_begin_with_a_hyphen(command, text):
    outcome = command("generate", "chat", "--system", text, "--prompt", text, "--temperature", "0", "--max-new-tokens", "4")
    assert (outcome.code, outcome.err) == (0, "")


def test_ctrl_c_says_that_one_can_go_on(workshop, tmp_path):
    """Sent while a command works, as a terminal does."""
    command = [sys.executable, "-m", "llamaherd.cli", "sft", "--model", "base", "--data", "dialogues.jsonl", "--epochs=100000"]
    process = subprocess.Popen([*command, "--out", str(tmp_path / "out")], stderr=subprocess.PIPE, text=True, cwd=workshop.folder)
    while not (tmp_path / "out.partial" / "metrics.jsonl").is_file():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert (process.returncode, said) == (130, "llamaherd: stopped; given again, a command with --out goes on from here\n")
