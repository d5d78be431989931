"""What goes in and out of the API, as JSON: one model a shape.

Requests are strict: no field that is not named here, no text for a number. Times are RFC 3339 UTC with
milliseconds.
"""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Annotated, Any, Self, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from longwire.accounts.api_keys import Scope
from longwire.accounts.devices import MAX_BATCH, DeviceView
from longwire.ids import prefixed
from longwire.limits import Limits
from longwire.model import NodeInfo
from longwire.ports.accounts import ApiKey
from longwire.ports.uplink import DeadLetter
from longwire.reasons import CloseCode

V = TypeVar("V")

NAME_PATTERN = r"^[A-Za-z0-9._:@-]{1,64}$"
MAX_BAN_S = 366 * 86_400
_MAX_SAFE_INTEGER = (1 << 53) - 1

DeviceId = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
UserName = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
Label = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]{0,64}$")]
Secret = Annotated[str, StringConstraints(min_length=1, max_length=256)]


def rfc3339(at_ms: int) -> str:
    """``2025-11-24T16:00:00.000Z``."""
    moment = datetime.fromtimestamp(at_ms // 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{at_ms % 1000:03d}Z"


def _whole(value: object) -> object:
    """JSON knows one kind of number: 1.0 is an integer."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _one_of(members: Iterable[Any]) -> Callable[[V], V]:
    """A check that a value is one of these, or of an enum's: strict models take no enum from JSON."""
    allowed = set(members)

    def check(value: V) -> V:
        if value not in allowed:
            raise ValueError(f"is none of {', '.join(map(str, sorted(allowed)))}")
        return value

    return check


Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


# -- the devices' door --------------------------------------------------------------------------------------------


class RegisterRequest(_Request):
    """A device's registration; API §2 says what ``proof`` is."""

    app_key: Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]{1,64}$")]
    device_id: DeviceId
    ts_ms: Annotated[int, Field(ge=0, le=_MAX_SAFE_INTEGER), BeforeValidator(_whole)]
    nonce: Annotated[str, StringConstraints(pattern=r"^[^\x00]{1,64}$")]
    proof: Annotated[str, StringConstraints(max_length=256)] = ""
    refresh_token: Secret | None = None
    platform: Label = ""
    app_version: Label = ""
    credentials: Annotated[str, StringConstraints(max_length=8_192)] | None = None
    """For the application's own log-in (the ``authenticate`` hook); then ``proof`` may be left out."""


class TokenRequest(_Request):
    """A device's wish for a further token."""

    refresh_token: Secret


class NodeAnswer(BaseModel):
    """Where a device connects."""

    node_id: str
    host: str
    port: int
    tls_port: int | None
    ws_url: str

    @classmethod
    def of(cls, node: NodeInfo) -> "NodeAnswer":
        return cls(node_id=node.node_id, host=node.host, port=node.port, tls_port=node.tls_port, ws_url=node.ws_url)


class Backoff(BaseModel):
    """How a device waits between attempts (PROTOCOL §7)."""

    base_ms: int
    max_ms: int


class Heartbeat(BaseModel):
    """What a device may announce."""

    default_s: int
    min_s: int
    max_s: int


class TokenAnswer(BaseModel):
    """A token, and where to use it."""

    device_id: str
    token: str
    expires_in_s: int
    node: NodeAnswer
    server_time_ms: int


class RegisterAnswer(TokenAnswer):
    """Everything that a device needs to connect, now and later."""

    refresh_token: str
    backoff: Backoff
    heartbeat: Heartbeat


class NodeChoice(BaseModel):
    """The node that was chosen."""

    node: NodeAnswer


# -- devices ------------------------------------------------------------------------------------------------------


class DeviceAnswer(BaseModel):
    """A device as the registry shows it."""

    device_id: str
    user: str | None
    tags: list[str]
    platform: str
    app_version: str
    registered_at: Time
    is_disabled: bool
    banned_until: Time | None
    """Until when its tokens do not connect; may be over."""

    @classmethod
    def of(cls, view: DeviceView, **more: Any) -> "DeviceAnswer":
        device, tags = view
        return cls(
            device_id=device.device_id,
            user=device.user,
            tags=list(tags),
            platform=device.platform,
            app_version=device.app_version,
            registered_at=rfc3339(device.registered_at_ms),
            is_disabled=device.is_disabled,
            banned_until=rfc3339(device.banned_until_ms) if device.banned_until_ms else None,
            **more,
        )


class CutOffAnswer(DeviceAnswer):
    """A device after a call that may have closed its session."""

    disconnected: bool
    """Whether it had a session."""


class DevicePage(BaseModel):
    """Devices, newest first."""

    items: list[DeviceAnswer]
    next_cursor: str | None


class BatchItem(_Request):
    """A device to provision. What its values may be is checked item by item, see BatchRefusal."""

    device_id: str
    user: str | None = None
    tags: list[str] = []


class BatchRequest(_Request):
    """Devices to provision."""

    items: Annotated[list[BatchItem], Field(min_length=1, max_length=MAX_BATCH)]


class BatchProvision(BaseModel):
    """A device that is provisioned. ``refresh_token`` is null where it goes on with the one it has."""

    device_id: str
    token: str
    expires_in_s: int
    refresh_token: str | None
    created: bool


class ItemProblem(BaseModel):
    """Why an item was not done."""

    pointer: str
    code: str
    detail: str


class BatchRefusal(BaseModel):
    """An item that was not done."""

    device_id: str
    problem: ItemProblem


class BatchAnswer(BaseModel):
    """What became of each item, in their order."""

    items: list[BatchProvision | BatchRefusal]


class UserRequest(_Request):
    """Whose device it is; null for nobody's."""

    user: UserName | None


class DisconnectRequest(_Request):
    """With which close code (PROTOCOL §4): by default 4101, kicked, and with a ban 4103.

    ``ban_s``: so long its tokens do not connect; 0 ends a ban.
    """

    code: (
        Annotated[
            int,
            AfterValidator(_one_of(CloseCode)),
            Field(json_schema_extra={"enum": [int(code) for code in CloseCode]}),
            BeforeValidator(_whole),
        ]
        | None
    ) = None
    ban_s: Annotated[int, Field(ge=0, le=MAX_BAN_S), BeforeValidator(_whole)] | None = None


# -- dead letters -------------------------------------------------------------------------------------------------


class LetterAnswer(BaseModel):
    """A message of a device that its handler would not take, as it is listed."""

    letter_id: str
    device_id: str
    message_id: str
    kind: str
    payload_bytes: int
    sent_at: Time
    error: str
    buried_at: Time
    replayed_at: Time | None
    trace_id: str | None

    @classmethod
    def of(cls, letter: DeadLetter, **more: Any) -> Self:
        record = letter.record
        return cls(
            letter_id=f"ltr_{letter.letter_no}",
            device_id=record.device_id,
            message_id=prefixed("msg", record.message_id),
            kind=record.kind,
            payload_bytes=len(record.payload),
            sent_at=rfc3339(record.sent_at_ms),
            error=letter.error,
            buried_at=rfc3339(letter.buried_at_ms),
            replayed_at=None if letter.replayed_at_ms is None else rfc3339(letter.replayed_at_ms),
            trace_id=record.trace[:16].hex() or None,
            **more,
        )


class LetterDetail(LetterAnswer):
    """The same with what it carries."""

    payload_b64: str


class LetterPage(BaseModel):
    """Dead letters, newest first."""

    items: list[LetterAnswer]
    next_cursor: str | None


# -- keys and limits ----------------------------------------------------------------------------------------------


class KeyRequest(_Request):
    """A key to make."""

    name: Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]{1,128}$")]
    scopes: Annotated[
        list[
            Annotated[
                str, AfterValidator(_one_of(Scope)), Field(json_schema_extra={"enum": [str(scope) for scope in Scope]})
            ]
        ],
        Field(min_length=1, max_length=len(Scope)),
    ]


class KeyAnswer(BaseModel):
    """A key as it is listed."""

    key_id: str
    name: str
    scopes: list[str]
    created_at: Time
    revoked_at: Time | None

    @classmethod
    def of(cls, key: ApiKey, **more: Any) -> "KeyAnswer":
        return cls(
            key_id=key.key_id,
            name=key.name,
            scopes=sorted(key.scopes),
            created_at=rfc3339(key.created_at_ms),
            revoked_at=None if key.revoked_at_ms is None else rfc3339(key.revoked_at_ms),
            **more,
        )


class NewKeyAnswer(KeyAnswer):
    """A key that was just made."""

    key: str
    """The key itself, told only now."""


class KeyPage(BaseModel):
    """Keys, newest first."""

    items: list[KeyAnswer]
    next_cursor: str | None


class ApiLimits(BaseModel):
    """The API's own bounds."""

    calls_per_s: float
    call_burst: int
    max_body_bytes: int
    max_batch: int
    max_tags_per_device: int
    max_message_batch: int
    max_upload_bytes: int
    max_streams: int


class LimitsAnswer(BaseModel):
    """What this installation grants."""

    api: ApiLimits
    device: Limits


class HealthAnswer(BaseModel):
    """That a process lives, or takes work."""

    status: str


class ErrorAnswer(BaseModel):
    """One thing that is wrong."""

    pointer: str
    code: str
    detail: str


class ProblemAnswer(BaseModel):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    errors: list[ErrorAnswer] = []
    limit: int | None = None
    actual: int | None = None
    retry_after_s: int | None = None
    retry_after_ms: int | None = None
    """The same, finer: where many are told to come back, each is told another moment."""
    scope: str | None = None
