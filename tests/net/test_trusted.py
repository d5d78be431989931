"""Who is believed, and whom X-Forwarded-For names when it is read by those rules."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longwire.net.trusted import TrustedProxies

TRUSTED = TrustedProxies(["127.0.0.1", "10.0.0.0/8", "2001:db8::/32"])


@pytest.mark.parametrize("address", ["127.0.0.1", "10.255.0.9", "2001:db8:1::7", "::ffff:10.0.0.1"])
def test_an_address_of_a_trusted_network_is_believed(address: str) -> None:
    assert address in TRUSTED


@pytest.mark.parametrize(
    "address", ["127.0.0.2", "11.0.0.1", "2001:db9::1", "::1", "", "unix:", "10.0.0.0/8", "x" * 999]
)
def test_any_other_is_not(address: str) -> None:
    assert address not in TRUSTED


def test_without_a_network_nobody_is_believed() -> None:
    assert "127.0.0.1" not in TrustedProxies([])
    assert TrustedProxies([]).client_of("127.0.0.1", "192.0.2.1") == "127.0.0.1"


def test_what_is_no_network_is_refused() -> None:
    with pytest.raises(ValueError, match="host bits set"):
        TrustedProxies(["10.0.0.1/8"])


@pytest.mark.parametrize(
    ("forwarded_for", "client"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("203.0.113.9, 192.0.2.1", "192.0.2.1"),
        ("203.0.113.9, 192.0.2.1, 10.0.0.5", "192.0.2.1"),
        ("203.0.113.9,192.0.2.1 ,\t10.0.0.5,10.0.0.6", "192.0.2.1"),
        ("10.0.0.5, 10.0.0.6", "10.0.0.5"),
        ("192.0.2.1:4711", "192.0.2.1"),
        ("[2001:db9::1]:80", "2001:db9::1"),
        ("[2001:db9::1]", "2001:db9::1"),
        ("2001:DB9::0:1", "2001:db9::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("", "127.0.0.1"),
        ("unknown", "127.0.0.1"),
        ("192.0.2.1, unknown", "127.0.0.1"),
        ("192.0.2.1, unknown, 10.0.0.5", "10.0.0.5"),
        ("192.0.2.1,,", "127.0.0.1"),
        ("fe80::1%eth0", "127.0.0.1"),
        ("x" * 5_000, "127.0.0.1"),
    ],
)
def test_the_list_is_read_from_its_end_as_far_as_trust_reaches(forwarded_for: str, client: str) -> None:
    assert TRUSTED.client_of("127.0.0.1", forwarded_for) == client


def test_a_peer_that_is_not_trusted_is_the_client_whatever_it_says() -> None:
    assert TRUSTED.client_of("192.0.2.9", "127.0.0.1, 10.0.0.1") == "192.0.2.9"


@given(st.lists(st.text(max_size=40)), st.ip_addresses(v=4).filter(lambda ip: str(ip) not in TRUSTED))
def test_nothing_that_a_client_sends_changes_what_a_trusted_proxy_writes(words: list[str], client) -> None:
    assert TRUSTED.client_of("127.0.0.1", ", ".join([*words, str(client)])) == str(client)
