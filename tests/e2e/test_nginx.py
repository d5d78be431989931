"""Behind a real nginx, on the files of deploy/nginx: whose connections and calls they are, and what goes through."""

import asyncio
import ipaddress
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest
from certificates import self_signed
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from raw_peer import FLAVOURS, Peer

from longwire.api.services import ApiSettings
from longwire.app import build
from longwire.app.http_server import BoundedHeadProtocol, HttpServer
from longwire.reasons import CloseCode
from longwire.testing.engines import Nginx
from longwire.testing.nginx_config import nginx_config
from longwire.wire.packets import Connect, Connected
from longwire.wire.proxy_protocol import SIGNATURE

TRUSTED = frozenset({"127.0.0.1"})
PROXIED = {"proxy_protocol": True, "trusted_proxies": TRUSTED}
FORGED = {"X-Forwarded-For": "203.0.113.66"}


def own_address() -> str:
    """An address of this machine that is not loopback, for nginx to see clients come from."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            asking.connect(("192.0.2.254", 9))
        except OSError:
            pytest.skip("this machine has no address but loopback")
        return str(asking.getsockname()[0])


OUTSIDE = own_address()


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[Callable[..., Nginx]]:
    """``nginx(apis, nodes, certificate)``: the running engine; all are stopped at the end."""
    running: list[Nginx] = []

    def begin(apis=("127.0.0.1:1",), nodes=("127.0.0.1:1",), certificate=None) -> Nginx:
        engine = Nginx(tmp_path / f"nginx-{len(running)}", nginx_config(apis, nodes, certificate))
        running.append(engine)
        return engine.start()

    yield begin
    for engine in running:
        engine.stop()


class Behind:
    """A process with two devices, and an nginx in front of it."""

    def __init__(self, node, nginx: Nginx, tokens: dict[str, str]) -> None:
        self.node, self.nginx, self.tokens = node, nginx, tokens
        self.peers: list[Peer] = []

    @property
    def hub(self):
        return self.node.process.system.node.hub

    async def peer(self, way: str = "stream", flavour: str = "native", **how) -> Peer:
        ports = {"http": self.nginx.ports[0], "stream": self.nginx.ports[1]}
        ports["node"] = self.node.process.system.node.port_number
        port = self.nginx.ports[2] if how.get("tls") else ports[way]
        peer = await Peer.open(port, flavour, **how)
        self.peers.append(peer)
        return peer

    async def connected(self, device_id: str, **how) -> Peer:
        peer = await self.peer(**how)
        await peer.connect(device_id, self.tokens[device_id])
        return peer

    def address_of(self, device_id: str) -> str:
        session = self.hub.find_by_id(device_id)
        assert session is not None
        return session.connection.peer_address

    def stop(self) -> None:
        for peer in self.peers:
            peer.writer.transport.abort()


@pytest.fixture
async def behind(start, nginx) -> AsyncIterator[Callable[..., object]]:
    made: list[Behind] = []

    async def begin(certificate=None, **flags) -> Behind:
        node = await start(**flags)
        device = f"127.0.0.1:{node.process.system.node.port_number}"
        # Twice, because nginx never puts the only one aside.
        front = nginx([node.http_url.removeprefix("http://")], [device, device], certificate)
        body = {"items": [{"device_id": f"d-{n}"} for n in range(6)]}
        answer = await node.api.post("/v1/devices/batch", json=body)
        tokens = {item["device_id"]: item["token"] for item in answer.json()["items"]}
        made.append(Behind(node, front, tokens))
        return made[-1]

    yield begin
    for one in made:
        one.stop()


# Devices


@pytest.mark.parametrize("flavour", FLAVOURS)
async def test_devices_that_come_through_the_stream_keep_their_addresses(behind, flavour) -> None:
    world = await behind(**PROXIED)
    outside = await world.connected("d-0", flavour=flavour, source=OUTSIDE, headers=FORGED)
    assert world.address_of("d-0") == OUTSIDE
    await world.connected("d-1", flavour=flavour, source="127.0.0.2", headers=FORGED)
    assert world.address_of("d-1") == "127.0.0.2"
    await outside.ping()
    assert world.node.process.system.node.device_port.proxy_refusals == 0


@pytest.mark.parametrize("flavour", ["binary", "json"])
@pytest.mark.parametrize("proxied", [True, False])
async def test_websockets_that_come_through_http_keep_their_addresses(behind, flavour, proxied) -> None:
    world = await behind(proxy_protocol=proxied, trusted_proxies=TRUSTED)
    peer = await world.connected("d-0", way="http", flavour=flavour, source=OUTSIDE, headers=FORGED)
    assert world.address_of("d-0") == OUTSIDE
    await peer.ping()


async def test_tls_ends_in_nginx(behind, tmp_path) -> None:
    certificate = self_signed(tmp_path)
    world = await behind(certificate, **PROXIED)
    peer = await world.connected("d-0", source=OUTSIDE, tls=ssl.create_default_context(cafile=str(certificate[0])))
    assert world.address_of("d-0") == OUTSIDE
    await peer.ping()


@pytest.mark.parametrize("way", ["stream", "http"])
async def test_the_limit_of_an_address_is_the_clients_and_not_the_proxys(behind, way) -> None:
    world = await behind(**PROXIED, **{"limits.max_connections_per_address": 2})
    how = {"way": way, "flavour": "native" if way == "stream" else "binary"}
    ours = [await world.connected(f"d-{n}", source=OUTSIDE, **how) for n in range(2)]
    if way == "stream":
        third = await world.peer(source=OUTSIDE, **how)
        third.send(Connect(world.tokens["d-2"], "d-2"), 1)
        close = await third.ended()
        assert close.code == CloseCode.OVERLOADED
        assert "2 connections of one address" in close.reason
    else:
        for _ in range(5):
            answer = await upgrade(world.nginx.ports[0])
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"2 connections of one address" in answer
    # Others are not held to it, and a place that is given up is free.
    for n in range(2, 5):
        await world.connected(f"d-{n}", source="127.0.0.2", **how)
    await ours[0].drop()
    async with asyncio.timeout(20):
        while len(world.hub) > 4:
            await asyncio.sleep(0.005)
    await world.connected("d-5", source=OUTSIDE, **how)
    assert world.address_of("d-5") == OUTSIDE


async def upgrade(port: int) -> bytes:
    """The answer to a WebSocket's upgrade that comes from outside."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(OUTSIDE, 0))
    writer.write(
        b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    try:
        return await asyncio.wait_for(reader.read(4_096), 20)
    finally:
        writer.close()


async def test_a_load_balancer_that_speaks_version_2_is_understood_beside_nginx(behind) -> None:
    world = await behind(**PROXIED, **{"limits.max_connections_per_address": 1})
    tlvs = b"\x05\x00\x04uuid"
    addresses = ipaddress.ip_address("203.0.113.7").packed + ipaddress.ip_address("198.51.100.1").packed + bytes(4)
    header = SIGNATURE + struct.pack(">BBH", 0x21, 0x11, len(addresses + tlvs)) + addresses + tlvs
    await world.connected("d-0", way="node", first=header)
    assert world.address_of("d-0") == "203.0.113.7"
    second = await world.peer(way="node", first=header)
    second.send(Connect(world.tokens["d-1"], "d-1"), 1)
    assert (await second.ended()).code == CloseCode.OVERLOADED
    # Its health checks are its own, and none of a client's.
    for n in range(2, 5):
        await world.connected(f"d-{n}", way="node", first=SIGNATURE + b"\x20\0\0\0")


async def test_an_nginx_that_is_not_trusted_is_refused_and_told_why(behind, caplog) -> None:
    world = await behind(proxy_protocol=True, trusted_proxies=frozenset({"10.0.0.0/8"}))
    peer = await world.peer(source=OUTSIDE)
    peer.send(Connect(world.tokens["d-0"], "d-0"), 1)
    close = await peer.ended()
    assert close.code == CloseCode.PROTOCOL_ERROR
    assert close.reason == "PROXY header from 127.0.0.1, which is not in trusted_proxies"
    assert close.reason in caplog.text
    # What it forwards as HTTP counts as its own.
    await world.connected("d-0", way="http", flavour="binary", source=OUTSIDE)
    assert world.address_of("d-0") == "127.0.0.1"


async def test_a_node_that_is_away_is_passed_over(start, nginx) -> None:
    node = await start(**PROXIED)
    await node.api.post("/v1/devices/batch", json={"items": [{"device_id": "d-0"}]})
    front = nginx(nodes=["127.0.0.1:1", f"127.0.0.1:{node.process.system.node.port_number}"])
    answer = await node.api.post("/v1/devices/batch", json={"items": [{"device_id": f"e-{n}"} for n in range(4)]})
    for item in answer.json()["items"]:
        peer = await Peer.open(front.ports[1])
        assert isinstance(await peer.connect(item["device_id"], item["token"]), Connected)
        await peer.drop()


# Calls


@pytest.fixture
async def echo(monkeypatch) -> AsyncIterator[Callable[..., object]]:
    """``await echo(trusted)``: an HTTP port that tells who calls it, counts connections, and streams slowly."""
    connections = 0
    made = BoundedHeadProtocol.connection_made

    def count(self, transport) -> None:
        nonlocal connections
        connections += 1
        made(self, transport)

    monkeypatch.setattr(BoundedHeadProtocol, "connection_made", count)
    goes_on = asyncio.Event()
    app = FastAPI()

    @app.get("/who")
    async def who(request: Request) -> list[object]:
        return [request.client.host, request.url.scheme, request.headers["host"], connections]

    @app.post("/size")
    async def size(request: Request) -> int:
        return len(await request.body())

    @app.get("/events")
    async def events() -> StreamingResponse:
        async def tell() -> AsyncIterator[str]:
            yield "data: first\n\n"
            await goes_on.wait()
            yield "data: last\n\n"

        return StreamingResponse(tell(), media_type="text/event-stream")

    servers: list[HttpServer] = []

    async def begin(trusted=TRUSTED) -> HttpServer:
        server = HttpServer(app, "127.0.0.1", 0, trusted)
        await server.start()
        server.goes_on = goes_on
        servers.append(server)
        return server

    yield begin
    goes_on.set()
    for server in servers:
        await server.stop()


def client_of(port: int, source: str = OUTSIDE) -> httpx.AsyncClient:
    transport = httpx.AsyncHTTPTransport(local_address=source)
    return httpx.AsyncClient(transport=transport, base_url=f"http://127.0.0.1:{port}")


async def test_a_calls_client_is_who_called_nginx_whatever_it_says(echo, nginx) -> None:
    server = await echo()
    front = nginx([f"127.0.0.1:{server.port}"])
    for source in (OUTSIDE, "127.0.0.2"):
        async with client_of(front.ports[0], source) as client:
            for headers in ({}, FORGED, {"Forwarded": "for=203.0.113.66", "X-Real-IP": "203.0.113.66"}):
                host, scheme, name, _ = (await client.get("/who", headers=headers)).json()
                assert (host, scheme, name) == (source, "http", f"127.0.0.1:{front.ports[0]}")


async def test_calls_are_rationed_by_the_address_of_who_called_nginx(behind, monkeypatch) -> None:
    few = partial(ApiSettings, device_calls_per_s_per_address=0.001, device_call_burst_per_address=2)
    monkeypatch.setattr(build, "ApiSettings", few)
    world = await behind(**PROXIED)
    statuses = []
    async with client_of(world.nginx.ports[0]) as client:
        for n in range(4):
            headers = {"X-Forwarded-For": f"203.0.113.{n}", "Authorization": f"Bearer {world.tokens['d-0']}"}
            statuses.append((await client.get("/device/v1/node", headers=headers)).status_code)
    assert statuses == [200, 200, 429, 429]


async def test_a_chain_of_trusted_proxies_is_read_from_its_end(echo, nginx) -> None:
    server = await echo(frozenset({"127.0.0.1", f"{OUTSIDE}/32"}))
    front = nginx([f"127.0.0.1:{server.port}"])
    async with client_of(front.ports[0]) as client:
        headers = {"X-Forwarded-For": "203.0.113.66, 203.0.113.7"}
        assert (await client.get("/who", headers=headers)).json()[0] == "203.0.113.7"


async def test_without_trust_every_call_is_nginxs(echo, nginx) -> None:
    server = await echo(frozenset())
    front = nginx([f"127.0.0.1:{server.port}"])
    async with client_of(front.ports[0]) as client:
        assert (await client.get("/who", headers=FORGED)).json()[0] == "127.0.0.1"
    async with client_of(server.port, "127.0.0.1") as client:
        assert (await client.get("/who", headers=FORGED)).json()[0] == "127.0.0.1"


async def test_nginx_keeps_its_connections_to_the_api(echo, nginx) -> None:
    server = await echo()
    front = nginx([f"127.0.0.1:{server.port}"])
    for _ in range(20):
        async with client_of(front.ports[0]) as client:
            connections = (await client.get("/who")).json()[3]
    # One a worker at most, where every call has a connection of its own to nginx.
    assert connections <= 8


async def test_events_and_uploads_pass_through(echo, nginx) -> None:
    server = await echo()
    front = nginx([f"127.0.0.1:{server.port}"])
    async with client_of(front.ports[0]) as client:
        async with client.stream("GET", "/events", timeout=20) as answer:
            lines = answer.aiter_text()
            assert await anext(lines) == "data: first\n\n"
            server.goes_on.set()
            assert await anext(lines) == "data: last\n\n"
        large = b"x" * (20 << 20)
        assert (await client.post("/size", content=large)).json() == len(large)


async def test_an_api_that_is_away_is_passed_over(echo, nginx) -> None:
    server = await echo()
    front = nginx(["127.0.0.1:1", f"127.0.0.1:{server.port}"])
    async with client_of(front.ports[0]) as client:
        for _ in range(5):
            assert (await client.get("/who")).status_code == 200
