"""The store of identities: devices, tokens, users, application keys and API keys.

Secrets come in as hashes and are kept as such; only an application's own secret, which proofs are checked
against, is kept in the clear.
"""

from collections.abc import Sequence
from typing import Protocol

from msgspec import UNSET, Struct, UnsetType
from pyroaring import BitMap

from longwire.errors import LongwireError
from longwire.model import Credential, Device


class AlreadyRegistered(LongwireError):
    """A device that had to be new is registered; nothing of the call was kept."""


class TooManyTags(LongwireError):
    """A device would have more own tags than it may; nothing of the call was kept."""


class NewDevice(Struct, frozen=True):
    """A registration that was allowed. Hashes are SHA-256 digests.

    For a known device ``user`` None, ``refresh_hash`` None, ``platform`` "" and ``app_version`` "" leave what
    it has, and ``tags`` come on top of those it has.
    """

    device_id: str
    token_hash: bytes
    token_expires_at_ms: int
    refresh_hash: bytes | None
    user: str | None = None
    tags: tuple[str, ...] = ()
    platform: str = ""
    app_version: str = ""
    must_be_new: bool = False
    """Nobody proved to be this device if it is known and claimed: then nothing of the call is to be kept."""
    is_claimed: bool = True
    """False for devices of an import: nobody holds a proof for them yet, the first to register is that device, and
    the token's hash is not kept."""


class DeviceFilter(Struct, frozen=True):
    """Which devices a list shows: those that meet everything that is given."""

    user: str | None = None
    tag: str | None = None
    group: str | None = None
    prefix: str = ""
    """The device id begins with it."""
    among: BitMap | None = None
    """Only these."""
    without: BitMap | None = None
    """Not these."""


class DeviceChange(Struct, frozen=True):
    """What becomes other about a device; what is UNSET or None stays. ``user`` None: nobody's."""

    user: str | UnsetType | None = UNSET
    platform: str | None = None
    app_version: str | None = None


class App(Struct, frozen=True):
    """An application: its public key, the secret its devices prove, and the hash of its master secret."""

    app_key: str
    secret: str
    master_hash: str

    def __repr__(self) -> str:
        return f"App(app_key={self.app_key!r})"


class ApiKey(Struct, frozen=True):
    """An API key as it is kept: ``secret_hash`` is argon2."""

    key_id: str
    name: str
    secret_hash: str
    scopes: frozenset[str]
    created_at_ms: int
    revoked_at_ms: int | None = None


class AccountStore(Protocol):
    """Every call is durable when it returns, and raises StoreUnavailable where the store does not answer."""

    async def check_tokens(self, token_hashes: Sequence[bytes], now_ms: int) -> list[Credential | None]:
        """What each token proves; None for one that was never given out, or whose device is deleted."""
        ...

    async def register(self, devices: Sequence[NewDevice], now_ms: int) -> list[tuple[Device, bool]]:
        """Registers devices, or gives known ones a further token; with each, whether it is new.

        A refresh hash replaces the one before. ``device_no`` is never given twice. A device that stands twice
        in one call is new the first time and known the second. Everyone and the system's own tags follow in the
        same commit. Raises AlreadyRegistered, see ``must_be_new``, and TooManyTags.
        """
        ...

    async def find_devices(self, device_ids: Sequence[str]) -> list[Device | None]:
        """The devices of these ids, None for those that are not registered."""
        ...

    async def devices_of_users(self, users: Sequence[str]) -> list[list[Device]]:
        """The devices of each user; an empty list for a user nobody is."""
        ...

    async def tags_of(self, device_nos: Sequence[int]) -> list[tuple[str, ...]]:
        """The tags of each device, sorted."""
        ...

    async def find_registrations(self, device_ids: Sequence[str]) -> list[tuple[Device, bytes | None, bool] | None]:
        """Each device with the hash of its refresh token, None where it has none, and whether anybody ever held a
        proof for it; None for an unknown device."""
        ...

    async def find_by_refresh(self, refresh_hash: bytes) -> Device | None:
        """The device whose refresh token has this hash."""
        ...

    async def add_token(self, device_no: int, token_hash: bytes, expires_at_ms: int) -> None:
        """Gives the device a further token. Nothing happens where the device is deleted."""
        ...

    async def token_hashes(self, device_no: int) -> list[bytes]:
        """The hashes of the device's tokens that are kept, the revoked ones included."""
        ...

    async def revoke_tokens(self, device_no: int, now_ms: int) -> None:
        """Ends every token of the device and its refresh token. It counts as claimed from then on."""
        ...

    async def set_disabled(self, device_no: int, is_disabled: bool) -> None:
        """A disabled device's tokens do not connect until it is enabled again."""
        ...

    async def set_user(self, device_no: int, user: str | None) -> None:
        """Makes the device one of this user's, or of nobody's."""
        ...

    async def delete_device(self, device_no: int, now_ms: int) -> None:
        """Forgets the device, its tags, its tokens and its inbox, whose messages end as withdrawn.

        Its number is never given again.
        """
        ...

    async def find_numbers(self, device_nos: Sequence[int]) -> list[Device | None]:
        """The devices of these numbers, None for those that are not registered."""
        ...

    async def change_device(self, device_no: int, change: DeviceChange, now_ms: int) -> None:
        """Changes what is given; the system's own tags follow in the same commit."""
        ...

    async def ban(self, device_no: int, until_ms: int) -> None:
        """The device's tokens do not connect until then (close code 4103); a time that is past ends the ban."""
        ...

    async def page(self, wanted: DeviceFilter, below_no: int, limit: int) -> list[Device]:
        """Devices that the filter shows, with a number below ``below_no`` (0: from the newest), newest first."""
        ...

    async def list_devices(self, after_no: int, limit: int) -> list[Device]:
        """Devices with a number below ``after_no`` (0: from the newest), newest first."""
        ...

    async def use_nonce(self, app_key: str, nonce: str, expires_at_ms: int) -> bool:
        """Remembers a registration's nonce; False where it was used before with this application key."""
        ...

    async def find_app(self, app_key: str) -> App | None:
        """The application of this key."""
        ...

    async def add_app(self, app: App) -> None:
        """Keeps a new application; its key must not be in use."""
        ...

    async def find_key(self, key_id: str) -> ApiKey | None:
        """The API key of this id, revoked ones too."""
        ...

    async def list_keys(self) -> list[ApiKey]:
        """Every API key, newest first, revoked ones too."""
        ...

    async def add_key(self, key: ApiKey) -> None:
        """Keeps a new API key; its id must not be in use."""
        ...

    async def revoke_key(self, key_id: str, now_ms: int) -> bool:
        """Ends an API key; False where there is none of this id that lives."""
        ...
