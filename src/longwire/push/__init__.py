"""Pushes: from an audience to devices that were written to, and what operators may ask of them.

audience   an expression becomes one bitmap of devices
pushes     the operators' calls
schedule   starts what is due, closes what is over
worker     claims segments and has the nodes write them, at the pace that was asked
check      compares counts with bitmaps
messages   one to one: to a device, a user, a group
"""

from longwire.push.audience import Audiences, Resolved
from longwire.push.check import Check
from longwire.push.messages import Messages, Sent, Wanted
from longwire.push.pushes import (
    Answering,
    Progress,
    Pushes,
    PushOrder,
    PushView,
    RecipientDetail,
    RecipientView,
    Validation,
)
from longwire.push.route_sweep import RouteSweep
from longwire.push.schedule import Schedule
from longwire.push.worker import Worker, WorkerSettings

__all__ = [
    "Answering",
    "Audiences",
    "Check",
    "Messages",
    "Progress",
    "PushOrder",
    "PushView",
    "Pushes",
    "RecipientDetail",
    "RecipientView",
    "Resolved",
    "RouteSweep",
    "Schedule",
    "Sent",
    "Validation",
    "Wanted",
    "Worker",
    "WorkerSettings",
]
