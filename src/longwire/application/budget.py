"""One call of a user's function within its time: the border that nothing a user writes gets across.

An async function runs on the loop and is cancelled when its time is spent; a sync one runs in a thread, which
cannot be (see threads). What comes out is a value or one of few exceptions, whatever the function did.
"""

import asyncio
import inspect
from functools import partial

from longwire.application.handlers import Handler
from longwire.application.threads import Job, NoThread
from longwire.errors import LongwireError


class OverBudget(LongwireError):
    """The function was started and did not end in time; a sync one still runs."""


class Failed(LongwireError):
    """The function raised what must not travel further by itself: a cancellation or an exit of its own."""


async def run_within(handler: Handler, arguments: tuple[object, ...], budget_s: float) -> object:
    """What the handler's function returns for these arguments, or the exception it raises.

    Waiting for a thread counts against the budget. Cancelling this cancels an async function and gives up a
    sync one. Raises OverBudget; NoThread where no thread came free in time, so that nothing has run; Failed.
    """
    job: Job | None = None
    budget = asyncio.timeout(budget_s)
    try:
        async with budget:
            if handler.is_async:
                return await _awaited(handler.function(*arguments))
            job = Job(partial(handler.function, *arguments))
            return await _awaited(await handler.threads.run(job))
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise Failed("it was cancelled from within") from error
    except SystemExit as error:
        raise Failed("it asked the process to exit") from error
    except Exception as error:
        if not budget.expired():
            raise
        if job is not None and not job.is_started:
            threads = handler.threads
            raise NoThread(
                f"no thread came free within {budget_s:g} s: {threads.busy} of {threads.size} are busy, "
                f"{threads.abandoned} of them past their budget"
            ) from error
        raise OverBudget(f"it took longer than {budget_s:g} s") from error


async def _awaited(value: object) -> object:
    """The value, or what it resolves to: a sync wrapper around an async function returns an awaitable."""
    if inspect.isawaitable(value):
        result: object = await value
        return result
    return value
