"""The registry as JSON: tags, groups, presence, imports and uploads (API §3)."""

from typing import Annotated, Literal

from msgspec import UNSET
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from longwire.accounts import devices
from longwire.accounts.groups import Member
from longwire.accounts.imports import IMPORT_PREFIX
from longwire.accounts.presence import Seen
from longwire.accounts.tags import tag_fault
from longwire.accounts.uploads import Upload
from longwire.api.shapes import DeviceId, Label, Time, UserName, _Request, rfc3339
from longwire.ids import prefixed
from longwire.operations_model import Import, LastSession
from longwire.ports.accounts import DeviceChange
from longwire.ports.audiences import RESERVED_TAGS
from longwire.push_model import Group, SetCount

MAX_NAMES = 1_000
"""Devices or members in one call."""


def _own_tag(tag: str) -> str:
    if fault := tag_fault(tag):
        raise ValueError(fault)
    return tag


def _any_tag(tag: str) -> str:
    return tag if tag.startswith(RESERVED_TAGS) else _own_tag(tag)


OwnTag = Annotated[
    str,
    StringConstraints(max_length=64),
    AfterValidator(_own_tag),
    Field(json_schema_extra={"pattern": r"^[A-Za-z0-9._:@=/-]{1,64}$", "not": {"pattern": "^sys:"}}),
]
AnyTag = Annotated[
    str,
    StringConstraints(min_length=1, max_length=128),
    AfterValidator(_any_tag),
    Field(json_schema_extra={"pattern": r"^(?:[A-Za-z0-9._:@=/-]{1,64}|sys:[^\x00-\x1f\x7f]{1,76})$"}),
]
"""A tag of its own or the system's."""
TagPrefix = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]{0,128}$")]
GroupId = DeviceId
Names = Annotated[list[DeviceId], Field(max_length=MAX_NAMES)]


def _no_names() -> list[str]:
    return []


class Unresolved(BaseModel):
    """Names that mean nothing: how many, and the first of them."""

    count: int
    sample: list[str]

    @classmethod
    def of(cls, found: devices.Unresolved) -> "Unresolved":
        return cls(count=found.count, sample=list(found.sample))


# -- tags ---------------------------------------------------------------------------------------------------------


class TagsRequest(_Request):
    """All tags that a device is to have."""

    tags: list[OwnTag]


class TagChangeRequest(_Request):
    """Tags to give and to take."""

    add: Annotated[list[OwnTag], Field(max_length=MAX_NAMES, default_factory=_no_names)]
    remove: Annotated[list[OwnTag], Field(max_length=MAX_NAMES, default_factory=_no_names)]


class DeviceChangeRequest(_Request):
    """What is to become other about a device; what is not named stays."""

    user: UserName | None = None
    platform: Label | None = None
    app_version: Label | None = None
    tags: TagChangeRequest | None = None

    def change(self) -> DeviceChange:
        """The same without the tags."""
        user = self.user if "user" in self.model_fields_set else UNSET
        return DeviceChange(user, self.platform, self.app_version)


class TagAnswer(BaseModel):
    """A tag and how many devices have it."""

    tag: str
    devices: int
    reserved: bool
    """Whether the system keeps it."""

    @classmethod
    def of(cls, count: SetCount) -> "TagAnswer":
        return cls(tag=count.name, devices=count.devices, reserved=count.name.startswith(RESERVED_TAGS))


class TagPage(BaseModel):
    """Tags by name."""

    items: list[TagAnswer]
    next_cursor: str | None


class TagDevicesRequest(_Request):
    """Devices to give a tag to, and to take it from; one that stands in both gets it."""

    add: Annotated[Names, Field(default_factory=_no_names)]
    remove: Annotated[Names, Field(default_factory=_no_names)]


class TagDevicesAnswer(BaseModel):
    """How many got the tag and lost it."""

    added: int
    removed: int
    unresolved: Unresolved
    refused: list[str]
    """Devices that have as many tags as they may."""


# -- groups -------------------------------------------------------------------------------------------------------


class GroupRequest(_Request):
    """A group to make. Without an id it gets one."""

    group_id: GroupId | None = None
    name: Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]{0,128}$")] = ""


class GroupAnswer(BaseModel):
    """A group, and how many devices and users were put into it."""

    group_id: str
    name: str
    devices: int
    users: int
    created_at: Time

    @classmethod
    def of(cls, group: Group) -> "GroupAnswer":
        return cls(
            group_id=group.group_id,
            name=group.title,
            devices=group.devices,
            users=group.users,
            created_at=rfc3339(group.created_at_ms),
        )


class GroupPage(BaseModel):
    """Groups by id."""

    items: list[GroupAnswer]
    next_cursor: str | None


class MemberBody(_Request):
    """A device, or a user with all devices: exactly one of the two."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"required": [one], "properties": {one: {"type": "string"}, other: {"type": "null"}}}
                for one, other in (("device", "user"), ("user", "device"))
            ]
        }
    )

    device: DeviceId | None = None
    user: UserName | None = None

    @model_validator(mode="after")
    def _is_one(self) -> "MemberBody":
        if (self.device is None) == (self.user is None):
            raise ValueError("a member is either a device or a user")
        return self


class MembersRequest(_Request):
    """Members to take in and out; one that stands in both comes in."""

    add: Annotated[list[MemberBody], Field(max_length=MAX_NAMES, default_factory=list)]
    remove: Annotated[list[MemberBody], Field(max_length=MAX_NAMES, default_factory=list)]


class MemberAnswer(BaseModel):
    """A member: one of the two is null."""

    device: str | None
    user: str | None

    @classmethod
    def of(cls, member: Member) -> "MemberAnswer":
        return cls(device=member.device_id, user=member.user)


class MemberPage(BaseModel):
    """Members: devices, oldest first, then users by name."""

    items: list[MemberAnswer]
    next_cursor: str | None


class MembersAnswer(BaseModel):
    """How many members came and went."""

    added: int
    removed: int
    unresolved: Unresolved


# -- presence -----------------------------------------------------------------------------------------------------


class LastClose(BaseModel):
    """How the last session ended; ``code`` null: the device went away without a word."""

    code: int | None
    at: Time

    @classmethod
    def of(cls, last: LastSession) -> "LastClose":
        return cls(code=last.close_code, at=rfc3339(last.ended_at_ms))


class PresenceAnswer(BaseModel):
    """Whether a device is connected, and how it was last seen. ``version`` rises with every change; 0: never seen."""

    device_id: str
    online: bool
    since: Time | None
    last_seen_at: Time | None
    node_id: str | None
    transport: str | None
    session_id: str | None
    version: int
    last_close: LastClose | None

    @classmethod
    def of(cls, seen: Seen) -> "PresenceAnswer":
        session, last = seen.session, seen.last
        shown = cls(
            device_id=seen.device_id,
            online=False,
            since=None,
            last_seen_at=None,
            node_id=None,
            transport=None,
            session_id=None,
            version=0,
            last_close=None,
        )
        if last is not None:
            shown.last_close = LastClose.of(last)
            shown.last_seen_at = rfc3339(last.ended_at_ms)
            shown.node_id, shown.transport, shown.version = last.node_id, last.transport, last.version
        if session is not None:
            shown.online, shown.session_id = True, session.session_id
            shown.since, shown.last_seen_at = rfc3339(session.since_ms), rfc3339(session.last_seen_ms)
            shown.node_id, shown.transport, shown.version = session.node_id, session.transport, session.version
        return shown


class PresenceQuery(_Request):
    """Devices to be asked for."""

    devices: Annotated[list[DeviceId], Field(min_length=1, max_length=MAX_NAMES)]


class PresenceList(BaseModel):
    """Those that are registered, in the order they were asked for."""

    items: list[PresenceAnswer]
    unresolved: Unresolved


# -- imports and uploads ------------------------------------------------------------------------------------------


class LineError(BaseModel):
    """What is wrong with a line."""

    line: int
    code: str
    detail: str


class ImportAnswer(BaseModel):
    """How far an import is. ``lines`` are read, ``done`` of them registered, ``failed`` refused."""

    import_id: str
    status: Literal["running", "completed", "failed"]
    format: str
    created_at: Time
    ended_at: Time | None
    lines: int
    done: int
    failed: int
    errors: list[LineError]
    """The first thousand."""

    @classmethod
    def of(cls, job: Import) -> "ImportAnswer":
        return cls(
            import_id=prefixed(IMPORT_PREFIX, job.import_id),
            status=job.status,  # type: ignore[arg-type]  # the store keeps these three
            format=job.format,
            created_at=rfc3339(job.created_at_ms),
            ended_at=None if job.ended_at_ms is None else rfc3339(job.ended_at_ms),
            lines=job.lines,
            done=job.done,
            failed=job.failed,
            errors=[LineError(line=line, code=code, detail=detail) for line, code, detail in job.errors],
        )


class ImportPage(BaseModel):
    """Imports, newest first, without what is wrong with their lines."""

    items: list[ImportAnswer]
    next_cursor: str | None


class UploadAnswer(BaseModel):
    """A list of devices that pushes may name until it expires."""

    id: str
    devices: int
    unresolved: Unresolved
    expires_at: Time

    @classmethod
    def of(cls, upload: Upload) -> "UploadAnswer":
        return cls(
            id=upload.upload_id,
            devices=upload.devices,
            unresolved=Unresolved.of(upload.unresolved),
            expires_at=rfc3339(upload.expires_at_ms),
        )
