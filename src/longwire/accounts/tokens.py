"""Device tokens: 256 random bits, stored only as a hash, for one device and a limited time (DESIGN §9).

A token opens connections; a refresh token, which does not expire, gets further tokens. Both end when the device
is revoked. SHA-256 without salt is enough: nobody guesses 256 random bits.
"""

import base64
import hashlib
import math
import os
from dataclasses import dataclass
from typing import NamedTuple

from longwire.accounts.refusals import RefusalCode, Refused
from longwire.clock import Clock
from longwire.errors import LongwireError
from longwire.ids import new_secret
from longwire.model import Credential, Device
from longwire.ports.accounts import AccountStore
from longwire.reasons import CloseCode

_SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class TokenSettings:
    """How long what is given out holds."""

    token_ttl_s: int = 86_400

    def __post_init__(self) -> None:
        if self.token_ttl_s < 1:
            raise ValueError(f"token_ttl_s is {self.token_ttl_s}; at least 1")


class IssuedToken(NamedTuple):
    """A token that was given out, in the clear: the only time that anybody but its device sees it."""

    token: str
    expires_at_ms: int


class NotAdopted(LongwireError):
    """A session may not go on under the token it offered; the session closes with ``code`` (PROTOCOL §2)."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.code = CloseCode.BAD_CREDENTIALS


def new_secrets(count: int) -> list[str]:
    """``count`` secrets as ``ids.new_secret`` makes them, at the price of one call of the system."""
    drawn = os.urandom(_SECRET_BYTES * count)
    return [
        base64.urlsafe_b64encode(drawn[at : at + _SECRET_BYTES]).rstrip(b"=").decode()
        for at in range(0, len(drawn), _SECRET_BYTES)
    ]


def hash_of(token: str) -> bytes:
    """What the store keeps of a token or refresh token."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def close_code(credential: Credential | None, device_id: str, now_ms: int) -> CloseCode | None:
    """Why a token does not open a connection for ``device_id``; None where it does (PROTOCOL §2, CONNECT)."""
    if credential is None or credential.device_id != device_id:
        return CloseCode.BAD_CREDENTIALS
    if credential.is_revoked or credential.is_disabled:
        return CloseCode.DISABLED
    if credential.banned_until_ms > now_ms:
        return CloseCode.BANNED
    if credential.expires_at_ms <= now_ms:
        return CloseCode.TOKEN_EXPIRED
    return None


def check_allowed(device: Credential | Device, now_ms: int) -> None:
    """Raises Refused (device-disabled) for a device that may not connect now, whatever it proves."""
    if device.is_disabled:
        raise Refused(RefusalCode.DEVICE_DISABLED, f"device {device.device_id} is disabled")
    banned_s = (device.banned_until_ms - now_ms) / 1000
    if banned_s > 0:
        detail = f"device {device.device_id} is banned for another {math.ceil(banned_s)} s"
        raise Refused(RefusalCode.DEVICE_DISABLED, detail, retry_after_s=banned_s)


class Tokens:
    """Gives out tokens and says what they prove. Keeps no state of its own."""

    def __init__(self, store: AccountStore, clock: Clock, settings: TokenSettings | None = None) -> None:
        self._store = store
        self._clock = clock
        self._ttl_ms = (settings or TokenSettings()).token_ttl_s * 1000

    def mint(self, secret: str | None = None) -> IssuedToken:
        """A new token that nobody holds yet; the caller has the store keep its hash."""
        return IssuedToken(secret or new_secret(), self._clock.now_ms() + self._ttl_ms)

    def expires_in_s(self, expires_at_ms: int) -> int:
        """Seconds until then, to the nearest; 0 where it is over."""
        return max(0, round((expires_at_ms - self._clock.now_ms()) / 1000))

    async def renew(self, device_no: int) -> IssuedToken:
        """A further token for a device whose session proved who it is; the old ones hold until their own expiry.

        Raises StoreUnavailable.
        """
        issued = self.mint()
        await self._store.add_token(device_no, hash_of(issued.token), issued.expires_at_ms)
        return issued

    async def adopt(self, token: str, device_no: int) -> Credential:
        """What a token proves that a live session wants to go on under.

        Raises NotAdopted where it is unknown, another device's, expired or revoked, and StoreUnavailable.
        """
        now_ms = self._clock.now_ms()
        credential = (await self._store.check_tokens([hash_of(token)], now_ms))[0]
        if credential is None or credential.device_no != device_no:
            raise NotAdopted("token is not one of this device")
        reason = close_code(credential, credential.device_id, now_ms)
        if reason is not None:
            raise NotAdopted(f"token is refused: {reason.label}")
        return credential

    async def authenticate(self, token: str) -> Credential:
        """The device that holds this token. Raises Refused (auth-invalid, token-expired, device-disabled)."""
        now_ms = self._clock.now_ms()
        credential = (await self._store.check_tokens([hash_of(token)], now_ms))[0]
        if credential is None or credential.is_revoked:
            raise Refused(RefusalCode.AUTH_INVALID, "token is unknown or revoked")
        check_allowed(credential, now_ms)
        if credential.expires_at_ms <= now_ms:
            raise Refused(RefusalCode.TOKEN_EXPIRED, "token is expired; get another with the refresh token")
        return credential

    async def refresh(self, refresh_token: str) -> tuple[Device, IssuedToken]:
        """A further token for the device that holds this refresh token, which stays as it is.

        Raises Refused (auth-invalid: register again; device-disabled, also while it is banned) and StoreUnavailable.
        """
        device = await self._store.find_by_refresh(hash_of(refresh_token))
        if device is None:
            raise Refused(RefusalCode.AUTH_INVALID, "refresh token is unknown or revoked; register again")
        check_allowed(device, self._clock.now_ms())
        return device, await self.renew(device.device_no)
