"""The business code that the demo's node runs: it answers readings and requests, and keeps account of them."""

from msgspec import Struct

from longwire.application import Context, Longwire

app = Longwire()

_seen: set[tuple[str, bytes]] = set()


class Reading(Struct):
    """What a device measured."""

    celsius: float


class Answer(Struct):
    """The application's answer to the reading of message ``to``."""

    to: str
    fahrenheit: float


@app.uplink("demo.reading")
async def reading(reading: Reading, ctx: Context) -> None:
    """Durable: comes from the uplink log, at least once; a reply that was sent is not sent twice."""
    await ctx.reply("demo.answer", Answer(ctx.message_id.hex(), fahrenheit(reading.celsius)))
    _seen.add((ctx.device_id, ctx.message_id))


@app.request("demo.sum")
async def total(numbers: list[int]) -> int:
    """Answered in place."""
    return sum(numbers)


@app.request("demo.account")
async def account() -> dict[str, int]:
    """How many different readings were handled."""
    return {"readings": len(_seen)}


def fahrenheit(celsius: float) -> float:
    """What the demo checks answers by, too."""
    return round(celsius * 1.8 + 32, 2)
