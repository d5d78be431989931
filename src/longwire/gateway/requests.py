"""REQUEST: a device calls a method of the application, and gets a REPLY."""

from longwire.application import Context, Longwire, RequestHandler, call
from longwire.clock import Clock
from longwire.gateway.sending import Sending
from longwire.gateway.session import DeviceConnection, Session
from longwire.gateway.tasks import Tasks
from longwire.limits import Limits
from longwire.reasons import Status
from longwire.traces import CALL, NO_TRACES, Call, Traces, is_sampled
from longwire.wire.packets import Received, Reply, Request

# What a REPLY takes beside its payload and detail, at the most.
_REPLY_OVERHEAD_BYTES = 1_024
_MAX_DETAIL_CHARACTERS = 200


class Requests:
    """Calls in place, bounded per session and per node."""

    def __init__(
        self,
        app: Longwire,
        sending: Sending,
        clock: Clock,
        limits: Limits,
        tasks: Tasks,
        traces: Traces = NO_TRACES,
    ) -> None:
        self._traces = traces
        self._app = app
        self._sending = sending
        self._clock = clock
        self._limits = limits
        self._tasks = tasks

    def requested(self, connection: DeviceConnection, frame: Received) -> None:
        """REQUEST."""
        session = connection.session
        packet = frame.packet
        assert session is not None
        assert isinstance(packet, Request)
        if self._sending.spend(session):
            _reply(connection, frame, Status.RATE_LIMITED, f"more than {self._limits.sends_per_s} a second")
        elif packet.timeout_ms < 1:
            _reply(connection, frame, Status.BAD_REQUEST, "timeout_ms is less than 1")
        elif (handler := self._app.find_request(packet.method)) is None:
            _reply(connection, frame, Status.UNSUPPORTED, "no such method is declared")
        elif not self._sending.begin_call(session):
            _reply(connection, frame, Status.OVERLOADED, "too many calls run")
        else:
            self._tasks.start(self._run(session, connection, frame, packet, handler), "a request")

    async def _run(
        self,
        session: Session,
        connection: DeviceConnection,
        frame: Received,
        packet: Request,
        handler: RequestHandler,
    ) -> None:
        began_ns, trace = 0, frame.trace
        if trace or self._traces.has_marks:
            began_ns = self._traces.now_ns()
            trace = self._traces.enter(trace, devices=(session.device_no,))
            CALL.set(Call(trace=trace) if trace else None)  # of this task
        try:
            context = Context(
                kind=packet.method,
                device_id=session.device_id,
                device_no=session.device_no,
                sent_at_ms=self._clock.now_ms(),
                services=self._app.services,
                user=session.user,
                trace=trace,
            )
            result = await call(handler, packet.payload, context, within_s=packet.timeout_ms / 1000)
        finally:
            self._sending.end_call(session)
        if is_sampled(trace):
            self._traces.hop(
                "request.handled",
                trace,
                began_ns=began_ns,
                parent=frame.trace[16:],
                is_error=not result.status.is_success,
                device_id=session.device_id,
                status=result.status.label,
            )
        limit = self._limits.max_body_bytes - _REPLY_OVERHEAD_BYTES
        if len(result.payload) > limit:
            detail = f"the reply of {len(result.payload)} bytes exceeds {limit}"
            _reply(connection, frame, Status.HANDLER_FAILED, detail)
        else:
            connection.send(
                Reply(int(result.status), result.payload, result.detail[:_MAX_DETAIL_CHARACTERS]), frame.correlation
            )


def _reply(connection: DeviceConnection, frame: Received, status: Status, detail: str) -> None:
    connection.send(Reply(int(status), b"", detail), frame.correlation)
