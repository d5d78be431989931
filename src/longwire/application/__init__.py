"""How users declare business code, and how the system calls it.

A layer without engines: it imports the ground floor and nothing else of the system. The gateway (in place) and
the sink (from the uplink log) call handlers through ``call``; the composition root binds ``Services``.
"""

from longwire.application.context import Context, Services
from longwire.application.declarations import Longwire
from longwire.application.errors import (
    CallEnded,
    DeclarationError,
    HookFailed,
    LoadError,
    NotBound,
    Reject,
    SendRefused,
    UnknownDevice,
)
from longwire.application.handlers import Handler, RequestHandler, UplinkHandler
from longwire.application.hooks import Hooks, Identity, Presence, Registration, Session
from longwire.application.invoke import Result, call
from longwire.application.loading import load

__all__ = [
    "CallEnded",
    "Context",
    "DeclarationError",
    "Handler",
    "HookFailed",
    "Hooks",
    "Identity",
    "LoadError",
    "Longwire",
    "NotBound",
    "Presence",
    "Registration",
    "Reject",
    "RequestHandler",
    "Result",
    "SendRefused",
    "Services",
    "Session",
    "UnknownDevice",
    "UplinkHandler",
    "call",
    "load",
]
