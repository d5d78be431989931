"""`python -m bench.selfcheck`: does the generator notice?

A small honest server, and the same one telling one kind of lie at every seventh message. The generator must count every
lie under its name and nothing else, or its clean results mean nothing. The server shares no code with the generator
or with Longwire (bench/liar.py). Here are the checks of messages from device to device; those of fan-out, of pushes
and of HTTP calls are in bench/selfcheck_push.py.
"""

import asyncio
import sys
import time

from rich.console import Console
from websockets.asyncio.server import serve
from websockets.typing import Subprotocol

from bench import generator, selfcheck_push
from bench.liar import DEVICES, Liar, expect, listening, lwload, websocket_peer

STALL_S = 0.4


# Under which name each lie must be found.
_FOUND_AS = {
    "": None,
    "loses": "lost",
    "repeats": "duplicates",
    "corrupts": "corrupt",
    "forges": "corrupt",
    "misroutes": "misrouted",
    "swaps": "out_of_order",
}
_COUNTS = ("lost_confirmed", "delivered_though_refused", "stray_receipts", "foreign", "unsendable")


async def _check_lie(lie: str, receipt: int) -> list[str]:
    """One run against one lie: the failures, none if the generator saw exactly what was done to it."""
    liar, failures = Liar(lie), list[str]()
    async with listening(liar) as port:
        result = await lwload("relay", port, "native", in_flight=DEVICES, receipt=receipt)
    expected = dict.fromkeys(("lost", "duplicates", "corrupt", "misrouted", "out_of_order", *_COUNTS), 0)
    name = _FOUND_AS[lie]
    # What is swapped comes after its successor; the last ones may have none to come after.
    held = len(liar.held)
    if name:
        expected[name] = liar.lies - (held if lie == "swaps" else 0)
    if lie in ("corrupts", "forges", "misroutes"):
        expected["lost"] = liar.lies  # they did not arrive as they were sent
    if lie == "swaps":
        expected["lost"] = held
    if receipt:
        expected["lost_confirmed"] = expected["lost"]
    for field, count in expected.items():
        expect(failures, field, result[field], count)
    expect(failures, "sent", result["sent"], liar.sends)
    expect(failures, "told any lie", liar.lies > 0, True)
    expect(failures, "answered PINGs", liar.pongs, DEVICES)
    # Whatever comes with flag 2 is acknowledged, a repeat too.
    pushed = liar.sends + (liar.lies if lie == "repeats" else -liar.lies if lie == "loses" else 0) - held
    expect(failures, "acks", liar.acks, pushed if receipt else 0)
    return failures


async def _check_refusal() -> list[str]:
    liar, failures = Liar("refuses"), list[str]()
    async with listening(liar) as port:
        result = await lwload("relay", port, "native", in_flight=DEVICES, receipt=1)
    expect(failures, "statuses", result["sent_statuses"], {"0": liar.sends - liar.lies, "13": liar.lies})
    expect(failures, "lost", result["lost"], 0)
    return failures


async def _check_close() -> list[str]:
    liar, failures = Liar("closes"), list[str]()
    async with listening(liar) as port:
        result = await lwload("relay", port, "native", rate=100)
    left = generator.number(result, "connected")
    expect(failures, "closes", result["closes"], {"4004": DEVICES - left})
    expect(failures, "some were closed", left < DEVICES, True)
    return failures


async def _check_stall() -> list[str]:
    """While the server stands still, an open loop's clock runs: all that was due in that time has waited."""
    liar, failures = Liar(""), list[str]()
    async with listening(liar) as port:
        running = asyncio.create_task(lwload("relay", port, "native", rate=1000))
        await asyncio.sleep(0.5)
        time.sleep(STALL_S)  # noqa: ASYNC251 – the stall is the point
        result = await running
    # A tenth of the run or more was due in the first quarter of the stall.
    expect(failures, "p90 shows the stall", generator.number(result, "latency", "p90_us") > STALL_S * 0.5e6, True)
    expect(failures, "all arrived", result["received"], 1000)
    return failures


async def _check_websocket() -> list[str]:
    liar, failures = Liar(""), list[str]()
    protocols = [Subprotocol("longwire.v1")]
    async with serve(lambda c: websocket_peer(liar, c), "127.0.0.1", 0, subprotocols=protocols) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        for payload in (32, 1000, 40000):  # each of the ways to write a length
            result = await lwload("relay", port, "websocket", in_flight=5, receipt=1, payload=payload)
            never, told = generator.faults(result)
            expect(failures, f"faults at {payload} bytes", never + told, [])
            expect(failures, "received some", generator.number(result, "received") > 0, True)
    return failures


async def _all_checks() -> int:
    results = {
        f"{lie or 'honest'}, receipt {receipt}": await _check_lie(lie, receipt)
        for lie in _FOUND_AS
        for receipt in (0, 1)
    }
    results["refuses"] = await _check_refusal()
    results["closes"] = await _check_close()
    results["stalls"] = await _check_stall()
    results["honest, in WebSocket"] = await _check_websocket()
    results |= await selfcheck_push.all_checks()
    console = Console()
    for name, failures in results.items():
        console.print(f"{'FAILED' if failures else 'ok':<8}{name}  {'; '.join(failures)}", highlight=False)
    return 1 if any(results.values()) else 0


if __name__ == "__main__":
    generator.build()
    sys.exit(asyncio.run(_all_checks()))
