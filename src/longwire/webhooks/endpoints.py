"""The webhooks of this system: made, changed, tested and deleted here, and served by their couriers.

Alone, a process serves what it keeps, from the moment it is kept. In a cluster any process makes and changes webhooks
in the store, and the one that leads serves what it finds there: batches go out at least once, as they always do.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from longwire.accounts.refusals import RefusalCode, Refused
from longwire.clock import Clock
from longwire.errors import StoreUnavailable
from longwire.ids import new_message_id, new_secret, prefixed
from longwire.meters import Meter
from longwire.operations_model import Webhook, WebhookLetter
from longwire.ports.events import EVENT_KINDS, EventLog, WebhookStore
from longwire.ports.uplink import UplinkReader
from longwire.webhooks.addresses import AddressRefused, addresses_of, parse_url
from longwire.webhooks.delivery import Courier, Patience, Sleep, body_of
from longwire.webhooks.posting import Posted, Poster, PostSettings
from longwire.webhooks.sources import Outbox, Source, Uplink, ping_text

log = logging.getLogger(__name__)

MAX_WEBHOOKS = 100
KINDS = frozenset(EVENT_KINDS) | {f"{kind.partition('.')[0]}.*" for kind in EVENT_KINDS}
"""What a webhook may ask for: kinds and families of kinds."""
_LOOKUP_WITHIN_S = 2.0
_STOP_WITHIN_S = 1.0
_LOOK_EVERY_S = 2.0


class WebhookState(Struct, frozen=True):
    """A webhook and how it does."""

    webhook: Webhook
    waiting: int
    """Events that wait for it, about."""
    next_try_ms: int | None
    last_error: str


class _Served:
    """A webhook's connection and its couriers."""

    def __init__(self, poster: Poster, outbox: Courier) -> None:
        self.poster = poster
        self.outbox = outbox
        self.uplink: Courier | None = None

    @property
    def couriers(self) -> list[Courier]:
        return [self.outbox] if self.uplink is None else [self.outbox, self.uplink]

    async def stop(self, within_s: float = 0.0) -> None:
        await asyncio.gather(*(courier.stop(within_s) for courier in self.couriers))
        await self.poster.close()


class Endpoints:
    """Calls raise Refused and StoreUnavailable."""

    def __init__(
        self,
        store: WebhookStore,
        events: EventLog,
        uplink: UplinkReader,
        clock: Clock,
        posting: PostSettings | None = None,
        patience: Patience | None = None,
        sleep: Sleep = asyncio.sleep,
        randomness: random.Random | None = None,
        leads: Callable[[], bool] | None = None,
    ) -> None:
        """``leads``: whether this process is the one of a cluster that serves; None: it is alone."""
        self.posts = Meter()
        """Of all webhooks; a POST that is not taken has failed."""
        self._store = store
        self._events = events
        self._uplink = uplink
        self._clock = clock
        self._posting = posting or PostSettings()
        self._patience = patience or Patience()
        self._sleep = sleep
        self._randomness = randomness or random.Random()  # noqa: S311 - jitter
        self._leads = leads
        self._served: dict[int, _Served] = {}
        self._found: dict[int, Webhook] = {}
        """In a cluster: what is served, as it was found."""
        self._changing = asyncio.Lock()

    async def start(self) -> None:
        """Goes on where the process before stopped; for a process that is alone."""
        for webhook in await self._store.all_webhooks():
            self._serve(webhook)

    async def run(self) -> None:
        """Serves while this process leads, until it is cancelled; for a process of a cluster."""
        while True:
            try:
                await self.look()
            except StoreUnavailable as error:
                log.warning("webhooks are served as last known: %s", error)
            await self._sleep(_LOOK_EVERY_S)

    async def look(self) -> None:
        """Serves what there is in the store, where this process leads, else nothing. Raises StoreUnavailable."""
        leads = self._leads is None or self._leads()
        wanted = {webhook.webhook_no: webhook for webhook in await self._store.all_webhooks()} if leads else {}
        async with self._changing:
            for webhook_no, found in list(self._found.items()):
                if webhook_no in wanted and _is_same(wanted[webhook_no], found):
                    continue
                await self._served[webhook_no].stop(_STOP_WITHIN_S)
                del self._found[webhook_no]
                if webhook_no not in wanted:
                    del self._served[webhook_no]
            for webhook_no, webhook in wanted.items():
                if webhook_no not in self._found:
                    self._found[webhook_no] = webhook
                    self._serve(webhook)

    async def stop(self) -> None:
        """Lets POSTs that are under way end within a second; what is not taken then comes again."""
        await asyncio.gather(*(served.stop(_STOP_WITHIN_S) for served in self._served.values()))
        self._served.clear()

    # -- webhooks ---------------------------------------------------------------------------------------------

    async def states(self) -> list[WebhookState]:
        """Every webhook, newest first."""
        return [await self._state(webhook) for webhook in reversed(await self._store.all_webhooks())]

    async def find(self, webhook_no: int) -> WebhookState:
        """Raises Refused: not-found."""
        return await self._state(await self._known(webhook_no))

    async def add(self, url: str, kinds: Sequence[str], secret: str | None = None) -> WebhookState:
        """A webhook that is told events from now on. Raises Refused: invalid-parameter, state-conflict."""
        await self._check(url, kinds)
        async with self._changing:
            count = len(await self._store.all_webhooks())
            if count >= MAX_WEBHOOKS:
                more = {"limit": MAX_WEBHOOKS, "actual": count}
                raise Refused(RefusalCode.STATE_CONFLICT, f"there are {MAX_WEBHOOKS} webhooks already", more=more)
            webhook = await self._store.add(
                Webhook(0, url, secret or f"whsec_{new_secret()}", _sorted(kinds), True, self._clock.now_ms())
            )
            if self._leads is None:
                self._serve(webhook)
        return await self._state(webhook)

    async def change(
        self,
        webhook_no: int,
        url: str | None = None,
        kinds: Sequence[str] | None = None,
        secret: str | None = None,
        is_enabled: bool | None = None,
    ) -> WebhookState:
        """Changes what is given. What waits goes to the new address; for a disabled one it waits on, up to two days.

        Raises Refused: not-found, invalid-parameter.
        """
        known = await self._known(webhook_no)
        if url is not None or kinds is not None:
            await self._check(known.url if url is None else url, known.kinds if kinds is None else kinds)
        async with self._changing:
            known = await self._known(webhook_no)
            changed = replace(
                known,
                url=known.url if url is None else url,
                kinds=known.kinds if kinds is None else _sorted(kinds),
                secret=known.secret if secret is None else secret,
                is_enabled=known.is_enabled if is_enabled is None else is_enabled,
            )
            if self._leads is not None:
                if not await self._store.change(changed):
                    raise _unknown(webhook_no)
                return await self._state(changed)
            # Its couriers move cursors, which must not come back once the store has taken them away.
            await self._served[webhook_no].stop()
            is_kept = False
            try:
                is_kept = await self._store.change(changed)
            finally:
                self._serve(changed if is_kept else known)
        return await self._state(changed)

    async def delete(self, webhook_no: int) -> None:
        """Ends the webhook; its letters stay to be read. Raises Refused: not-found."""
        async with self._changing:
            known = await self._known(webhook_no)
            if self._leads is not None:
                await self._store.delete(webhook_no)
                return
            await self._served[webhook_no].stop()
            try:
                await self._store.delete(webhook_no)
            except BaseException:
                self._serve(known)
                raise
            del self._served[webhook_no]

    async def test(self, webhook_no: int) -> Posted:
        """Sends one event of kind ``ping`` now, to a disabled one too. Raises Refused: not-found."""
        webhook = await self._known(webhook_no)
        number = new_message_id()
        delivery_id = prefixed("dlv", number)
        body = body_of(delivery_id, [ping_text(prefixed("evt", number), self._clock.now_ms())])
        poster = Poster(webhook.url, self._posting, self._clock)
        try:
            return await poster.post(webhook.secret, delivery_id, body)
        finally:
            await poster.close()

    # -- letters ----------------------------------------------------------------------------------------------

    async def letters(self, before_no: int, limit: int) -> Sequence[WebhookLetter]:
        """Letters below ``before_no`` (0: from the newest), newest first."""
        return await self._store.letters(before_no, limit)

    async def letter(self, letter_no: int) -> WebhookLetter:
        """Raises Refused: not-found."""
        letter = await self._store.letter(letter_no)
        if letter is None:
            raise Refused(RefusalCode.NOT_FOUND, f"there is no letter whl_{letter_no}")
        return letter

    async def replay(self, letter_no: int) -> WebhookLetter:
        """Sends the letter's events once more, behind what waits; repeating it changes nothing.

        Raises Refused: not-found; state-conflict where the webhook is deleted.
        """
        letter = await self.letter(letter_no)
        if all(webhook.webhook_no != letter.webhook_no for webhook in await self._store.all_webhooks()):
            raise Refused(RefusalCode.STATE_CONFLICT, f"webhook whk_{letter.webhook_no} is deleted")
        return await self._store.replay(letter_no, self._clock.now_ms()) or letter

    # -- serving ----------------------------------------------------------------------------------------------

    def _serve(self, webhook: Webhook) -> None:
        """Starts the couriers of a webhook that is new, or was stopped to be changed."""
        poster = Poster(webhook.url, self._posting, self._clock)
        served = self._served.get(webhook.webhook_no)
        if served is None:
            outbox = Outbox(webhook, self._events, self._store)
            served = self._served[webhook.webhook_no] = _Served(poster, self._courier(webhook, outbox))
        served.poster = poster
        if not webhook.takes("uplink"):
            served.uplink = None
        elif served.uplink is None:
            served.uplink = self._courier(webhook, Uplink(webhook, self._uplink, self._events, self._store))
        if webhook.is_enabled:
            for courier in served.couriers:
                courier.start(webhook, poster)

    def _courier(self, webhook: Webhook, source: Source) -> Courier:
        return Courier(
            webhook, source, self._store, self._clock, self._patience, self._sleep, self._randomness, self.posts
        )

    # -- checks -----------------------------------------------------------------------------------------------

    async def _check(self, url: str, kinds: Sequence[str]) -> None:
        unknown = sorted(set(kinds) - KINDS)
        if unknown or not kinds:
            what = f"{unknown[0]!r} is no kind of event" if unknown else "kinds is empty"
            raise Refused(RefusalCode.INVALID_PARAMETER, f"{what}; there are {', '.join(sorted(KINDS))}")
        try:
            async with asyncio.timeout(_LOOKUP_WITHIN_S):
                await addresses_of(parse_url(url), self._posting.lookup, allows_private=self._posting.allows_private)
        except AddressRefused as error:
            raise Refused(RefusalCode.INVALID_PARAMETER, str(error)) from None
        except OSError:
            return  # TimeoutError is one: a receiver that is not there yet; the state will say so

    async def _known(self, webhook_no: int) -> Webhook:
        for webhook in await self._store.all_webhooks():
            if webhook.webhook_no == webhook_no:
                return webhook
        raise _unknown(webhook_no)

    async def _state(self, webhook: Webhook) -> WebhookState:
        waiting = await self._events.waiting(webhook.webhook_no)
        served = self._served.get(webhook.webhook_no)
        couriers = [] if served is None else served.couriers
        tries = [courier.next_try_ms for courier in couriers if courier.next_try_ms is not None]
        errors = [courier.last_error for courier in couriers if courier.last_error]
        return WebhookState(webhook, waiting, min(tries, default=None), errors[0] if errors else "")


def _is_same(one: Webhook, other: Webhook) -> bool:
    """Whether both say the same; how far it is and how it does is no part of that."""
    does = {"cursor": 0, "last_success_ms": None, "failing_since_ms": None}
    return replace(one, **does) == replace(other, **does)


def _sorted(kinds: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted(set(kinds)))


def _unknown(webhook_no: int) -> Refused:
    return Refused(RefusalCode.NOT_FOUND, f"there is no webhook whk_{webhook_no}")
