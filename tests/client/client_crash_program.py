"""A program to be killed: a device with a state file that sends or receives, and says on stdout what it did.

python client_crash_program.py ADDRESS STATE send COUNT | drain | receive
"""

import asyncio
import sys

from longwire.client import Device, Message


async def main(address: str, state: str, what: str, count: str = "0") -> None:
    async with Device(device_id="d-1", token="t0k", address=address, state=state) as device:
        if what == "send":
            await asyncio.gather(*(device.send("", str(i)) for i in range(int(count))))
        elif what == "drain":
            await device.drained()
        else:

            @device.on()
            def got(message: Message) -> None:
                sys.stdout.write(f"got {message.text()}\n")
                sys.stdout.flush()

            await asyncio.Event().wait()
        sys.stdout.write("done\n")
        sys.stdout.flush()


asyncio.run(main(*sys.argv[1:]))
