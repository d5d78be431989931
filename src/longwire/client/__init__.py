"""The SDK: a device's end of Longwire, for asyncio.

    import asyncio
    from longwire.client import Device, Message

    async def main() -> None:
        async with Device(
            "http://localhost:7380", "sensor-7", app_key="...", app_secret="...", state="sensor-7.db"
        ) as device:

            @device.on("reboot")
            async def reboot(delay_s: int) -> None: ...

            await device.send("", {"temperature": 21.5}, "reading")
            reply = await device.request("config", {"version": 3})
            async for message in device:
                print(message.sender, message.kind, message.json())

    asyncio.run(main())

``Device`` keeps one connection to a node, over TCP or WebSocket: it registers, asks for a node, reconnects,
moves, renews its token. What it sends waits in an outbox until the node has it; what it receives is given to
the application once and acknowledged when the application has it. With ``state`` both survive a crash.

    send ─► outbox ─┐                            ┌─► inbox ─► callbacks, async for
    request ─► calls┴─► session ◄─► connection ──┴─► calls ─► methods
                           ▲ made by attachment: account ─► node ─► connect ─► CONNECT
"""

from longwire.client.calls import MethodRefused as MethodRefused
from longwire.client.device import Device as Device
from longwire.client.entry import Outcome as Outcome
from longwire.client.errors import BadRequest as BadRequest
from longwire.client.errors import ClientError as ClientError
from longwire.client.errors import ConnectionLost as ConnectionLost
from longwire.client.errors import DeviceClosed as DeviceClosed
from longwire.client.errors import DeviceStopped as DeviceStopped
from longwire.client.errors import Discarded as Discarded
from longwire.client.errors import Expired as Expired
from longwire.client.errors import HandlerFailed as HandlerFailed
from longwire.client.errors import NotConnected as NotConnected
from longwire.client.errors import NotDurable as NotDurable
from longwire.client.errors import NotPermitted as NotPermitted
from longwire.client.errors import NotSent as NotSent
from longwire.client.errors import Offline as Offline
from longwire.client.errors import OutboxFull as OutboxFull
from longwire.client.errors import Overloaded as Overloaded
from longwire.client.errors import RateLimited as RateLimited
from longwire.client.errors import Refused as Refused
from longwire.client.errors import RequestTimeout as RequestTimeout
from longwire.client.errors import SendTimeout as SendTimeout
from longwire.client.errors import SetAside as SetAside
from longwire.client.errors import StateError as StateError
from longwire.client.errors import TimedOut as TimedOut
from longwire.client.errors import TooLarge as TooLarge
from longwire.client.errors import UndecodableMessage as UndecodableMessage
from longwire.client.errors import Unhandled as Unhandled
from longwire.client.errors import UnknownTarget as UnknownTarget
from longwire.client.errors import Unsupported as Unsupported
from longwire.client.message import Message as Message
from longwire.client.message import Reply as Reply
from longwire.client.message import SendResult as SendResult
from longwire.client.message import SetAsideMessage as SetAsideMessage
from longwire.client.outbox_limits import OutboxLimits as OutboxLimits
from longwire.client.state import Closed as Closed
from longwire.client.state import State as State
from longwire.reasons import CloseCode as CloseCode
from longwire.reasons import Status as Status
