"""Marks as JSON: devices, users and pushes whose traces are told whole for a while."""

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, Field, StringConstraints, model_validator

from longwire.accounts.directives import MAX_MARK_S, Mark
from longwire.api.shapes import NAME_PATTERN, Time, _Request, _whole, rfc3339

_Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]


class MarkRequest(_Request):
    """What to mark: one of a device, a user and a push."""

    device_id: _Name | None = None
    user: _Name | None = None
    push_id: Annotated[str, StringConstraints(pattern="^psh_[0-9a-f]{32}$")] | None = None
    for_s: Annotated[int, Field(ge=1, le=MAX_MARK_S), BeforeValidator(_whole)] = 600

    @model_validator(mode="after")
    def _is_one(self) -> "MarkRequest":
        if sum(name is not None for name in (self.device_id, self.user, self.push_id)) != 1:
            raise ValueError("exactly one of device_id, user and push_id is to be given")
        return self

    @property
    def target(self) -> str:
        if self.device_id is not None:
            return f"device:{self.device_id}"
        return f"user:{self.user}" if self.user is not None else f"push:{self.push_id}"


class MarkAnswer(BaseModel):
    """A mark."""

    id: str = Field(examples=["mrk_0192f0c1b0a07c3e8d1f2a3b4c5d6e7f"])
    device_id: str | None
    user: str | None
    push_id: str | None
    until: Time = Field(description="It ends by itself then")
    by: str = Field(description="Who set it")

    @classmethod
    def of(cls, mark: Mark) -> "MarkAnswer":
        scheme, _, name = mark.target.partition(":")
        return cls(
            id=mark.mark_id,
            device_id=name if scheme == "device" else None,
            user=name if scheme == "user" else None,
            push_id=name if scheme == "push" else None,
            until=rfc3339(mark.until_ms),
            by=mark.caller,
        )


class MarkPage(BaseModel):
    """The marks that stand, oldest first: 50 at the most."""

    items: list[MarkAnswer]
    next_cursor: str | None
