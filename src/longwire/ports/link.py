"""The link: what the api and other nodes ask of the node that holds a session."""

from typing import Protocol

from longwire.model import Envelope
from longwire.reasons import CloseCode, Status


class Link(Protocol):
    """Reaches sessions wherever they are."""

    async def close_session(self, device_no: int, code: CloseCode, reason: str) -> bool:
        """Closes the device's session if it has one; whether it had."""
        ...

    async def send(self, envelope: Envelope) -> Status:
        """Commits a message of the application and delivers it; the status once it is durable or refused."""
        ...
