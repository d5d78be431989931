"""The log of a real run: what it has, and what it must not have."""

import json
from collections.abc import Iterator
from typing import Any

from log_run import PLANTED, TRACE_ID, Run

# Names and types as in elastic/ecs, generated/csv/fields.csv of 8.12.
ECS: dict[str, type] = {
    "@timestamp": str,
    "client.ip": str,
    "ecs.version": str,
    "error.message": str,
    "error.stack_trace": str,
    "error.type": str,
    "event.dataset": str,
    "event.duration": int,
    "event.sequence": int,
    "http.request.id": str,
    "http.request.method": str,
    "http.response.status_code": int,
    "log.level": str,
    "log.logger": str,
    "message": str,
    "service.name": str,
    "service.node.name": str,
    "service.node.roles": list,
    "service.version": str,
    "trace.id": str,
    "url.path": str,
    "user.name": str,
}
IN_EVERY_EVENT = {"@timestamp", "message", "log.level", "log.logger", "ecs.version", "event.dataset", "service.name"}


def _flat(value: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, inner in value.items():
        if isinstance(inner, dict) and above + name != "labels":
            yield from _flat(inner, f"{above}{name}.")
        else:
            yield above + name, inner


def test_ten_thousand_messages_at_info_are_no_line(run: Run) -> None:
    assert run.messages == 10_000
    assert run.lines_of_messages <= 3  # a sweep or a look may have had something to say


def test_a_level_is_applied_within_three_seconds(run: Run) -> None:
    assert run.applied_s < 5  # two, and a slow machine's leave


def test_every_line_is_one_event(run: Run) -> None:
    log = [line for line in run.text.splitlines() if '"@timestamp"' in line]
    assert len(log) == len(run.events)
    assert all(line.isascii() and line.isprintable() for line in log)


def test_every_field_is_one_of_ecs_with_its_type(run: Run) -> None:
    for event in run.events:
        fields = dict(_flat(event))
        labels = fields.pop("labels", {})
        assert fields.keys() <= ECS.keys(), event
        assert fields.keys() >= IN_EVERY_EVENT, event
        assert all(isinstance(value, ECS[name]) for name, value in fields.items()), event
        assert all(isinstance(value, str | list) for value in labels.values()), event


def test_no_secret_and_no_payload_is_in_the_log_of_a_run_at_debug(run: Run) -> None:
    assert sum(event["log.level"] == "debug" for event in run.events) > 20
    found = [line for line in run.text.splitlines() if line.startswith("{") and PLANTED in line]
    assert found == []
    ours = "\n".join(json.dumps(event) for event in run.events)
    assert [secret for secret in run.secrets if len(secret) > 12 and secret in ours] == []


def test_paths_are_those_of_routes_and_not_of_strangers(run: Run) -> None:
    paths = {event["url"]["path"] for event in run.events if "url" in event}
    assert {"/v1/messages", "/v1/devices/{device_id}", "-"} <= paths


def test_every_line_of_a_call_has_its_trace_and_its_request(run: Run) -> None:
    calls = [event for event in run.events if event["log"]["logger"] == "longwire.api.calls"]
    assert len(calls) > 10
    assert all(len(event["trace"]["id"]) == 32 and event["http"]["request"]["id"] for event in calls)
    own = [event for event in calls if event["http"]["request"]["id"].startswith("req_")]
    without = [event for event in own if event["trace"]["id"] != TRACE_ID]
    assert without
    assert all(event["http"]["request"]["id"] == f"req_{event['trace']['id']}" for event in without)


def test_writes_that_the_audit_trail_has_are_told_at_info_with_who(run: Run) -> None:
    made = [event for event in run.events if "url" in event and event["url"]["path"] == "/v1/log-levels"]
    assert made
    assert {event["log.level"] for event in made} == {"info"}
    assert all(event["user"]["name"] for event in made)


def test_one_message_s_whole_way_is_found_by_its_trace(run: Run) -> None:
    hops = [event for event in run.events if event.get("trace", {}).get("id") == TRACE_ID and "labels" in event]
    names = [event["labels"]["hop"] for event in hops if "hop" in event["labels"]]
    way = [name for name in names if name in ("message.accepted", "message.written", "message.acked")]
    assert way == ["message.accepted", "message.written", "message.acked"]
    assert "api.call" in names
    assert {event["labels"].get("message_id") for event in hops} >= {run.message_id.removeprefix("msg_")}
