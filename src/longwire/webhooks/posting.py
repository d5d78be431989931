"""One POST to a webhook: signed, to a checked address, with a deadline, and with as little trust as can be.

No redirect is followed, no cookie kept, no proxy of the environment used; of the answer only the status and
Retry-After count, and at most 64 KiB of the rest are read, to throw them away.
"""

import asyncio
import contextlib
import functools
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import NamedTuple

import httpx

from longwire.clock import Clock
from longwire.webhooks.addresses import AddressRefused, Lookup, addresses_of, parse_url, system_lookup
from longwire.webhooks.signing import DELIVERY_HEADER, SIGNATURE_HEADER, sign

_MAX_ANSWER_BYTES = 65_536
_REST_WITHIN_S = 1.0


@dataclass(frozen=True, slots=True)
class PostSettings:
    """How webhooks are reached."""

    allows_private: bool = False
    """Whether they may have private addresses (setting webhook_private_addresses)."""
    timeout_s: float = 10.0
    """From the look-up of the name to the answer's status."""
    lookup: Lookup = system_lookup
    tls: ssl.SSLContext | None = None
    """Whom to trust; None: the authorities that httpx brings."""


class Posted(NamedTuple):
    """What came of a POST."""

    status: int | None
    """The answer's; None where there was none."""
    error: str
    """Why it counts as failed, "" where it does not."""
    retry_after_s: float
    """How long the receiver asks to be left alone."""
    took_ms: int

    @property
    def is_taken(self) -> bool:
        return not self.error


class Poster:
    """Posts to one webhook; keeps its connection for the next time. ``close`` ends it."""

    def __init__(self, url: str, settings: PostSettings, clock: Clock) -> None:
        self._url = parse_url(url)
        self._settings = settings
        self._clock = clock
        self._transport: httpx.AsyncHTTPTransport | None = None

    async def post(self, secret: str, delivery_id: str, body: bytes) -> Posted:
        """Sends the body. Whatever goes wrong comes back; only cancelling is raised."""
        began = self._clock.monotonic()
        status, error, retry_after_s = None, "", 0.0
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                answer = await self._send(secret, delivery_id, body)
            status, retry_after_s = answer.status_code, self._retry_after_s(answer)
            await _drop(answer)
            if answer.is_redirect:
                error = f"the answer is {status}, and redirects are not followed"
            elif not answer.is_success:
                error = f"the answer is {status}"
        except TimeoutError:
            error = f"no answer within {self._settings.timeout_s:g} s"
        except (httpx.HTTPError, AddressRefused, OSError) as problem:
            error = f"{type(problem).__name__}: {problem}"[:200]
        return Posted(status, error, retry_after_s, round((self._clock.monotonic() - began) * 1000))

    async def close(self) -> None:
        """Ends the connection; a later ``post`` makes a new one."""
        transport, self._transport = self._transport, None
        if transport is not None:
            await transport.aclose()

    async def _send(self, secret: str, delivery_id: str, body: bytes) -> httpx.Response:
        """The answer's head, from the first address that can be connected to."""
        addresses = await addresses_of(self._url, self._settings.lookup, allows_private=self._settings.allows_private)
        if self._transport is None:
            self._transport = httpx.AsyncHTTPTransport(verify=self._settings.tls or _authorities(), trust_env=False)
        headers = {
            "Host": self._url.netloc.decode("ascii"),
            "User-Agent": "Longwire-Webhooks",
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",
            DELIVERY_HEADER: delivery_id,
            SIGNATURE_HEADER: sign(secret, self._clock.now_ms() // 1000, body),
        }
        for at, address in enumerate(addresses, 1):
            request = httpx.Request(
                "POST",
                self._url.copy_with(host=address),
                headers=headers,
                content=body,
                # TLS names and checks the host of the URL, not the address that is connected to.
                extensions={"sni_hostname": self._url.raw_host.decode("ascii").strip("[]")},
            )
            try:
                return await self._transport.handle_async_request(request)
            except httpx.ConnectError:
                if at == len(addresses):
                    raise
        raise OSError(f"host {self._url.host} has no address")

    def _retry_after_s(self, answer: httpx.Response) -> float:
        """RFC 9110 §10.2.3: seconds or a date; anything else is as if nothing were said."""
        text = answer.headers.get("retry-after", "").strip()
        if text.isdecimal():
            return float(text[:9])
        try:
            moment = parsedate_to_datetime(text)
        except (ValueError, OverflowError):
            return 0.0
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        now = datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC)
        return max(0.0, (moment - now).total_seconds())


@functools.cache
def _authorities() -> ssl.SSLContext:
    """Once a process: reading them takes some 20 ms."""
    return httpx.create_ssl_context(trust_env=False)


async def _drop(answer: httpx.Response) -> None:
    """Reads what is left of a short answer, so that its connection can be used again; of a long one, ends it."""
    with contextlib.suppress(TimeoutError, httpx.HTTPError):
        async with asyncio.timeout(_REST_WITHIN_S):
            size = 0
            async for piece in answer.aiter_raw():
                size += len(piece)
                if size > _MAX_ANSWER_BYTES:
                    break
    await answer.aclose()
