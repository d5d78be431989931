"""The owner of the node's tasks."""

import asyncio
import gc

from longwire.gateway.tasks import Tasks


async def test_what_is_cancelled_before_its_first_step_ends_without_a_word(caplog) -> None:
    tasks = Tasks()
    began = []

    async def work() -> None:
        began.append(True)

    tasks.start(work(), "the work")
    (task,) = tasks._running
    task.cancel()
    await asyncio.wait([task])
    del task
    gc.collect()  # a coroutine that nobody ran would be told of now, which fails a test
    assert not began
    assert not tasks._running
    assert caplog.records == []


async def test_what_fails_is_told_by_its_name_and_the_others_go_on(caplog) -> None:
    tasks = Tasks()
    done = asyncio.Event()

    async def fail() -> None:
        raise ValueError("no")

    async def go_on() -> None:
        done.set()

    tasks.start(fail(), "reading inboxes")
    tasks.start(go_on(), "the other")
    await done.wait()
    await asyncio.sleep(0)
    (record,) = caplog.records
    assert record.getMessage() == "reading inboxes failed"
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ValueError)
