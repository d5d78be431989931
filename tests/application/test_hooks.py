"""The hooks: defaults, answers, and that a failing hook lets nobody in."""

import asyncio

import pytest

from longwire.application import HookFailed, Identity, Longwire, Presence, Registration, Session
from longwire.reasons import CloseCode, Status

SESSION = Session(device_id="d-1", device_no=1, session_id="s")


REGISTRATION = Registration(device_id="d-1", app_key="a", credentials="secret")


async def test_the_authenticate_hook_names_the_user_or_refuses() -> None:
    app = Longwire()

    @app.authenticate
    async def who(registration: Registration) -> Identity | None:
        return Identity("ann", ("vip",)) if registration.credentials == "secret" else None

    assert await app.hooks.identify(REGISTRATION) == Identity("ann", ("vip",))
    other = Registration(device_id="d-1", app_key="a", credentials="guess", has_proof=True)
    assert await app.hooks.identify(other) is None


async def test_without_the_hook_there_is_nobody_to_ask() -> None:
    with pytest.raises(LookupError):
        await Longwire().hooks.identify(REGISTRATION)


@pytest.mark.parametrize("how", ["raises", "hangs", "returns nonsense"])
async def test_an_authenticate_hook_that_gives_no_answer_lets_nobody_in(how: str) -> None:
    app = Longwire(hook_timeout_s=0.01)

    @app.authenticate
    async def who(registration: Registration) -> object:
        if how == "raises":
            raise KeyError
        if how == "hangs":
            await asyncio.Event().wait()
        return True

    with pytest.raises(HookFailed) as caught:
        await app.hooks.identify(REGISTRATION)
    assert caught.value.status is (Status.TIMEOUT if how == "hangs" else Status.HANDLER_FAILED)


@pytest.mark.parametrize(
    ("answer", "status"), [(True, Status.OK), (False, Status.NOT_PERMITTED), ("yes", Status.NOT_PERMITTED)]
)
async def test_only_true_allows_a_send(answer: object, status: Status) -> None:
    app = Longwire()

    @app.authorize_send
    async def may(sender: Session, to: str, kind: str) -> object:
        assert (sender, to, kind) == (SESSION, "device:d-2", "chat")
        return answer

    assert await app.hooks.judge_send(SESSION, "device:d-2", "chat") is status


async def test_a_failing_authorize_send_refuses_and_its_absence_allows() -> None:
    app = Longwire()
    assert await app.hooks.judge_send(SESSION, "device:d-2", "chat") is Status.OK

    @app.authorize_send
    def may(sender: Session, to: str, kind: str) -> bool:
        raise KeyError

    assert await app.hooks.judge_send(SESSION, "device:d-2", "chat") is Status.HANDLER_FAILED


async def test_on_disconnect_may_want_the_code_or_not_and_its_failure_stays_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told: list[object] = []
    one, two = Longwire(), Longwire()

    @one.on_disconnect
    async def gone(session: Session) -> None:
        told.append(session)
        raise KeyError

    @two.on_disconnect
    async def gone_with_code(session: Session, code: CloseCode | None) -> None:
        told.append(code)

    @two.on_connect
    def came(session: Session) -> None:
        told.append(session.session_id)

    await one.hooks.tell_disconnected(SESSION, None)
    await two.hooks.tell_disconnected(SESSION, CloseCode.KICKED)
    await two.hooks.tell_connected(SESSION)
    await one.hooks.tell_connected(SESSION)
    assert told == [SESSION, CloseCode.KICKED, "s"]
    assert len(caplog.records) == 1


async def test_on_presence_is_told_with_a_version_and_its_failure_changes_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = Longwire()
    seen = []

    @app.on_presence
    async def moved(presence: Presence) -> None:
        seen.append((presence.is_online, presence.version, presence.code))
        if not presence.is_online:
            raise KeyError("lost")

    gone = Presence("d-1", 1, False, 7, 5, "s", code=CloseCode.KICKED)
    await app.hooks.tell_presence(Presence("d-1", 1, True, 6, 4, "s"))
    await app.hooks.tell_presence(gone)
    assert seen == [(True, 6, None), (False, 7, CloseCode.KICKED)]
    assert "on_presence" in caplog.text or "moved" in caplog.text
    await Longwire().hooks.tell_presence(gone)
