"""Registration: a device proves that it belongs to an application, and becomes known.

    stamp ─► proof ─► nonce ─► authenticate hook ─► known? then: refresh token, hook or setting ─► token

The proof says only "a client of this application"; its secret ships in every client. So a device that is known
must prove more: its refresh token, or the application's own judgement (DESIGN §9). A device that was imported and
that nobody has claimed yet is not known in this sense: the first to prove the application's key becomes it.

A client may bring a refresh token of its own making to its first registration: an answer that is lost then locks
nobody out, for the client registers again with what it brought.
"""

import hashlib
import hmac
import re
from collections.abc import Awaitable, Callable
from typing import Literal, NamedTuple

from msgspec import Struct

from longwire.accounts.apps import Apps
from longwire.accounts.placement import Placement
from longwire.accounts.refusals import RefusalCode, Refused
from longwire.accounts.tags import BadIdentity, check_identity
from longwire.accounts.tokens import Tokens, check_allowed, hash_of
from longwire.clock import Clock
from longwire.ids import new_secret
from longwire.model import Device, NodeInfo
from longwire.ports.accounts import AccountStore, AlreadyRegistered, NewDevice, TooManyTags

STAMP_WINDOW_MS = 300_000
"""How far a registration's stamp may be from the node's time, either way."""

Reregister = Literal["prove", "allow"]

_OWN_REFRESH_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")
"""256 bits as new_secret writes them: less than that is not taken from a client."""


class Claim(Struct, frozen=True):
    """What a client says about itself, unproved. ``proof`` "" where only its credentials are to count."""

    app_key: str
    device_id: str
    ts_ms: int
    nonce: str
    proof: str = ""
    refresh_token: str | None = None
    platform: str = ""
    app_version: str = ""
    credentials: str | None = None
    """Whatever the application's own log-in needs; only the ``authenticate`` hook reads it."""

    def __repr__(self) -> str:
        return f"Claim(app_key={self.app_key!r}, device_id={self.device_id!r})"


class Applicant(Struct, frozen=True):
    """A registration as the ``authenticate`` hook sees it."""

    app_key: str
    device_id: str
    platform: str
    app_version: str
    credentials: str | None
    has_proof: bool
    """Whether it proved the application's key."""
    is_known: bool
    """Whether a device of this id is registered."""
    has_refresh_token: bool
    """Whether it proved to be that device."""


class Admission(Struct, frozen=True):
    """The hook's yes. ``user`` None leaves a known device's user as it is; ``tags`` are added."""

    user: str | None = None
    tags: tuple[str, ...] = ()


Authenticate = Callable[[Applicant], Awaitable[Admission | None]]
"""The user's own judgement, None for no. Its yes is enough for a known device, and without a proof. Where it cannot
judge now it raises Refused (overloaded), and the device comes back; anything else it raises ends the call."""


class Registered(NamedTuple):
    """A registration's outcome, with the secrets in the clear."""

    device: Device
    is_new: bool
    token: str
    expires_at_ms: int
    refresh_token: str
    node: NodeInfo


def proof_of(app_secret: str, device_id: str, ts_ms: int, nonce: str) -> str:
    """The proof that a client sends: hex HMAC-SHA256 over ``device_id "\\n" ts_ms "\\n" nonce`` (API §2)."""
    text = f"{device_id}\n{ts_ms}\n{nonce}"
    return hmac.new(app_secret.encode(), text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


class Registration:
    """Registers devices; see the module. Safe for any number of calls at once."""

    def __init__(
        self,
        store: AccountStore,
        clock: Clock,
        apps: Apps,
        tokens: Tokens,
        placement: Placement,
        *,
        reregister: Reregister = "prove",
        authenticate: Authenticate | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._apps = apps
        self._tokens = tokens
        self._placement = placement
        self._reregister = reregister
        self._authenticate = authenticate

    async def register(self, claim: Claim) -> Registered:
        """Makes the device known, or gives a known one a further token; what it had before goes on to hold.

        Raises Refused (auth-invalid, device-disabled, no-node), StoreUnavailable, what the hook raises, and
        BadIdentity where it names a user or tag that cannot be.
        """
        has_proof = await self._check_proof(claim)
        # First: where there is no node, the client keeps its nonce and comes back.
        node = self._placement.choose(claim.device_id)
        expires_at_ms = claim.ts_ms + STAMP_WINDOW_MS + 1
        if not await self._store.use_nonce(claim.app_key, claim.nonce, expires_at_ms):
            raise Refused(RefusalCode.AUTH_INVALID, "nonce was used before")
        found = (await self._store.find_registrations([claim.device_id]))[0]
        if found is not None:
            check_allowed(found[0], self._clock.now_ms())
        known = None if found is None or not found[2] else found[:2]
        admission, refresh_token = await self._admit(claim, known, has_proof=has_proof)
        return await self._keep(claim, admission, refresh_token, node, is_known=known is not None)

    async def _check_proof(self, claim: Claim) -> bool:
        off_ms = claim.ts_ms - self._clock.now_ms()
        if abs(off_ms) > STAMP_WINDOW_MS:
            raise Refused(
                RefusalCode.AUTH_INVALID, f"ts_ms is {off_ms} ms from the server's time; at most {STAMP_WINDOW_MS}"
            )
        app = await self._apps.find(claim.app_key)
        if app is not None and not claim.proof and claim.credentials and self._authenticate is not None:
            return False
        # An unknown application is told like a wrong proof, and takes as long.
        secret = app.secret if app is not None else ""
        expected = proof_of(secret, claim.device_id, claim.ts_ms, claim.nonce)
        is_right = hmac.compare_digest(expected.encode(), claim.proof.lower().encode("utf-8", "surrogatepass"))
        if app is None or not is_right:
            raise Refused(RefusalCode.AUTH_INVALID, "app_key is unknown or proof is wrong")
        return True

    async def _admit(
        self, claim: Claim, known: tuple[Device, bytes | None] | None, *, has_proof: bool
    ) -> tuple[Admission, str | None]:
        """What the hook grants, and the refresh token that the client may go on with, if any."""
        refresh_token = claim.refresh_token
        if known is None:
            if refresh_token is not None and not await self._is_free(refresh_token):
                refresh_token = None
        elif refresh_token is not None:
            held = known[1]
            if held is None or not hmac.compare_digest(held, hash_of(refresh_token)):
                refresh_token = None
        is_proved = known is None or refresh_token is not None or self._reregister == "allow"
        if self._authenticate is None:
            if not is_proved:
                raise Refused(
                    RefusalCode.AUTH_INVALID, f"device {claim.device_id} is registered; its refresh token is needed"
                )
            return Admission(), refresh_token
        applicant = Applicant(
            claim.app_key,
            claim.device_id,
            claim.platform,
            claim.app_version,
            claim.credentials,
            has_proof,
            known is not None,
            known is not None and refresh_token is not None,
        )
        admission = await self._authenticate(applicant)
        if admission is None:
            raise Refused(RefusalCode.AUTH_INVALID, "the application refused the device")
        check_identity(admission.user, admission.tags)
        return admission, refresh_token

    async def _is_free(self, refresh_token: str) -> bool:
        """Whether a new device may take the refresh token it brings."""
        if _OWN_REFRESH_TOKEN.fullmatch(refresh_token) is None:
            return False
        return await self._store.find_by_refresh(hash_of(refresh_token)) is None

    async def _keep(
        self, claim: Claim, admission: Admission, refresh_token: str | None, node: NodeInfo, *, is_known: bool
    ) -> Registered:
        refresh_token = refresh_token or new_secret()
        issued = self._tokens.mint()
        device = NewDevice(
            claim.device_id,
            hash_of(issued.token),
            issued.expires_at_ms,
            hash_of(refresh_token),
            admission.user,
            admission.tags,
            claim.platform,
            claim.app_version,
            must_be_new=not is_known,
        )
        try:
            registered, is_new = (await self._store.register([device], self._clock.now_ms()))[0]
        except AlreadyRegistered as error:
            raise Refused(RefusalCode.AUTH_INVALID, f"{error} by somebody else at this moment") from error
        except TooManyTags as error:
            raise BadIdentity(str(error)) from error
        return Registered(registered, is_new, issued.token, issued.expires_at_ms, refresh_token, node)
