"""From a source to a webhook: one batch at a time, again until it is taken, or for a day.

    source ── read ──► batch ── POST ──► 2xx: cursor moves
                         ▲  └── else: wait 1 s, 2 s … 5 min, again; after a day of that: a letter, and on
                         └──────┘

One batch in flight keeps each device's events in order; a batch whose answer is lost comes again, so every event has
an id.
"""

import asyncio
import itertools
import logging
import random
import re
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from longwire.clock import Clock
from longwire.errors import StoreUnavailable
from longwire.ids import new_message_id, prefixed
from longwire.meters import Meter
from longwire.operations_model import Webhook
from longwire.ports.events import WebhookStore
from longwire.webhooks.posting import Posted, Poster
from longwire.webhooks.sources import MAX_EVENTS, Item, Source

Sleep = Callable[[float], Awaitable[None]]

log = logging.getLogger(__name__)

_MAX_BATCH_BYTES = 262_144
_STORE_RETRY_S = 2.0
_IDS_TOLD = 20
_MESSAGE_ID = re.compile(rb'"message_id":"(msg_[0-9a-f]{32})"')


@dataclass(frozen=True, slots=True)
class Patience:
    """How long and how often a webhook is tried."""

    first_s: float = 1.0
    longest_s: float = 300.0
    """Between two tries, whatever the receiver asks for."""
    give_up_after_ms: int = 86_400_000
    gather_s: float = 0.2
    """After a batch that had room left: what comes meanwhile goes together."""


class Batch:
    """Events that go together; the same bytes each time they are tried."""

    __slots__ = ("body", "delivery_id", "error", "is_taken", "last", "newest_ms")

    def __init__(self, items: list[Item]) -> None:
        self.delivery_id = prefixed("dlv", new_message_id())
        self.body = body_of(self.delivery_id, [item.text for item in items])
        self.last = items[-1].number
        self.newest_ms = max(item.at_ms for item in items)
        self.is_taken = False
        self.error = ""
        """Why it was given up; "" while it is not."""


class Courier:
    """Takes the events of one source to one webhook. It may be stopped and started again: nothing is lost."""

    def __init__(
        self,
        webhook: Webhook,
        source: Source,
        store: WebhookStore,
        clock: Clock,
        patience: Patience,
        sleep: Sleep,
        randomness: random.Random,
        posts: Meter,
    ) -> None:
        self._posts = posts
        self.webhook = webhook
        self.poster: Poster
        self.next_try_ms: int | None = None
        """When it is tried again; None while it is not failing."""
        self.failing_since_ms = webhook.failing_since_ms
        self.last_error = ""
        self._source = source
        self._store = store
        self._clock = clock
        self._patience = patience
        self._sleep = sleep
        self._randomness = randomness
        self._read: deque[Item] = deque()
        self._batch: Batch | None = None
        self._failures = 0
        self._is_posting = False
        self._is_stopping = False
        self._task: asyncio.Task[None] | None = None

    def start(self, webhook: Webhook, poster: Poster) -> None:
        """Delivers to this webhook from now on; whatever kept it from trying counts as over."""
        self.webhook, self.poster = webhook, poster
        self.next_try_ms = None
        self._failures = 0
        self._is_stopping = False
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self, within_s: float = 0.0) -> None:
        """Stops; a POST that is under way may end within ``within_s``, and comes again if it does not."""
        task, self._task = self._task, None
        if task is None:
            return
        self._is_stopping = True
        if self._is_posting and within_s:
            await asyncio.wait([task], timeout=within_s)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        while not self._is_stopping:
            try:
                await self._go_on()
            except StoreUnavailable as error:
                log.warning("webhook %d waits for the store: %s", self.webhook.webhook_no, error)
                await self._sleep(_STORE_RETRY_S)
            except Exception:
                log.exception("webhook %d failed inside; it goes on", self.webhook.webhook_no)
                await self._sleep(_STORE_RETRY_S)

    async def _go_on(self) -> None:
        if self._batch is None:
            self._batch = await self._gather()
        batch = self._batch
        if not batch.is_taken and not batch.error:
            await self._try(batch)
        now_ms = self._clock.now_ms()
        if batch.is_taken:
            await self._source.taken(batch.last, now_ms)
        elif batch.error:
            await self._source.bury(batch.last, batch.body, batch.error, now_ms)
            log.error("webhook %d: a batch became a letter: %s", self.webhook.webhook_no, batch.error)
        else:
            return
        self._batch = None
        if batch.is_taken and not self._read and not self._is_stopping:
            await self._sleep(self._patience.gather_s)

    async def _gather(self) -> Batch:
        if not self._read:
            self._read.extend(await self._source.read())
        items = [self._read.popleft()]
        size = len(items[0].text)
        while self._read and len(items) < MAX_EVENTS and size + len(self._read[0].text) < _MAX_BATCH_BYTES:
            items.append(self._read.popleft())
            size += len(items[-1].text) + 1
        return Batch(items)

    async def _try(self, batch: Batch) -> None:
        if self._is_given_up(batch):
            batch.error = self.last_error or "failing for a day"
            return
        if self.next_try_ms is not None:
            await self._sleep((self.next_try_ms - self._clock.now_ms()) / 1000)
        self._is_posting = True
        try:
            posted = await self.poster.post(self.webhook.secret, batch.delivery_id, batch.body)
        finally:
            self._is_posting = False
        _tell(self.webhook, batch, posted)
        if posted.is_taken:
            self._posts.note(posted.took_ms / 1000)
            if self._failures:
                log.info("webhook %d takes events again", self.webhook.webhook_no)
            self._failures, self.next_try_ms, self.failing_since_ms, self.last_error = 0, None, None, ""
            batch.is_taken = True
            return
        self._posts.failed()
        self._failed(posted)
        if self._is_given_up(batch):
            batch.error = posted.error
        assert self.failing_since_ms is not None
        await self._store.fails(self.webhook.webhook_no, self.failing_since_ms)

    def _failed(self, posted: Posted) -> None:
        if not self._failures:
            log.warning("webhook %d does not take events: %s", self.webhook.webhook_no, posted.error)
        now_ms = self._clock.now_ms()
        self.last_error = posted.error
        if self.failing_since_ms is None:
            self.failing_since_ms = now_ms
        patience = self._patience
        # Jittered, so that those who failed together do not come back together.
        wait_s = patience.first_s * 2 ** min(self._failures, 30) * self._randomness.uniform(0.75, 1.25)
        self.next_try_ms = now_ms + round(min(max(wait_s, posted.retry_after_s), patience.longest_s) * 1000)
        self._failures += 1

    def _is_given_up(self, batch: Batch) -> bool:
        """Whether the webhook has failed for a day, and the batch is as old: then it is not worth another try."""
        before_ms = self._clock.now_ms() - self._patience.give_up_after_ms
        return self.failing_since_ms is not None and max(self.failing_since_ms, batch.newest_ms) <= before_ms


def _tell(webhook: Webhook, batch: Batch, posted: Posted) -> None:
    """One line a POST, where somebody follows them: with its first messages, each to be found by its id."""
    if not log.isEnabledFor(logging.DEBUG):
        return
    found = itertools.islice(_MESSAGE_ID.finditer(batch.body), _IDS_TOLD)
    message_ids = " ".join(one[1].decode() for one in found)
    log.debug(
        "webhook %d: delivery %s %s after %d ms: %s",
        webhook.webhook_no,
        batch.delivery_id,
        "was taken" if posted.is_taken else f"was not taken ({posted.error})",
        posted.took_ms,
        message_ids or "no messages",
        extra={"labels": {"message_id": message_ids}} if message_ids else {},
    )


def body_of(delivery_id: str, texts: list[bytes]) -> bytes:
    """The body of a POST: what is signed, and what a letter keeps."""
    return b'{"delivery_id":"' + delivery_id.encode() + b'","events":[' + b",".join(texts) + b"]}"
