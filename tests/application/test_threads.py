"""The pool of threads: bounds, order of start, and loops that come and go."""

import asyncio
import contextvars
import threading

import pytest

from longwire.application import threads as threads_module
from longwire.application.threads import HandlerThreads, Job, NoThread


async def test_no_more_functions_run_at_once_than_there_are_threads() -> None:
    pool = HandlerThreads(2)
    release = threading.Event()
    started = threading.Semaphore(0)

    def wait() -> bool:
        started.release()
        return release.wait(10)

    calls = [asyncio.create_task(pool.run(Job(wait))) for _ in range(5)]
    for _ in range(2):
        await asyncio.to_thread(started.acquire, True, 10)
    assert pool.busy == 2
    assert pool.waiting == 3
    release.set()
    assert await asyncio.gather(*calls) == [True] * 5
    assert (pool.busy, pool.waiting, pool.abandoned) == (0, 0, 0)


async def test_a_second_job_gets_a_thread_of_its_own_though_an_idle_one_was_just_called() -> None:
    pool = HandlerThreads(2)
    await pool.run(Job(lambda: None))
    meeting = threading.Barrier(2, timeout=10)
    await asyncio.gather(pool.run(Job(meeting.wait)), pool.run(Job(meeting.wait)))


async def test_more_waiting_calls_than_allowed_are_refused() -> None:
    pool = HandlerThreads(1, max_waiting=1)
    release = threading.Event()
    started = threading.Event()

    def hold() -> None:
        started.set()
        release.wait(10)

    running = asyncio.create_task(pool.run(Job(hold)))
    await asyncio.to_thread(started.wait, 10)
    waiting = asyncio.create_task(pool.run(Job(lambda: None)))
    await asyncio.sleep(0)
    with pytest.raises(NoThread, match="1 calls wait for a thread, 1 may"):
        await pool.run(Job(lambda: None))
    release.set()
    await asyncio.gather(running, waiting)


async def test_functions_see_the_context_variables_of_their_caller() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")
    variable.set("mine")
    assert await HandlerThreads(1).run(Job(variable.get)) == "mine"


def test_one_pool_serves_one_loop_after_another_even_when_a_thread_outlives_its_loop() -> None:
    pool = HandlerThreads(1)
    release = threading.Event()

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await pool.run(Job(lambda: release.wait(10)))

    asyncio.run(give_up())
    assert pool.abandoned == 1
    release.set()
    assert asyncio.run(pool.run(Job(lambda: 7))) == 7
    assert pool.abandoned == 0


async def test_idle_threads_end_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads_module, "IDLE_S", 0.001)
    pool = HandlerThreads(1)
    thread = await pool.run(Job(threading.current_thread))
    assert isinstance(thread, threading.Thread)
    assert thread.daemon
    await asyncio.to_thread(thread.join, 10)
    assert not thread.is_alive()
    assert await pool.run(Job(lambda: 1)) == 1
