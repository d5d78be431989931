"""Where a webhook may go: public addresses, and the very address that was checked.

The name is resolved here, every address it has is checked, and the connection goes to one of them: a name that
resolves to something else a moment later (DNS rebinding) leads nowhere.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence

import httpx

from longwire.errors import LongwireError

MAX_URL_CHARACTERS = 2_048
_MOST_TRIED = 4
_UNICAST = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")

Lookup = Callable[[str, int], Awaitable[Sequence[str]]]
"""The addresses of a name, in the order to be tried; raises OSError."""


class AddressRefused(LongwireError):
    """The URL is none that webhooks may go to; the message says why."""


def parse_url(text: str) -> httpx.URL:
    """The URL of a webhook. Raises AddressRefused."""
    if len(text) > MAX_URL_CHARACTERS:
        raise AddressRefused(f"url of {len(text)} characters exceeds {MAX_URL_CHARACTERS}")
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, ValueError) as error:
        raise AddressRefused(f"url is malformed: {error}") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise AddressRefused("url does not begin with http:// or https:// and a host")
    if not 0 < port_of(url) < 65_536:
        raise AddressRefused(f"url has port {url.port}, which is not within 1 to 65535")
    if url.userinfo or url.fragment:
        raise AddressRefused("url has a user, a password or a fragment")
    return url


async def addresses_of(url: httpx.URL, lookup: Lookup, *, allows_private: bool) -> list[str]:
    """The addresses to connect to, at most four. Raises AddressRefused, and OSError where the name has none."""
    found = await lookup(url.raw_host.decode("ascii"), port_of(url))
    for address in found:
        if not allows_private and not is_public(address):
            # Not which one: an operator's key shall not be a way to read the inside's names.
            raise AddressRefused(f"host {url.host} has an address that is not public")
    return list(found[:_MOST_TRIED])


async def system_lookup(host: str, port: int) -> Sequence[str]:
    """As the machine resolves names; addresses stand for themselves."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    except UnicodeError:  # a label of more than 63 characters
        raise OSError(f"{host} is no name") from None
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


def port_of(url: httpx.URL) -> int:
    return url.port if url.port is not None else (443 if url.scheme == "https" else 80)


def is_public(address: str) -> bool:
    """Whether the address is of the public internet, also where it carries another one within itself."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if ip in _NAT64:
            inner = ipaddress.IPv4Address(ip.packed[-4:])
        if inner is not None:
            return is_public(str(inner))
        if ip not in _UNICAST:
            return False
    return ip.is_global and not ip.is_multicast
