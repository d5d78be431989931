"""The answering side of the link: an ASGI application under /link/ on the internal port.

    shape of the head (401, 404, 405, 413) ─► body, bounded ─► signature (401) ─► node id (421) ─► call (200, 4xx, 5xx)

Nothing of a body is decoded before its signature is found to be right.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec

from longwire.adapters.http import wire
from longwire.errors import StoreUnavailable
from longwire.ports.link import Forward, LinkedNode, Taken
from longwire.push_model import PushMessage
from longwire.traces import NO_TRACES, SAMPLED, Traces

log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_MAX_WITHIN_MS = 600_000
_BODY_WITHIN_S = 10.0
_MAX_HELD_BYTES = 128 << 20
_ENDS_WITHIN_S = 1.0
_PREFIX = f"/link/{wire.LINK_VERSION}/"


class _Refused(Exception):
    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class LinkServer:
    """Hands the calls of other processes to the node."""

    def __init__(self, node: LinkedNode, secret: str, traces: Traces = NO_TRACES) -> None:
        self._traces = traces
        self._node = node
        self._secret = secret.encode()
        self._calls: dict[str, tuple[msgspec.msgpack.Decoder[Any], Callable[[Any], Any]]] = {
            "forward": (wire.decoder(list[Forward]), self._arrive),
            "spread": (wire.decoder(list[wire.Spread]), self._spread),
            "end_older": (wire.decoder(list[tuple[int, int]]), node.end_older),
            "nudge": (wire.decoder(wire.Devices), lambda asked: node.nudge(asked.devices)),
            "strike": (wire.decoder(wire.Strike), lambda it: node.strike(it.device_no, it.code, it.reason)),
            "drain": (wire.decoder(wire.Drain), lambda asked: node.begin_drain(asked.within_ms / 1000)),
            "undrain": (wire.decoder(wire.Nothing), lambda _asked: node.end_drain()),
            "move": (wire.decoder(wire.Move), lambda asked: node.move_away(asked.count, asked.within_ms / 1000)),
        }
        self._slow_calls: dict[str, tuple[msgspec.msgpack.Decoder[Any], Callable[[Any], Awaitable[Any]]]] = {
            "broadcast": (wire.decoder(wire.Broadcast), lambda asked: node.broadcast(node.node_id, asked.order)),
            "end_push": (wire.decoder(wire.EndPush), lambda asked: node.end_push(asked.push_no)),
            "catch_up": (wire.decoder(wire.Devices), lambda asked: node.catch_up(asked.devices)),
            "call": (
                wire.decoder(wire.Call),
                lambda it: node.call(it.device_no, it.command_id, it.method, it.payload, it.timeout_ms, it.trace),
            ),
            "sessions": (wire.decoder(wire.Sessions), lambda asked: node.sessions(asked.device_nos)),
            "report": (wire.decoder(wire.Nothing), lambda _asked: node.report(node.node_id)),
        }
        self._is_stopping = False
        self._running = 0
        self._idle = asyncio.Event()
        self._held_bytes = 0

    async def stop(self) -> None:
        """Answers 503 from here on; lets running calls end for a second."""
        self._is_stopping = True
        if self._running:
            self._idle.clear()
            try:
                async with asyncio.timeout(_ENDS_WITHIN_S):
                    await self._idle.wait()
            except TimeoutError:
                log.warning("%d calls of other nodes still run and are left behind", self._running)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._running += 1
        try:
            status, body = await self._answer(scope, receive)
        finally:
            self._running -= 1
            if not self._running:
                self._idle.set()
        kind = b"application/msgpack" if status == 200 else b"text/plain"
        headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body))]
        if status == 413:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Scope, receive: Receive) -> tuple[int, bytes]:
        try:
            return 200, await self._carry_out(scope, receive)
        except _Refused as refused:
            return refused.status, str(refused).encode()
        except StoreUnavailable as error:
            return 503, str(error).encode()
        except TimeoutError:
            return 504, b"the time is over"
        except Exception:
            log.exception("the call %s of another node failed", scope["path"])
            return 500, b"it failed; the log of this node says why"

    async def _carry_out(self, scope: Scope, receive: Receive) -> bytes:
        if self._is_stopping:
            raise _Refused(503, "this node stops")
        if scope["method"] != "POST":
            raise _Refused(405, "calls are POSTs")
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        signature = headers.get(b"authorization", "")
        if not (signature.startswith(wire.SCHEME) and len(signature) == len(wire.SCHEME) + wire.SIGNATURE_CHARACTERS):
            raise _Refused(401, "authorization is not: Longwire HEX")
        within_s = _within_ms(headers.get(b"longwire-within-ms", "")) / 1000
        async with asyncio.timeout(within_s):
            body = await self._body(headers.get(b"content-length", ""), receive)
            name = str(scope["path"]).rpartition("/")[2]
            node_id = headers.get(b"longwire-node", "")
            if not wire.is_signed(self._secret, name, node_id, body, signature[len(wire.SCHEME) :]):
                raise _Refused(401, "the signature is not of this cluster's secret")
            if node_id != self._node.node_id:
                raise _Refused(421, f"this is node {self._node.node_id}")
            if scope["path"] != _PREFIX + name:
                raise _Refused(404, f"calls here are {_PREFIX}NAME")
            return await self._call(name, body)

    async def _body(self, length: str, receive: Receive) -> bytes:
        if length.isdecimal() and int(length[:20]) > wire.MAX_BODY_BYTES:
            raise _Refused(413, f"a body of {length} bytes exceeds {wire.MAX_BODY_BYTES}")
        pieces: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(_BODY_WITHIN_S):
                while True:
                    event = await receive()
                    if event["type"] == "http.disconnect":
                        raise _Refused(400, "the caller went away")
                    piece = event.get("body", b"")
                    size += len(piece)
                    self._held_bytes += len(piece)
                    if size > wire.MAX_BODY_BYTES:
                        raise _Refused(413, f"a body exceeds {wire.MAX_BODY_BYTES} bytes")
                    if self._held_bytes > _MAX_HELD_BYTES:
                        raise _Refused(503, f"bodies that come in exceed {_MAX_HELD_BYTES} bytes")
                    pieces.append(piece)
                    if not event.get("more_body", False):
                        return b"".join(pieces)
        finally:
            self._held_bytes -= size

    async def _call(self, name: str, body: bytes) -> bytes:
        quick = self._calls.get(name)
        slow = self._slow_calls.get(name)
        try:
            if quick is not None:
                asked = quick[0].decode(body)
            elif slow is not None:
                asked = slow[0].decode(body)
            else:
                raise _Refused(404, f"there is no call {name!r}")
        except (msgspec.MsgspecError, ValueError) as error:
            raise _Refused(400, f"the arguments of {name} are not understood: {error}") from error
        if quick is not None:
            return wire.encode(quick[1](asked))
        assert slow is not None
        return wire.encode(await slow[1](asked))

    def _arrive(self, forwards: list[Forward]) -> list[Taken]:
        for forward in forwards:
            trace = forward.message.trace
            if trace and trace[23] & SAMPLED:
                self._tell(forward.message, len(forward.receivers))
        return self._node.arrive(forwards)

    def _spread(self, spreads: list[wire.Spread]) -> None:
        for spread in spreads:
            trace = spread.message.trace
            if trace and trace[23] & SAMPLED:
                self._tell(spread.message, len(spread.receivers))
            self._node.spread(spread.message, spread.receivers)

    def _tell(self, message: PushMessage, receivers: int) -> None:
        self._traces.hop("link.arrived", message.trace, message_id=message.message_id.hex(), receivers=receivers)


def _within_ms(text: str) -> int:
    """The caller's patience; refuses what is none."""
    if not text.isdecimal() or not 0 < int(text[:10]) <= _MAX_WITHIN_MS:
        raise _Refused(400, f"longwire-within-ms is not 1 to {_MAX_WITHIN_MS}")
    return int(text[:10])
