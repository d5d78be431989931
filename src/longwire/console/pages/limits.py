"""Limits: what this installation grants, with what each setting is called."""

from collections.abc import Callable
from typing import Any, NamedTuple

from longwire.console import words
from longwire.console.parts import Column, Table, section, text
from longwire.console.shell import Seat, console_page
from longwire.limits import Limits


class Limit(NamedTuple):
    """One of them."""

    name: str
    """In the answer of /v1/limits, and of the setting below ``limits.`` or by itself."""
    meaning: str
    shown: Callable[[float], str] = words.count


def _per_second(value: float) -> str:
    return f"{words.rate(value)} /s" if value else "no limit"


def _size(value: float) -> str:
    return words.size(value).replace(".0 ", " ")


def _some(value: float) -> str:
    return words.count(value) if value else "no limit"


def _millis(value: float) -> str:
    return words.duration(value / 1_000)


DEVICE: dict[str, tuple[Limit, ...]] = {
    "Connections": (
        Limit("max_connections", "Open connections of a node; the next one is told to come back"),
        Limit("max_connections_per_address", "Open connections of one client address", _some),
        Limit("accept_per_s", "Connections that a node takes a second", _per_second),
        Limit("handshake_timeout_s", "Time to prove who one is", words.duration),
        Limit("max_unauthenticated_bytes", "Held for all connections that have not proved it yet, together", _size),
        Limit("heartbeat_min_s", "Shortest heartbeat that a device gets", words.duration),
        Limit("heartbeat_max_s", "Longest heartbeat that a device gets", words.duration),
        Limit("high_water_bytes", "Unsent, above which at-most-once messages are dropped", _size),
        Limit("max_unsent_bytes", "Unsent, at which a slow consumer is closed", _size),
        Limit("retry_jitter_ms", "Who is turned away comes back at a random moment within this", _millis),
    ),
    "Messages": (
        Limit("max_payload_bytes", "A message's payload", _size),
        Limit("max_body_bytes", "A whole frame", _size),
        Limit("sends_per_s", "Messages that a device may send a second", _per_second),
        Limit("send_burst", "Messages that a device may send at once"),
        Limit("window", "Unacknowledged messages on a connection at a time"),
        Limit("redeliver_after_s", "Without an acknowledgement a message goes out again after", words.duration),
        Limit("default_ttl_s", "How long a message waits whose sender does not say", words.duration),
        Limit("max_inbox", "Messages that wait for a device; then senders are told so, or the oldest go"),
        Limit("max_commit_queue_bytes", "Messages that wait for the store; above it nobody may send", _size),
        Limit("max_requests_per_session", "Requests of one device under way"),
        Limit("max_requests", "Requests of all devices of a node under way"),
    ),
    "Pushes and audiences": (
        Limit("max_push_payload_bytes", "A push's payload", _size),
        Limit("max_live_pushes", "Pushes that are under way at a time"),
        Limit("max_audience_ids", "Devices or users that a push names"),
        Limit("max_audience_groups", "Groups that a push names"),
        Limit("max_audience_tags", "Tags in one expression"),
        Limit("max_device_tags", "Own tags of a device"),
        Limit("max_upload_ids", "Ids in an upload"),
        Limit("small_group", "Members up to which a message to a group waits in each inbox; above, it is a push"),
    ),
}
API = (
    Limit("calls_per_s", "Calls of one key or person a second", _per_second),
    Limit("call_burst", "Calls of one key or person at once"),
    Limit("max_body_bytes", "A call's body", _size),
    Limit("max_batch", "Devices in a batch"),
    Limit("max_message_batch", "Messages in a batch"),
    Limit("max_tags_per_device", "Tags that a call may give a device"),
    Limit("max_upload_bytes", "An uploaded file", _size),
    Limit("max_streams", "Streams of events that are open at a time"),
)
API_SETTINGS = {"calls_per_s": ("api_calls_per_s", 200), "call_burst": ("api_call_burst", 400)}
"""Those that can be set, with their defaults; the others are the program's."""
_DEFAULTS = Limits()
_DEFAULT, _FIXED = "default", "fixed"


@console_page("/limits", "Limits", nav="limits", scope="stats:read")
async def limits(seat: Seat) -> None:
    """Every bound, by what it is about."""
    found = await seat.api.get("/v1/limits")
    text(
        "p",
        "Set them at the start of every process: --limit max_inbox=5000, LONGWIRE_LIMITS__MAX_INBOX=5000,"
        " or max_inbox = 5000 below [limits] in longwire.toml. These are the API process's own.",
        "lw-muted lw-prose",
    )
    for title, rows in DEVICE.items():
        with section(title):
            _table([_device_row(limit, found["device"]) for limit in rows])
    with section("The API"):
        _table([_api_row(limit, found["api"]) for limit in API])


def _table(rows: list[dict[str, Any]]) -> None:
    Table(
        [
            Column("meaning", "What", lambda row: row["meaning"]),
            Column("value", "Limit", lambda row: row["value"], kind="number", width="110px"),
            Column("origin", "From", lambda row: row["origin"], kind="badge", width="180px", tone=_tone),
            Column("setting", "Setting", lambda row: row["setting"], kind="code", width="285px"),
        ],
        key="meaning",
    ).show(rows)


def _device_row(limit: Limit, found: dict[str, Any]) -> dict[str, Any]:
    value, default = found[limit.name], getattr(_DEFAULTS, limit.name)
    return {
        "meaning": limit.meaning,
        "value": limit.shown(value),
        "origin": _DEFAULT if value == default else f"set; default {limit.shown(default)}",
        "setting": f"limits.{limit.name}",
    }


def _api_row(limit: Limit, found: dict[str, Any]) -> dict[str, Any]:
    value, setting = found[limit.name], API_SETTINGS.get(limit.name)
    if setting is None:
        origin = _FIXED
    else:
        origin = _DEFAULT if value == setting[1] else f"set; default {limit.shown(setting[1])}"
    return {
        "meaning": limit.meaning,
        "value": limit.shown(value),
        "origin": origin,
        "setting": words.UNKNOWN if setting is None else setting[0],
    }


def _tone(row: dict[str, Any]) -> str:
    return "idle" if row["origin"] in (_DEFAULT, _FIXED) else "accent"
