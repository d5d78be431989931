"""Log levels as JSON."""

from typing import Annotated, Literal, get_args

from pydantic import BaseModel, BeforeValidator, Field

from longwire.accounts.directives import MAX_LEVEL_S, Level
from longwire.api.shapes import Time, _Request, _whole, rfc3339

AreaName = Literal[
    "gateway",
    "net",
    "link",
    "push",
    "sink",
    "webhooks",
    "accounts",
    "api",
    "sql",
    "redis",
    "kafka",
    "zookeeper",
    "hops",
    "console",
    "app",
]
LevelName = Literal["debug", "info", "warning", "error"]
AREAS: tuple[str, ...] = get_args(AreaName)
"""The areas of the log."""


class LevelRequest(_Request):
    """What an area is to log for a while."""

    area: AreaName
    level: LevelName
    for_s: Annotated[int, Field(ge=1, le=MAX_LEVEL_S), BeforeValidator(_whole)] = 3_600


class LevelAnswer(BaseModel):
    """An area with a level of its own."""

    area: str
    level: str
    until: Time = Field(description="It logs at the base level again then")
    by: str = Field(description="Who set it")

    @classmethod
    def of(cls, level: Level) -> "LevelAnswer":
        return cls(area=level.area, level=level.level, until=rfc3339(level.until_ms), by=level.caller)


class LevelList(BaseModel):
    """The areas that have levels of their own; all others log at the base level."""

    base: str = Field(description="Setting log_level of the process that answers")
    areas: list[str] = Field(description="Every area there is")
    items: list[LevelAnswer]
