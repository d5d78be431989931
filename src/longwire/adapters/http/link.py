"""ports.link.Link over all nodes of a cluster: the node of this process by plain calls, the others by HTTP.

What is asked of a device goes to the node that a look-up names; what must reach a device wherever it is about to be
(a strike, the end of a push) goes to every node that lives.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import msgspec
from pyroaring import BitMap

from longwire.adapters.http import wire
from longwire.adapters.http.client import LinkClient, LinkFailed
from longwire.adapters.http.courier import Courier
from longwire.clock import Clock
from longwire.errors import StoreUnavailable
from longwire.limits import Limits
from longwire.model import Committed, Envelope, NodeInfo
from longwire.operations_model import NodeReport, SessionView
from longwire.ports.link import Called, LinkedNode, Sent
from longwire.ports.messages import MessageStore
from longwire.ports.registry import Registry
from longwire.ports.routes import RouteTable
from longwire.push_model import Broadcasted, BroadcastOrder, SegmentReceipts, push_message_of
from longwire.reasons import CloseCode, Status
from longwire.traces import NO_TRACES, SAMPLED, Traces

log = logging.getLogger(__name__)

_TELL_WITHIN_S = 2.0
_ASK_WITHIN_S = 1.0
_BROADCAST_WITHIN_S = 10.0
_END_PUSH_WITHIN_S = 0.8
_CALL_AND_S = 1.0
_STRIKE_AGAIN_S = 1.0
_STRIKE_FOR_S = 60.0
_MAX_OWED = 10_000
_FIRST_LOOK_S = 0.02
_LOOK_AT_LEAST_EVERY_S = 0.25

_bool = wire.decoder(bool)
_int = wire.decoder(int)
_broadcasted = wire.decoder(Broadcasted)
_receipts = wire.decoder(list[SegmentReceipts])
_called = wire.decoder(Called)
_views = wire.decoder(list[SessionView | None])
_report = wire.decoder(NodeReport | None)


class HttpLink:
    """One a process; made on the loop. ``local``: the node of this process, where it has one."""

    def __init__(
        self,
        client: LinkClient,
        courier: Courier,
        routes: RouteTable,
        registry: Registry,
        messages: MessageStore,
        clock: Clock,
        limits: Limits,
        *,
        local: LinkedNode | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        traces: Traces = NO_TRACES,
    ) -> None:
        self._traces = traces
        self._client = client
        self._courier = courier
        self._registry = registry
        self._messages = messages
        self._clock = clock
        self._limits = limits
        self._local = local
        self._local_id = "" if local is None else local.node_id
        self._sleep = sleep
        self._owed: dict[tuple[str, int], tuple[CloseCode, str, float]] = {}
        """Strikes that a node has not answered, by node and device, each with when it is given up."""
        self._striking: asyncio.Task[None] | None = None

    async def stop(self) -> None:
        """Ends the repeats."""
        if self._striking is not None:
            self._striking.cancel()
            await asyncio.gather(self._striking, return_exceptions=True)

    # -- sessions ----------------------------------------------------------------------------------------------------

    async def close_session(self, device_no: int, code: CloseCode, reason: str) -> bool:
        """Strikes on every node: a device in the midst of its connect has no route yet."""
        had = self._local is not None and self._local.strike(device_no, code, reason)
        others = self._others()
        answers = await asyncio.gather(
            *(self._strike(node, device_no, code, reason) for node in others), return_exceptions=True
        )
        for node, answer in zip(others, answers, strict=True):
            if isinstance(answer, LinkFailed):
                self._owe(node.node_id, device_no, code, reason)
            elif isinstance(answer, BaseException):
                raise answer
        return had or any(answer is True for answer in answers)

    async def _strike(self, node: NodeInfo, device_no: int, code: CloseCode, reason: str) -> bool:
        answer = await self._ask(node, "strike", wire.Strike(device_no, code, reason), _TELL_WITHIN_S, _bool)
        return bool(answer)

    def _owe(self, node_id: str, device_no: int, code: CloseCode, reason: str) -> None:
        if len(self._owed) >= _MAX_OWED:
            log.error("node %s does not answer, and a session of device %d there may go on", node_id, device_no)
            return
        self._owed[node_id, device_no] = (code, reason, self._clock.monotonic() + _STRIKE_FOR_S)
        if self._striking is None or self._striking.done():
            self._striking = asyncio.get_running_loop().create_task(self._strike_again())

    async def _strike_again(self) -> None:
        while self._owed:
            await self._sleep(_STRIKE_AGAIN_S)
            nodes = {node.node_id: node for node in self._registry.nodes()}
            now = self._clock.monotonic()
            for (node_id, device_no), (_, _, until) in list(self._owed.items()):
                if node_id not in nodes or now > until:
                    del self._owed[node_id, device_no]
                    if node_id in nodes:
                        log.error("node %s has not answered; a session of device %d may go on", node_id, device_no)
            owing = {node_id for node_id, _ in self._owed}
            await asyncio.gather(*(self._strike_owed(nodes[node_id]) for node_id in owing))

    async def _strike_owed(self, node: NodeInfo) -> None:
        """Until the first that it does not answer."""
        owed = [(key, strike) for key, strike in self._owed.items() if key[0] == node.node_id]
        for key, strike in owed:
            try:
                await self._strike(node, key[1], strike[0], strike[1])
            except LinkFailed:
                return
            if self._owed.get(key) is strike:
                del self._owed[key]

    async def sessions(self, device_nos: Sequence[int]) -> list[SessionView | None]:
        """Of nodes that do not answer, none."""
        views: dict[int, SessionView | None] = {}
        asked: dict[str, list[int]] = {}
        far = [no for no in device_nos if self._local is None or not self._local.has(no)]
        for no, route in zip(far, await self._courier.where(far), strict=True):
            if route is not None:
                asked.setdefault(route.node_id, []).append(no)
        if self._local is not None:
            asked.setdefault(self._local_id, []).extend(no for no in device_nos if self._local.has(no))
        answers = await asyncio.gather(*(self._sessions_of(node_id, nos) for node_id, nos in asked.items()))
        for nos, found in zip(asked.values(), answers, strict=True):
            views.update(zip(nos, found, strict=True))
        return [views.get(no) for no in device_nos]

    async def _sessions_of(self, node_id: str, device_nos: list[int]) -> list[SessionView | None]:
        if self._local is not None and node_id == self._local_id:
            return await self._local.sessions(device_nos)
        nowhere: list[SessionView | None] = [None] * len(device_nos)
        try:
            found = await self._ask_at(node_id, "sessions", wire.Sessions(device_nos), _ASK_WITHIN_S, _views)
        except LinkFailed as error:
            log.warning("the sessions of %d devices are not known: %s", len(device_nos), error)
            return nowhere
        return found if len(found) == len(device_nos) else nowhere

    def number_of(self, device_id: str) -> int | None:
        return None if self._local is None else self._local.number_of(device_id)

    def session_count(self) -> int:
        here = 0 if self._local is None else self._local.session_count()
        return here + sum(node.connections for node in self._others())

    # -- messages ----------------------------------------------------------------------------------------------------

    async def send(self, envelope: Envelope, wait_ack_s: float = 0.0) -> Sent:
        """As ports.link says; acknowledgements are looked for in the store, wherever they were given."""
        if _is_for_now(envelope):
            return await self._send_for_now(envelope)
        if self._is_overloaded:
            return Sent(Status.OVERLOADED)
        await self._note_online((envelope,))
        outcome: asyncio.Future[Committed] = asyncio.get_running_loop().create_future()

        def committed(envelope: Envelope, result: Committed) -> None:
            self._deliver(envelope, result)
            if not outcome.done():
                outcome.set_result(result)

        self._messages.commit(envelope, committed)
        result = await outcome
        acked: tuple[int, ...] = ()
        if wait_ack_s > 0 and result.status is Status.OK:
            acked = await self._acks(envelope, result.seq, wait_ack_s)
        return _sent(envelope, result.status, acked)

    async def send_many(self, envelopes: Sequence[Envelope]) -> list[Sent]:
        """One look-up for all, and one future."""
        sent: list[Sent | None] = [None] * len(envelopes)
        stored = [at for at, envelope in enumerate(envelopes) if not _is_for_now(envelope)]
        if stored and self._is_overloaded:
            for at in stored:
                sent[at] = Sent(Status.OVERLOADED)
            stored = []
        await self._note_online([envelopes[at] for at in stored])
        left = len(stored)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def committed(at: int, envelope: Envelope, result: Committed) -> None:
            nonlocal left
            self._deliver(envelope, result)
            sent[at] = _sent(envelope, result.status)
            left -= 1
            if not left and not done.done():
                done.set_result(None)

        for at in stored:
            self._messages.commit(envelopes[at], partial(committed, at))
        for_now = [at for at, envelope in enumerate(envelopes) if _is_for_now(envelope)]
        answers = await asyncio.gather(*(self._send_for_now(envelopes[at]) for at in for_now))
        for at, answer in zip(for_now, answers, strict=True):
            sent[at] = answer
        if left:
            await done
        return [one for one in sent if one is not None]

    @property
    def _is_overloaded(self) -> bool:
        return self._messages.queued_bytes > self._limits.max_commit_queue_bytes

    async def _note_online(self, envelopes: Sequence[Envelope]) -> None:
        """Nothing may be dropped for those who have a session; where that is not known, all count as away."""
        receivers = sorted({no for envelope in envelopes for no in envelope.receivers})
        try:
            routes = await self._courier.where(receivers)
        except StoreUnavailable:
            routes = [None] * len(receivers)
        online = {no for no, route in zip(receivers, routes, strict=True) if route is not None}
        for envelope in envelopes:
            envelope.online = tuple(no for no in envelope.receivers if no in online)

    def _deliver(self, envelope: Envelope, result: Committed) -> None:
        if envelope.trace and envelope.trace[23] & SAMPLED:
            self._traces.committed(envelope, result)
        if result.status is Status.DUPLICATE:
            # A process that died may have committed the first, and delivered it to nobody.
            self._courier.nudge(envelope.receivers)
        elif result.receivers:
            self._courier.deliver(push_message_of(envelope), result.seq, result.receivers)

    async def _send_for_now(self, envelope: Envelope) -> Sent:
        told: asyncio.Future[tuple[int, ...]] = asyncio.get_running_loop().create_future()

        def done(written: tuple[int, ...]) -> None:
            if not told.done():
                told.set_result(written)

        self._courier.relay(push_message_of(envelope), envelope.receivers, done)
        try:
            async with asyncio.timeout(_TELL_WITHIN_S):
                written = await told
        except TimeoutError:
            return Sent(Status.OVERLOADED)
        return Sent(Status.OK, written) if written else Sent(Status.OFFLINE)

    async def _acks(self, envelope: Envelope, seq: int, within_s: float) -> tuple[int, ...]:
        acked: set[int] = set()
        over = self._clock.monotonic() + within_s
        pause_s = _FIRST_LOOK_S
        while len(acked) < len(envelope.receivers) and (left_s := over - self._clock.monotonic()) > 0:
            await self._sleep(min(pause_s, left_s))
            pause_s = min(2 * pause_s, _LOOK_AT_LEAST_EVERY_S)
            try:
                acked = await self._messages.acked_by(seq)
            except StoreUnavailable:
                continue
        return tuple(no for no in envelope.receivers if no in acked)

    # -- pushes ------------------------------------------------------------------------------------------------------

    async def broadcast(self, node_id: str, order: BroadcastOrder) -> Broadcasted:
        if self._local is not None and node_id == self._local_id:
            return await self._local.broadcast(node_id, order)
        asked = wire.Broadcast(order)
        answer: Broadcasted
        try:
            answer = await self._ask_at(node_id, "broadcast", asked, _BROADCAST_WITHIN_S, _broadcasted)
        except LinkFailed as error:
            if error.was_sent:
                raise
            answer = await self._ask_at(node_id, "broadcast", asked, _BROADCAST_WITHIN_S, _broadcasted)
        return answer

    async def end_push(self, push_no: int) -> list[SegmentReceipts]:
        """Nodes that do not answer are left out; they hear of the end with the next order's refusal."""
        gathered = [] if self._local is None else await self._local.end_push(push_no)
        others = self._others()
        answers = await asyncio.gather(
            *(self._ask(node, "end_push", wire.EndPush(push_no), _END_PUSH_WITHIN_S, _receipts) for node in others),
            return_exceptions=True,
        )
        for answer in answers:
            if isinstance(answer, LinkFailed):
                log.warning("push %d may still be written there: %s", push_no, answer)
            elif isinstance(answer, BaseException):
                raise answer
            else:
                gathered = gathered + answer
        return gathered

    async def catch_up(self, devices: BitMap) -> None:
        if self._local is not None:
            await self._local.catch_up(devices)
        asked = wire.Devices(devices)
        others = self._others()
        answers = await asyncio.gather(
            *(self._ask(node, "catch_up", asked, _TELL_WITHIN_S, _nothing) for node in others), return_exceptions=True
        )
        for answer in answers:
            if isinstance(answer, LinkFailed):
                log.warning("devices there look for waiting pushes within the minute: %s", answer)
            elif isinstance(answer, BaseException):
                raise answer

    # -- requests ----------------------------------------------------------------------------------------------------

    async def call(
        self, device_no: int, command_id: bytes, method: str, payload: bytes, timeout_ms: int, trace: bytes = b""
    ) -> Called:
        asked = wire.Call(device_no, command_id, method, payload, timeout_ms, trace)
        called = Called(Status.OFFLINE)
        for _ in range(2):
            if self._local is not None and self._local.has(device_no):
                return await self._local.call(device_no, command_id, method, payload, timeout_ms, trace)
            route = (await self._courier.where((device_no,)))[0]
            if route is None:
                return called
            called = await self._call_at(route.node_id, asked)
            if called.status is not Status.OFFLINE:
                return called
            # It has gone from there since it was looked up.
            self._courier.cache.forget(device_no)
        return called

    async def _call_at(self, node_id: str, asked: wire.Call) -> Called:
        if self._local is not None and node_id == self._local_id:
            return await self._local.call(
                asked.device_no, asked.command_id, asked.method, asked.payload, asked.timeout_ms, asked.trace
            )
        try:
            called: Called = await self._ask_at(node_id, "call", asked, asked.timeout_ms / 1000 + _CALL_AND_S, _called)
        except LinkFailed as error:
            if error.was_sent:
                return Called(Status.TIMEOUT, detail=f"node {node_id} did not answer; the outcome is unknown")
            if self._node(node_id) is None:
                return Called(Status.OFFLINE)
            return Called(Status.OVERLOADED, detail=f"node {node_id} is not reached; the device was not asked")
        return called

    # -- nodes -------------------------------------------------------------------------------------------------------

    async def report(self, node_id: str) -> NodeReport | None:
        if self._local is not None and node_id == self._local_id:
            return await self._local.report(node_id)
        try:
            report: NodeReport | None = await self._ask_at(node_id, "report", wire.Nothing(), _ASK_WITHIN_S, _report)
        except LinkFailed:
            return None
        return report

    async def drain(self, node_id: str, within_s: float) -> bool:
        if self._local is not None and node_id == self._local_id:
            self._local.begin_drain(within_s)
            return True
        return await self._tell(node_id, "drain", wire.Drain(round(within_s * 1000)))

    async def undrain(self, node_id: str) -> bool:
        if self._local is not None and node_id == self._local_id:
            self._local.end_drain()
            return True
        return await self._tell(node_id, "undrain", wire.Nothing())

    async def move(self, node_id: str, count: int, within_s: float) -> int:
        if self._local is not None and node_id == self._local_id:
            return self._local.move_away(count, within_s)
        node = self._node(node_id)
        if node is None:
            return 0
        asked = wire.Move(count, round(within_s * 1000))
        told: int = await self._ask(node, "move", asked, _TELL_WITHIN_S, _int)
        return told

    async def _tell(self, node_id: str, name: str, asked: msgspec.Struct) -> bool:
        """False where the node is not listed. Raises LinkFailed."""
        node = self._node(node_id)
        if node is None:
            return False
        await self._ask(node, name, asked, _TELL_WITHIN_S, _nothing)
        return True

    # -- calls -------------------------------------------------------------------------------------------------------

    def _others(self) -> list[NodeInfo]:
        return [node for node in self._registry.nodes() if node.node_id != self._local_id]

    def _node(self, node_id: str) -> NodeInfo | None:
        return self._courier.cache.nodes.get(node_id)

    async def _ask_at(
        self, node_id: str, name: str, asked: msgspec.Struct, within_s: float, answer: msgspec.msgpack.Decoder[Any]
    ) -> Any:
        """Raises LinkFailed, also where no such node lives."""
        node = self._node(node_id)
        if node is None:
            raise LinkFailed(f"there is no node {node_id}", was_sent=False)
        return await self._ask(node, name, asked, within_s, answer)

    async def _ask(
        self, node: NodeInfo, name: str, asked: msgspec.Struct, within_s: float, answer: msgspec.msgpack.Decoder[Any]
    ) -> Any:
        body = await self._client.post(node, name, wire.encode(asked), within_s)
        try:
            return answer.decode(body)
        except (msgspec.MsgspecError, ValueError) as error:
            raise LinkFailed(f"node {node.node_id}'s answer to {name}: {error}", was_sent=True) from error


_nothing = wire.decoder(None)


def _is_for_now(envelope: Envelope) -> bool:
    """A TTL of 0."""
    return envelope.expires_at_ms <= envelope.sent_at_ms


def _sent(envelope: Envelope, status: Status, acked_by: tuple[int, ...] = ()) -> Sent:
    """What became of a message that was given to the store."""
    if status is not Status.OK:
        return Sent(status)
    online = envelope.online
    return Sent(status, online, tuple(no for no in envelope.receivers if no not in online), acked_by)
