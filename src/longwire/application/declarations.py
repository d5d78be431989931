"""The application object: where users declare what their code takes, and what the system looks up.

    app = Longwire()

    @app.uplink("order.created")
    async def order_created(order: Order, ctx: Context) -> None: ...

Declaring happens while the user's module is imported; ``bind`` comes when a process starts to run the
application, ``unbind`` when it ends. Between the two nothing is declared any more.
"""

from collections.abc import Callable
from typing import TypeVar

from longwire.application.context import DEFAULT_TTL, Services, send
from longwire.application.errors import DeclarationError, NotBound
from longwire.application.handlers import (
    DURABLE_TIMEOUT_S,
    IN_PLACE_TIMEOUT_S,
    Handler,
    HookHandler,
    RequestHandler,
    UplinkHandler,
    check_timeout,
    hook_arguments,
    message_arguments,
    shape_of,
)
from longwire.application.hooks import Hooks
from longwire.application.payloads import encode
from longwire.application.threads import HandlerThreads
from longwire.ids import new_message_id
from longwire.limits import MAX_KIND_CHARACTERS
from longwire.model import Device
from longwire.reasons import Status

F = TypeVar("F", bound=Callable[..., object])

EVERY_OTHER = "*"
"""The kind of the handler that takes what nobody named."""


class Longwire:
    """An application. Decorators return the function as it was, so it stays callable and testable by itself."""

    def __init__(self, *, threads: int = 32, hook_timeout_s: float = IN_PLACE_TIMEOUT_S) -> None:
        """``threads`` bounds how many sync handlers run at once; ``hook_timeout_s`` is the budget of each hook."""
        self.threads = HandlerThreads(threads)
        self.hooks = Hooks()
        self._hook_timeout_s = check_timeout(hook_timeout_s, "Longwire(hook_timeout_s)")
        self._uplinks: dict[str, UplinkHandler] = {}
        self._requests: dict[str, RequestHandler] = {}
        self._services: Services | None = None

    # What users write

    def uplink(self, kind: str, *, durable: bool = True, timeout_s: float | None = None) -> Callable[[F], F]:
        """Takes the messages of one kind that devices send to the application; ``"*"``: every kind not named.

        Durable: the device's SENT follows the append to the uplink log, and the handler gets the record from
        there, at least once, each device's in order, again after a failure. Not durable: the handler runs in
        place on the gateway and the device's SENT says how it went. ``timeout_s`` is 30 s, and 5 s in place.
        What the function returns is not used. Raises DeclarationError.
        """

        _refuse_bare(kind, "uplink")

        def declare(function: F) -> F:
            shape = shape_of(function)
            if not 1 <= len(kind) <= MAX_KIND_CHARACTERS:
                raise DeclarationError(
                    f"{shape.where}: kind of {len(kind)} characters is not 1 to {MAX_KIND_CHARACTERS} long"
                )
            self._refuse_second(self._uplinks.get(kind), f"uplink {kind!r}", shape.where)
            decode, takes_context = message_arguments(function, shape)
            budget_s = timeout_s if timeout_s is not None else DURABLE_TIMEOUT_S if durable else IN_PLACE_TIMEOUT_S
            self._uplinks[kind] = UplinkHandler(
                kind,
                function,
                shape.where,
                shape.is_async,
                check_timeout(budget_s, shape.where),
                self.threads,
                decode,
                takes_context,
                durable,
            )
            return function

        return declare

    def request(self, method: str, *, timeout_s: float = IN_PLACE_TIMEOUT_S) -> Callable[[F], F]:
        """Answers devices' requests of one method, in place; what the function returns is the REPLY's payload.

        Bytes go out as they are, text as UTF-8, None as nothing, anything else as JSON. Raises DeclarationError.
        """

        _refuse_bare(method, "request")

        def declare(function: F) -> F:
            shape = shape_of(function)
            if not method:
                raise DeclarationError(f"{shape.where}: a request's method has a name")
            self._refuse_second(self._requests.get(method), f"request {method!r}", shape.where)
            decode, takes_context = message_arguments(function, shape)
            self._requests[method] = RequestHandler(
                method,
                function,
                shape.where,
                shape.is_async,
                check_timeout(timeout_s, shape.where),
                self.threads,
                decode,
                takes_context,
            )
            return function

        return declare

    def authenticate(self, function: F) -> F:
        """``(registration: Registration) -> Identity | None``: who a device is that registers; None refuses it."""
        self.hooks.authenticate = self._hook("authenticate", self.hooks.authenticate, function, 1, 1)
        return function

    def authorize_send(self, function: F) -> F:
        """``(sender: Session, to: str, kind: str) -> bool``: whether a device may send there; only True allows."""
        self.hooks.authorize_send = self._hook("authorize_send", self.hooks.authorize_send, function, 3, 3)
        return function

    def on_connect(self, function: F) -> F:
        """``(session: Session) -> None``: a device's session has begun."""
        self.hooks.on_connect = self._hook("on_connect", self.hooks.on_connect, function, 1, 1)
        return function

    def on_disconnect(self, function: F) -> F:
        """``(session: Session[, code: CloseCode | None]) -> None``: a device's session has ended."""
        self.hooks.on_disconnect = self._hook("on_disconnect", self.hooks.on_disconnect, function, 1, 2)
        return function

    def on_presence(self, function: F) -> F:
        """``(presence: Presence) -> None``: a device came or went; its ``version`` says which of two is later."""
        self.hooks.on_presence = self._hook("on_presence", self.hooks.on_presence, function, 1, 1)
        return function

    async def push(
        self,
        to: str,
        kind: str,
        payload: object = None,
        *,
        ttl_s: int = DEFAULT_TTL,
        collapse_key: str = "",
        message_id: bytes = b"",
    ) -> Status:
        """A reliable message to ``device:ID``, ``user:ID`` or ``group:ID`` from outside of a handler.

        Durable when this returns OK. With a ``message_id`` of 16 bytes a repeat is the same message and answers
        DUPLICATE; without one every call is a message of its own. Raises NotBound, SendRefused, StoreUnavailable,
        and ValueError or TypeError for what cannot be sent at all. Runs on the loop that runs the application.
        """
        services = self._bound()
        return await send(services, to, kind, encode(payload), message_id or new_message_id(), ttl_s, collapse_key)

    async def find_device(self, device_id: str) -> Device | None:
        """The device as it is registered now. Raises NotBound, StoreUnavailable."""
        return await self._bound().find_device(device_id)

    # What the system asks

    @property
    def durable_kinds(self) -> frozenset[str]:
        """The kinds declared durable, without the catch-all."""
        return frozenset(k for k, h in self._uplinks.items() if h.is_durable and k != EVERY_OTHER)

    @property
    def services(self) -> Services | None:
        """What contexts are made with; None while nothing runs the application."""
        return self._services

    def find_uplink(self, kind: str) -> UplinkHandler | None:
        """The handler for messages of this kind: its own, else the catch-all, else None."""
        return self._uplinks.get(kind) or self._uplinks.get(EVERY_OTHER)

    def find_in_place(self, kind: str) -> UplinkHandler | None:
        """The handler where the kind is declared ``durable=False``; None: the message goes to the uplink log."""
        handler = self.find_uplink(kind)
        return None if handler is None or handler.is_durable else handler

    def find_request(self, method: str) -> RequestHandler | None:
        """The handler for requests of this method."""
        return self._requests.get(method)

    def bind(self, services: Services) -> None:
        """Lets handlers send and look up. Raises RuntimeError where the application is bound already."""
        if self._services is not None:
            raise RuntimeError("the application is run already, and by one process at a time")
        self._services = services

    def unbind(self) -> None:
        """Takes the services away again; what handlers still ask for raises NotBound. Repeating it is no error."""
        self._services = None

    def _bound(self) -> Services:
        if self._services is None:
            raise NotBound("the application is not run by a node or a sink: it cannot send or look up")
        return self._services

    def _hook(
        self, name: str, present: HookHandler | None, function: Callable[..., object], least: int, most: int
    ) -> HookHandler:
        shape = shape_of(function)
        self._refuse_second(present, f"hook {name}", shape.where)
        takes = hook_arguments(shape, least, most)
        return HookHandler(name, function, shape.where, shape.is_async, self._hook_timeout_s, self.threads, takes=takes)

    @staticmethod
    def _refuse_second(present: Handler | None, what: str, where: str) -> None:
        if present is not None:
            raise DeclarationError(f"{what} is declared twice: by {present.where} and by {where}")


def _refuse_bare(name: object, decorator: str) -> None:
    if not isinstance(name, str):
        raise DeclarationError(f"@app.{decorator} is written with a name: @app.{decorator}('...')")
