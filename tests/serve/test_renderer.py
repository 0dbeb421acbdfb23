"""The process that renders: what hangs or dies in it costs one text."""

import asyncio
import json
from collections.abc import Awaitable, Callable

import psutil
import pytest

from llamaherd.serve import renderer as module
from llamaherd.serve.renderer import Renderer, escaped

Use = Callable[[Renderer], Awaitable[None]]


def using(use: Use, limit_s: float = 30) -> None:
    async def run() -> None:
        renderer = Renderer(limit_s)
        try:
            await use(renderer)
        finally:
            await renderer.close()

    asyncio.run(run())


def test_texts_are_rendered_in_one_process_that_ends() -> None:
    pids = []

    async def use(renderer: Renderer) -> None:
        for text in ("**a**", "b\n\nc", "", "\u2028 \x85"):
            made = json.loads(await renderer.blocks(text))
            pids.append(renderer._process.pid if renderer._process else 0)
            assert all(block.startswith("<p>") for block in made)
        together = await asyncio.gather(*(renderer.blocks(f"text {number}") for number in range(20)))
        assert [json.loads(one) for one in together] == [[f"<p>text {number}</p>\n"] for number in range(20)]

    using(use)
    assert len(set(pids)) == 1
    assert not psutil.pid_exists(pids[0])


def test_a_text_that_takes_too_long_is_shown_as_it_was_written_and_the_next_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    async def use(renderer: Renderer) -> None:
        assert json.loads(await renderer.blocks("**a**")) == ["<p><strong>a</strong></p>\n"]
        process = psutil.Process(renderer._process.pid)  # type: ignore[union-attr]
        process.suspend()
        renderer._limit_s = 0.3
        assert json.loads(await renderer.blocks("<b>\nc")) == ["<p>&lt;b&gt;<br>c</p>"]
        assert not process.is_running()
        renderer._limit_s = 30
        assert json.loads(await renderer.blocks("**a**")) == ["<p><strong>a</strong></p>\n"]

    using(use)


def test_a_process_that_dies_costs_one_text(monkeypatch: pytest.MonkeyPatch) -> None:
    async def use(renderer: Renderer) -> None:
        await renderer.blocks("a")
        renderer._process.kill()  # type: ignore[union-attr]
        assert json.loads(await renderer.blocks("**a**")) in (["<p>**a**</p>"], ["<p><strong>a</strong></p>\n"])
        assert json.loads(await renderer.blocks("**a**")) == ["<p><strong>a</strong></p>\n"]

    using(use)


def test_who_leaves_takes_no_answer_of_others_along() -> None:
    async def use(renderer: Renderer) -> None:
        await renderer.blocks("a")
        leaving = asyncio.create_task(renderer.blocks("x " * 100_000))
        await asyncio.sleep(0.02)
        leaving.cancel()
        assert json.loads(await renderer.blocks("next")) == ["<p>next</p>\n"]

    using(use)


def test_without_a_process_texts_are_shown_as_they_were_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.sys, "executable", "/no/such/program")

    async def use(renderer: Renderer) -> None:
        assert json.loads(await renderer.blocks("**a**")) == ["<p>**a**</p>"]

    using(use)


def test_texts_as_they_were_written_come_in_blocks() -> None:
    found = list(escaped("x\n" * 500 + "y" * 20_000))
    assert [block.count("x") for block in found][:3] == [200, 200, 100]
    assert "".join(found).count("y") == 20_000
    assert list(escaped("")) == list(escaped("\n\n")) == []
