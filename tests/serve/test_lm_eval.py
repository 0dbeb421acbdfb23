"""lm-eval, unmodified, over HTTP: its scores equal those of the same model in its own process."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import CITIES, PEOPLE
from tests.serve.conftest import Running

lm_eval = pytest.importorskip("lm_eval")

pytestmark = pytest.mark.slow

CHOICE = """
task: where
dataset_path: json
dataset_kwargs: {{data_files: {{test: "{rows}"}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{gold}}}}"
target_delimiter: " "
metric_list: [{{metric: acc}}]
"""
ANSWER = """
task: said
dataset_path: json
dataset_kwargs: {{data_files: {{test: "{rows}"}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{choices[gold]}}}}"
generation_kwargs: {{until: ["\\n\\n"], max_gen_toks: 12, temperature: 0, do_sample: false}}
metric_list: [{{metric: exact_match}}]
"""


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Two small tasks on local files."""
    folder = tmp_path_factory.mktemp("tasks")
    rows = folder / "rows.jsonl"
    asked = [
        {"question": f"Where does {name} live? {name} lives in", "choices": list(CITIES), "gold": place % 4}
        for place, name in enumerate(PEOPLE * 2)
    ]
    rows.write_text("".join(json.dumps(row) + "\n" for row in asked))
    (folder / "where.yaml").write_text(CHOICE.format(rows=rows))
    (folder / "said.yaml").write_text(ANSWER.format(rows=rows))
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=str(folder), include_defaults=False)


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No hub, and its caches in a folder of the test's own."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))


def samples(model: str, arguments: dict[str, Any], task: str, tasks: Any, **more: Any) -> list[Any]:
    result = lm_eval.simple_evaluate(model=model, model_args=arguments, tasks=[task], task_manager=tasks, bootstrap_iters=0, **more)
    rows = sorted(result["samples"][task], key=lambda row: row["doc_id"])
    return [answer for row in rows for answer in row["resps"]]


@pytest.mark.parametrize("backend", ["huggingface", "remote"])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_likelihoods_equal_those_of_its_own_process(up: Running, talkers: Path, tasks: Any, backend: str, batch_size: int) -> None:
    over_http = {
        "model": "short", "base_url": f"{up.v1}/completions", "tokenizer_backend": backend, "max_length": 2048,
        "num_concurrent": 1, "batch_size": batch_size,
        **({"tokenizer": str(talkers / "short")} if backend == "huggingface" else {}),
    }  # fmt: skip
    ours = samples("local-completions", over_http, "where", tasks)
    theirs = samples(
        "hf", {"pretrained": str(talkers / "short"), "device": "cpu", "dtype": "float32", "add_bos_token": False}, "where", tasks
    )
    assert len(ours) == len(theirs) == 4 * 2 * len(PEOPLE)
    for (mine, mine_greedy), (other, other_greedy) in zip((one[0] for one in ours), (one[0] for one in theirs), strict=True):
        assert float(mine) == pytest.approx(float(other), abs=1e-4)
        assert mine_greedy == other_greedy
    up.wait_empty()


def test_its_tokenizer_is_found_by_itself(up: Running) -> None:
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    model = LocalCompletionsAPI(base_url=f"{up.v1}/completions", model="short", max_length=2048)
    assert model.tokenizer_backend == "remote"
    assert model.tok_encode("Ada lives") == up.service.models["short"].worker.assistant.tokenizer.encode("Ada lives")
    assert (model.eot_token_id, model.prefix_token_id) == (None, None)


def test_rolling_likelihoods(up: Running, talkers: Path) -> None:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    texts = ["Ada lives in Lima. Ben lives in Oslo.", "Eva lives in Rome. " * 12]
    asked = [Instance("loglikelihood_rolling", {}, (text,), index) for index, text in enumerate(texts)]
    ours = LocalCompletionsAPI(base_url=f"{up.v1}/completions", model="short", max_length=64, custom_prefix_token_id=1)
    theirs = HFLM(str(talkers / "short"), device="cpu", dtype="float32", max_length=62, prefix_token_id=1, add_bos_token=False)
    assert ours.loglikelihood_rolling(asked) == pytest.approx(theirs.loglikelihood_rolling(asked), abs=1e-3)


def test_generations(up: Running, talkers: Path, tasks: Any) -> None:
    arguments = {"model": "short", "base_url": f"{up.v1}/completions", "max_length": 2048}
    completed = samples("local-completions", arguments, "said", tasks)
    theirs = samples(
        "hf", {"pretrained": str(talkers / "short"), "device": "cpu", "dtype": "float32", "add_bos_token": False}, "said", tasks
    )
    assert [one[0].split() for one in completed] == [one[0].split() for one in theirs]
    chat = {"model": "short", "base_url": f"{up.v1}/chat/completions", "num_concurrent": 2}
    answered = samples("local-chat-completions", chat, "said", tasks, apply_chat_template=True)
    assert len(answered) == len(completed)
    assert all(isinstance(one[0], str) for one in answered)
