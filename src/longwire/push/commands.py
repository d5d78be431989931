"""Commands: what an API caller asks of a device, and what became of it.

A command is kept before the device is asked, so that its outcome, however late, has a place; and it is asked only
where the device has a session, so that a caller learns of an absent one at once.
"""

import asyncio
import logging
from enum import StrEnum

from msgspec.structs import replace

from longwire.accounts.refusals import RefusalCode, Refused
from longwire.clock import Clock
from longwire.errors import StoreUnavailable
from longwire.ids import new_message_id, prefixed
from longwire.limits import Limits
from longwire.operations_model import Command, CommandStatus
from longwire.ports.accounts import AccountStore
from longwire.ports.commands import CommandStore
from longwire.ports.link import Called, Link
from longwire.reasons import Status
from longwire.traces import NO_TRACES, Traces, is_sampled

log = logging.getLogger(__name__)

_GRACE_MS = 5_000
_RETRY_S = 1.0


class CommandMode(StrEnum):
    """Whether a call waits for the device's reply."""

    SYNC = "sync"
    ASYNC = "async"


class Commands:
    """Requests to devices. ``stop`` ends those that run in the background."""

    def __init__(
        self,
        accounts: AccountStore,
        link: Link,
        store: CommandStore,
        clock: Clock,
        limits: Limits,
        traces: Traces = NO_TRACES,
    ) -> None:
        self._traces = traces
        self._accounts = accounts
        self._link = link
        self._store = store
        self._clock = clock
        self._limits = limits
        self._asking: set[asyncio.Task[Command]] = set()

    async def run(
        self,
        device_id: str,
        method: str,
        payload: bytes,
        timeout_ms: int,
        mode: CommandMode,
        command_id: bytes | None = None,
        trace: bytes = b"",
    ) -> Command:
        """Asks the device. SYNC: the command with its reply; ASYNC: as it was kept, while the device is asked.

        With a ``command_id`` of its own a call that is repeated asks the device once and gives what became of it.
        Raises StoreUnavailable and Refused: not-found, device-offline, payload-too-large, overloaded; SYNC also
        command-timeout (the outcome is unknown; ``more`` has the command's id), and idempotency-in-progress where
        the same command is being asked by another call. Cancelling the caller does not take the request back.
        """
        limit = self._limits.max_payload_bytes
        if len(payload) > limit:
            raise Refused(
                RefusalCode.PAYLOAD_TOO_LARGE,
                f"payload of {len(payload)} bytes exceeds {limit}",
                more={"limit": limit, "actual": len(payload)},
            )
        if command_id is not None and (known := await self._store.find(command_id)) is not None:
            return self._repeated(known, mode)
        device_no = await self._reachable(device_id)
        if self._traces.has_marks:
            trace = self._traces.marked(trace, (device_no,))
        if len(self._asking) >= self._limits.max_requests:
            raise Refused(RefusalCode.OVERLOADED, f"{len(self._asking)} commands wait for their replies", _RETRY_S)
        command = Command(
            command_id=command_id or new_message_id(),
            device_no=device_no,
            device_id=device_id,
            method=method,
            payload=payload,
            created_at_ms=self._clock.now_ms(),
            timeout_ms=timeout_ms,
        )
        if not await self._store.add(command, trace):
            return self._repeated(await self.find(command.command_id), mode)
        asking = asyncio.get_running_loop().create_task(self._ask(command, trace))
        self._asking.add(asking)
        asking.add_done_callback(self._asked)
        if mode is CommandMode.ASYNC:
            return command
        return _told(await asyncio.shield(asking))

    async def find(self, command_id: bytes) -> Command:
        """The command as it stands. Raises Refused (not-found) and StoreUnavailable."""
        command = await self._store.find(command_id)
        if command is None:
            raise Refused(RefusalCode.NOT_FOUND, f"there is no command {prefixed('cmd', command_id)}")
        return self._seen(command)

    async def stop(self) -> None:
        """Ends the waiting; what is not answered yet counts as timed out."""
        asking = list(self._asking)
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)

    async def _reachable(self, device_id: str) -> int:
        device = (await self._accounts.find_devices([device_id]))[0]
        if device is None:
            raise Refused(RefusalCode.NOT_FOUND, f"there is no device {device_id}")
        if (await self._link.sessions([device.device_no]))[0] is None:
            raise Refused(RefusalCode.DEVICE_OFFLINE, f"device {device_id} has no session; nothing was sent")
        return device.device_no

    async def _ask(self, command: Command, trace: bytes) -> Command:
        began_ns = self._traces.now_ns()
        try:
            called = await self._link.call(
                command.device_no, command.command_id, command.method, command.payload, command.timeout_ms, trace
            )
        except StoreUnavailable as error:
            called = Called(Status.TIMEOUT, detail=str(error))
        finished = self._finished(command, called)
        if is_sampled(trace):
            is_timed_out = finished.status is CommandStatus.TIMED_OUT
            self._traces.hop(
                "command.timed_out" if is_timed_out else "command.replied",
                trace,
                began_ns=began_ns,
                is_error=finished.status is not CommandStatus.REPLIED,
                command_id=command.command_id.hex(),
                device_id=command.device_id,
                status=called.status.label,
            )
        try:
            await self._store.finish(finished)
        except StoreUnavailable as error:
            # Whoever waits has the reply all the same; whoever looks later sees that its time is up.
            log.warning("what became of command %s is not kept: %s", command.command_id.hex(), error)
        return finished

    def _finished(self, command: Command, called: Called) -> Command:
        if called.status is Status.TIMEOUT:
            return replace(command, status=CommandStatus.TIMED_OUT, detail=called.detail)
        has_answered = called.status not in (Status.OFFLINE, Status.OVERLOADED)
        return replace(
            command,
            status=CommandStatus.REPLIED if called.status is Status.OK else CommandStatus.FAILED,
            reply_status=int(called.status),
            reply=called.payload,
            detail=called.detail,
            replied_at_ms=self._clock.now_ms() if has_answered else None,
        )

    def _asked(self, task: "asyncio.Task[Command]") -> None:
        self._asking.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a command failed", exc_info=error)

    def _repeated(self, known: Command, mode: CommandMode) -> Command:
        command = self._seen(known)
        if mode is CommandMode.ASYNC:
            return command
        if command.status is CommandStatus.SENT:
            raise Refused(
                RefusalCode.IDEMPOTENCY_IN_PROGRESS, "the same command waits for its reply", retry_after_s=_RETRY_S
            )
        return _told(command)

    def _seen(self, command: Command) -> Command:
        """A command whose process died while it waited is one whose time is up."""
        over_ms = command.created_at_ms + command.timeout_ms + _GRACE_MS
        if command.status is CommandStatus.SENT and self._clock.now_ms() > over_ms:
            return replace(command, status=CommandStatus.TIMED_OUT, detail="the node stopped before the reply came")
        return command


def _told(command: Command) -> Command:
    """The command of a caller who waited; raises Refused where there is no answer of the device."""
    shown = {"command_id": prefixed("cmd", command.command_id)}
    if command.status is CommandStatus.TIMED_OUT:
        detail = f"{command.detail}; the outcome is unknown, a late reply is kept"
        raise Refused(RefusalCode.COMMAND_TIMEOUT, detail, more=shown)
    if command.status is CommandStatus.FAILED and command.replied_at_ms is None:
        if command.reply_status == Status.OFFLINE:
            raise Refused(RefusalCode.DEVICE_OFFLINE, f"device {command.device_id} has no session", more=shown)
        raise Refused(RefusalCode.OVERLOADED, command.detail, _RETRY_S, more=shown)
    return command
