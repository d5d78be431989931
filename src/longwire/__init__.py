"""Longwire: a push system for millions of long-lived connections.

What an application's module needs stands here: ``from longwire import Longwire, Context``. Devices written in Python
use ``longwire.client``.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from longwire.application import (
        Context,
        Identity,
        Longwire,
        Presence,
        Registration,
        Reject,
        SendRefused,
        Session,
        UnknownDevice,
    )

__version__ = "0.1.0"

__all__ = [
    "Context",
    "Identity",
    "Longwire",
    "Presence",
    "Registration",
    "Reject",
    "SendRefused",
    "Session",
    "UnknownDevice",
    "__version__",
]


def __getattr__(name: str) -> object:
    # On first use: a device that imports longwire.client does not load what serves applications.
    if name in __all__:
        from longwire import application

        return getattr(application, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
