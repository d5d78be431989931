"""The roles of a process: which parts of Longwire it is made of (docs/operations.md says how many of each)."""

from enum import StrEnum


class Role(StrEnum):
    """One part; a process has any of them, and all of them on embedded engines."""

    GATEWAY = "gateway"
    """Takes devices: a node."""
    API = "api"
    """Answers HTTP: operators, and devices that register."""
    ROUTE = "route"
    """Brings pushes to the nodes, and does what happens at a time."""
    SINK = "sink"
    """Reads what devices sent: handlers, receipts, webhooks."""
    CONSOLE = "console"
    """The operators' pages: a process of its own, or a child of the one that has other roles too."""


ALL_ROLES = frozenset(Role)
CONSOLE_ALONE = frozenset({Role.CONSOLE})
"""A process that stands on no engine: it is a client of the API."""


def listed(roles: frozenset[Role]) -> str:
    """Roles as an operator writes them: ``gateway, api``."""
    return ", ".join(role for role in Role if role in roles)
