"""The hooks: who may register, who may write to whom, who came and who went.

They fail closed: a hook that raises or takes too long never lets anybody in. ``authenticate`` then answers
nothing (HookFailed, so that the device tries again) rather than no.
"""

import logging

from msgspec import Struct

from longwire.application.budget import OverBudget, run_within
from longwire.application.errors import HookFailed
from longwire.application.handlers import HookHandler
from longwire.application.payloads import presentable
from longwire.application.threads import NoThread
from longwire.reasons import CloseCode, Status

logger = logging.getLogger("longwire.application")


class Registration(Struct, frozen=True):
    """A device that asks to be registered (POST /device/v1/register)."""

    device_id: str
    app_key: str = ""
    credentials: str | None = None
    """Whatever the application's own log-in needs, as the device sent it."""
    has_proof: bool = False
    """Whether it proved the application's key, whose secret every client carries."""
    is_known: bool = False
    """Whether a device of this id is registered already."""
    has_refresh_token: bool = False
    """Whether it proved to be that device."""
    platform: str = ""
    app_version: str = ""


class Identity(Struct, frozen=True):
    """Who a device was found to be: enough to register it, also where a device of this id is known.

    ``user`` None leaves the user of a known device as it is; ``tags`` are added.
    """

    user: str | None = None
    tags: tuple[str, ...] = ()


class Session(Struct, frozen=True):
    """A device's attachment to a node, as hooks see it."""

    device_id: str
    device_no: int
    session_id: str
    node_id: str = ""
    user: str | None = None
    platform: str = ""
    app_version: str = ""
    transport: str = ""
    """``native``, ``websocket`` or ``mqtt``."""
    address: str = ""
    connected_at_ms: int = 0


class Presence(Struct, frozen=True):
    """That a device came or went. Of two about a device the one with the higher ``version`` is the later one.

    They may be told out of order, also by different nodes: keep the version with what you keep.
    """

    device_id: str
    device_no: int
    is_online: bool
    version: int
    at_ms: int
    session_id: str
    node_id: str = ""
    user: str | None = None
    transport: str = ""
    """``native``, ``websocket`` or ``mqtt``."""
    code: CloseCode | None = None
    """How the session ended; None for one that began, and where the peer left without a word."""


class Hooks:
    """The hooks of one application as its callers use them; each attribute is None where it is not declared."""

    __slots__ = ("authenticate", "authorize_send", "on_connect", "on_disconnect", "on_presence")

    def __init__(self) -> None:
        self.authenticate: HookHandler | None = None
        self.authorize_send: HookHandler | None = None
        self.on_connect: HookHandler | None = None
        self.on_disconnect: HookHandler | None = None
        self.on_presence: HookHandler | None = None

    async def identify(self, registration: Registration) -> Identity | None:
        """Asks ``authenticate`` who the device is; None refuses it.

        Only to be asked where the hook is declared: without one the rules of registration decide. Raises
        HookFailed.
        """
        hook = self.authenticate
        if hook is None:
            raise LookupError("the application declares no authenticate hook")
        answer = await _ask(hook, (registration,), registration.device_id)
        if answer is None or isinstance(answer, Identity):
            return answer
        logger.error("%s returned %s instead of Identity or None", hook.where, type(answer).__name__)
        raise HookFailed(Status.HANDLER_FAILED, "authenticate gave no Identity")

    async def judge_send(self, sender: Session, to: str, kind: str) -> Status:
        """Asks ``authorize_send``: OK, NOT_PERMITTED, or 14, 17 or 18 where it gave no answer.

        Anything but True refuses. Without the hook every send is allowed.
        """
        hook = self.authorize_send
        if hook is None:
            return Status.OK
        try:
            answer = await _ask(hook, (sender, to, kind), sender.device_id)
        except HookFailed as error:
            return error.status
        return Status.OK if answer is True else Status.NOT_PERMITTED

    async def tell_connected(self, session: Session) -> None:
        """Tells ``on_connect``; its failure is logged and changes nothing."""
        if self.on_connect is not None:
            await _tell(self.on_connect, (session,), session.device_id)

    async def tell_disconnected(self, session: Session, code: CloseCode | None) -> None:
        """Tells ``on_disconnect`` the code the session ended with, None where the peer left without a word."""
        if self.on_disconnect is not None:
            await _tell(self.on_disconnect, (session, code), session.device_id)

    async def tell_presence(self, presence: Presence) -> None:
        """Tells ``on_presence``; its failure is logged and changes nothing."""
        if self.on_presence is not None:
            await _tell(self.on_presence, (presence,), presence.device_id)


async def _tell(hook: HookHandler, arguments: tuple[object, ...], device_id: str) -> None:
    try:
        await _ask(hook, arguments, device_id)
    except HookFailed:
        return  # logged where it happened


async def _ask(hook: HookHandler, arguments: tuple[object, ...], device_id: str) -> object:
    fields = {"longwire.device_id": presentable(device_id), "longwire.hook": hook.name}
    try:
        return await run_within(hook, arguments[: hook.takes], hook.timeout_s)
    except NoThread as error:
        logger.error("%s was not run: %s", hook.where, error, extra=fields)
        raise HookFailed(Status.OVERLOADED, f"{hook.name} was not run") from error
    except OverBudget as error:
        logger.exception("%s is past its budget of %g s", hook.where, hook.timeout_s, extra=fields)
        raise HookFailed(Status.TIMEOUT, f"{hook.name} gave no answer") from error
    except Exception as error:
        logger.exception("%s failed", hook.where, extra=fields)
        raise HookFailed(Status.HANDLER_FAILED, f"{hook.name} failed") from error
