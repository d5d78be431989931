"""TLS on the device port, and where a node is to be reached."""

import datetime as dt
import ipaddress
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from client_fake_node import Backend, FakeNode
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from longwire.client import Device, State
from longwire.client.account import Node
from longwire.client.address import endpoint_of, parse_address
from longwire.client.transport import Endpoint
from longwire.errors import LocalProtocolError

MakeDevice = Callable[..., Device]


@pytest.fixture
def contexts(tmp_path: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context with a certificate for 127.0.0.1, and a client's that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "node")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (tmp_path / "cert.pem").write_bytes(certificate.public_bytes(pem))
    (tmp_path / "key.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    return server, ssl.create_default_context(cafile=tmp_path / "cert.pem")


async def test_a_device_speaks_tls_over_either_transport(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], make_device: MakeDevice, backend: Backend, transport: str
) -> None:
    server, client = contexts
    async with (
        FakeNode(backend, tls=server) as node,
        make_device(transport=transport, address=node.address, tls=client) as device,
    ):
        await device.send("", b"x" * 50_000)
    assert len(backend.accepted[0].payload) == 50_000


async def test_a_certificate_that_is_not_trusted_is_no_connection(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], make_device: MakeDevice, backend: Backend
) -> None:
    server, _ = contexts
    async with FakeNode(backend, tls=server) as node:
        async with make_device(address=node.address, tls=True) as device:
            assert device.state is State.WAITING
            assert "certificate" in device.last_close.reason
        assert node.connects == []


def test_tls_never_falls_back_to_plain() -> None:
    context = ssl.create_default_context()
    node = Node("n1", "h", 7300, None, "ws://h:7300/ws")
    with pytest.raises(OSError, match="no TLS port"):
        endpoint_of(node, "tcp", context)
    with pytest.raises(OSError, match="no TLS port"):
        endpoint_of(node, "websocket", context)


@pytest.mark.parametrize(
    ("transport", "is_tls", "endpoint"),
    [
        ("tcp", False, Endpoint("n1", "h", 7300)),
        ("tcp", True, Endpoint("n1", "h", 7301)),
        ("websocket", False, Endpoint("n1", "proxy", 80, "/ws?x=1")),
        ("websocket", True, Endpoint("n1", "h", 7301, "/ws?x=1")),
    ],
)
def test_the_endpoint_is_the_one_for_transport_and_tls(transport: str, is_tls: bool, endpoint: Endpoint) -> None:
    node = Node("n1", "h", 7300, 7301, "ws://proxy/ws?x=1")
    context = ssl.create_default_context() if is_tls else None
    assert endpoint_of(node, transport, context) == endpoint


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [("h:7", "h", 7), ("h", "h", 7300), ("[::1]:7", "::1", 7), ("ws://h/ws", "h", 80), ("wss://h/ws", "h", 443)],
)
def test_addresses_as_people_write_them(address: str, host: str, port: int) -> None:
    node = parse_address(address)
    assert (node.host, node.port) == (host, port)


@pytest.mark.parametrize("address", ["", ":7", "http://h", "h:x", "h/path", "h:70000"])
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(LocalProtocolError):
        parse_address(address)
