"""The producer: what this process gives to Kafka, each message with its delivery report.

    send ─► librdkafka's queue ─► broker ─► delivery report ─► the thread ─► the loop, in batches ─► done

Idempotent, ``acks=all``: a report without an error means that every copy that is in sync has the message. Where Kafka
is known to be away a message is refused at once, so that no queue of ten seconds stands before every answer; the
thread asks twice a second whether it is back.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial

from confluent_kafka import KafkaError, KafkaException, Producer

from longwire.adapters.kafka.records import Headers
from longwire.adapters.kafka.settings import KafkaRefused, KafkaSettings
from longwire.adapters.kafka.topics import make_topics
from longwire.errors import StoreUnavailable
from longwire.meters import Meter

log = logging.getLogger(__name__)

Done = Callable[[bool], None]

_POLL_S = 0.1
_PROBE_EVERY_S = 0.5
_PROBE_WITHIN_S = 1.0
_START_WITHIN_S = 10.0
_QUIET_S = 1.0
_SLICE = 256
"""Reports told in one turn of the loop."""
_AWAY = frozenset({KafkaError._ALL_BROKERS_DOWN, KafkaError._MSG_TIMED_OUT})  # noqa: SLF001 - their names


class KafkaProducer:
    """One a process; all that is sent to Kafka goes by it. Made and used on the loop."""

    def __init__(self, settings: KafkaSettings) -> None:
        self.settings = settings
        self.is_away = False
        """Whether Kafka is known not to take messages now."""
        self.delivered = 0
        self.refused = 0
        self.times = Meter()
        """From ``send`` to the delivery report."""
        self._client: Producer | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._reports: deque[tuple[Done, bool]] = deque()
        self._is_telling = False
        self._has_topics = False
        self._next_probe = 0.0
        self._delivered_at = 0.0
        self._stop_at: float | None = None
        self._ready: asyncio.Future[None]
        self._ended: asyncio.Future[None]

    async def start(self) -> None:
        """Starts the thread, and waits until the topics are there.

        Where Kafka does not answer, this returns after some seconds, with a warning in the log; the topics are made
        when it does. Raises KafkaRefused where the settings are at fault.
        """
        self._loop = asyncio.get_running_loop()
        self._ready, self._ended = self._loop.create_future(), self._loop.create_future()
        try:
            self._client = Producer(self.settings.producer() | {"error_cb": self._failed})
        except KafkaException as error:
            raise KafkaRefused(f"Kafka's client does not take its settings (kafka_options): {error.args[0]}") from error
        self._stop_at = None
        self._thread = threading.Thread(target=self._run, name="lw-kafka-send", daemon=True)
        self._thread.start()
        try:
            async with asyncio.timeout(_START_WITHIN_S):
                await asyncio.shield(self._ready)
        except TimeoutError:
            log.warning("Kafka at %s (kafka_servers) does not answer; going on without it", self.settings.servers)
        except KafkaRefused:
            await self.stop(0.0)
            raise

    async def stop(self, within_s: float = 5.0) -> None:
        """Waits for what is under way, for ``within_s`` at the most; what is not reported then counts as refused."""
        if self._thread is None:
            return
        self._stop_at = time.monotonic() + within_s
        await self._ended
        self._thread.join()
        self._thread = None
        while self._reports:
            self._tell()

    def send(self, topic: str, key: bytes, value: bytes, headers: Headers, done: Done) -> None:
        """Queues a message; ``done`` runs on the loop, never within this call: whether it is durable.

        Messages of one key go to one partition and are told in the order of the calls, those apart that are refused
        at once: while Kafka is away, while the queue is full, and after ``stop``.
        """
        client = self._client
        if client is None or self.is_away or self._stop_at is not None:
            self._refuse(done)
            return
        try:
            delivered = partial(self._delivered, done, time.monotonic())
            client.produce(topic, value, key, on_delivery=delivered, headers=headers)
        except (BufferError, KafkaException) as error:
            log.debug("a message for %s was refused: %s", topic, error)
            self._refuse(done)

    async def put(self, topic: str, key: bytes, value: bytes, headers: Headers) -> None:
        """Durably puts one message. Raises StoreUnavailable."""
        told: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.send(topic, key, value, headers, lambda is_durable: None if told.done() else told.set_result(is_durable))
        if not await told:
            raise StoreUnavailable(f"Kafka did not take a message for {topic}")

    def _refuse(self, done: Done) -> None:
        self.refused += 1
        asyncio.get_running_loop().call_soon(done, False)

    def _tell(self) -> None:
        """On the loop: calls back for a slice, then lets the loop breathe."""
        self._is_telling = False  # before the look at the reports: what comes after it is scheduled anew
        for _ in range(min(_SLICE, len(self._reports))):
            done, is_durable = self._reports.popleft()
            if is_durable:
                self.delivered += 1
            else:
                self.refused += 1
            try:
                done(is_durable)
            except Exception:
                log.exception("what a delivery report led to failed; the others go on")
        if self._reports:
            self._is_telling = True
            asyncio.get_running_loop().call_soon(self._tell)

    # -- on the thread ----------------------------------------------------------------------------------------

    def _run(self) -> None:
        client = self._client
        assert client is not None
        while self._stop_at is None:
            try:
                if self.is_away or not self._has_topics:
                    self._probe(client)
                client.poll(_POLL_S)
            except Exception:
                log.exception("Kafka's producer failed inside; it goes on")
                time.sleep(_PROBE_EVERY_S)
            self._hand_over()
        while len(client) and time.monotonic() < self._stop_at:
            client.poll(_POLL_S)
            self._hand_over()
        client.purge()
        client.flush(_POLL_S)
        self._hand_over()
        # The last reference: librdkafka ends its threads with it.
        self._client = None
        del client
        self._call(_settle, self._ended)

    def _probe(self, client: Producer) -> None:
        if time.monotonic() < self._next_probe:
            return
        try:
            client.list_topics(timeout=_PROBE_WITHIN_S)
            if not self._has_topics:
                make_topics(self.settings)
                self._has_topics = True
        except KafkaRefused as error:
            self._call(_refuse, self._ready, error)
            log.error("%s", error)
            self._next_probe = time.monotonic() + _START_WITHIN_S
            return
        except KafkaException as error:
            self._found_away(error.args[0])
            self._next_probe = time.monotonic() + _PROBE_EVERY_S
            return
        self._call(_settle, self._ready)
        if self.is_away:
            log.warning("Kafka at %s answers again", self.settings.servers)
            self.is_away = False

    def _delivered(self, done: Done, sent_at: float, error: KafkaError | None, _message: object) -> None:
        self._reports.append((done, error is None))
        if error is None:
            self._delivered_at = time.monotonic()
            self.times.note(self._delivered_at - sent_at)
            return
        self.times.failed()
        if error.code() in _AWAY and time.monotonic() - self._delivered_at > _QUIET_S:
            # Where others were delivered meanwhile, it is one partition that has no leader, and not all of Kafka.
            self._found_away(error)

    def _failed(self, error: KafkaError) -> None:
        """librdkafka's word on what concerns no single message."""
        if error.code() in _AWAY:
            self._found_away(error)
        elif error.fatal():
            log.error("Kafka's producer cannot go on: %s; restart this process", error.str())
        else:
            log.debug("Kafka's producer: %s", error.str())

    def _found_away(self, error: KafkaError) -> None:
        if not self.is_away:
            self.is_away = True
            log.warning("Kafka at %s (kafka_servers) is away: %s", self.settings.servers, error.str())

    def _hand_over(self) -> None:
        if self._reports and not self._is_telling:
            self._is_telling = True
            self._call(self._tell)

    def _call(self, run: Callable[..., None], *values: object) -> None:
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop is gone: nobody waits any more
            self._loop.call_soon_threadsafe(run, *values)


def _settle(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


def _refuse(future: "asyncio.Future[None]", error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
