"""A listening socket of the device port.

The loop's server accepts; when the process is out of descriptors, libuv gives up its held-back one to take the
waiting connection and close it, so that the socket neither spins nor goes deaf.
"""

import asyncio
import ssl
from typing import TypeVar

from longwire.net.connection import DevicePort
from longwire.net.proxied import TLS_HANDSHAKE_TIMEOUT_S, TLS_SHUTDOWN_TIMEOUT_S, ProxiedSniffer
from longwire.net.sniffer import Sniffer, Speakers, speakers

S = TypeVar("S")

BACKLOG = 4_096


class Listener:
    """One bound address. ``port`` is the number that was bound, also where 0 was asked for."""

    def __init__(self, server: asyncio.Server) -> None:
        self._server = server
        self.port: int = server.sockets[0].getsockname()[1]

    @classmethod
    async def open(
        cls,
        device_port: DevicePort[S],
        host: str,
        port: int,
        context: ssl.SSLContext | None = None,
        spoken: Speakers[S] | None = None,
        *,
        takes_proxy_header: bool = False,
        reuse_port: bool = False,
    ) -> "Listener":
        """Binds and starts to accept. Raises OSError where the address cannot be had.

        ``takes_proxy_header``: the device port's trusted proxies have to begin with one; TLS comes after it.
        ``reuse_port``: other processes of this user may listen there too; the kernel spreads connections over all.
        """
        loop = asyncio.get_running_loop()
        understood = spoken if spoken is not None else speakers()
        if takes_proxy_header:
            plain = await loop.create_server(
                lambda: ProxiedSniffer(device_port, understood, context),
                host,
                port,
                backlog=BACKLOG,
                reuse_port=reuse_port or None,
            )
            return cls(plain)
        server = await loop.create_server(
            lambda: Sniffer(device_port, understood),
            host,
            port,
            backlog=BACKLOG,
            reuse_port=reuse_port or None,
            ssl=context,
            ssl_handshake_timeout=TLS_HANDSHAKE_TIMEOUT_S if context else None,
            ssl_shutdown_timeout=TLS_SHUTDOWN_TIMEOUT_S if context else None,
        )
        return cls(server)

    def stop_accepting(self) -> None:
        """Closes the listening socket; connections that were accepted stay."""
        self._server.close()


def tls_context(certificate: str, key: str | None) -> ssl.SSLContext:
    """A server's context with a PEM chain and its key. Raises OSError or ssl.SSLError where they do not load."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key)
    return context
