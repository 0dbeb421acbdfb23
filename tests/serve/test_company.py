"""What becomes of a sequence beside hundreds of others: the same bits as alone."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from tests.serve.test_worker import BRIEF, PROMPT, at_work, go, ids

from llamaherd.assistant.local import Assistant
from llamaherd.checkpoints.huggingface import load_model
from llamaherd.core.seeds import python_rng, torch_rng
from llamaherd.generate.config import SamplingConfig
from llamaherd.model.config import LoraConfig
from llamaherd.model.lora import add_adapter, new_changes
from llamaherd.serve.worker import Asked, Worker


def streams(count: int, seed: int, most_tokens: int = 20) -> list[Asked]:
    """Prompts of mixed lengths of which half begin alike, of three owners, each with settings and a seed of its own."""
    rng = python_rng(seed, "streams")
    system = [rng.randrange(260, 340) for _ in range(24)]
    asked = []
    for number in range(count):
        prompt = [1, *(system if number % 2 else []), *(rng.randrange(260, 340) for _ in range(rng.randint(1, 30)))]
        sampling = SamplingConfig(
            temperature=rng.choice([0.0, 0.7, 1.0]), top_p=rng.choice([0.9, 1.0]), max_new_tokens=rng.randint(1, most_tokens)
        )
        asked.append(Asked(prompt, sampling, number, owner=f"owner {number % 3}"))
    return asked


async def together(worker: Worker, asked: Sequence[Asked], seed: int) -> list[list[int]]:
    """What becomes of all of them when they arrive over time, in an order of their own."""
    order = python_rng(seed, "order").sample(range(len(asked)), len(asked))
    tasks: dict[int, asyncio.Task[list[int]]] = {}
    for number in order:
        tasks[number] = asyncio.create_task(ids(worker.submit([asked[number]])[0]))
        if number % 4 == 0:
            await asyncio.sleep(0.002)
    return [await tasks[number] for number in range(len(asked))]


@pytest.mark.parametrize("memory_bytes", [0, 8 << 20])
def test_200_streams_are_each_what_they_are_alone(endless: Assistant, memory_bytes: int) -> None:
    assistant = Assistant(endless.model, endless.tokenizer, "endless", invariant=True)
    assistant.model.config = assistant.model.config.model_copy(update={"context": 80})
    asked = streams(200, 0)

    async def work() -> None:
        with at_work(assistant, rows=32, memory_bytes=memory_bytes) as worker:
            crowd = await together(worker, asked, 1)
            assert worker.stats.finished["length"] + worker.stats.finished["stop"] == 200
            assert (worker.stats.prompt_tokens_known > 0) == (memory_bytes > 0)
            for number in range(0, 200, 8):  # the same worker, in which nobody else is now
                assert await ids(worker.submit([asked[number]])[0]) == crowd[number]

    try:
        go(work())
    finally:
        assistant.model.config = assistant.model.config.model_copy(update={"context": 2048})


def test_adapters_and_their_base_answer_as_each_does_alone(talkers: Path) -> None:
    assistant = Assistant.load(talkers / "endless", invariant=True)
    assistant.model.config = assistant.model.config.model_copy(update={"context": 80})
    for number, name in enumerate(("one", "two")):
        changes = {
            path: (a, torch.randn(b.shape, generator=torch_rng(number, path)))
            for path, (a, b) in new_changes(assistant.model, LoraConfig(r=2), number).items()
        }
        add_adapter(assistant.model, name, changes, 0.5)
        assistant._adapter = name
    names = (None, "one", "two")
    asked = [
        Asked(one.prompt, one.sampling, one.seed, names[number % 3], one.owner) for number, one in enumerate(streams(45, 3))
    ]  # fmt: skip

    async def work() -> None:
        with at_work(assistant, memory_bytes=1 << 20) as worker:
            mixed = await together(worker, asked, 2)
        for name in names:
            with at_work(assistant) as worker:
                mine = [number for number, one in enumerate(asked) if one.adapter == name]
                assert await together(worker, [asked[number] for number in mine], 5) == [mixed[number] for number in mine]
        with at_work(assistant) as worker:
            answers = [await ids(worker.submit([Asked(PROMPT, BRIEF, 0, name)])[0]) for name in names]
            assert len(set(map(tuple, answers))) == 3, "the adapters do something"

    go(work())


@pytest.mark.slow
@pytest.mark.parametrize("memory_bytes", [0, 64 << 20])
def test_200_streams_of_a_real_model_are_each_what_they_are_alone(data: Path, memory_bytes: int) -> None:
    model, tokenizer = load_model(data / "models/stories260K/stories260K.bin")
    assistant = Assistant(model, tokenizer, "stories", invariant=True)
    asked = streams(200, 4, most_tokens=60)

    async def work() -> None:
        with at_work(assistant, rows=64, memory_bytes=memory_bytes) as worker:
            crowd = await together(worker, asked, 1)
            assert len({len(one) for one in crowd}) > 30
            for number, one in enumerate(asked):
                assert await ids(worker.submit([one])[0]) == crowd[number]

    asyncio.run(work())
