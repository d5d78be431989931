"""The trace of an API caller: from its ``traceparent`` to the device, by every way that a message takes."""

from typing import Any

import pytest
from push_fleet import Fleet, Operator

from longwire.traces import is_sampled

TRACE_ID, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE_ID}-{PARENT}-01"


@pytest.mark.parametrize("is_there", [True, False])
async def test_the_trace_of_a_caller_reaches_the_device(node, is_there) -> None:
    """Native and WebSocket; live and on coming back. The span is the node's own, and says that the trace is sampled."""
    traces: dict[tuple[str, str], bytes] = {}
    async with Fleet(node, ["d-0", "d-1"]) as fleet, Operator(node) as operator:
        keep = fleet._take

        def take(name: str, message: Any) -> None:
            traces[name, message.kind] = message.trace
            keep(name, message)

        fleet._take = take  # type: ignore[method-assign]
        if is_there:
            await fleet.come()
        body = {"audience": {"all": True}, "message": {"kind": "push"}}
        await operator.call("POST", "/v1/pushes", body, 202, traceparent=TRACEPARENT)
        for name in fleet.names:
            message = {"to": f"device:{name}", "kind": "message"}
            await operator.call("POST", "/v1/messages", message, 202, traceparent=TRACEPARENT)
            message["kind"] = "untraced"
            await operator.call("POST", "/v1/messages", message, 202, traceparent="00-zz-1-1")
        if not is_there:
            await fleet.come()
        for kind in ("push", "message", "untraced"):
            await fleet.got(kind, 2)
    assert traces.keys() == {(name, kind) for name in fleet.names for kind in ("push", "message", "untraced")}
    for (_, kind), trace in traces.items():
        if kind == "untraced":
            assert trace[:16].hex() != TRACE_ID
            assert not is_sampled(trace)
        else:
            assert trace[:16].hex() == TRACE_ID
            assert trace[16:].hex() != PARENT
            assert is_sampled(trace)
