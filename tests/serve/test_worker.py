"""The worker without a network: every way in which a sequence may end, and what it becomes beside hundreds of others."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from llamaherd.assistant.local import Assistant
from llamaherd.core.errors import UserError
from llamaherd.generate.config import SamplingConfig
from llamaherd.generate.engine import generate
from llamaherd.serve.errors import ApiError
from llamaherd.serve.turns import Turns
from llamaherd.serve.worker import Asked, Ticket, Worker

BRIEF = SamplingConfig(temperature=1.0, max_new_tokens=8)
ENDLESS = SamplingConfig(temperature=1.0, max_new_tokens=1500)
PROMPT = [1, 260, 270, 280]


@contextmanager
def at_work(assistant: Assistant, waiting: int = 256, **options: Any) -> Iterator[Worker]:
    worker = Worker(assistant, waiting, Turns(), **options)
    try:
        yield worker
    finally:
        worker.close()
        assert worker.open == 0
        assert worker.stats.waiting == worker.stats.running == 0


async def ids(ticket: Ticket) -> list[int]:
    return [event.id async for event in ticket]


async def fails(ticket: Ticket) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await ids(ticket)
    return caught.value


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.002)


def go(work: Awaitable[None]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(work, 200)

    asyncio.run(bounded())


def test_answers_are_those_of_generate_and_are_counted(endless: Assistant) -> None:
    noted: dict[str, list[float]] = {"first_token": [], "token": []}

    async def work() -> None:
        with at_work(endless, memory_bytes=1 << 20) as worker:
            worker.stats.observer = lambda kind, seconds: noted[kind].extend(seconds)
            tickets = worker.submit([Asked(PROMPT, BRIEF, seed) for seed in range(5)])
            found = await asyncio.gather(*map(ids, tickets))
            alone = generate(endless.model, [PROMPT] * 5, BRIEF, range(5), endless.stop_ids, endless.tokenizer.vocab_size)
            assert found == [completion.ids for completion in alone]
            await until(lambda: worker.open == 0)
            stats = worker.stats
            assert stats.tokens == sum(map(len, found)) == 40
            assert stats.finished == {"stop": 0, "length": 5}
            assert stats.prompt_tokens_read + stats.prompt_tokens_known == 5 * len(PROMPT)
            assert stats.steps >= 8
            assert 0 < stats.step_s < 20

    go(work())
    assert (len(noted["first_token"]), len(noted["token"])) == (5, 35)
    assert min(noted["first_token"] + noted["token"]) > 0


def test_all_of_a_request_is_taken_or_nothing(endless: Assistant) -> None:
    async def work() -> None:
        with at_work(endless, waiting=4) as worker:
            tickets = worker.submit([Asked(PROMPT, ENDLESS, seed) for seed in range(3)])
            with pytest.raises(ApiError) as full:
                worker.submit([Asked(PROMPT, BRIEF, 0)] * 2)
            assert (full.value.status, full.value.headers) == (429, {"Retry-After": "1"})
            with pytest.raises(ApiError) as never:
                worker.submit([Asked(PROMPT, BRIEF, 0)] * 5)
            assert never.value.status == 400
            for bad, says in (
                ([], "has no tokens"), ([1] * 2048, "context is 2048"), ([1, 340], "from 0 to 339"), ([-1], "from 0 to 339")
            ):  # fmt: skip
                with pytest.raises(UserError, match=says):
                    worker.submit([Asked(bad, BRIEF, 0)])
            assert worker.open == 3
            for ticket in tickets:
                ticket.cancel()
            await until(lambda: worker.open == 0)
            assert worker.stats.cancelled == 3
            assert len(await ids(worker.submit([Asked(PROMPT, BRIEF, 0)] * 4)[3])) == 8

    go(work())


def test_what_is_cancelled_anywhere_frees_its_place_at_once(endless: Assistant) -> None:
    async def work() -> None:
        with at_work(endless, rows=2) as worker:
            long = [1, *[300] * 1900]
            running, reading, waiting = worker.submit([Asked(PROMPT, ENDLESS, 0), Asked(long, BRIEF, 1), Asked(PROMPT, ENDLESS, 2)])
            early = worker.submit([Asked(PROMPT, ENDLESS, 3)])[0]
            early.cancel()
            events = aiter(running)
            await anext(events)
            for ticket in (reading, waiting, running, running):
                ticket.cancel()
            await until(lambda: worker.open == 0)
            assert worker.stats.cancelled == 4
            assert {(await fails(ticket)).status for ticket in (reading, waiting, early)} == {499}
            assert [desk.engine.busy for desk in worker._desks.values()] == [False]

    go(work())


def test_a_deadline_ends_what_runs_and_what_waits(endless: Assistant) -> None:
    async def work() -> None:
        with at_work(endless, rows=1, deadline_s=0.15) as worker:
            tickets = worker.submit([Asked(PROMPT, ENDLESS, 0), Asked(PROMPT, ENDLESS, 1)])
            for ticket in tickets:
                error = await fails(ticket)
                assert error.status == 504
                assert "0.15 seconds" in error.message
            patient = worker.submit([Asked(PROMPT, BRIEF, 0, deadline_s=30)])[0]
            assert len(await ids(patient)) == 8

    go(work())


def test_a_drain_lets_those_at_work_finish_and_takes_no_more(endless: Assistant) -> None:
    async def work() -> None:
        with at_work(endless) as worker:
            [short] = worker.submit([Asked(PROMPT, BRIEF, 0)])
            draining = asyncio.create_task(worker.drain(100))
            await asyncio.sleep(0)
            with pytest.raises(ApiError) as refused:
                worker.submit([Asked(PROMPT, BRIEF, 0)])
            assert (refused.value.status, refused.value.code) == (503, "draining")
            await draining
            assert (worker.open, worker.alive) == (0, True)
            assert len(await ids(short)) == 8

    go(work())


def test_a_drain_ends_what_is_left_at_its_deadline(endless: Assistant) -> None:
    async def work() -> None:
        with at_work(endless) as worker:
            [long] = worker.submit([Asked(PROMPT, ENDLESS, 0)])
            await anext(aiter(long))
            await worker.drain(0.01)
            assert worker.open == 0
            assert (await fails(long)).status == 503

    go(work())


def test_close_tells_whoever_is_there(endless: Assistant) -> None:
    async def work() -> None:
        worker = Worker(endless, 256, Turns(), rows=1)
        tickets = worker.submit([Asked(PROMPT, ENDLESS, seed) for seed in range(3)])
        await anext(aiter(tickets[0]))
        await asyncio.to_thread(worker.close)
        assert {(await fails(ticket)).status for ticket in tickets} == {503}
        assert (worker.open, worker.alive) == (0, False)
        with pytest.raises(ApiError):
            worker.submit([Asked(PROMPT, BRIEF, 0)])
        worker.close()

    go(work())


@pytest.mark.parametrize(
    ("error", "status", "code"), [(torch.OutOfMemoryError("x"), 503, "out_of_memory"), (MemoryError(), 503, "out_of_memory"),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), 503, "out_of_memory"), (IndexError("odd"), 500, "failed")],
)  # fmt: skip
def test_a_step_that_fails_leaves_the_server_usable(
    endless: Assistant, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int, code: str
) -> None:
    async def work() -> None:
        with at_work(endless) as worker:
            tickets = worker.submit([Asked(PROMPT, ENDLESS, seed) for seed in range(3)])
            await anext(aiter(tickets[2]))

            def broken(*_: object) -> None:
                monkeypatch.undo()
                raise error

            monkeypatch.setattr(endless.model, "hidden", broken)
            for ticket in tickets:
                told = await fails(ticket)
                assert (told.status, told.code) == (status, code)
            assert len(await ids(worker.submit([Asked(PROMPT, BRIEF, 0)])[0])) == 8
            assert worker.stats.failed == 3

    go(work())


def test_should_the_thread_ever_die_everyone_is_told(endless: Assistant, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        worker = Worker(endless, 256, Turns())
        monkeypatch.setattr(threading, "excepthook", lambda _: None)
        tickets = worker.submit([Asked(PROMPT, ENDLESS, seed) for seed in range(3)])
        await anext(aiter(tickets[0]))
        monkeypatch.setattr(endless.model, "hidden", raising(SystemExit()))
        assert {(await fails(ticket)).status for ticket in tickets} == {503}
        await until(lambda: not worker.alive)
        assert worker.open == 0
        with pytest.raises(ApiError, match="must be started again"):
            worker.submit([Asked(PROMPT, BRIEF, 0)])
        await worker.drain(1)
        worker.close()

    go(work())


def test_an_adapter_whose_engine_cannot_be_had_fails_alone(endless: Assistant) -> None:
    async def work() -> None:
        with at_work(endless) as worker:
            unknown, known = worker.submit([Asked(PROMPT, BRIEF, 0, "nobody"), Asked(PROMPT, BRIEF, 0)])
            assert (await fails(unknown)).status == 503
            assert len(await ids(known)) == 8

    go(work())


def test_an_observer_that_fails_ends_nothing(endless: Assistant) -> None:
    def broken(kind: str, seconds: Sequence[float]) -> None:
        raise KeyError(kind)

    async def work() -> None:
        with at_work(endless) as worker:
            worker.stats.observer = broken
            assert len(await ids(worker.submit([Asked(PROMPT, BRIEF, 0)])[0])) == 8

    go(work())


class Rule:
    """Allows all, until it fails."""

    def __init__(self, does: Callable[[], Tensor | None]):
        self.does, self.left = does, 3

    def allowed(self) -> Tensor | None:
        self.left -= 1
        return None if self.left >= 0 else self.does()

    def take(self, id: int) -> None:
        pass


def raising(error: BaseException) -> Callable[[], None]:
    def does(*_: object) -> None:
        raise error

    return does


@pytest.mark.parametrize(
    ("does", "status", "says"),
    [
        (raising(UserError("no such thing")), 400, "no such thing"), (raising(KeyError("secret words")), 500, "failed (KeyError)"),
        (lambda: torch.ones(3, dtype=torch.bool), 500, "failed (TypeError)"), (lambda: torch.zeros(340, dtype=torch.bool), 400, "no token"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("invariant", [False, True])
def test_a_constraint_that_fails_ends_its_own_answer(
    endless: Assistant, does: Callable[[], Tensor | None], status: int, says: str, invariant: bool, caplog: pytest.LogCaptureFixture
) -> None:
    assistant = Assistant(endless.model, endless.tokenizer, "endless", invariant)

    async def work() -> None:
        with at_work(assistant) as worker:
            [alone] = worker.submit([Asked(PROMPT, BRIEF, 0)])
            expected = await ids(alone)
            other, broken = worker.submit([Asked(PROMPT, BRIEF, 0), Asked(PROMPT, BRIEF, 1, constraint=Rule(does))])
            error = await fails(broken)
            assert error.status == status
            assert says in error.message
            assert await ids(other) == expected

    go(work())
    assert "secret words" not in caplog.text


def test_when_the_event_loop_is_gone_its_sequences_end(endless: Assistant) -> None:
    worker = Worker(endless, 256, Turns())

    async def leaves() -> None:
        worker.submit([Asked(PROMPT, ENDLESS, seed) for seed in range(3)])

    asyncio.run(leaves())
    go(until(lambda: worker.open == 0))
    assert worker.stats.cancelled == 3
    worker.close()


def test_who_waits_for_a_turn_gets_it_before_who_comes_back() -> None:
    turns, taken, stop = Turns(), [0, 0], threading.Event()

    def take(number: int) -> None:
        while not stop.is_set():
            with turns:
                taken[number] += 1
                time.sleep(0.001)

    threads = [threading.Thread(target=take, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    stop.set()
    for thread in threads:
        thread.join()
    assert min(taken) > 0.7 * max(taken)
