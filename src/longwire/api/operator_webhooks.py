"""``/v1/webhooks`` and ``/v1/webhook-letters``: addresses that are told what happens."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from longwire.accounts.api_keys import Scope
from longwire.api.dependencies import ServicesHere
from longwire.api.doors import DoorRoute, operator_door
from longwire.api.shapes.webhooks import (
    LETTER_ID,
    WEBHOOK_ID,
    NewWebhookAnswer,
    PingAnswer,
    WebhookAnswer,
    WebhookBody,
    WebhookChange,
    WebhookLetterAnswer,
    WebhookLetterDetail,
    WebhookLetterPage,
    WebhookPage,
)

router = APIRouter(prefix="/v1", route_class=DoorRoute, tags=["webhooks"])

WebhookPath = Annotated[str, Path(pattern=WEBHOOK_ID)]
LetterPath = Annotated[str, Path(pattern=LETTER_ID)]
Most = Annotated[int, Query(ge=1, le=500)]

_ONE = operator_door(Scope.ADMIN, 404)


@router.get("/webhooks", **operator_door(Scope.ADMIN))
async def list_webhooks(
    services: ServicesHere, limit: Most = 50, cursor: Annotated[str | None, Query(pattern=WEBHOOK_ID)] = None
) -> WebhookPage:
    """The webhooks and how they do, newest first."""
    states = await services.webhooks.states()
    below = [state for state in states if cursor is None or state.webhook.webhook_no < _number(cursor)]
    items = [WebhookAnswer.of(state) for state in below[:limit]]
    return WebhookPage(items=items, next_cursor=items[-1].webhook_id if len(below) > limit else None)


@router.post("/webhooks", status_code=201, **operator_door(Scope.ADMIN, 409, tells_secrets=True))
async def add_webhook(body: WebhookBody, services: ServicesHere, response: Response) -> NewWebhookAnswer:
    """Makes a webhook, which is told events from now on. The secret that signs its deliveries is told only now."""
    state = await services.webhooks.add(body.url, body.kinds, body.secret)
    answer = NewWebhookAnswer.of(state, secret=state.webhook.secret)
    response.headers["Location"] = f"/v1/webhooks/{answer.webhook_id}"
    return answer


@router.get("/webhooks/{webhook_id}", **_ONE)
async def get_webhook(webhook_id: WebhookPath, services: ServicesHere) -> WebhookAnswer:
    """One webhook."""
    return WebhookAnswer.of(await services.webhooks.find(_number(webhook_id)))


@router.patch("/webhooks/{webhook_id}", **_ONE)
async def change_webhook(webhook_id: WebhookPath, body: WebhookChange, services: ServicesHere) -> WebhookAnswer:
    """Changes a webhook; one that was failing is tried again at once."""
    changed = await services.webhooks.change(
        _number(webhook_id), url=body.url, kinds=body.kinds, secret=body.secret, is_enabled=body.is_enabled
    )
    return WebhookAnswer.of(changed)


@router.delete("/webhooks/{webhook_id}", status_code=204, **_ONE)
async def delete_webhook(webhook_id: WebhookPath, services: ServicesHere) -> None:
    """Ends a webhook; what waits for it is dropped, its letters stay."""
    await services.webhooks.delete(_number(webhook_id))


@router.post("/webhooks/{webhook_id}/test", **_ONE)
async def test_webhook(webhook_id: WebhookPath, services: ServicesHere) -> PingAnswer:
    """Sends one event of kind ``ping`` now, and tells what came of it."""
    return PingAnswer.of(await services.webhooks.test(_number(webhook_id)))


@router.get("/webhook-letters", **operator_door(Scope.ADMIN))
async def list_webhook_letters(
    services: ServicesHere, limit: Most = 50, cursor: Annotated[str | None, Query(pattern=LETTER_ID)] = None
) -> WebhookLetterPage:
    """Batches of events that their webhook would not take for a day, newest first, replayed ones too."""
    found = await services.webhooks.letters(0 if cursor is None else _number(cursor), limit + 1)
    items = [WebhookLetterAnswer.of(letter) for letter in found[:limit]]
    return WebhookLetterPage(items=items, next_cursor=items[-1].letter_id if len(found) > limit else None)


@router.get("/webhook-letters/{letter_id}", **_ONE)
async def get_webhook_letter(letter_id: LetterPath, services: ServicesHere) -> WebhookLetterDetail:
    """One letter with its events."""
    return WebhookLetterDetail.whole(await services.webhooks.letter(_number(letter_id)))


@router.post("/webhook-letters/{letter_id}/replay", **operator_door(Scope.ADMIN, 404, 409))
async def replay_webhook_letter(letter_id: LetterPath, services: ServicesHere) -> WebhookLetterAnswer:
    """Sends the letter's events to its webhook once more, with the ids they had; repeating the call changes nothing."""
    return WebhookLetterAnswer.of(await services.webhooks.replay(_number(letter_id)))


def _number(name: str) -> int:
    return int(name.partition("_")[2])
