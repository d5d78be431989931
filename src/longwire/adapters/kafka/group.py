"""A member of a consumer group: a thread that polls, a queue that the loop takes from, and how far it is done.

    broker ─► librdkafka ─► the thread ─► waiting ─► take ─► (numbers of our own) ─► commit ─► one offset a partition

A port of ours knows one rising number, a topic many offsets: records are numbered here in the order in which they are
taken, and "done up to this number" becomes the offset of each partition. A partition that goes to another member
takes its records with it: those that nobody took are forgotten, of the others ``holds`` says so, and what they are
done up to is not committed any more. Its new member reads on from the last commit: at least once.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from longwire.adapters.kafka.settings import KafkaRefused, KafkaSettings
from longwire.errors import StoreUnavailable

log = logging.getLogger(__name__)

_POLL_S = 0.1
_ANSWER_POLL_S = 0.005
_BATCH = 512
_FULL = 2_048
"""Messages that wait to be taken; then the thread takes no more from librdkafka, whose queue is bounded too."""
_PAUSE_AFTER_S = 2.0
_COMMIT_WITHIN_S = 5.0


class Taken(NamedTuple):
    """A message in this member's hands."""

    number: int
    message: Message

    @property
    def position(self) -> int:
        """Its place in the topic as one integer: the partition above the offset."""
        partition, offset = self.message.partition(), self.message.offset()
        assert partition is not None
        assert offset is not None
        return partition << 48 | offset


class GroupMember:
    """Reads one topic as a member of one group, from ``start`` to ``stop``; used on one loop, by one reader."""

    def __init__(self, settings: KafkaSettings, group: str, topic: str) -> None:
        self._settings = settings
        self._group = group
        self._topic = topic
        self._client: Consumer | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop
        self._is_stopping = False
        self._ended: asyncio.Future[None]
        self._has_room = threading.Event()
        self._given = 0
        """Messages that the thread has handed over, ever."""
        self._away = 0
        """Of these, those that do not wait any more: taken or forgotten. Counted on the loop."""
        self._to_commit: deque[dict[int, int]] = deque()
        """Offsets by partition, from the loop to the thread: librdkafka's client is the thread's alone."""
        self._warned: set[int] = set()
        self._paused: list[TopicPartition] = []
        """On the thread: what librdkafka gives nothing of, because nobody takes."""
        # On the loop alone:
        self._waiting: deque[Message] = deque()
        self._has_waiting = asyncio.Event()
        self._next_number = 1
        self._taken: deque[tuple[int, int, int]] = deque()
        """(number, partition, offset) of what was taken and is not done, numbers rising."""
        self._lost: set[int] = set()
        """Numbers whose partitions went to another member."""
        self._done: dict[int, int] = {}
        """By partition of ours, the offset to go on from."""
        self._committed: dict[int, int] = {}
        self._committing = asyncio.Lock()
        self._answer: asyncio.Future[KafkaError | None] | None = None

    def start(self) -> None:
        """Joins the group, in the background. Raises KafkaRefused where the settings are at fault."""
        self._loop = asyncio.get_running_loop()
        self._ended = self._loop.create_future()
        config = self._settings.consumer(self._group) | {"error_cb": self._failed, "on_commit": self._committed_some}
        try:
            client = Consumer(config)
        except KafkaException as error:
            raise KafkaRefused(f"Kafka's client does not take its settings (kafka_options): {error.args[0]}") from error
        client.subscribe([self._topic], on_revoke=self._on_revoke, on_lost=self._on_revoke)
        self._client = client
        self._thread = threading.Thread(target=self._run, args=(client,), name="lw-kafka-read", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """Leaves the group: others take over at once. Whoever waits in ``take`` gets StoreUnavailable."""
        self._is_stopping = True
        self._has_waiting.set()
        if self._thread is None:
            return
        self._has_room.set()
        self._client = None
        await self._ended
        self._thread.join()
        self._thread = None
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(None)

    # -- on the loop ------------------------------------------------------------------------------------------

    async def take(self, limit: int) -> list[Taken]:
        """The next messages, at most ``limit``; waits until there is one. Cancelling it loses nothing.

        Raises StoreUnavailable once stopped. While Kafka is away, it waits.
        """
        while True:
            if self._is_stopping or self._thread is None:
                raise StoreUnavailable("this reader of Kafka is stopped")
            if self._waiting:
                break
            self._has_waiting.clear()
            await self._has_waiting.wait()
        batch = [self._take(self._waiting.popleft()) for _ in range(min(limit, len(self._waiting)))]
        self._let_go(len(batch))
        return batch

    def _let_go(self, count: int) -> None:
        self._away += count
        self._has_room.set()

    def _take(self, message: Message) -> Taken:
        number = self._next_number
        self._next_number = number + 1
        partition, offset = message.partition(), message.offset()
        assert partition is not None
        assert offset is not None
        self._taken.append((number, partition, offset))
        return Taken(number, message)

    def holds(self, number: int) -> bool:
        """Whether the message is still this member's to handle."""
        return number not in self._lost

    async def commit(self, number: int) -> None:
        """Durably notes that everything up to ``number`` is done, where its partition is still this member's.

        Raises StoreUnavailable where Kafka did not take it; calling it again is safe.
        """
        self._finish(number)
        async with self._committing:
            while wanted := {p: o for p, o in self._done.items() if o > self._committed.get(p, -1)}:
                await self._commit(wanted)

    def _finish(self, number: int) -> None:
        while self._taken and self._taken[0][0] <= number:
            _, partition, offset = self._taken.popleft()
            self._done[partition] = offset + 1
        if self._lost:
            self._lost = {lost for lost in self._lost if lost > number}

    async def _commit(self, wanted: dict[int, int]) -> None:
        if self._client is None:
            raise StoreUnavailable("this reader of Kafka is stopped")
        self._answer = self._loop.create_future()
        self._to_commit.append(wanted)
        try:
            async with asyncio.timeout(_COMMIT_WITHIN_S):
                error = await self._answer
        except TimeoutError:
            raise StoreUnavailable(
                f"Kafka did not take a commit of {self._group} within {_COMMIT_WITHIN_S} s"
            ) from None
        finally:
            self._answer = None
        if error is not None and error.code() == KafkaError._NO_OFFSET:  # noqa: SLF001 - its name
            # All of them went to other members, or a commit before this one had them.
            for partition, offset in wanted.items():
                self._committed[partition] = max(offset, self._committed.get(partition, -1))
        elif error is not None:
            raise StoreUnavailable(f"Kafka did not take a commit of {self._group}: {error.str()}")

    def _answered(self, error: KafkaError | None, committed: Sequence[tuple[int, int]]) -> None:
        if error is None:
            for partition, offset in committed:
                self._committed[partition] = offset
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(error)

    def _came(self, messages: Sequence[Message]) -> None:
        self._waiting += messages
        self._has_waiting.set()

    def _gone(self, partitions: frozenset[int]) -> None:
        kept = deque(message for message in self._waiting if message.partition() not in partitions)
        self._let_go(len(self._waiting) - len(kept))
        self._waiting = kept
        self._lost.update(number for number, partition, _ in self._taken if partition in partitions)
        self._taken = deque(entry for entry in self._taken if entry[1] not in partitions)
        for partition in partitions:
            self._done.pop(partition, None)
            self._committed.pop(partition, None)

    # -- on the thread ----------------------------------------------------------------------------------------

    def _run(self, client: Consumer) -> None:
        full_since: float | None = None
        while not self._is_stopping:
            try:
                self._has_room.clear()
                if self._given - self._away < _FULL:
                    if self._paused:
                        client.resume(self._paused)
                        self._paused = []
                    full_since = None
                    self._poll(client, _POLL_S)
                    continue
                self._has_room.wait(_POLL_S / 2 if self._answer is None else _ANSWER_POLL_S)
                # Callbacks and the group want to be polled, room or not: one message a time, then none.
                full_since = full_since or time.monotonic()
                if time.monotonic() - full_since > _PAUSE_AFTER_S:
                    flowing = [one for one in client.assignment() if one not in self._paused]
                    client.pause(flowing)
                    self._paused += flowing
                self._poll(client, 0.0)
            except Exception:
                log.exception("Kafka's consumer failed inside; it goes on")
                time.sleep(_POLL_S)
        with contextlib.suppress(KafkaException, RuntimeError):
            client.close()
        # The last reference: librdkafka ends its threads with it.
        del client
        self._call(_settle, self._ended)

    def _commit_stored(self, client: Consumer, wanted: dict[int, int]) -> None:
        """Asks for a commit, for partitions that are ours: librdkafka knows it sooner than the loop does."""
        for partition, offset in wanted.items():
            with contextlib.suppress(KafkaException):
                client.store_offsets(offsets=[TopicPartition(self._topic, partition, offset)])
        try:
            client.commit(asynchronous=True)
        except KafkaException as error:
            self._call(self._answered, error.args[0], [])

    def _poll(self, client: Consumer, wait_s: float) -> None:
        while self._to_commit:
            self._commit_stored(client, self._to_commit.popleft())
        first = client.poll(wait_s)
        if first is None:
            return
        polled = [first]
        if wait_s:
            polled += client.consume(_BATCH - 1, 0.0)
        messages = []
        for message in polled:
            error = message.error()
            if error is None:
                messages.append(message)
            else:
                self._failed(error)
        if messages:
            self._warned.clear()
            self._given += len(messages)
            self._call(self._came, messages)

    def _on_revoke(self, _client: Consumer, partitions: Sequence[TopicPartition]) -> None:
        self._paused = [one for one in self._paused if one not in partitions]
        self._call(self._gone, frozenset(one.partition for one in partitions))

    def _committed_some(self, error: KafkaError | None, partitions: Sequence[TopicPartition]) -> None:
        fault = error or next((one.error for one in partitions if one.error is not None), None)
        self._call(self._answered, fault, [(one.partition, one.offset) for one in partitions if one.offset >= 0])

    def _failed(self, error: KafkaError) -> None:
        """Each kind once, until messages come again."""
        if error.code() not in self._warned:
            self._warned.add(error.code())
            log.warning("the group %s waits for Kafka (kafka_servers): %s", self._group, error.str())

    def _call(self, run: Callable[..., None], *values: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is gone: nobody waits any more
            self._loop.call_soon_threadsafe(run, *values)


def _settle(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
