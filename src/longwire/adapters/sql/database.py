"""A database that commits in groups: what both engines' adapters have in common (sqlite.py, shared.py).

    loop:   Stage.add ──► gathered ─ a turn's end ─► handed          finish / fail, in order, in slices
                                                       │                      ▲
    store:                                   _take_group ─► stages' run ─► COMMIT

What is queued while one transaction commits becomes the next one: many messages pay for one sync, and a message
that comes alone waits for nobody. A callback or a returned write means that it is durable.
"""

import asyncio
import contextlib
import logging
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Generic, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from longwire.adapters.sql.dialect import is_engine_failure
from longwire.adapters.sql.domains import Domain
from longwire.errors import StoreUnavailable
from longwire.meters import Meter

T = TypeVar("T")
Item = TypeVar("Item")
Result = TypeVar("Result")

log = logging.getLogger(__name__)

_GROUP = 2_000
"""Items of one stage in one transaction: bounds how long a commit takes and how long its callbacks hold the loop."""
_FINISH_SLICE = 128

Finished = tuple[Callable[[Any, Any], None], list[Any], Sequence[Any]]
"""What is to be called on the loop, for which items, with what."""


class Stage(Generic[Item, Result]):
    """A kind of write that is gathered: items in, on the loop; results out, on the loop, once they are durable."""

    def __init__(
        self,
        database: "Database",
        run: Callable[[Connection, list[Item]], Sequence[Result]],
        finish: Callable[[Item, Result], None],
        fail: Callable[[Item, Exception], None],
        domains: tuple[Domain, ...],
    ) -> None:
        self._database = database
        self.run = run
        self.finish = finish
        self.fail = fail
        self.domains = domains
        self.gathered: list[Item] = []

    def add(self, item: Item) -> None:
        """Queues ``item`` for the next group; ``finish`` or ``fail`` is called for it, in order."""
        self.gathered.append(item)
        if not self._database.is_handing_over:
            self._database.hand_over_soon()


Group = dict[Stage[Any, Any], list[Any]]


class Database(ABC):
    """Gathers writes into groups, and tells what became of them."""

    is_shared: ClassVar[bool] = False
    """Whether other processes may write to it, too: then nothing in memory says what is in it."""

    def __init__(self) -> None:
        self._stages: list[Stage[Any, Any]] = []
        self._handed: deque[tuple[Stage[Any, Any], list[Any]]] = deque()
        self._finished: deque[Finished] = deque()
        self._is_finishing = False
        self._is_stopping = False
        self._loop: asyncio.AbstractEventLoop | None = None
        """The process's loop while the database is started."""
        self._calls: Stage[_Call, Any] = self.stage(
            _run_calls, lambda call, result: call.settle(result), lambda call, error: call.fail(error)
        )
        self.reads, self.commits = Meter(), Meter()
        """Of reads as the loop sees them, and of groups as the writer does."""
        self.is_handing_over = False
        self.is_writable = True
        """Whether the last group was committed."""

    def stage(
        self,
        run: Callable[[Connection, list[Item]], Sequence[Result]],
        finish: Callable[[Item, Result], None],
        fail: Callable[[Item, Exception], None],
        *domains: Domain,
    ) -> Stage[Item, Result]:
        """A new kind of gathered write. ``run`` is called off the loop, within a transaction that holds ``domains``.

        It may be called again for the same items after what it wrote was undone. Within a group the stages run in the
        order in which they were made, and the calls of ``write`` behind them.
        """
        stage = Stage(self, run, finish, fail, domains)
        # Calls stay the last: when a write has returned, what was queued before it has been told.
        self._stages.insert(len(self._stages) - 1, stage)
        return stage

    # -- what each engine has of its own ----------------------------------------------------------------------

    @abstractmethod
    async def start(self) -> None:
        """Opens the database. Raises StoreUnavailable, and SchemaMismatch for a schema that this program does not know.

        An embedded database is brought to this program's schema first.
        """

    @abstractmethod
    async def stop(self) -> None:
        """Commits what is queued, then closes everything."""

    @abstractmethod
    async def read(self, call: Callable[[Connection], T]) -> T:
        """Runs ``call`` off the loop: it sees every group that was committed before. It may be called twice.

        Raises StoreUnavailable for what the database raised.
        """

    @abstractmethod
    def _wake_writer(self) -> None:
        """Called on the loop: something is handed over, or the database stops."""

    # -- writes -----------------------------------------------------------------------------------------------

    async def write(self, call: Callable[[Connection], T], *domains: Domain) -> T:
        """Runs ``call`` in the next group, all or nothing; durable when it returns.

        What ``call`` raises comes back and undoes that call alone; it may be called again after what it wrote was
        undone. Raises StoreUnavailable where the database did not take it. Cancelling the caller does not undo the
        write.
        """
        self.check_open()
        assert self._loop is not None
        pending = _Call(call, domains, self._loop.create_future())
        self._calls.add(pending)
        result: T = await pending.future
        return result

    def check_open(self) -> None:
        """Raises StoreUnavailable where nothing can be queued: before the start, and while it stops."""
        if self._loop is None or self._is_stopping:
            raise StoreUnavailable("the store is stopped")

    def hand_over_soon(self) -> None:
        """Gives the writer what this turn of the loop gathers, at the turn's end: one wake-up for all of it."""
        self.is_handing_over = True
        (self._loop or asyncio.get_running_loop()).call_soon(self._hand_over)

    def _hand_over(self) -> None:
        self.is_handing_over = False
        for stage in self._stages:
            if stage.gathered:
                self._handed.append((stage, stage.gathered))
                stage.gathered = []
        if self._loop is None:
            self._refuse_handed()
        else:
            self._wake_writer()

    def _refuse_handed(self) -> None:
        """There is no writer, not yet or not any more."""
        refusal = StoreUnavailable("the store is not open")
        while self._handed:
            stage, items = self._handed.popleft()
            self._finished.append((stage.fail, items, [refusal] * len(items)))
        self._is_finishing = True
        self._finish_all()

    def _take_group(self) -> Group:
        """On the writer: what the next transaction does."""
        group: Group = {}
        while self._handed:
            stage, items = self._handed[0]
            gathered = group.setdefault(stage, [])
            room = _GROUP - len(gathered)
            if room <= 0:
                break
            gathered += items[:room]
            if len(items) <= room:
                self._handed.popleft()
            else:
                self._handed[0] = (stage, items[room:])
        return group

    def _in_order(self, group: Group) -> list[tuple[Stage[Any, Any], list[Any]]]:
        return [(stage, group[stage]) for stage in self._stages if stage in group]

    def _domains_of(self, group: Group) -> set[Domain]:
        domains = {domain for stage in group for domain in stage.domains}
        domains.update(domain for call in group.get(self._calls, ()) for domain in call.domains)
        return domains

    # -- what became of them ----------------------------------------------------------------------------------

    def _committed(self, began: float) -> None:
        """On the writer; ``began``: when the group was, by time.monotonic()."""
        self.commits.note(time.monotonic() - began)
        if not self.is_writable:
            log.warning("the store takes writes again")
            self.is_writable = True

    def _not_committed(self, group: Group, error: BaseException) -> list[Finished]:
        """The whole group fails: the engine does, not an item."""
        cause = error.orig if isinstance(error, DBAPIError) else error
        self.commits.failed()
        if self.is_writable:
            is_known = isinstance(error, DBAPIError | StoreUnavailable)
            log.error("the store does not take writes: %s", cause, exc_info=None if is_known else error)
        self.is_writable = False
        failure = StoreUnavailable(f"commit failed: {cause}")
        return [(stage.fail, items, [failure] * len(items)) for stage, items in group.items()]

    def _tell(self, finished: list[Finished]) -> None:
        """On the writer: hands what is done to the loop."""
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop is gone: nobody waits any more
            self._loop.call_soon_threadsafe(self._take_finished, finished)

    def _take_finished(self, finished: list[Finished]) -> None:
        """On the loop: a group is done. Its callbacks run behind those of the groups before it."""
        self._finished += finished
        if not self._is_finishing:
            self._is_finishing = True
            self._finish()

    def _finish(self) -> None:
        """Calls back for a slice, then lets the loop breathe; the order of the calls is kept."""
        left = _FINISH_SLICE
        while self._finished and left:
            call, items, results = self._finished.popleft()
            if len(items) > left:
                self._finished.appendleft((call, items[left:], results[left:]))
                items, results = items[:left], results[:left]
            left -= len(items)
            for item, result in zip(items, results, strict=True):
                try:
                    call(item, result)
                except Exception:
                    log.exception("what a commit led to failed; the others of its group go on")
        self._is_finishing = bool(self._finished)
        if self._is_finishing:
            asyncio.get_running_loop().call_soon(self._finish)

    def _finish_all(self) -> None:
        while self._is_finishing:
            self._finish()


class _Call:
    """A write that somebody awaits."""

    __slots__ = ("domains", "future", "run")

    def __init__(
        self, run: Callable[[Connection], Any], domains: tuple[Domain, ...], future: asyncio.Future[Any]
    ) -> None:
        self.run = run
        self.domains = domains
        self.future = future

    def settle(self, result: Any) -> None:
        if not self.future.done():
            self.future.set_result(result)

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)


def _run_calls(connection: Connection, calls: list[_Call]) -> list[Any]:
    return [call.run(connection) for call in calls]


def run_stage(connection: Connection, stage: Stage[Any, Any], items: list[Any]) -> list[Finished]:
    """Runs a stage's items, halving them on a failure until the one at fault stands alone.

    An error of the database as a whole (full, not readable, away) is not an item's fault and goes up.
    """
    connection.exec_driver_sql("SAVEPOINT part")
    try:
        results = stage.run(connection, items)
    except Exception as error:
        if isinstance(error, DBAPIError) and is_engine_failure(error):
            raise
        connection.exec_driver_sql("ROLLBACK TO SAVEPOINT part")
        connection.exec_driver_sql("RELEASE SAVEPOINT part")
        if len(items) == 1:
            return [(stage.fail, items, [error])]
        half = len(items) // 2
        return run_stage(connection, stage, items[:half]) + run_stage(connection, stage, items[half:])
    connection.exec_driver_sql("RELEASE SAVEPOINT part")
    return [(stage.finish, items, results)]
