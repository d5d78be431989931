"""Webhooks as JSON."""

import json
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, Field, StringConstraints

from longwire.api.shapes import Time, _one_of, _Request, rfc3339
from longwire.operations_model import WebhookLetter
from longwire.webhooks import Posted, WebhookState
from longwire.webhooks.addresses import MAX_URL_CHARACTERS
from longwire.webhooks.endpoints import KINDS

WEBHOOK_ID = "^whk_[1-9][0-9]{0,17}$"
LETTER_ID = "^whl_[1-9][0-9]{0,17}$"

_LABEL = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_PORT = "[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]"

# A name or an IPv4 address; no user, no fragment.
Url = Annotated[
    str,
    StringConstraints(
        pattern=rf"^https?://{_LABEL}(?:\.{_LABEL})*(?::(?:{_PORT}))?(?:[/?][\x21-\x22\x24-\x7e]*)?$",
        max_length=MAX_URL_CHARACTERS,
    ),
    Field(examples=["https://shop.example/longwire"]),
]
EventKinds = Annotated[
    list[Annotated[str, AfterValidator(_one_of(KINDS)), Field(json_schema_extra={"enum": sorted(KINDS)})]],
    Field(min_length=1, max_length=len(KINDS)),
]
SigningSecret = Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]{16,128}$")]


class WebhookBody(_Request):
    """A webhook to make."""

    url: Url
    kinds: EventKinds
    secret: SigningSecret | None = None
    """What deliveries are signed with; none: one is made."""


class WebhookChange(_Request):
    """What becomes other; what is not given stays."""

    url: Url | None = None
    kinds: EventKinds | None = None
    secret: SigningSecret | None = None
    is_enabled: bool | None = None
    """False: nothing is sent; what happens waits, for two days at the most."""


class WebhookAnswer(BaseModel):
    """A webhook and how it does."""

    webhook_id: str
    url: str
    kinds: list[str]
    is_enabled: bool
    created_at: Time
    last_success_at: Time | None
    failing_since: Time | None
    next_try_at: Time | None
    last_error: str | None
    waiting: int = Field(description="Events that wait, about; counted to 10,000 of a source")

    @classmethod
    def of(cls, state: WebhookState, **more: Any) -> Self:
        webhook = state.webhook
        return cls(
            webhook_id=f"whk_{webhook.webhook_no}",
            url=webhook.url,
            kinds=list(webhook.kinds),
            is_enabled=webhook.is_enabled,
            created_at=rfc3339(webhook.created_at_ms),
            last_success_at=_time(webhook.last_success_ms),
            failing_since=_time(webhook.failing_since_ms),
            next_try_at=_time(state.next_try_ms),
            last_error=state.last_error or None,
            waiting=state.waiting,
            **more,
        )


class NewWebhookAnswer(WebhookAnswer):
    """A webhook that was just made."""

    secret: str
    """What its deliveries are signed with, told only now."""


class WebhookPage(BaseModel):
    """Webhooks, newest first."""

    items: list[WebhookAnswer]
    next_cursor: str | None


class PingAnswer(BaseModel):
    """What a webhook said to a ``ping``."""

    ok: bool
    status: int | None
    error: str | None
    took_ms: int

    @classmethod
    def of(cls, posted: Posted) -> Self:
        return cls(ok=posted.is_taken, status=posted.status, error=posted.error or None, took_ms=posted.took_ms)


class WebhookLetterAnswer(BaseModel):
    """A batch of events that a webhook would not take."""

    letter_id: str
    webhook_id: str
    error: str
    buried_at: Time
    replayed_at: Time | None

    @classmethod
    def of(cls, letter: WebhookLetter, **more: Any) -> Self:
        return cls(
            letter_id=f"whl_{letter.letter_no}",
            webhook_id=f"whk_{letter.webhook_no}",
            error=letter.error,
            buried_at=rfc3339(letter.buried_at_ms),
            replayed_at=_time(letter.replayed_at_ms),
            **more,
        )


class WebhookLetterDetail(WebhookLetterAnswer):
    """The same with what was sent."""

    delivery_id: str
    events: list[dict[str, Any]]

    @classmethod
    def whole(cls, letter: WebhookLetter) -> Self:
        return cls.of(letter, **json.loads(letter.body))


class WebhookLetterPage(BaseModel):
    """Letters, newest first."""

    items: list[WebhookLetterAnswer]
    next_cursor: str | None


def _time(at_ms: int | None) -> str | None:
    return None if at_ms is None else rfc3339(at_ms)
