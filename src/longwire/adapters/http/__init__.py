"""The link between nodes: HTTP on their internal ports."""

from longwire.adapters.http.client import LinkClient, LinkFailed
from longwire.adapters.http.courier import Courier
from longwire.adapters.http.link import HttpLink
from longwire.adapters.http.server import LinkServer
from longwire.adapters.http.wire import LINK_VERSION

__all__ = ["LINK_VERSION", "Courier", "HttpLink", "LinkClient", "LinkFailed", "LinkServer"]
