"""The telemetry example: figures, alarms, repeats, and what it refuses."""

import msgspec
import pytest

from longwire.reasons import Status
from longwire.testing.services import MemoryServices, device

ID = bytes(range(16))


@pytest.fixture
def telemetry(start):
    return start("examples.telemetry.app:app", MemoryServices([device("plant-7"), device("plant-8", 2)]))


async def figures(telemetry, device_id: str) -> dict[str, dict[str, float]]:
    result = await telemetry.request(device_id, "latest", {})
    assert result.status is Status.OK
    return msgspec.json.decode(result.payload)["sensors"]


async def test_readings_become_figures_of_each_sensor_and_device(telemetry) -> None:
    for value in (10, 20, 60):
        await telemetry.send("plant-7", "reading", {"sensor": "boiler", "value": value, "unit": "°C"})
    await telemetry.send("plant-8", "reading", {"sensor": "boiler", "value": 1})
    boiler = (await figures(telemetry, "plant-7"))["boiler"]
    assert (boiler["count"], boiler["mean"], boiler["lowest"], boiler["highest"], boiler["last"]) == (3, 30, 10, 60, 60)
    assert (await figures(telemetry, "plant-8"))["boiler"]["count"] == 1


async def test_a_reading_that_comes_again_is_counted_and_alarmed_once(telemetry) -> None:
    for attempt in (1, 2):
        hot = {"sensor": "boiler", "value": 95, "unit": "°C"}
        result = await telemetry.send("plant-7", "reading", hot, message_id=ID, attempt=attempt)
        assert result.status is Status.OK
    assert (await figures(telemetry, "plant-7"))["boiler"]["count"] == 1
    assert telemetry.received("plant-7") == [("alarm", {"sensor": "boiler", "value": 95.0, "limit": 90.0})]
    assert telemetry.services.sent[0].collapse_key == "alarm:boiler"


async def test_a_reading_whose_alarm_could_not_be_sent_is_counted_only_when_it_was(telemetry) -> None:
    telemetry.services.is_away = True
    hot = {"sensor": "boiler", "value": 95, "unit": "°C"}
    assert (await telemetry.send("plant-7", "reading", hot, message_id=ID)).status is Status.NOT_DURABLE
    telemetry.services.is_away = False
    assert (await telemetry.send("plant-7", "reading", hot, message_id=ID, attempt=2)).status is Status.OK
    assert (await figures(telemetry, "plant-7"))["boiler"]["count"] == 1
    assert len(telemetry.received("plant-7")) == 1


@pytest.mark.parametrize(
    "body", [{"sensor": "boiler", "value": "hot"}, {"sensor": "", "value": 1}, {"value": 1}, b"nonsense"]
)
async def test_what_is_no_reading_is_a_bad_request(telemetry, body) -> None:
    assert (await telemetry.send("plant-7", "reading", body)).status is Status.BAD_REQUEST


async def test_a_device_cannot_invent_sensors_without_end(telemetry) -> None:
    for n in range(17):
        result = await telemetry.send("plant-7", "reading", {"sensor": f"s{n}", "value": 1})
    assert (result.status, result.detail) == (Status.BAD_REQUEST, "a device has at most 16 sensors")
    again = await telemetry.send("plant-7", "reading", {"sensor": "s0", "value": 1})
    assert again.status is Status.OK


async def test_heartbeats_run_in_place_and_latest_tells_them(telemetry) -> None:
    assert telemetry.app.find_in_place("heartbeat") is not None
    assert telemetry.app.find_in_place("reading") is None
    assert (await telemetry.request("plant-8", "latest", {"device_id": "plant-7"})).status is Status.BAD_REQUEST
    assert (await telemetry.send("plant-7", "heartbeat")).status is Status.OK
    result = await telemetry.request("plant-8", "latest", {"device_id": "plant-7"})
    assert msgspec.json.decode(result.payload)["heartbeat_at_ms"] == 1_764_000_000_000
