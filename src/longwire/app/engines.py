"""The engines a process stands on: what is the same of both sets, and the embedded set.

Embedded is one SQLite folder and the process's own memory; shared is SQL, Redis, Kafka and ZooKeeper (app/cluster.py).
The two constructors are the only places that differ: whoever is built on an EngineSet knows ports alone.
"""

import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from longwire.accounts.devices import BarTokens
from longwire.adapters.embedded.leadership import EmbeddedLeadership
from longwire.adapters.embedded.receipts import EmbeddedReceipts
from longwire.adapters.embedded.registry import EmbeddedRegistry
from longwire.adapters.embedded.routes import EmbeddedRoutes
from longwire.adapters.embedded.waiting import EmbeddedWaiting
from longwire.adapters.sql import device_sets, push_segments
from longwire.adapters.sql.accounts import SqlAccounts
from longwire.adapters.sql.audiences import SqlAudiences
from longwire.adapters.sql.audit import SqlAudit
from longwire.adapters.sql.backlog import SqlBacklog
from longwire.adapters.sql.commands import SqlCommands
from longwire.adapters.sql.database import Database
from longwire.adapters.sql.directives import SqlDirectives
from longwire.adapters.sql.events import SqlEvents
from longwire.adapters.sql.idempotency import SqlIdempotency
from longwire.adapters.sql.imports import SqlImports
from longwire.adapters.sql.messages import SqlMessageStore
from longwire.adapters.sql.people import SqlPeople
from longwire.adapters.sql.presence import SqlPresence
from longwire.adapters.sql.push_events import PushEvents
from longwire.adapters.sql.push_waiting import SqlPushWaiting
from longwire.adapters.sql.pushes import SqlPushes
from longwire.adapters.sql.sqlite import SqliteDatabase
from longwire.adapters.sql.trace_rows import SqlTraceRows
from longwire.adapters.sql.uplink import SqlUplinkLog
from longwire.adapters.sql.webhooks import SqlWebhooks
from longwire.api import Unready
from longwire.clock import Clock
from longwire.errors import LongwireError
from longwire.meters import Meter
from longwire.ports.leadership import Leadership
from longwire.ports.receipts import ReceiptLog
from longwire.ports.registry import Registry
from longwire.ports.routes import RouteTable
from longwire.ports.tokens import TokenCheck
from longwire.ports.uplink import DeadLetters, UplinkReader, UplinkWriter
from longwire.ports.waiting import WaitingHints

if TYPE_CHECKING:
    from longwire.app.settings import Settings

Work = Callable[[], Coroutine[None, None, None]]


class StartFailed(LongwireError):
    """The process could not start as it is set; the message names the setting."""


@contextlib.contextmanager
def extra_is_named() -> Iterator[None]:
    """Raises StartFailed for a library that is not there, with the extra that has it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "longwire":
            raise
        raise StartFailed(
            "a cluster needs the libraries of the extra `cluster`: pip install 'longwire[cluster]'"
            f" (missing: {error.name.partition('.')[0]})"
        ) from error


class Step(NamedTuple):
    """A part of the engines that starts, and stops in the reverse order."""

    start: Callable[[], Awaitable[None]]
    stop: Callable[[], Awaitable[None]]


class Job(NamedTuple):
    """What runs as long as the process; ``name`` is what the log calls it."""

    name: str
    run: Work


@dataclass(frozen=True, slots=True)
class Stores:
    """Everything that SQL keeps."""

    accounts: SqlAccounts
    sets: SqlAudiences
    messages: SqlMessageStore
    uplink: SqlUplinkLog
    """Of a cluster: the records that the sinks stored."""
    pushes: SqlPushes
    push_waiting: SqlPushWaiting
    presence: SqlPresence
    commands: SqlCommands
    events: SqlEvents
    webhooks: SqlWebhooks
    imports: SqlImports
    idempotency: SqlIdempotency
    audit: SqlAudit
    people: SqlPeople
    backlog: SqlBacklog
    directives: SqlDirectives
    trace_rows: SqlTraceRows


@dataclass(frozen=True, slots=True)
class EngineSet:
    """The engines of a process, built and not started."""

    is_shared: bool
    database: Database
    stores: Stores
    registry: Registry
    routes: RouteTable
    leadership: Leadership
    inbox_hints: WaitingHints
    tokens: TokenCheck
    bar_tokens: BarTokens | None
    """None: nobody copies what tokens prove."""
    uplink: UplinkWriter
    uplink_reader: UplinkReader
    dead_letters: DeadLetters
    receipts: ReceiptLog
    steps: tuple[Step, ...]
    jobs: tuple[Job, ...]
    """What keeps the engines up to date while the process runs."""
    meters: Mapping[str, Meter]
    """Round trips, by what the metrics call the engine."""
    up: Mapping[str, Callable[[], bool]]
    """Whether an engine answered last."""
    unready: Callable[[], Unready | None]
    """Why the process takes no work for what its engines do; must not wait."""

    async def start(self) -> None:
        """Starts every part in order. Raises what kept one from it; those before it are stopped then."""
        started: list[Step] = []
        try:
            for step in self.steps:
                started.append(step)
                await step.start()
        except BaseException:
            await _stop(started[:-1])
            raise

    async def stop(self) -> None:
        """Stops every part, the last first."""
        await _stop(self.steps)


async def _stop(steps: Sequence[Step]) -> None:
    for step in reversed(steps):
        await step.stop()


async def nothing() -> None:
    """A step's start or stop that there is nothing to do for."""


def stores_on(
    database: Database,
    settings: "Settings",
    clock: Clock,
    inbox_hints: WaitingHints,
    push_hints: WaitingHints,
    poll_s: float | None = None,
) -> Stores:
    """The stores of one database; ``poll_s``: how often those look again whose rows other processes write."""
    limits = settings.limits
    events = SqlEvents(database)
    forget_in_pushes = partial(push_segments.forget_device, events=PushEvents(events.note, events.wants))
    push_waiting = SqlPushWaiting(database, clock, hints=push_hints)
    return Stores(
        accounts=SqlAccounts(database, forget_in_pushes, limits.max_device_tags),
        sets=SqlAudiences(database, limits.max_device_tags),
        messages=SqlMessageStore(database, clock, limits.max_inbox, events, inbox_hints),
        uplink=SqlUplinkLog(database, clock, events, poll_s),
        pushes=SqlPushes(
            database,
            clock,
            push_waiting,
            max_live=limits.max_live_pushes,
            note_events=events.note,
            wants=events.wants,
            registered=device_sets.everyone,
        ),
        push_waiting=push_waiting,
        presence=SqlPresence(database),
        commands=SqlCommands(database),
        events=events,
        webhooks=SqlWebhooks(database, events),
        imports=SqlImports(database),
        idempotency=SqlIdempotency(database),
        audit=SqlAudit(database),
        people=SqlPeople(database),
        backlog=SqlBacklog(database, clock),
        directives=SqlDirectives(database),
        trace_rows=SqlTraceRows(database),
    )


def embedded(settings: "Settings", clock: Clock) -> EngineSet:
    """Everything in this process and its data folder."""
    database = SqliteDatabase(settings.data_dir)
    inbox_hints = EmbeddedWaiting()
    stores = stores_on(database, settings, clock, inbox_hints, EmbeddedWaiting())

    def unready() -> Unready | None:
        if database.is_writable:
            return None
        return Unready("store-unavailable", "the store does not take writes")

    return EngineSet(
        is_shared=False,
        database=database,
        stores=stores,
        registry=EmbeddedRegistry(),
        routes=EmbeddedRoutes(clock),
        leadership=EmbeddedLeadership(),
        inbox_hints=inbox_hints,
        tokens=stores.accounts,
        bar_tokens=None,
        uplink=stores.uplink,
        uplink_reader=stores.uplink,
        dead_letters=stores.uplink,
        receipts=EmbeddedReceipts(stores.pushes),
        steps=(
            Step(database.start, database.stop),
            Step(stores.messages.start, nothing),
            Step(stores.uplink.start, nothing),
            Step(stores.webhooks.start, nothing),
            # The leases of the process before: the folder's lock says that it is gone.
            Step(stores.pushes.start, nothing),
        ),
        jobs=(
            Job("the hints of whose inbox has something", partial(inbox_hints.run, stores.messages.waits_in)),
            Job("the hints of whom a push waits for", stores.push_waiting.run),
        ),
        meters={"sql_read": database.reads, "sql_commit": database.commits},
        up={"sql": lambda: database.is_writable},
        unready=unready,
    )
