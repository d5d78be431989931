"""Where webhooks may go."""

import httpx
import pytest

from longwire.webhooks.addresses import AddressRefused, addresses_of, is_public, parse_url, system_lookup


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "127.0.0.1",
        "169.254.169.254",
        "172.16.0.1",
        "192.168.1.1",
        "192.0.2.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "fd00::1",
        "ff02::1",
        "2001:db8::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::127.0.0.1",
        "2002:7f00:1::",
        "2001:0:7f00:1::",
        "64:ff9b::7f00:1",
        "64:ff9b:1::1",
    ],
)
def test_addresses_of_the_inside_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"])
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://a.example/",
        "a.example",
        "http://",
        "https:///path",
        "http://user:password@a.example/",
        "http://a.example/#part",
        "http://a.example:99999/",
        "http://[::1/",
        "http://a.example/" + "x" * 2_048,
        "http://\x00/",
        "",
    ],
)
def test_what_is_no_url_of_a_webhook_is_refused(url: str) -> None:
    with pytest.raises(AddressRefused):
        parse_url(url)


async def test_one_private_address_among_public_ones_is_enough_to_refuse_a_name() -> None:
    async def lookup(host: str, port: int) -> list[str]:
        assert (host, port) == ("shop.example", 8443)
        return ["1.1.1.1", "10.0.0.1"]

    url = httpx.URL("https://shop.example:8443/")
    with pytest.raises(AddressRefused, match=r"shop\.example has an address that is not public"):
        await addresses_of(url, lookup, allows_private=False)
    assert await addresses_of(url, lookup, allows_private=True) == ["1.1.1.1", "10.0.0.1"]


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "2130706433", "0x7f.1", "localhost"])
async def test_every_way_to_write_the_machine_itself_is_refused(host: str) -> None:
    with pytest.raises(AddressRefused):
        await addresses_of(httpx.URL(f"http://{host}/"), system_lookup, allows_private=False)


async def test_a_name_that_cannot_be_one_is_an_error_of_the_look_up() -> None:
    with pytest.raises(OSError, match="is no name"):
        await system_lookup("a" * 64 + ".example", 80)
