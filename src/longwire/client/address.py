"""Where a node is to be reached: from what the api or a person says to an endpoint."""

import ssl
from urllib.parse import urlsplit

from longwire.client.account import Node
from longwire.client.transport import Endpoint
from longwire.errors import LocalProtocolError

DEFAULT_PORT = 7300
DEFAULT_TLS_PORT = 7301
WEBSOCKET_PATH = "/ws"


def parse_address(address: str) -> Node:
    """A node from ``host:port``, ``[v6]:port``, ``ws://host:port/path`` or ``wss://...``.

    The one port stands for TLS as well as plain: which of them it is, the device's own setting says.
    Raises LocalProtocolError for anything else.
    """
    url = address if "//" in address else f"//{address}"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise LocalProtocolError(f"address {address!r} is not host:port") from error
    if not host or parts.scheme not in ("", "ws", "wss") or (not parts.scheme and parts.path):
        raise LocalProtocolError(f"address {address!r} is not host:port")
    if not parts.scheme:
        return Node("", host, port or DEFAULT_PORT, port or DEFAULT_TLS_PORT)
    port = port or (443 if parts.scheme == "wss" else 80)
    return Node("", host, port, port, address)


def endpoint_of(node: Node, transport: str, tls: ssl.SSLContext | None) -> Endpoint:
    """Where to connect. Raises OSError where the node has no TLS port and TLS is asked for: never plain then."""
    url = urlsplit(node.ws_url)
    path = (url.path or WEBSOCKET_PATH) + (f"?{url.query}" if url.query else "")
    if transport == "websocket" and node.ws_url and (url.scheme == "wss") is (tls is not None):
        host = url.hostname or node.host
        return Endpoint(node.node_id, host, url.port or (443 if tls else 80), path)
    port = node.tls_port if tls is not None else node.port
    if port is None:
        raise OSError(f"node {node.node_id or node.host} has no TLS port")
    return Endpoint(node.node_id, node.host, port, path if transport == "websocket" else None)
