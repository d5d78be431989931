"""A telemetry service: devices send readings, the application keeps figures of them and raises alarms.

    reading      durable   {"sensor": "boiler", "value": 71.5, "unit": "°C"}   counted once, whatever happens
    heartbeat    in place  empty                                               the last one is enough
    latest       request   {"device_id": "plant-7"} → the device's figures     "" or left out: one's own

The figures are in memory to keep this short: a real service writes them to its database, in one transaction with
``ctx.message_id``, so that a message that comes again is known as a repeat after a restart too.
"""

from collections import OrderedDict
from typing import Annotated

from msgspec import Meta, Struct

from longwire import Context, Longwire, Reject

ALARM_ABOVE = {"°C": 90.0, "bar": 12.0}
MAX_SENSORS = 16
"""Sensors of one device; so a device cannot fill the memory by inventing names."""
REMEMBERED = 1_024
"""Message ids of a device by which a repeat is known."""

app = Longwire()


class Reading(Struct):
    sensor: Annotated[str, Meta(min_length=1, max_length=32)]
    value: float
    unit: Annotated[str, Meta(max_length=8)] = ""


class LatestQuery(Struct):
    device_id: str = ""


class Figures(Struct):
    """What is kept of one sensor."""

    unit: str
    count: int = 0
    mean: float = 0.0
    lowest: float = float("inf")
    highest: float = float("-inf")
    last: float = 0.0
    last_at_ms: int = 0

    def add(self, value: float, at_ms: int) -> None:
        self.count += 1
        self.mean += (value - self.mean) / self.count
        self.lowest = min(self.lowest, value)
        self.highest = max(self.highest, value)
        self.last = value
        self.last_at_ms = at_ms


class Station:
    """What is kept of one device."""

    def __init__(self) -> None:
        self.sensors: dict[str, Figures] = {}
        self.heartbeat_at_ms = 0
        self._taken: OrderedDict[bytes, None] = OrderedDict()

    def take(self, reading: Reading, message_id: bytes, at_ms: int) -> None:
        """Adds a reading, unless this message was added before."""
        if message_id in self._taken:
            return
        self._taken[message_id] = None
        if len(self._taken) > REMEMBERED:
            self._taken.popitem(last=False)
        self.sensors.setdefault(reading.sensor, Figures(reading.unit)).add(reading.value, at_ms)


stations: dict[str, Station] = {}


def station(device_id: str) -> Station:
    return stations.setdefault(device_id, Station())


@app.uplink("reading")
async def take_reading(reading: Reading, ctx: Context) -> None:
    """At least once, each device's in order. What may fail comes before what is kept, so that a repeat is whole."""
    here = station(ctx.device_id)
    if reading.sensor not in here.sensors and len(here.sensors) >= MAX_SENSORS:
        raise Reject(f"a device has at most {MAX_SENSORS} sensors")
    limit = ALARM_ABOVE.get(reading.unit)
    if limit is not None and reading.value > limit:
        alarm = {"sensor": reading.sensor, "value": reading.value, "limit": limit}
        # An alarm that the device has not seen yet is replaced by the newer one.
        await ctx.reply("alarm", alarm, collapse_key=f"alarm:{reading.sensor}")
    here.take(reading, ctx.message_id, ctx.sent_at_ms)


@app.uplink("heartbeat", durable=False)
async def note_heartbeat(ctx: Context) -> None:
    """Runs on the gateway, and the device's receipt says whether it did; nothing is stored for it."""
    station(ctx.device_id).heartbeat_at_ms = ctx.sent_at_ms


@app.request("latest")
async def latest(query: LatestQuery, ctx: Context) -> dict[str, object]:
    device_id = query.device_id or ctx.device_id
    found = stations.get(device_id)
    if found is None:
        raise Reject("nothing has come from this device")
    return {"device_id": device_id, "heartbeat_at_ms": found.heartbeat_at_ms, "sensors": found.sensors}
