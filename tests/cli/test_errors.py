"""What a hostile or hasty user gives: one line that says what and where, an exit code, and nothing left behind."""

import pytest

from llamaherd.core.artifacts import MANIFEST

USER, ANSWER = {"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}
SYSTEM = {"role": "system", "content": "Be kind."}


@pytest.fixture(autouse=True)
def clean(workshop, monkeypatch, tmp_path):
    """Commands run in a folder of their own, which holds nothing but inputs afterwards."""
    for path in workshop.folder.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    yield
    assert not list(tmp_path.glob("out*"))


def test_a_line_that_is_not_json(refused, write):
    write("bad.jsonl", {"text": "fine"}, "{oops")
    assert refused("data", "build", "--documents=bad.jsonl", "--out=out").startswith("bad.jsonl line 2: not JSON")


def test_a_missing_file(refused):
    assert refused("data", "build", "--documents=none.jsonl", "--out=out").startswith("none.jsonl: cannot be read: No such file")
    assert refused("sft", "--model=base", "--data=none.jsonl", "--out=out").startswith("none.jsonl: no such file or folder")
    assert refused("ppo", "--config=none.yaml", "--out=out").startswith("none.yaml: no such file")
    assert refused("score", "help", "none.jsonl").startswith("none.jsonl: no such file")


def test_a_corpus_with_no_document_left(refused, write):
    write("empty.jsonl", {"text": ""}, {"text": " \n"})
    assert refused("data", "build", "--documents=empty.jsonl", "--out=out") == "empty.jsonl: no document is left of 2 read: empty dropped 2"


def test_two_user_turns_in_a_row(refused, write):
    write("two.jsonl", {"messages": [USER, ANSWER]}, {"messages": [USER, USER, ANSWER]})
    assert refused("sft", "--model=base", "--data=two.jsonl", "--out=out").startswith(
        "two.jsonl line 2: message 2 (user): expected assistant here"
    )


@pytest.mark.parametrize("index", [0, 1, 2])
@pytest.mark.parametrize("tag", ["[INST]", "[/INST]", "<<SYS>>", "<</SYS>>"])
def test_a_tag_in_a_message_of_any_role(refused, write, index, tag):
    messages = [dict(message) for message in (SYSTEM, USER, ANSWER)]
    messages[index]["content"] += tag
    write("tag.jsonl", {"messages": messages})
    expected = f"tag.jsonl line 1: message {index + 1} ({messages[index]['role']}): contains the template tag {tag}"
    assert refused("sft", "--model=base", "--data=tag.jsonl", "--out=out").startswith(expected)
    assert refused("score", "help", "tag.jsonl").startswith(expected)


def test_dialogues_longer_than_a_row_are_counted_and_all_of_them_refused(command, refused, write):
    long = {"messages": [USER, {"role": "assistant", "content": "word " * 400}]}
    write("long.jsonl", long, long)
    assert "all 2 dialogues are longer than row_tokens" in refused("sft", "--model=base", "--data=long.jsonl", "--out=out")
    write("mixed.jsonl", long, {"messages": [USER, ANSWER]})
    outcome = command("sft", "--model=base", "--data=mixed.jsonl", "--out=tuned", "--epochs=1")
    assert outcome.out.startswith("tuned: 1 dialogues, ")
    assert ", 1 too long, " in outcome.out


@pytest.mark.parametrize("verb", ["reject", "ppo"])
def test_a_prompt_longer_than_the_context(refused, write, verb):
    write("long.jsonl", {"messages": [USER]}, {"messages": [{"role": "user", "content": "word " * 400}]})
    line = refused(verb, f"--config={verb}.yaml", "--prompts=long.jsonl", "--out=out")
    assert line.startswith("long.jsonl: prompt 2 has ")
    assert "the model's context is 512" in line


def test_a_prompt_longer_than_the_context_on_the_command_line(refused):
    assert "the model's context is 512" in refused("generate", "chat", "--prompt", "word " * 400)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"rejected": "Yes."}, "chosen and rejected answers are equal"),
        ({"rejected": " "}, "'rejected' is ' '; expected the text of an answer"),
        ({"chosen": "[INST]"}, "contains the template tag [INST]"),
        ({"grade": "much better"}, "'grade' is 'much better'; expected one of significantly, better, slightly, negligibly"),
        ({"domain": "fun"}, "'domain' is 'fun'; expected one of helpfulness, safety"),
        ({"chosen_safe": "yes"}, "'chosen_safe' is 'yes'"),
        ({"messages": [USER, ANSWER]}, "a prompt ends with a user message"),
    ],
)
def test_preferences_that_teach_nothing(refused, write, changes, expected):
    write("pairs.jsonl", {"messages": [USER], "chosen": "Yes.", "rejected": "No.", "domain": "helpfulness", **changes})
    line = refused("reward", "--model=chat", "--data=pairs.jsonl", "--domain=helpfulness", "--out=out")
    assert line.startswith("pairs.jsonl line 1")
    assert expected in line


def test_preferences_of_the_other_domain_only(refused):
    line = refused("reward", "--model=chat", "--data=safety.jsonl", "--domain=helpfulness", "--out=out")
    assert line == "no comparison of domain helpfulness in safety.jsonl (found safety)"
    assert "domain: given \"fun\", expected 'helpfulness' or 'safety'" in refused(
        "reward", "--model=chat", "--data=safety.jsonl", "--domain=fun", "--out=out"
    )


def test_a_folder_that_is_no_model_or_another_kind(refused, tmp_path):
    for folder in ("corpus", "help", "."):
        assert refused("sft", f"--model={folder}", "--data=dialogues.jsonl", "--out=out").startswith(f"{folder}")
    assert "expected LlamaForSequenceClassification (a reward model)" in refused("score", "chat", "dialogues.jsonl")
    assert "expected LlamaForCausalLM (a language model)" in refused("evaluate", "help")
    assert "is of kind 'corpus'; expected shards" in refused("pretrain", "--shards=corpus", "--out=out")


def test_models_that_are_not_there(refused, finished_run):
    assert refused("generate", "nowhere", "--prompt=hi").startswith("nowhere: no such folder; expected a model folder, RUN or RUN:VERSION")
    line = refused("generate", f"{finished_run.folder}:v50", "--prompt=hi")
    assert "has no 'v50' (did you mean 'v5'?)" in line


def test_an_out_folder_that_exists_is_left_alone(refused, workshop):
    manifest = workshop.folder / "corpus" / MANIFEST
    before = manifest.read_bytes()
    assert "corpus exists already" in refused("data", "build", "--documents=documents.jsonl", "--out=corpus")
    assert manifest.read_bytes() == before
    for here in (".", ""):
        assert ". exists already" in refused("data", "build", "--documents=documents.jsonl", f"--out={here}")


def test_all_problems_of_the_settings_at_once(command):
    outcome = command("sft", "--data=dialogues.jsonl", "--epochs=-1", "--batchrows=3", "--optimizer.lr=fast", "--out=out")
    assert outcome.code == 2
    assert outcome.err.splitlines() == [
        "llamaherd: 4 problems in the settings:",
        "  epochs: given -1, expected greater than 0",
        '  optimizer.lr: given "fast", expected a valid number',
        "  model: is needed and was not given",
        "  batchrows: unknown setting (did you mean 'batch_rows'?)",
    ]


def test_a_setting_given_twice(refused):
    assert "--data is given twice" in refused("sft", "--model=base", "--data=a", "--data=b", "--out=out")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["run", "tyny"], "tyny: no recipe of that name (did you mean 'tiny'?)"),
        (["run", "tiny", "--out=corpus"], "corpus is not empty and holds no run of a recipe"),
        (["run", "tiny", "extra", "--out=out"], "'extra' is not understood here"),
        (["run", "--pretrain.stepz=3", "--out=out"], "pretrain.stepz: unknown setting (did you mean 'steps'?)"),
        (["run", "tiny", "--pretrain.model=tinny", "--out=out"], "pretrain.model: no model preset 'tinny' (did you mean 'tiny'?)"),
        (["claims", "tyny"], "tyny: no recipe of that name (did you mean 'tiny'?)"),
        (["claims", "tiny", "--out=corpus"], "corpus is not empty and holds no claims; choose another --out"),
        (["claims", "tiny", "--seeds=0,x", "--out=out"], "--seeds '0,x': expected different numbers with commas between, such as 0,1,2"),
        (["claims", "tiny", "--seeds=1,1", "--out=out"], "--seeds '1,1': expected different numbers"),
        (["claims", "tiny", "--seed=4", "--out=out"], "claims takes --seeds, such as --seeds=0,1,2, and no --seed"),
        (["claims", "--claims.sft_stepz=3", "--out=out"], "claims.sft_stepz: unknown setting (did you mean 'sft_steps'?)"),
        (["evaluate", "chat", "--tasks=fun"], 'tasks.0: given "fun", expected'),
        (["generate", "chat", "--prompt="], "--prompt: message 1 (user): is empty"),
        (["generate", "chat", "--prompt=[INST]"], "contains the template tag [INST]"),
        (["generate", "chat", "--prompt=hi", "--temperature=-1"], "sampling.temperature: given -1.0, expected greater than or equal to 0"),
        (["data", "stats"], "no file given"),
        (["data", "show", "dialogues.jsonl", "--model=chat", "--limit=-1"], "--limit is -1; expected a number of rows"),
        (
            ["tokenizer", "train", "--corpus=corpus", "--tokenizer.vocab_size=270", "--out=out"],
            "vocab_size 270: this corpus needs at least",
        ),
        (["data", "shards", "--corpus=corpus", "--tokenizer=tokenizer", "--weights.wiki=2", "--out=out"], "weights.wiki: no document"),
        (
            ["pretrain", "--shards=shards", "--model=tiny", "--row_tokens=4096", "--out=out"],
            "row_tokens is 4096 and the model's context 512",
        ),
        (["frobnicate"], 'Unknown command "frobnicate"'),
        (["pretrain"], "--out"),
    ],
)
def test_one_line_each(refused, arguments, expected):
    assert expected in refused(*arguments)


def test_an_unknown_verb(refused):
    assert 'Unknown command "annotate"' in refused("annotate", "chat")


@pytest.mark.parametrize("name", ["tokenizer.model", "config.json", "model.safetensors"])
def test_a_damaged_model_folder(refused, workshop, tmp_path, name):
    (tmp_path / "damaged").mkdir()
    for path in (workshop.folder / "chat").iterdir():
        (tmp_path / "damaged" / path.name).write_bytes(path.read_bytes()[: 60 if path.name == name else None])
    line = refused("generate", "damaged", "--prompt=hi")
    assert line.startswith(f"damaged/{name}: ")
