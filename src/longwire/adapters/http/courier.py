"""Carries messages to the nodes that hold their receivers: ports.across.Across over HTTP.

    deliver, relay ─► receiver ─► here ─────────────────────────────► local.arrive, at once
                               ├─ route kept ─► lane of its node ─► one POST at a time ─► gone? asked again, once
                               └─ unknown ────► asked at the end of the turn, all in one look-up ─► lane, local, away
    a POST failed, no room, no look-up ─► behind ─► looked up, and the node *nudged* to read the inboxes

Order: what is on its way to a receiver stands in one queue, and is bound to one lane until the queue is empty. So it
is never overtaken, wherever a look-up sends what comes after it. A committed body travels once: one that may have been
lost is never sent again, but read from the store; until the node has been nudged, nothing else that is committed goes
to that receiver. The same where the receiver has moved: its old session may have taken bodies that the device never
got, so that the first thing to go to its new node is a nudge.

Nothing lost: a message that is committed ends at a session, or with a receiver that a look-up *of after its hint*
found nowhere (its next session reads the store), or in ``behind``.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence

from msgspec import Raw
from pyroaring import BitMap

from longwire.adapters.http import wire
from longwire.adapters.http.client import LinkClient, LinkFailed
from longwire.adapters.http.nudges import Nudges
from longwire.adapters.http.places import Places
from longwire.adapters.http.route_cache import RouteCache
from longwire.adapters.http.takeovers import Takeovers
from longwire.clock import Clock
from longwire.errors import StoreUnavailable
from longwire.ports.across import Written
from longwire.ports.link import Forward, LinkedNode, Taken
from longwire.ports.registry import Registry
from longwire.ports.routes import Route, RouteTable
from longwire.push_model import PushMessage
from longwire.traces import NO_TRACES, SAMPLED, Traces

log = logging.getLogger(__name__)

_FORWARD_WITHIN_S = 5.0
_SPREAD_WITHIN_S = 2.0
_MAX_QUEUED_BYTES = 32 << 20
_BYTES_A_RECEIVER = 200
_ITEMS_A_CALL = 512
_RECEIVERS_A_CALL = 4_096
_BYTES_A_CALL = 512 << 10
_DEVICES_A_LOOKUP = 10_000
_CLOSED_FOR_S = 0.25
_CLOSED_AT_MOST_S = 5.0
_MAX_SENT_TO = 200_000

_taken = wire.decoder(list[Taken])


class _Parcel:
    """A message on its way to receivers."""

    __slots__ = ("done", "left", "message", "raw", "seq", "size", "written")

    def __init__(self, message: PushMessage, seq: int, done: Written | None) -> None:
        self.message = message
        self.seq = seq
        self.done = done
        self.raw: Raw | None = None
        """Its encoded form, made when it is first wanted."""
        self.left = 1
        """Receivers that it is still on its way to, and one while they are being gone through."""
        self.written: list[int] = []
        self.size = 0
        """Bytes that it was taken for in the queues."""


_Item = tuple[_Parcel, bool]
"""With whether a node has sent it back already."""


class _Receiver:
    """A device that something is on its way to."""

    __slots__ = ("device_no", "in_flight", "lane", "queue")

    def __init__(self, device_no: int) -> None:
        self.device_no = device_no
        self.lane: _Lane | None = None
        """Where it all goes; None: it is being asked where the device is."""
        self.queue: deque[_Item] = deque()
        self.in_flight = 0


class _Spread:
    """A node's share of a message to many."""

    __slots__ = ("parcel", "receivers")

    def __init__(self, parcel: _Parcel, receivers: BitMap) -> None:
        self.parcel = parcel
        self.receivers = receivers


class _Lane:
    """The way to a node. For every item of a receiver's queue there is a turn."""

    __slots__ = ("closed_until", "is_running", "node_id", "pause_s", "turns")

    def __init__(self, node_id: str) -> None:
        self.node_id = node_id
        self.turns: deque[_Receiver | _Spread] = deque()
        self.is_running = False
        self.closed_until = 0.0
        """After a failure nothing is tried for a while but nudges."""
        self.pause_s = 0.0


class _Load:
    """What one POST carries: messages, each with its receivers and whether it had been sent back."""

    __slots__ = ("messages", "receivers", "spreads")

    def __init__(self) -> None:
        self.messages: list[tuple[_Parcel, list[tuple[_Receiver, bool]]]] = []
        self.spreads: list[_Spread] = []
        self.receivers = 0


class Courier:
    """One a process. For the loop that it was made on."""

    def __init__(
        self,
        node_id: str,
        client: LinkClient,
        routes: RouteTable,
        registry: Registry,
        clock: Clock,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        traces: Traces = NO_TRACES,
    ) -> None:
        self._traces = traces
        self.cache = RouteCache(registry, clock)
        self.forwarded = 0
        """Messages times receivers that nodes have taken."""
        self.corrected = 0
        """Those that a node sent back, for the device had gone."""
        self.failed = 0
        """Calls that failed."""
        self.dropped = 0
        """At-most-once messages times receivers that were not carried."""
        self.queued_bytes = 0
        self._local: LinkedNode | None = None
        self._node_id = node_id
        self._client = client
        self._routes = routes
        self._clock = clock
        self._sleep = sleep
        self._receivers: dict[int, _Receiver] = {}
        self._lanes: dict[str, _Lane] = {}
        self._asking: list[_Receiver] = []
        self._is_asking = False
        self._sent_to: dict[int, str] = {}
        """The node that a device's last committed body, or nudge, went to; bounded, the oldest go first."""
        self._spreads: deque[tuple[_Parcel, BitMap]] = deque()
        self._is_spreading = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_stopped = False
        self._nudges = Nudges(node_id, client, routes, self.cache, self._start, sleep, self._reached)
        self._takeovers = Takeovers(client, self.cache, self._start, sleep)
        self._places = Places(node_id, routes, self.cache, clock)
        registry.on_change(self._nodes_changed)

    async def stop(self, within_s: float = 1.0) -> None:
        """Empties the lanes for so long; what is committed and left waits in the inboxes."""
        loop = asyncio.get_running_loop()
        over = loop.time() + within_s
        while self._tasks and (self._receivers or any(lane.is_running for lane in self._lanes.values())):
            left_s = over - loop.time()
            if left_s <= 0:
                break
            await asyncio.wait(self._tasks, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
        self._is_stopped = self._nudges.is_stopped = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for receiver in list(self._receivers.values()):
            self._miss_all(receiver)
        for lane in self._lanes.values():
            self._fail_turns(lane)
        while self._spreads:
            self._settle(self._spreads.popleft()[0])

    @property
    def local(self) -> LinkedNode | None:
        """The node of this process. Set by the composition root before the first call; None: no sessions here."""
        return self._local

    @local.setter
    def local(self, node: LinkedNode | None) -> None:
        self._local = self._nudges.local = node

    @property
    def nudged(self) -> int:
        """Devices that nodes were nudged for."""
        return self._nudges.nudged

    @property
    def is_idle(self) -> bool:
        """Nothing is on its way, and nobody is to be nudged or told of a takeover."""
        lanes = any(lane.is_running for lane in self._lanes.values())
        return not (self._receivers or lanes or self._spreads or self.behind) and self._takeovers.is_idle

    @property
    def behind(self) -> BitMap:
        """Who is to be looked up and nudged; not to be changed."""
        return self._nudges.behind

    # -- ports.across.Across -----------------------------------------------------------------------------------------

    def may_be_online(self, device_no: int) -> bool:
        return not self.cache.is_absent(device_no)

    def is_under_way(self, device_no: int) -> bool:
        return device_no in self._receivers or device_no in self._nudges.behind

    def deliver(self, message: PushMessage, seq: int, receivers: Sequence[int]) -> None:
        self._carry(_Parcel(message, seq, None), receivers)

    def relay(self, message: PushMessage, receivers: Sequence[int], done: Written | None = None) -> None:
        self._carry(_Parcel(message, 0, done), receivers)

    def spread(self, message: PushMessage, receivers: BitMap) -> None:
        if self._is_stopped or self._is_full:
            self.dropped += 1
            return
        parcel = _Parcel(message, 0, None)
        self._encode(parcel)
        self._spreads.append((parcel, receivers))
        if not self._is_spreading:
            self._is_spreading = True
            self._start(self._place_spreads())

    def end_older(self, node_id: str, device_no: int, epoch: int, done: Callable[[], None]) -> None:
        self._takeovers.end_older(node_id, device_no, epoch, done)

    def nudge(self, device_nos: Iterable[int]) -> None:
        self._nudges.add(BitMap(device_nos))

    def came(self, device_no: int) -> None:
        self.cache.forget(device_no)
        if self._sent_to.pop(device_no, self._node_id) != self._node_id:
            # Its old session may have taken bodies since the new one was told what waits.
            self._nudges.add(BitMap([device_no]))

    async def where(self, device_nos: Sequence[int]) -> list[Route | None]:
        routes: list[Route | None] = []
        for at in range(0, len(device_nos), _DEVICES_A_LOOKUP):
            routes += await self._routes.find(device_nos[at : at + _DEVICES_A_LOOKUP])
        routes = [route if route is not None and self._lives(route.node_id) else None for route in routes]
        for device_no, route in zip(device_nos, routes, strict=True):
            self.cache.keep(device_no, route)
        return routes

    # -- on its way --------------------------------------------------------------------------------------------------

    def _carry(self, parcel: _Parcel, receivers: Sequence[int]) -> None:
        local, nudges = self._local, self._nudges
        here: list[int] = []
        for device_no in receivers:
            receiver = self._receivers.get(device_no)
            if receiver is None and local is not None and local.has(device_no):
                # Also one who is behind: its session has read the store since it was missed (is_under_way).
                here.append(device_no)
                continue
            if parcel.seq and nudges.covers(device_no):
                continue
            if self._is_stopped or self._is_full:
                self._miss(parcel, device_no)
                continue
            if receiver is None:
                receiver = self._receivers[device_no] = _Receiver(device_no)
                route = self.cache.find(device_no)
                if route is None or route.node_id == self._node_id:
                    self._ask_for(receiver)
                else:
                    receiver.lane = self._lane(route.node_id)
            if receiver.lane is not None and self._has_moved(parcel, device_no, receiver.lane.node_id):
                self._miss(parcel, device_no)
                self._forget_idle(receiver)
                continue
            if parcel.raw is None:
                self._encode(parcel)
            parcel.left += 1
            parcel.size += _BYTES_A_RECEIVER
            self.queued_bytes += _BYTES_A_RECEIVER
            receiver.queue.append((parcel, False))
            if receiver.lane is not None:
                self._queue(receiver.lane, receiver)
        if here and local is not None:
            parcel.written += local.arrive([Forward(parcel.message, tuple(here), parcel.seq)])[0].written
        self._settle(parcel)

    def _has_moved(self, parcel: _Parcel, device_no: int, node_id: str) -> bool:
        """Whether the message is committed and the one before it went to another node than this."""
        return bool(parcel.seq) and self._sent_to.get(device_no, node_id) != node_id

    def _note_sent(self, device_no: int, node_id: str) -> None:
        self._sent_to.pop(device_no, None)
        self._sent_to[device_no] = node_id
        if len(self._sent_to) > _MAX_SENT_TO:
            del self._sent_to[next(iter(self._sent_to))]

    def _reached(self, node_id: str, devices: BitMap) -> None:
        """A node has been nudged for these: it answers again, and bodies may follow."""
        lane = self._lanes.get(node_id)
        if lane is not None:
            lane.pause_s = lane.closed_until = 0.0
        for device_no in devices:
            self._note_sent(device_no, node_id)

    @property
    def _is_full(self) -> bool:
        return self.queued_bytes >= _MAX_QUEUED_BYTES

    def _encode(self, parcel: _Parcel) -> None:
        parcel.raw = Raw(wire.encode(parcel.message))
        size = len(memoryview(parcel.raw)) + len(parcel.message.payload)
        parcel.size += size
        self.queued_bytes += size

    def _settle(self, parcel: _Parcel) -> None:
        """One receiver less to go."""
        parcel.left -= 1
        if parcel.left:
            return
        self.queued_bytes -= parcel.size
        if parcel.done is not None:
            try:
                parcel.done(tuple(parcel.written))
            except Exception:
                log.exception("what was to follow a relayed message failed")

    def _miss(self, parcel: _Parcel, device_no: int) -> None:
        """It cannot be carried to this one."""
        if parcel.seq:
            self._nudges.add(BitMap([device_no]))
        else:
            self.dropped += 1

    def _miss_all(self, receiver: _Receiver) -> None:
        """Nothing of what waits for it can be carried."""
        self._receivers.pop(receiver.device_no, None)
        while receiver.queue:
            parcel, _ = receiver.queue.popleft()
            self._miss(parcel, receiver.device_no)
            self._settle(parcel)

    # -- where? ------------------------------------------------------------------------------------------------------

    def _ask_for(self, receiver: _Receiver) -> None:
        receiver.lane = None
        self._asking.append(receiver)
        if not self._is_asking:
            self._is_asking = True
            self._start(self._ask())

    async def _ask(self) -> None:
        while self._asking:
            asked, self._asking = self._asking[:_DEVICES_A_LOOKUP], self._asking[_DEVICES_A_LOOKUP:]
            # What joins the queue from here on may have got its hint after the look-up.
            counts = [len(receiver.queue) for receiver in asked]
            try:
                routes = await self._routes.find([receiver.device_no for receiver in asked])
                for receiver, count, route in zip(asked, counts, routes, strict=True):
                    self._found(receiver, count, route)
            except StoreUnavailable:
                self._miss_unplaced(asked)
            except Exception:
                log.exception("looking up where messages go to failed")
                self._miss_unplaced(asked)
        self._is_asking = False

    def _miss_unplaced(self, asked: list[_Receiver]) -> None:
        for receiver in asked:
            if receiver.lane is None and self._receivers.get(receiver.device_no) is receiver:
                self._miss_all(receiver)

    def _found(self, receiver: _Receiver, count: int, route: Route | None) -> None:
        device_no = receiver.device_no
        if route is None:
            self.cache.keep(device_no, None)
            for _ in range(count):
                # Committed: its hint stood before the look-up, so that the session of then reads it.
                parcel = receiver.queue.popleft()[0]
                trace = parcel.message.trace
                if trace and trace[23] & SAMPLED:
                    message_id = parcel.message.message_id.hex()
                    self._traces.hop("message.waiting", trace, message_id=message_id, reason="offline", receivers=1)
                self._settle(parcel)
            self._go_on(receiver)
        elif route.node_id == self._node_id:
            self._arrive_here(receiver)
        elif route.node_id in self.cache.nodes:
            self.cache.keep(device_no, route)
            self._miss_moved(receiver, route.node_id)
            receiver.lane = lane = self._lane(route.node_id)
            for _ in range(len(receiver.queue)):
                self._queue(lane, receiver)
            self._forget_idle(receiver)
        else:
            # Its node has died, or has come and is not on our list yet.
            self._miss_all(receiver)

    def _miss_moved(self, receiver: _Receiver, node_id: str) -> None:
        """Leaves to a nudge what must not go to this node as a body."""
        for _ in range(len(receiver.queue)):
            parcel, is_corrected = receiver.queue.popleft()
            if self._has_moved(parcel, receiver.device_no, node_id):
                self._miss(parcel, receiver.device_no)
                self._settle(parcel)
            else:
                receiver.queue.append((parcel, is_corrected))

    def _forget_idle(self, receiver: _Receiver) -> None:
        """Where nothing is on its way to it any more."""
        if not (receiver.queue or receiver.in_flight):
            self._receivers.pop(receiver.device_no, None)

    def _go_on(self, receiver: _Receiver) -> None:
        """Its route is not known any more: asks for the rest, or is done with it."""
        if receiver.queue:
            self._ask_for(receiver)
        else:
            self._forget_idle(receiver)

    def _arrive_here(self, receiver: _Receiver) -> None:
        self._miss_moved(receiver, self._node_id)
        items = list(receiver.queue)
        receiver.queue.clear()
        receivers = (receiver.device_no,)
        if self._local is None:
            takens = [Taken(receivers)] * len(items)
        else:
            takens = self._local.arrive([Forward(parcel.message, receivers, parcel.seq) for parcel, _ in items])
        back = [item for item, taken in zip(items, takens, strict=True) if not self._took(receiver, item, taken)]
        self._send_back(receiver, back)

    def _took(self, receiver: _Receiver, item: _Item, taken: Taken) -> bool:
        """Whether the item is done with: taken, or sent back for the second time."""
        parcel, is_corrected = item
        device_no = receiver.device_no
        if device_no not in taken.gone:
            self.forwarded += 1
            if device_no in taken.written:
                parcel.written.append(device_no)
        elif not is_corrected:
            return False
        # Sent back twice: it left after a look-up that was behind the hint; where it went, the hint was read.
        self._settle(parcel)
        return True

    def _send_back(self, receiver: _Receiver, back: list[_Item]) -> None:
        """These go out again, before what came behind them, to where a new look-up says."""
        self.cache.forget(receiver.device_no)
        self.corrected += len(back)
        receiver.queue.extendleft((parcel, True) for parcel, _ in reversed(back))
        self._go_on(receiver)

    def _lives(self, node_id: str) -> bool:
        return node_id in self.cache.nodes or (self._local is not None and node_id == self._node_id)

    # -- lanes -------------------------------------------------------------------------------------------------------

    def _lane(self, node_id: str) -> _Lane:
        lane = self._lanes.get(node_id)
        if lane is None:
            lane = self._lanes[node_id] = _Lane(node_id)
        return lane

    def _queue(self, lane: _Lane, turn: _Receiver | _Spread) -> None:
        lane.turns.append(turn)
        if not lane.is_running:
            lane.is_running = True
            self._start(self._run(lane))

    async def _run(self, lane: _Lane) -> None:
        try:
            while lane.turns:
                if self._clock.monotonic() < lane.closed_until:
                    self._fail_turns(lane)
                    break
                load = self._load(lane)
                if not (load.messages or load.spreads):
                    continue
                began_ns = self._traces.now_ns()
                try:
                    takens = await self._post(lane.node_id, load)
                except LinkFailed as error:
                    log.warning("%s; its devices read the store once it is reached", error)
                    self._tell(lane, load, began_ns, is_error=True)
                    self._fail(lane, load)
                except asyncio.CancelledError:
                    self._fail_load(load)
                    raise
                except Exception:
                    log.exception("carrying messages to node %s failed", lane.node_id)
                    self._fail(lane, load)
                else:
                    lane.pause_s = lane.closed_until = 0.0
                    self._tell(lane, load, began_ns)
                    self._answered(load, takens)
        finally:
            lane.is_running = False
            if lane.node_id not in self.cache.nodes:
                self._fail_turns(lane)
                self._lanes.pop(lane.node_id, None)

    def _load(self, lane: _Lane) -> _Load:
        """The next items, in order, up to the bounds of a call; spreads go by themselves."""
        load, size = _Load(), 0
        while lane.turns and size < _BYTES_A_CALL and len(load.messages) + len(load.spreads) < _ITEMS_A_CALL:
            turn = lane.turns[0]
            if isinstance(turn, _Spread):
                if load.messages:
                    break
                load.spreads.append(turn)
                size += turn.parcel.size + 8_192
            elif load.spreads or load.receivers >= _RECEIVERS_A_CALL:
                break
            elif turn.lane is lane and turn.queue:
                parcel, is_corrected = turn.queue.popleft()
                if parcel.seq:
                    self._note_sent(turn.device_no, lane.node_id)
                if not load.messages or load.messages[-1][0] is not parcel:
                    load.messages.append((parcel, []))
                    size += len(memoryview(parcel.raw)) if parcel.raw is not None else 0
                load.messages[-1][1].append((turn, is_corrected))
                turn.in_flight += 1
                load.receivers += 1
            lane.turns.popleft()
        return load

    async def _post(self, node_id: str, load: _Load) -> list[Taken]:
        """What became of the messages. Raises LinkFailed."""
        node = self.cache.nodes.get(node_id)
        if node is None:
            raise LinkFailed(f"node {node_id} is not listed any more", was_sent=False)
        if load.spreads:
            spreads = [wire.CarriedSpread(_raw(spread.parcel), spread.receivers) for spread in load.spreads]
            await self._client.post(node, "spread", wire.encode(spreads), _SPREAD_WITHIN_S)
            return []
        forwards = [
            wire.Carried(_raw(parcel), [receiver.device_no for receiver, _ in receivers], parcel.seq)
            for parcel, receivers in load.messages
        ]
        answer = await self._client.post(node, "forward", wire.encode(forwards), _FORWARD_WITHIN_S)
        try:
            takens: list[Taken] = _taken.decode(answer)
        except ValueError as error:
            raise LinkFailed(f"node {node_id}'s answer to forward: {error}", was_sent=True) from error
        if len(takens) != len(forwards):
            raise LinkFailed(f"node {node_id} answered {len(takens)} of {len(forwards)} messages", was_sent=True)
        return takens

    def _tell(self, lane: _Lane, load: _Load, began_ns: int, *, is_error: bool = False) -> None:
        """Of what was traced, that it was forwarded."""
        for parcel, receivers in load.messages:
            trace = parcel.message.trace
            if trace and trace[23] & SAMPLED:
                self._tell_forward(lane, parcel, began_ns, len(receivers), is_error)
        for spread in load.spreads:
            trace = spread.parcel.message.trace
            if trace and trace[23] & SAMPLED:
                self._tell_forward(lane, spread.parcel, began_ns, len(spread.receivers), is_error)

    def _tell_forward(self, lane: _Lane, parcel: _Parcel, began_ns: int, receivers: int, is_error: bool) -> None:
        message = parcel.message
        self._traces.hop(
            "link.forward",
            message.trace,
            began_ns=began_ns,
            is_error=is_error,
            message_id=message.message_id.hex(),
            to_node=lane.node_id,
            receivers=receivers,
        )

    def _answered(self, load: _Load, takens: list[Taken]) -> None:
        back: dict[_Receiver, list[_Item]] = {}
        for (parcel, receivers), taken in zip(load.messages, takens, strict=False):
            for receiver, is_corrected in receivers:
                receiver.in_flight -= 1
                items = back.setdefault(receiver, [])
                if not self._took(receiver, (parcel, is_corrected), taken):
                    items.append((parcel, is_corrected))
        for receiver, items in back.items():
            if items:
                self._send_back(receiver, items)
            else:
                self._forget_idle(receiver)
        for spread in load.spreads:
            self._settle(spread.parcel)

    def _fail(self, lane: _Lane, load: _Load) -> None:
        """A body may be lost: nothing more goes there until the nudges that are owed have been answered."""
        self.failed += 1
        lane.pause_s = min(max(2 * lane.pause_s, _CLOSED_FOR_S), _CLOSED_AT_MOST_S)
        lane.closed_until = self._clock.monotonic() + lane.pause_s
        self.cache.forget_node(lane.node_id)
        self._fail_load(load)
        self._fail_turns(lane)

    def _fail_load(self, load: _Load) -> None:
        for parcel, receivers in load.messages:
            for receiver, _ in receivers:
                receiver.in_flight -= 1
                self._miss(parcel, receiver.device_no)
                self._settle(parcel)
                self._forget_idle(receiver)
        for spread in load.spreads:
            self.dropped += 1
            self._settle(spread.parcel)

    def _fail_turns(self, lane: _Lane) -> None:
        while lane.turns:
            turn = lane.turns.popleft()
            if isinstance(turn, _Spread):
                self.dropped += 1
                self._settle(turn.parcel)
            elif turn.lane is lane and turn.queue:
                self._miss_all(turn)

    def _nodes_changed(self) -> None:
        nodes = self.cache.nodes
        self._client.keep_only({node.internal_url for node in nodes.values()})
        for lane in list(self._lanes.values()):
            if lane.node_id not in nodes and not lane.is_running:
                del self._lanes[lane.node_id]

    # -- spread ------------------------------------------------------------------------------------------------------

    async def _place_spreads(self) -> None:
        while self._spreads:
            parcel, receivers = self._spreads[0]
            try:
                shares = await self._places.shares(receivers)
            except StoreUnavailable:
                shares = {}
                self.dropped += 1
            except Exception:
                log.exception("looking up where a message to many goes to failed")
                shares = {}
                self.dropped += 1
            self._spreads.popleft()
            for node_id, share in shares.items():
                parcel.left += 1
                self._queue(self._lane(node_id), _Spread(parcel, share))
            self._settle(parcel)
        self._is_spreading = False

    # -- tasks -------------------------------------------------------------------------------------------------------

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("carrying messages to other nodes failed", exc_info=error)


def _raw(parcel: _Parcel) -> Raw:
    assert parcel.raw is not None
    return parcel.raw
