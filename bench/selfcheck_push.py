"""Does the generator notice lies in fan-out, in pushes, and in the answers of an HTTP server? For `bench.selfcheck`."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.generator import Result, number
from bench.liar import DEVICES, EVERY, Liar, expect, listening, lwload

RECEIVERS = DEVICES - 1
PUSHES = 3 * EVERY
IN_FLIGHT = 6
CALLERS = DEVICES
ITEMS = 3  # results in each answer of the HTTP server

# Under which name each lie must be found; the flaw is one delivery's each time.
_IN_FAN_OUT = {
    "": None,
    "loses": "lost",
    "repeats": "duplicates",
    "corrupts": "corrupt",
    "forges": "corrupt",
    "renames": "corrupt",
    "asks": "corrupt",
    "misroutes": "misrouted",
    "swaps": "out_of_order",
}
_IN_PUSHES = {"": None, "loses": None, "repeats": "duplicates", "corrupts": "corrupt"}
_ALL = ("lost", "duplicates", "corrupt", "misrouted", "out_of_order", "foreign", "unsendable", "failed_connects")


async def _check_fan_out(lie: str, in_flight: int) -> list[str]:
    liar, failures = Liar(lie), list[str]()
    async with listening(liar) as port:
        result = await lwload("fanout", port, "native", group="all", in_flight=in_flight)
    held = len(liar.held)  # the last message had none to come after
    expected = dict.fromkeys(_ALL, 0)
    name = _IN_FAN_OUT[lie]
    if name:
        expected[name] = liar.lies - held
    if name == "corrupt":
        expected["lost"] = liar.lies  # it did not arrive as it was sent
    expected["lost"] += held
    for field, count in expected.items():
        expect(failures, field, result[field], count)
    expect(failures, "sent", result["sent"], liar.sends)
    expect(failures, "wanted", result["wanted"], liar.sends * RECEIVERS)
    expect(failures, "received", result["received"], liar.sends * RECEIVERS - expected["lost"])
    expect(failures, "told any lie", liar.lies > 0, True)
    expect(failures, "acks", liar.acks, 0)
    return failures


async def _check_lost_receiver() -> list[str]:
    """Nobody waits for a device that is gone: the others go on at full speed, and the end is told."""
    liar, failures = Liar(""), list[str]()

    async def cut() -> None:
        await asyncio.sleep(0.5)
        liar.peers.pop("dev-000007").close()

    async with listening(liar) as port:
        running = asyncio.create_task(cut())
        result = await lwload("fanout", port, "native", group="all", in_flight=1)
        await running
    expect(failures, "closes", result["closes"], {"ended_without_close": 1})
    expect(failures, "one message at most was waited for", number(result, "given_up") <= 1, True)
    expect(failures, "went on", number(result, "sent") > 100, True)
    return failures


async def _check_pushes(lie: str) -> list[str]:
    """Pushes to the fleet; at every seventh one device is lied to. Meanwhile the devices write to each other."""
    liar, failures = Liar(lie), list[str]()
    liar.lie = ""  # the relay is honest

    async def post(stdin: asyncio.StreamWriter) -> None:
        await liar.all_here.wait()
        stdin.write(b"quiet\n")
        await asyncio.sleep(0.2)
        stdin.write(b"push\n")
        for push in range(1, PUSHES + 1):
            liar.broadcast(push, lie if push % EVERY == 0 else "")
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)

    async with listening(liar) as port:
        result = await lwload("push", port, "native", stdin=post, rate=500)
    lies = PUSHES // EVERY
    expected = dict.fromkeys(_ALL, 0)
    name = _IN_PUSHES[lie]
    if name:
        expected[name] = lies
    for field, count in expected.items():
        expect(failures, field, result[field], count)
    copies = DEVICES * PUSHES + {"repeats": lies, "loses": -lies}.get(lie, 0)
    expect(failures, "deliveries", result["deliveries"], copies)
    expect(failures, "acks", result["acks"], copies)
    expect(failures, "acks that came", liar.acks, copies)
    expect(failures, "without acknowledgement", result["without_ack"], 0)
    _check_lists(failures, lie, result)
    _check_phases(failures, liar, result)
    return failures


def _check_lists(failures: list[str], lie: str, result: Result) -> None:
    pushes = result["pushes"]
    assert isinstance(pushes, list)
    expect(failures, "pushes", [int(push["id"], 16) for push in pushes], list(range(1, PUSHES + 1)))
    for push in pushes:
        at = int(push["id"], 16)
        # Who got another content than the first one has not got it.
        missed = lie in ("loses", "corrupts") and at % EVERY == 0
        expect(failures, f"devices of {at}", push["devices"], DEVICES - missed)
        expect(failures, f"payload of {at}", bytes.fromhex(push["payload_hex"]), f"push {at}".encode())
        expect(failures, f"times of {at}", 0 < push["first_us"] <= push["last_us"], True)


def _check_phases(failures: list[str], liar: Liar, result: Result) -> None:
    relay = result["relay"]
    assert isinstance(relay, dict)
    expect(failures, "relayed", (relay["sent"], relay["received"]), (liar.sends, liar.sends))
    phases = relay["phases"]
    expect(failures, "phases", list(phases), ["quiet", "push"])
    for name, phase in phases.items():
        expect(failures, f"{name}: each has a latency", phase["latency"]["count"], phase["sent"])
        expect(failures, f"{name}: some", phase["sent"] > 50, True)


async def _check_receiver_names() -> list[str]:
    """A message that says for whom it is, and comes to another."""
    liar, failures = Liar(""), list[str]()

    async def post(_: asyncio.StreamWriter) -> None:
        await liar.all_here.wait()
        for push, (name, peer) in enumerate(liar.peers.items()):
            said = "dev-999999" if push % EVERY == 0 else name
            liar.tell(peer, push, f"this is for {said}".encode())
        await asyncio.sleep(0.2)

    async with listening(liar) as port:
        result = await lwload("push", port, "native", stdin=post, names_receiver=1, lists=0)
    expect(failures, "misrouted", result["misrouted"], len(range(0, DEVICES, EVERY)))
    expect(failures, "distinct", result["distinct"], DEVICES)
    expect(failures, "corrupt", result["corrupt"], 0)
    return failures


class _HttpLiar:
    """Answers every POST; at each seventh it does not do what was asked."""

    def __init__(self, lie: str) -> None:
        self.lie = lie
        self.calls = self.lies = self.gone = 0
        self.all_gone = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
                body = json.loads(await reader.readexactly(length))
                writer.write(self._answer(body))
                await writer.drain()
                await asyncio.sleep(0.001)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()
            self.gone += 1
            if self.gone == CALLERS:
                self.all_gone.set()

    def _answer(self, body: dict[str, str]) -> bytes:
        self.calls += 1
        lie = self.lie if self.calls % EVERY == 0 else ""
        self.lies += self.calls % EVERY == 0
        done = [{"message_id": body["to"]}] * ITEMS
        if lie == "does less":
            done = [{"message_id": body["to"]}, *[{"problem": "overloaded"}] * (ITEMS - 1)]
        text = json.dumps({"items": done} if lie != "refuses" else {"code": "overloaded"})
        status = "503 Service Unavailable" if lie == "refuses" else "202 Accepted"
        return f"HTTP/1.1 {status}\r\nx: y\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode()


@asynccontextmanager
async def _http(liar: _HttpLiar) -> AsyncIterator[int]:
    server = await asyncio.start_server(liar.serve, "127.0.0.1", 0)
    async with server:
        yield int(server.sockets[0].getsockname()[1])
        await asyncio.wait_for(liar.all_gone.wait(), 5)


async def _check_calls(lie: str) -> list[str]:
    liar, failures = _HttpLiar(lie), list[str]()
    with TemporaryDirectory(prefix="longwire-bench-") as folder:
        bodies = Path(folder) / "bodies"
        bodies.write_text("".join(json.dumps({"to": f"dev-{i}"}) + "\n" for i in range(50)))
        async with _http(liar) as port:
            result = await lwload("post", port, "native", path="/v1/x", key="k", bodies=bodies, count='"message_id"')
    undone = {"": 0, "does less": ITEMS - 1, "refuses": ITEMS}[lie] * liar.lies
    expect(failures, "sent", result["sent"], liar.calls)
    expect(failures, "unanswered", result["unanswered"], 0)
    expect(failures, "counted", result["counted"], liar.calls * ITEMS - undone)
    refused = liar.lies if lie == "refuses" else 0
    statuses = {"202": liar.calls - refused} | ({"503": refused} if refused else {})
    expect(failures, "statuses", result["statuses"], statuses)
    expect(failures, "went on", liar.calls > CALLERS * 10, True)
    return failures


async def all_checks() -> dict[str, list[str]]:
    """Each check with what it found wrong about the generator."""
    results = {
        f"fan-out, {lie or 'honest'}, {in_flight} in flight": await _check_fan_out(lie, in_flight)
        for lie in _IN_FAN_OUT
        for in_flight in ((IN_FLIGHT,) if lie == "swaps" else (1, IN_FLIGHT))
    }
    results["fan-out, a receiver goes"] = await _check_lost_receiver()
    results |= {f"pushes, {lie or 'honest'}": await _check_pushes(lie) for lie in _IN_PUSHES}
    results["messages that name their receiver"] = await _check_receiver_names()
    results |= {f"calls, {lie or 'honest'}": await _check_calls(lie) for lie in ("", "does less", "refuses")}
    return results
