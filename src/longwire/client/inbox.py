"""Messages on their way in: given to the application once each, and acknowledged when it has them.

    PUSH ─► known? ── handled ───────────────────────────► ACK again
              │  └─── still with the application ─► note the new handle
              ▼
        a callback for its kind ─► one after the other ─┐
        none ─► the queue of ``async for`` ─────────────┴─► taken ─► remembered (on disk) ─► ACK

Messages of the system itself (kinds that begin with ``longwire.``, without a sender) go to a callback for exactly
their kind and to nobody else; without one they are acknowledged at once.

An iterating task has taken a message when it asks for the next one. What a session's handles are owed goes
with the session; the messages that wait here do not, and are acknowledged under the handle of their repeat.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from inspect import isawaitable

import msgspec

from longwire.client.acks import Acks
from longwire.client.errors import UndecodableMessage, Unhandled
from longwire.client.handlers import UNDECODABLE, Handler
from longwire.client.message import Message
from longwire.client.session import Session
from longwire.client.storage import MEMORY_OF_MESSAGES, Storage, done_sets
from longwire.ids import message_id_bytes
from longwire.wire.packets import Push, Received

# Half a node's window: messages that nobody wants must not keep out those that somebody does.
_MAX_UNWANTED = 32
_SYSTEM_KINDS = "longwire."
_WITHDRAWN = "longwire.withdrawn"


class _Withdrawn(msgspec.Struct):
    message_id: str


_decode_withdrawn = msgspec.json.Decoder(_Withdrawn).decode


class Delivery:
    """A message that came and is not acknowledged."""

    __slots__ = ("handle", "key", "message", "session", "task")

    def __init__(self, message: Message, key: bytes, handle: int, session: Session) -> None:
        self.message = message
        self.key = key
        self.handle = handle
        self.session = session
        self.task: asyncio.Task[object] | None = None
        """Who has it, where an iterating task has."""


class Inbox:
    """See the module. ``report`` gets what goes wrong in the application's functions.

    Holds at most ``max_messages`` and ``max_bytes`` that the application has not taken; what comes beyond is
    not taken in, counted in ``dropped``, and comes again later where it is reliable.
    """

    def __init__(
        self,
        storage: Storage,
        report: Callable[[Exception], None],
        max_messages: int = 1_000,
        max_bytes: int = 16 << 20,
    ) -> None:
        self.callbacks: dict[str, Handler] = {}
        self.any_callback: Handler | None = None
        self.dropped = 0
        self._storage = storage
        self._report = report
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._acks = Acks()
        self._handled: dict[bytes, None] = {}
        self._open: dict[bytes, Delivery] = {}
        self._for_callbacks: deque[tuple[Handler, Delivery]] = deque()
        self._for_tasks: deque[Delivery] = deque()
        self._waiting_bytes = 0
        self._worker: asyncio.Task[None] | None = None
        self._getters: deque[asyncio.Future[None]] = deque()
        self._has_reader = False
        self._current: dict[asyncio.Task[object], Delivery] = {}
        self._over: Exception | None = None

    def load(self, handled: list[bytes]) -> None:
        """Takes up the memory of an earlier process."""
        self._handled = dict.fromkeys(handled)

    # The connection's side.

    def attach(self, session: Session) -> None:
        """Acknowledgements go out on this session from now on; those owed to another one are forgotten."""
        self._acks.attach(session)

    def pushed(self, session: Session, frame: Received, push: Push) -> None:
        """A PUSH of the session that is attached."""
        is_reliable = frame.wants_receipt
        key = push.message_id + push.sender.encode() if is_reliable else b""
        if is_reliable:
            if key in self._handled:
                self._acks.owe(session, frame.correlation)
                return
            known = self._open.get(key)
            if known is not None:
                known.handle = frame.correlation
                known.session = session
                self._look_after(known)
                return
        if push.kind.startswith(_SYSTEM_KINDS) and not push.sender:
            if push.kind == _WITHDRAWN:
                self._withdraw(push.payload)
            if push.kind not in self.callbacks:
                if is_reliable:
                    self._acks.owe(session, frame.correlation)
                return
        waiting = len(self._for_callbacks) + len(self._for_tasks)
        if waiting >= self._max_messages or self._waiting_bytes + len(push.payload) > self._max_bytes:
            self.dropped += 1
            return
        message = Message(
            push.sender,
            push.kind,
            push.payload,
            push.to,
            push.message_id,
            push.sent_at_ms,
            push.collapse_key,
            is_reliable,
            frame.trace,
        )
        delivery = Delivery(message, key, frame.correlation, session)
        if is_reliable:
            self._open[key] = delivery
        self._waiting_bytes += len(push.payload)
        self._give(delivery)

    # The application's side.

    def add_callback(self, kind: str | None, handler: Handler) -> None:
        """Gives messages of this kind, or with None all that have no callback, to a function.

        Those that came before and that no iteration has taken go to it as well.
        """
        if kind is None:
            self.any_callback = handler
        else:
            self.callbacks[kind] = handler
        waiting, self._for_tasks = self._for_tasks, deque()
        for delivery in waiting:
            self._give(delivery)

    async def next(self) -> Message:
        """The next message without a callback; says that this task has taken the one it got before.

        Raises what ``stop`` was given once nothing is left. A cancelled call has taken nothing new.
        """
        self._has_reader = True
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("messages are iterated over by a task")
        finished = self._current.pop(task, None)
        if finished is not None:
            self._taken(finished)
        while not self._for_tasks:
            if self._over is not None:
                raise self._over.with_traceback(None)
            getter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._getters.append(getter)
            try:
                await getter
            finally:
                if getter in self._getters:
                    self._getters.remove(getter)
                elif task.cancelling() and self._for_tasks:
                    self._wake()  # this wake-up is another's now
        delivery = self._for_tasks.popleft()
        self._waiting_bytes -= len(delivery.message.payload)
        delivery.task = task
        self._current[task] = delivery
        return delivery.message

    def give_back(self) -> bool:
        """The current task has not taken its message after all: it comes again. Whether it had one."""
        task = asyncio.current_task()
        delivery = self._current.pop(task, None) if task is not None else None
        if delivery is not None:
            self._open.pop(delivery.key, None)
        return delivery is not None

    def stop(self, error: Exception) -> None:
        """Iterations end with this error once the queue is empty."""
        self._over = error
        while self._getters:
            self._wake()

    def resume(self) -> None:
        """Takes ``stop`` back."""
        self._over = None

    async def close(self, error: Exception, *, is_clean: bool) -> None:
        """Ends everything; the calling task's own message counts as taken where ``is_clean``."""
        self.stop(error)
        worker, self._worker = self._worker, None
        if worker is not None and worker is not asyncio.current_task():
            worker.cancel()
            await asyncio.wait([worker])
        for task, delivery in list(self._current.items()):
            if (is_clean and task is asyncio.current_task()) or _has_succeeded(task):
                self._taken(delivery)
        self._current.clear()
        marked: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._storage.mark(done_sets(marked))
        await marked
        self._acks.flush()

    # Within.

    def _withdraw(self, payload: bytes) -> None:
        """Forgets the message of the application that is named, unless it has been taken or a task has it.

        It is not acknowledged: nobody has seen it, and it does not come again.
        """
        try:
            key = message_id_bytes(_decode_withdrawn(payload).message_id)
        except (ValueError, msgspec.DecodeError):
            return  # of a later version of the protocol
        delivery = self._open.get(key)
        if delivery is None:
            return
        if delivery in self._for_tasks:
            self._for_tasks.remove(delivery)
        elif any(waiting is delivery for _, waiting in self._for_callbacks):
            self._for_callbacks = deque(entry for entry in self._for_callbacks if entry[1] is not delivery)
        else:
            return
        del self._open[key]
        self._waiting_bytes -= len(delivery.message.payload)

    def _give(self, delivery: Delivery) -> None:
        handler = self.callbacks.get(delivery.message.kind, self.any_callback)
        if handler is not None:
            self._for_callbacks.append((handler, delivery))
            if self._worker is None:
                self._run_callbacks()
            return
        self._for_tasks.append(delivery)
        if self._getters:
            self._wake()
        elif self.callbacks and not self._has_reader and len(self._for_tasks) > _MAX_UNWANTED:
            unwanted = self._for_tasks.popleft()
            self._waiting_bytes -= len(unwanted.message.payload)
            self._report(Unhandled(f"no callback for kind {unwanted.message.kind!r}, and nobody iterates"))
            self._taken(unwanted)

    def _wake(self) -> None:
        while self._getters:
            getter = self._getters.popleft()
            if not getter.done():
                getter.set_result(None)
                return

    def _look_after(self, delivery: Delivery) -> None:
        """A repeat came of a message that a task has; a task that is gone will not say more about it."""
        task = delivery.task
        if task is None or not task.done():
            return
        self._current.pop(task, None)
        delivery.task = None
        if _has_succeeded(task):
            self._taken(delivery)
        else:
            self._waiting_bytes += len(delivery.message.payload)
            self._give(delivery)

    def _run_callbacks(self) -> None:
        """Calls callbacks in order; from the first one that waits on, a task does."""
        while self._for_callbacks:
            handler, delivery = self._for_callbacks.popleft()
            waits = self._call(handler, delivery)
            if waits is not None:
                self._worker = asyncio.get_running_loop().create_task(self._work(handler, delivery, waits))
                return

    async def _work(self, handler: Handler, delivery: Delivery, waits: Awaitable[object]) -> None:
        try:
            while True:
                try:
                    await waits
                except Exception as error:  # noqa: BLE001 - the border to the application's function
                    self._failed(handler, delivery, error)
                else:
                    self._taken(delivery)
                while True:
                    if not self._for_callbacks:
                        return
                    handler, delivery = self._for_callbacks.popleft()
                    further = self._call(handler, delivery)
                    if further is not None:
                        waits = further
                        break
        finally:
            if self._worker is asyncio.current_task():
                self._worker = None

    def _call(self, handler: Handler, delivery: Delivery) -> Awaitable[object] | None:
        """Calls one callback; what is to be awaited, if anything."""
        message = delivery.message
        self._waiting_bytes -= len(message.payload)
        try:
            arguments = handler.arguments(message.payload, message)
        except UNDECODABLE as error:
            # It would not decode the next time either: it counts as taken, and the application is told.
            fault = UndecodableMessage(
                f"message {message.message_id.hex()} of kind {message.kind!r} for {handler.name}: {error}"
            )
            fault.__cause__ = error
            self._report(fault)
            self._taken(delivery)
            return None
        try:
            result = handler.call(arguments)
        except Exception as error:  # noqa: BLE001 - the border to the application's function
            self._failed(handler, delivery, error)
            return None
        if isawaitable(result):
            return result
        self._taken(delivery)
        return None

    def _failed(self, handler: Handler, delivery: Delivery, error: Exception) -> None:
        """Not acknowledged and not remembered: the node repeats it."""
        self._open.pop(delivery.key, None)
        message = delivery.message
        error.add_note(f"in {handler.name}, for message {message.message_id.hex()} of kind {message.kind!r}")
        self._report(error)

    def _taken(self, delivery: Delivery) -> None:
        if delivery.key:
            self._storage.remember(delivery.key, lambda error: self._remembered(delivery, error))

    def _remembered(self, delivery: Delivery, error: Exception | None) -> None:
        # Where the disk failed, an ACK now is still the best guard against giving the message twice.
        if error is not None:
            self._report(error)
        self._handled[delivery.key] = None
        if len(self._handled) > MEMORY_OF_MESSAGES:
            del self._handled[next(iter(self._handled))]
        self._open.pop(delivery.key, None)
        self._acks.owe(delivery.session, delivery.handle)


def _has_succeeded(task: asyncio.Task[object]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None
