"""One call of a handler for a message: decoding, budget, thread, failure and its log line, in one place.

The gateway calls handlers in place and sends the status to the device; the sink calls them for records of the
uplink log and decides by the status whether to try again:

    0 ok                    handled; ``payload`` is a request's answer
    14 overloaded           not run: no thread was free                         ┐ not the message's fault:
    20 not_durable          the store was away while the handler ran            ┘ try again
    16 bad_request          the payload does not decode, or the handler rejects it: never try again
    17 handler_failed       the handler raised
    18 timeout              the handler took too long; a sync one may still run
"""

import logging

from msgspec import Struct

from longwire.application.budget import OverBudget, run_within
from longwire.application.context import Context
from longwire.application.errors import Reject
from longwire.application.handlers import Handler, RequestHandler
from longwire.application.payloads import PayloadError, encode, presentable
from longwire.application.threads import NoThread
from longwire.errors import StoreUnavailable
from longwire.reasons import Status

logger = logging.getLogger("longwire.application")


class Result(Struct, frozen=True):
    """How a call went."""

    status: Status
    payload: bytes = b""
    """The REPLY's payload; empty for messages. The caller bounds its size."""
    detail: str = ""
    """What a device may read of a failure: never an exception's text."""
    error: str = ""
    """What operators may read of it, in one line."""


async def call(handler: Handler, payload: bytes, ctx: Context, *, within_s: float | None = None) -> Result:
    """Calls the handler once and says how it went; raises nothing but cancellation.

    ``within_s`` shortens the handler's budget, as a REQUEST's own timeout does. A failure is logged here, once,
    with its trace. A context whose call was given up refuses what the handler asks of it from then on.
    """
    budget_s = handler.timeout_s if within_s is None else min(handler.timeout_s, within_s)
    try:
        arguments = _arguments(handler, payload, ctx)
        value = await run_within(handler, arguments, budget_s)
        return Result(Status.OK, encode(value) if isinstance(handler, RequestHandler) else b"")
    except PayloadError as error:
        return _failed(ctx, Status.BAD_REQUEST, str(error), error)
    except Reject as error:
        return _failed(ctx, Status.BAD_REQUEST, presentable(error.detail), error)
    except StoreUnavailable as error:
        logger.info("store away during %s: %s", handler.where, error, extra=ctx.log_fields())
        return _failed(ctx, Status.NOT_DURABLE, "the store is away; try again", error)
    except NoThread as error:
        logger.error("%s was not run: %s", handler.where, error, extra=ctx.log_fields())
        return _failed(ctx, Status.OVERLOADED, "no thread is free; try again", error)
    except OverBudget as error:
        logger.exception("%s is past its budget of %g s", handler.where, budget_s, extra=ctx.log_fields())
        return _failed(ctx, Status.TIMEOUT, f"no answer within {budget_s:g} s", error)
    except Exception as error:
        logger.exception("%s failed", handler.where, extra=ctx.log_fields())
        return _failed(ctx, Status.HANDLER_FAILED, "the handler failed", error)
    except BaseException:
        ctx.end()
        raise


def _arguments(handler: Handler, payload: bytes, ctx: Context) -> tuple[object, ...]:
    first = () if handler.decode is None else (handler.decode(payload),)
    if not handler.takes_context:
        return first
    if not handler.is_async:
        ctx.begin_in_thread()
    return (*first, ctx)


def _failed(ctx: Context, status: Status, detail: str, error: Exception) -> Result:
    ctx.end()
    return Result(status, detail=detail, error=presentable(f"{type(error).__name__}: {error}"))
