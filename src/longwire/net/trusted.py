"""Which proxies are believed when they say whose connection or request they relay."""

import functools
import ipaddress
from collections.abc import Iterable

_MAX_ADDRESS_CHARACTERS = 45


class TrustedProxies:
    """Addresses and networks: ``"10.0.0.7" in trusted``. What is no IP address is not in them."""

    __slots__ = ("_networks", "_trusts")

    def __init__(self, networks: Iterable[str]) -> None:
        """Raises ValueError for what is no address and no network."""
        self._networks = tuple(map(ipaddress.ip_network, networks))
        # The proxies in front of a node are few, and each brings thousands of connections.
        self._trusts = functools.lru_cache(maxsize=1_024)(self._look_up)

    def __contains__(self, address: str) -> bool:
        return bool(self._networks) and self._trusts(address)

    def client_of(self, peer: str, forwarded_for: str) -> str:
        """The client of a request that came from ``peer`` with this X-Forwarded-For, "" for none.

        Each proxy writes behind what it got the address that it got it from. So the list is read from its end, as
        long as who wrote is trusted; what stands before is hearsay. What is no address there is nobody's word.
        """
        client = peer
        for word in reversed(forwarded_for.split(",")):
            if client not in self:
                break
            told = _address_in(word.strip(" \t"))
            if told is None:
                break
            client = told
        return client

    def _look_up(self, address: str) -> bool:
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:
            return False
        if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        return any(ip in network for network in self._networks)


def _address_in(word: str) -> str | None:
    """An IP address, with or without a port: ``192.0.2.1:80``, ``[2001:db8::1]:80``."""
    if word.startswith("["):
        word = word[1:].partition("]")[0]
    elif word.count(":") == 1:
        word = word.partition(":")[0]
    if len(word) > _MAX_ADDRESS_CHARACTERS or "%" in word:
        return None
    try:
        ip = ipaddress.ip_address(word)
    except ValueError:
        return None
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return str(mapped or ip)
