"""``/v1/dead-letters``: messages of devices that the application's handlers would not take."""

import base64
from typing import Annotated

from fastapi import APIRouter, Path, Query

from longwire.accounts.api_keys import Scope
from longwire.api.dependencies import ServicesHere
from longwire.api.doors import DoorRoute, operator_door
from longwire.api.problems import Code, Problem
from longwire.api.shapes import LetterAnswer, LetterDetail, LetterPage
from longwire.ports.uplink import DeadLetter

router = APIRouter(prefix="/v1/dead-letters", route_class=DoorRoute, tags=["dead letters"])

_LETTER_ID = "^ltr_[1-9][0-9]{0,17}$"
LetterPath = Annotated[str, Path(pattern=_LETTER_ID)]


@router.get("", **operator_door(Scope.ADMIN))
async def list_dead_letters(
    services: ServicesHere,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Annotated[str | None, Query(pattern=_LETTER_ID)] = None,
) -> LetterPage:
    """The dead letters, newest first, replayed ones too."""
    found = await services.dead_letters.dead_letters(0 if cursor is None else _number(cursor), limit + 1)
    items = [LetterAnswer.of(letter) for letter in found[:limit]]
    return LetterPage(items=items, next_cursor=items[-1].letter_id if len(found) > limit else None)


@router.get("/{letter_id}", **operator_door(Scope.ADMIN, 404))
async def get_dead_letter(letter_id: LetterPath, services: ServicesHere) -> LetterDetail:
    """One dead letter with its payload."""
    letter = _known(letter_id, await services.dead_letters.dead_letter(_number(letter_id)))
    return LetterDetail.of(letter, payload_b64=base64.b64encode(letter.record.payload).decode())


@router.post("/{letter_id}/replay", **operator_door(Scope.ADMIN, 404))
async def replay_dead_letter(letter_id: LetterPath, services: ServicesHere) -> LetterAnswer:
    """Gives the message to its handler once more, under its own message id; repeating the call changes nothing.

    If the handler fails again, that makes a further dead letter.
    """
    return LetterAnswer.of(_known(letter_id, await services.dead_letters.replay(_number(letter_id))))


def _number(letter_id: str) -> int:
    return int(letter_id.partition("_")[2])


def _known(letter_id: str, letter: DeadLetter | None) -> DeadLetter:
    if letter is None:
        raise Problem(Code.NOT_FOUND, f"there is no dead letter {letter_id}")
    return letter
