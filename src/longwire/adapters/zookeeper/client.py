"""The session of this process with ZooKeeper: kazoo in its own threads, its results handed to the loop.

kazoo connects again by itself for as long as it takes. A session that ZooKeeper has given up is followed by a new
one; whoever had ephemeral nodes in the old one hears of both by ``on_state``. A session that finds no ZooKeeper for
three of its timeouts is given up from this side: a ZooKeeper that lost its data (or was restored from an older state)
refuses whoever has seen more than it knows, without saying why.
"""

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Any

from kazoo import exceptions as errors  # type: ignore[import-untyped]
from kazoo.client import KazooClient  # type: ignore[import-untyped]
from kazoo.protocol.states import KazooState  # type: ignore[import-untyped]

from longwire.errors import RegistryUnavailable
from longwire.meters import Meter

log = logging.getLogger(__name__)

NoNode: type[Exception] = errors.NoNodeError
NodeExists: type[Exception] = errors.NodeExistsError

_ANSWERS_WITHIN_S = 5.0
_STOPS_WITHIN_S = 3.0
_GIVEN_UP_AFTER_TIMEOUTS = 3
# kazoo's own comes to wait for a minute, by when others have long taken this process for dead (view.py).
_CONNECTS_AGAIN = {"max_tries": -1, "delay": 0.1, "backoff": 2, "max_delay": 1.0}
_AWAY = (
    errors.ConnectionLoss,
    errors.SessionExpiredError,
    errors.ConnectionClosedError,
    errors.OperationTimeoutError,
    errors.SessionMovedError,
)


class ZooKeeperClient:
    """One session, shared by the registry and leadership. Started before them and stopped after them.

    ``hosts`` is "host:port,host:port". ``session_timeout_s`` is how long ZooKeeper keeps the nodes of a process that
    went silent; ZooKeeper bounds it (``minSessionTimeout``, ``maxSessionTimeout``).
    """

    def __init__(self, hosts: str, *, session_timeout_s: float = 6.0, connect_within_s: float = 30.0) -> None:
        self.hosts = hosts
        self.is_connected = False
        self.times = Meter()
        self._connect_within_s = connect_within_s
        self._kazoo = KazooClient(
            hosts, timeout=session_timeout_s, connection_retry=_CONNECTS_AGAIN, logger=_kazoo_log()
        )
        self._kazoo.add_listener(self._state_changed)
        self._listeners: list[Callable[[], None]] = []
        self._connected = asyncio.Event()
        self._given_up_after_s = session_timeout_s * _GIVEN_UP_AFTER_TIMEOUTS
        self._giving_up: asyncio.TimerHandle | None = None
        self._is_stopped = False
        self._starting_or_stopping = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def session_id(self) -> int:
        """The id of the session, 0 while there is none."""
        told = self._kazoo.client_id
        return 0 if told is None else int(told[0])

    def on_state(self, callback: Callable[[], None]) -> None:
        """Has ``callback`` called on the loop after ``is_connected`` changed, or the session did."""
        self._listeners.append(callback)

    async def start(self) -> None:
        """Connects. Raises RegistryUnavailable where ZooKeeper does not answer in time."""
        self._loop = asyncio.get_running_loop()
        self._kazoo.start_async()
        try:
            async with asyncio.timeout(self._connect_within_s):
                await self._connected.wait()
        except TimeoutError:
            await self.stop()
            raise RegistryUnavailable(
                f"ZooKeeper at {self.hosts} did not answer within {self._connect_within_s:g} s: "
                "see that it runs and that zookeeper_hosts names it"
            ) from None

    async def stop(self) -> None:
        """Ends the session, with it the ephemeral nodes; where ZooKeeper is away, its timeout ends it."""
        self._is_stopped = True
        self._is_away_no_more()
        stopped = asyncio.Event()
        threading.Thread(target=self._stop, args=(stopped,), name="zookeeper-stop", daemon=True).start()
        try:
            async with asyncio.timeout(_STOPS_WITHIN_S):
                await stopped.wait()
        except TimeoutError:
            log.warning("ZooKeeper at %s did not end the session; it ends by its timeout", self.hosts)

    async def call(self, operation: str, *args: object, **options: object) -> Any:
        """Does kazoo's ``operation``. Raises RegistryUnavailable, and NoNode and NodeExists as kazoo does."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Any] = loop.create_future()
        asked = getattr(self._kazoo, operation + "_async")(*args, **options)
        asked.rawlink(lambda result: self._to_loop(_settle, done, result))
        began = loop.time()
        try:
            async with asyncio.timeout(_ANSWERS_WITHIN_S):  # wait_for may lose a cancellation (Python 3.11)
                answer = await done
        except _AWAY as error:
            self.times.failed()
            raise RegistryUnavailable(f"ZooKeeper at {self.hosts} is away: {type(error).__name__}") from error
        except TimeoutError:
            self.times.failed()
            raise RegistryUnavailable(
                f"ZooKeeper at {self.hosts} did not answer within {_ANSWERS_WITHIN_S:g} s"
            ) from None
        self.times.note(loop.time() - began)
        return answer

    def watch(self, callback: Callable[[str], None]) -> Callable[[Any], None]:
        """What ``call`` takes as ``watch``: ``callback`` gets the path, on the loop. Make one and keep it."""
        return lambda event: self._to_loop(callback, event.path or "")

    def _to_loop(self, callback: Callable[..., None], *args: object) -> None:
        """On a thread of kazoo's."""
        if self._loop is None or self._loop.is_closed():
            return
        self._loop.call_soon_threadsafe(callback, *args)

    def _state_changed(self, state: str) -> None:
        """On a thread of kazoo's, which waits for this."""
        self._to_loop(self._turn, state == KazooState.CONNECTED)

    def _turn(self, is_connected: bool) -> None:
        if self._is_stopped:
            self.is_connected = is_connected
            return
        if is_connected != self.is_connected:
            log.info("ZooKeeper at %s is %s", self.hosts, "connected" if is_connected else "away")
        self.is_connected = is_connected
        if is_connected:
            self._connected.set()
            self._is_away_no_more()
        elif self._giving_up is None:
            self._give_up_later()
        for callback in self._listeners:
            callback()

    # -- giving a session up -----------------------------------------------------------------------------------------

    def _give_up_later(self) -> None:
        self._giving_up = asyncio.get_running_loop().call_later(self._given_up_after_s, self._give_up)

    def _is_away_no_more(self) -> None:
        if self._giving_up is not None:
            self._giving_up.cancel()
            self._giving_up = None

    def _give_up(self) -> None:
        self._give_up_later()
        threading.Thread(target=self._begin_anew, name="zookeeper-anew", daemon=True).start()

    def _begin_anew(self) -> None:
        """On a thread of its own."""
        with self._starting_or_stopping:
            if self._is_stopped or self.is_connected:
                return
            try:
                self._kazoo.stop()
                self._kazoo.start_async()
            except Exception as error:  # noqa: BLE001 - the root of a thread; it is tried again
                log.warning("a new session with ZooKeeper at %s was not begun: %s", self.hosts, error)

    def _stop(self, stopped: asyncio.Event) -> None:
        """On a thread of its own, for kazoo waits for ZooKeeper's farewell."""
        with self._starting_or_stopping:
            try:
                self._kazoo.stop()
                self._kazoo.close()
            except Exception as error:  # noqa: BLE001 - the root of a thread; the session ends by its timeout
                log.info("the session with ZooKeeper at %s did not end in order: %s", self.hosts, error)
        self._to_loop(stopped.set)


def _settle(done: asyncio.Future[Any], result: Any) -> None:
    if done.done():
        return
    if result.exception is not None:
        done.set_exception(result.exception)
    else:
        done.set_result(result.value)


def _kazoo_log() -> logging.Logger:
    """kazoo tells each attempt to connect; ours says when the state changes."""
    quiet = logging.getLogger("longwire.zookeeper.kazoo")
    quiet.setLevel(logging.CRITICAL)
    return quiet
