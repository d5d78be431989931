"""What the clusters of these tests serve. Each call of a handler is a line of the file ``CLUSTER_TEST_LOG``."""

import asyncio
import os
from pathlib import Path

from longwire import Context, Longwire, Reject

app = Longwire()


def note(what: str, context: Context, payload: bytes) -> None:
    log = os.environ.get("CLUSTER_TEST_LOG")
    if log is not None:
        line = f"{what}\t{context.kind}\t{context.device_id}\t{payload.decode()}\n"
        with Path(log).open("ab", buffering=0) as file:  # one write: lines of several processes do not mix
            file.write(line.encode())


@app.uplink("*")
async def take(payload: bytes, context: Context) -> None:
    note("uplink", context, payload)


@app.uplink("refused")
def refuse(payload: bytes, context: Context) -> None:
    """Takes nothing as long as ``CLUSTER_TEST_LOG``.refuses is there."""
    if Path(f"{os.environ['CLUSTER_TEST_LOG']}.refuses").exists():
        raise Reject("not today")
    note("uplink", context, payload)


@app.request("echo")
async def echo(payload: bytes, context: Context) -> bytes:
    await asyncio.sleep(0)
    return payload
