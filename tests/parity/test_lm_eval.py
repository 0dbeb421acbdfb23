"""lm-eval, unmodified and offline, beside our own benchmarks: the same log-probabilities of every choice, the same accuracies."""

import json
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from llamaherd.checkpoints.huggingface import save_model
from llamaherd.checkpoints.quantized import load_for_inference
from llamaherd.core.files import read_rows
from llamaherd.data.documents import Document
from llamaherd.evaluation.benchmarks import TASKS, document_rows, figures, read_items, scored
from llamaherd.stages.benchmark import PUBLIC

lm_eval = pytest.importorskip("lm_eval")

pytestmark = pytest.mark.slow

ITEMS = 24
QUESTION = "{{query.rstrip()}}\\nAnswer:"
CHOICES = """
output_type: multiple_choice
doc_to_text: "{text}"
doc_to_choice: choices
doc_to_target: gold
metric_list: [{{metric: acc}}, {{metric: acc_norm}}]
"""
SAID = """
output_type: loglikelihood
doc_to_text: "{{context}}"
doc_to_target: " {{continuation}}"
metric_list: [{metric: perplexity}, {metric: acc}]
"""
FORMS = {
    "piqa": CHOICES.format(text=QUESTION),
    "arc-easy": CHOICES.format(text=QUESTION),
    "boolq": CHOICES.format(text=QUESTION),
    "lambada": SAID,
}


@pytest.fixture(scope="module")
def stories(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small trained model as a folder that transformers loads."""
    folder = tmp_path_factory.mktemp("stories")
    save_model(*load_for_inference(data / "models/stories260K"), folder / "model")
    return folder / "model"


@pytest.fixture(scope="module")
def rows(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first items of each task, and beside them how lm-eval is to ask them."""
    folder = tmp_path_factory.mktemp("rows")
    for task, form in FORMS.items():
        found = [row for _, row in islice(read_rows(data / PUBLIC[task]), ITEMS)]
        (folder / f"{task}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
        head = f'task: {task}\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: "{folder / task}.jsonl"}}}}\ntest_split: test\n'
        (folder / f"{task}.yaml").write_text(head + form)
    return folder


@pytest.fixture(scope="module")
def theirs(stories: Path, rows: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    _, tokenizer = load_for_inference(stories)

    class Peer(HFLM):  # type: ignore[misc]
        """The model as transformers runs it, everything else as lm-eval does it, on ids of SentencePiece itself: this vocabulary joins
        runs of white space, and transformers' own reading of it does not.
        """

        def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
            return [*([] if add_special_tokens is False else [tokenizer.bos_id]), *tokenizer.encode(string)]

    with pytest.MonkeyPatch.context() as patch:
        for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
            patch.setenv(name, "1")
        patch.setenv("HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))
        found: dict[str, Any] = lm_eval.simple_evaluate(
            model=Peer(str(stories), device="cpu", dtype="float32", add_bos_token=True, batch_size=4), tasks=list(FORMS),
            task_manager=TaskManager(include_path=str(rows), include_defaults=False), bootstrap_iters=0,
        )  # fmt: skip
    return found


@pytest.mark.parametrize("task", list(FORMS))
def test_every_item_and_every_figure(task: str, stories: Path, rows: Path, theirs: dict[str, Any]) -> None:
    model, tokenizer = load_for_inference(stories)
    items = read_items(task, rows / f"{task}.jsonl")
    ours = scored(model, tokenizer, items, 2048)
    samples = sorted(theirs["samples"][task], key=lambda row: row["doc_id"])
    assert len(samples) == len(ours) == ITEMS
    for mine, other in zip(ours, samples, strict=True):
        said = [answer[0] for answer in other["resps"]]
        assert mine["log_probs"] == pytest.approx([float(log_prob) for log_prob, _ in said], abs=5e-3)
        if task == "lambada":
            assert mine["correct"] == bool(said[0][1])
    found, expected = figures(items, ours, TASKS[task].normalised), theirs["results"][task]
    assert found["items"] == ITEMS
    assert found["accuracy"]["value"] == pytest.approx(expected["acc,none"])
    if TASKS[task].normalised:
        assert found["accuracy_per_character"]["value"] == pytest.approx(expected["acc_norm,none"])
    if task == "lambada":
        assert found["perplexity"]["value"] == pytest.approx(expected["perplexity,none"], rel=1e-3)
    if task == "boolq":
        assert found["cut"] > 0, "some passage is longer than the context, and cut as lm-eval cuts it"


def test_a_text_longer_than_the_context_in_rolling_windows(stories: Path, data: Path) -> None:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    text = (data / "pretrain/tinystories_sample.txt").read_text("utf-8").split("<|endoftext|>")
    texts = [text[0].strip(), " ".join(text[:4])]
    model, tokenizer = load_for_inference(stories)
    ours = document_rows(model, tokenizer, [Document(one, "x") for one in texts], 2048)
    assert [row["windows"] > 1 for row in ours] == [False, True]
    theirs = HFLM(str(stories), device="cpu", dtype="float32", add_bos_token=False, prefix_token_id=tokenizer.bos_id)
    assert theirs.max_length == model.config.context
    with torch.no_grad():
        expected = theirs.loglikelihood_rolling([Instance("loglikelihood_rolling", {}, (one,), place) for place, one in enumerate(texts)])
    assert [-row["nats"] for row in ours] == pytest.approx(expected, rel=1e-4)
