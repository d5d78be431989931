"""One POST: what counts as taken, and what a receiver may do to us."""

import asyncio
import datetime as dt
import ipaddress
import ssl
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from webhook_world import HANG, Receiver

from longwire.testing import ManualClock
from longwire.webhooks.posting import Posted, Poster, PostSettings
from longwire.webhooks.signing import sign

NAME = "shop.example"


def lookup_of(*answers: Sequence[str]):
    """Says one answer after the other, the last one again and again."""
    left = list(answers)

    async def lookup(host: str, port: int) -> Sequence[str]:
        return left.pop(0) if len(left) > 1 else left[0]

    return lookup


async def post(url: str, **settings: object) -> Posted:
    poster = Poster(url, PostSettings(**{"allows_private": True, "timeout_s": 5.0} | settings), ManualClock())
    try:
        return await poster.post("secret", "dlv_1", b"{}")
    finally:
        await poster.close()


async def test_a_post_is_signed_and_says_what_it_is(receiver) -> None:
    posted = await post(receiver.url())
    assert (posted.status, posted.error, posted.is_taken) == (200, "", True)
    (got,) = receiver.got
    assert got.head == "POST /hook?a=1 HTTP/1.1"
    assert got.body == b"{}"
    assert got.headers["host"] == f"127.0.0.1:{receiver.port}"
    assert got.headers["content-type"] == "application/json"
    assert got.headers["longwire-delivery"] == "dlv_1"
    assert got.headers["longwire-signature"] == sign("secret", 1_764_000_000, b"{}")


async def test_the_connection_goes_to_the_address_that_was_looked_up_and_the_name_stays(receiver) -> None:
    posted = await post(receiver.url(NAME), lookup=lookup_of(["127.0.0.1"]))
    assert posted.is_taken
    assert receiver.got[0].headers["host"] == f"{NAME}:{receiver.port}"


async def test_the_next_address_is_tried_where_one_does_not_answer(receiver) -> None:
    posted = await post(receiver.url(NAME), lookup=lookup_of(["127.0.0.2", "127.0.0.1"]))
    assert posted.is_taken


async def test_a_name_that_turns_private_between_two_posts_is_refused(receiver) -> None:
    """DNS rebinding: what is checked is what is connected to, each time."""
    looked = []

    async def lookup(host: str, port: int) -> Sequence[str]:
        looked.append(host)
        return ["127.0.0.1"] if len(looked) > 1 else ["1.1.1.1"]

    settings = PostSettings(allows_private=False, timeout_s=0.05, lookup=lookup)
    poster = Poster(receiver.url(NAME), settings, ManualClock())
    assert (await poster.post("s", "d", b"{}")).status is None
    refused = await poster.post("s", "d", b"{}")
    await poster.close()
    assert "not public" in refused.error
    assert len(looked) == 2
    assert receiver.connections == 0


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:{port}/", "http://localhost:{port}/", "http://[::ffff:127.0.0.1]:{port}/"]
)
async def test_a_private_address_is_refused_and_not_connected_to(receiver, url: str) -> None:
    posted = await post(url.format(port=receiver.port), allows_private=False)
    assert posted.status is None
    assert "not public" in posted.error
    assert receiver.connections == 0


async def test_a_redirect_is_not_followed(receiver) -> None:
    other = await Receiver().start()
    location = other.url().encode()
    for status in (b"301", b"302", b"307", b"308"):
        receiver.answers.append(b"HTTP/1.1 %b Moved\r\nLocation: %b\r\nContent-Length: 0\r\n\r\n" % (status, location))
        posted = await post(receiver.url())
        assert "redirects are not followed" in posted.error
        assert posted.status == int(status)
    assert other.connections == 0
    await other.stop()


@pytest.mark.parametrize("status", [100, 204, 304, 400, 404, 410, 429, 500, 503])
async def test_only_a_2xx_is_taken(receiver, status: int) -> None:
    receiver.always = b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status
    posted = await post(receiver.url(), timeout_s=0.2 if status == 100 else 5.0)
    assert posted.is_taken == (status == 204)
    assert posted.status == (None if status == 100 else status)


@pytest.mark.parametrize(
    "answer",
    [
        b"not http at all\r\n\r\n",
        b"\x00\xff" * 500,
        b"HTTP/1.1 two hundred\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 50_000 + b"\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 500 X\r\nContent-Length: 1000\r\n\r\nshort",
    ],
)
async def test_garbage_is_a_failure_and_nothing_else(receiver, answer: bytes) -> None:
    receiver.always = answer
    posted = await post(receiver.url())
    assert not posted.is_taken
    assert posted.error


async def test_garbage_behind_a_2xx_does_not_matter(receiver) -> None:
    receiver.always = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
    assert (await post(receiver.url())).is_taken


async def test_an_answer_without_end_is_not_read_to_its_end(receiver) -> None:
    receiver.always = b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n" + bytes(200_000)
    assert (await post(receiver.url())).is_taken


async def test_a_slow_receiver_is_given_up(receiver) -> None:
    receiver.always = HANG
    posted = await post(receiver.url(), timeout_s=0.02)
    assert posted.error == "no answer within 0.02 s"


async def test_a_slow_look_up_counts_too() -> None:
    async def lookup(host: str, port: int) -> Sequence[str]:
        await asyncio.sleep(60)
        return []

    assert (await post("http://shop.example/", timeout_s=0.02, lookup=lookup)).error == "no answer within 0.02 s"


async def test_a_receiver_that_is_down_is_a_failure(receiver) -> None:
    await receiver.stop()
    posted = await post(receiver.url())
    await receiver.start(receiver.port)
    assert posted.status is None
    assert "ConnectError" in posted.error


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7),
        ("Mon, 24 Nov 2025 16:00:30 GMT", 30),
        ("Mon, 24 Nov 2025 15:00:00 GMT", 0),
        ("soon", 0),
        ("-1", 0),
        ("Mon, 99 Nov 99999 99:99:99 GMT", 0),
        ("9" * 400, 999_999_999),
        ("", 0),
    ],
)
async def test_retry_after_is_seconds_or_a_date(receiver, text: str, seconds: float) -> None:
    receiver.always = b"HTTP/1.1 503 X\r\nRetry-After: %b\r\nContent-Length: 0\r\n\r\n" % text.encode()
    assert (await post(receiver.url())).retry_after_s == seconds


async def test_no_cookie_comes_back_and_the_connection_is_used_again(receiver) -> None:
    receiver.always = b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n"
    poster = Poster(receiver.url(), PostSettings(allows_private=True), ManualClock())
    for _ in range(3):
        assert (await poster.post("s", "d", b"{}")).is_taken
    await poster.close()
    assert receiver.connections == 1
    assert not any("cookie" in got.headers for got in receiver.got)


async def test_a_proxy_of_the_environment_is_not_used(receiver, monkeypatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    assert (await post(receiver.url())).is_taken


# -- TLS ----------------------------------------------------------------------------------------------------------


class Tls:
    """A certificate for one name, and who trusts it."""

    def __init__(self, folder: Path, name: x509.GeneralName) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
        now = dt.datetime.now(dt.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(1)
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([name]), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )
        pem = folder / "tls.pem"
        pem.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.server.load_cert_chain(pem)
        self.client = ssl.create_default_context(cafile=str(pem))


@pytest.fixture
async def secured(tmp_path: Path) -> AsyncIterator[tuple[Receiver, ssl.SSLContext]]:
    tls = Tls(tmp_path, x509.DNSName(NAME))
    receiver = await Receiver().start(tls=tls.server)
    yield receiver, tls.client
    await receiver.stop()


async def test_tls_names_and_checks_the_host_and_not_the_address(secured) -> None:
    receiver, trust = secured
    posted = await post(receiver.url(NAME, "https"), lookup=lookup_of(["127.0.0.1"]), tls=trust)
    assert posted.is_taken, posted.error
    assert receiver.names == [NAME]
    assert receiver.got[0].headers["host"] == f"{NAME}:{receiver.port}"


async def test_a_certificate_of_another_name_is_refused(secured) -> None:
    receiver, trust = secured
    posted = await post(receiver.url("other.example", "https"), lookup=lookup_of(["127.0.0.1"]), tls=trust)
    assert "certificate verify failed" in posted.error
    assert receiver.got == []


async def test_a_certificate_that_nobody_vouches_for_is_refused(secured) -> None:
    receiver, _ = secured
    posted = await post(receiver.url(NAME, "https"), lookup=lookup_of(["127.0.0.1"]))
    assert "certificate verify failed" in posted.error


async def test_an_address_in_the_url_is_checked_against_the_certificate(tmp_path: Path) -> None:
    tls = Tls(tmp_path, x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    receiver = await Receiver().start(tls=tls.server)
    assert (await post(receiver.url(scheme="https"), tls=tls.client)).is_taken
    await receiver.stop()
