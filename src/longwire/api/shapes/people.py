"""People and sessions as JSON."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field, StringConstraints

from longwire.accounts.people import MAX_PASSWORD, NAME_PATTERN, PersonRole, Visitor
from longwire.api.shapes import Time, _one_of, _Request, rfc3339
from longwire.ports.people import Person

PersonName = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
_Password = Annotated[str, StringConstraints(min_length=1, max_length=MAX_PASSWORD)]
_Role = Annotated[
    str,
    AfterValidator(_one_of(PersonRole)),
    Field(json_schema_extra={"enum": [str(role) for role in PersonRole]}),
]


class SessionRequest(_Request):
    """Who signs in, and the password."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    password: _Password


class PasswordRequest(_Request):
    """A person's own password: the present one, and the one that replaces it."""

    password: _Password
    new_password: _Password


class PersonRequest(_Request):
    """Somebody who is to sign in."""

    name: PersonName
    role: _Role


class PersonChange(_Request):
    """What becomes other; what is left out stays."""

    role: _Role | None = None
    is_disabled: bool | None = None


class SessionAnswer(BaseModel):
    """A session: whose, and what it may do."""

    name: str
    role: str
    scopes: list[str]
    expires_at: Time
    must_change_password: bool = Field(description="Until then nothing but POST /v1/sessions/current/password")

    @classmethod
    def of(cls, visitor: Visitor) -> "SessionAnswer":
        return cls(
            name=visitor.person,
            role=visitor.role,
            scopes=sorted(map(str, visitor.scopes)),
            expires_at=rfc3339(visitor.expires_at_ms),
            must_change_password=visitor.must_change,
        )


class NewSessionAnswer(SessionAnswer):
    """A session and its token, which is told here alone."""

    token: str


class PersonAnswer(BaseModel):
    """A person."""

    name: str
    role: str
    created_at: Time
    last_login_at: Time | None
    is_disabled: bool
    must_change_password: bool

    @classmethod
    def of(cls, person: Person) -> "PersonAnswer":
        return cls(
            name=person.name,
            role=person.role,
            created_at=rfc3339(person.created_at_ms),
            last_login_at=None if person.last_login_ms is None else rfc3339(person.last_login_ms),
            is_disabled=person.is_disabled,
            must_change_password=person.must_change,
        )


class OneTimePassword(BaseModel):
    """A password that has to be replaced at the next sign-in; it is told here alone."""

    name: str
    one_time_password: str


class NewPersonAnswer(PersonAnswer):
    """A person and their one-time password, which is told here alone."""

    one_time_password: str


class PersonPage(BaseModel):
    """People, by name."""

    items: list[PersonAnswer]
    next_cursor: str | None
