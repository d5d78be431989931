"""What goes wrong between the system and a user's code, told apart by who can mend it.

``DeclarationError`` and ``LoadError`` come at start and name the line to mend. The others come while handlers
run; ``Reject`` is the one that handlers raise themselves.
"""

from longwire.errors import LongwireError
from longwire.reasons import Status


class DeclarationError(LongwireError):
    """A handler was declared in a way that cannot work; the message names the function."""


class LoadError(LongwireError):
    """The application named on the command line cannot be had; the message says which part of the name fails."""


class NotBound(LongwireError):
    """The application was asked to send or look something up while no node or sink runs it."""


class CallEnded(LongwireError):
    """The handler's call is over (budget spent, cancelled or failed); what it still asks of its context is refused."""


class UnknownDevice(LongwireError):
    """The device is not registered, or no longer."""


class HookFailed(LongwireError):
    """A hook gave no answer: it raised, or took longer than its budget. ``status`` is 14, 17 or 18."""

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status = status


class SendRefused(LongwireError):
    """A message of the application was not accepted; ``status`` says why (PROTOCOL §3)."""

    def __init__(self, status: Status, to: str) -> None:
        super().__init__(f"message to {to!r} was refused with status {int(status)} {status.label}")
        self.status = status


class Reject(LongwireError):
    """Raised by a handler that will never take this message: repeating it cannot help.

    In place the device gets status 16 with ``detail``, so it holds nothing that a device may not read; a record
    of the uplink log goes to the dead letters at once. It is no failure: no trace is logged.
    """

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail
