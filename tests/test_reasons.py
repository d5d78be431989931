"""Close codes and statuses, against PROTOCOL §3 and §4."""

from longwire.reasons import CloseCode, Status

CLOSE_CODES = {
    4000: "draining",
    4001: "token_expired",
    4002: "rebalanced",
    4003: "overloaded",
    4004: "slow_consumer",
    4005: "heartbeat_timeout",
    4006: "handshake_timeout",
    4007: "internal_error",
    4008: "session_lost",
    4009: "protocol_error",
    4010: "too_large",
    4011: "unsupported",
    4100: "taken_over",
    4101: "kicked",
    4102: "disabled",
    4103: "banned",
    4104: "bad_credentials",
    4105: "not_permitted",
}
STATUSES = {
    0: "ok",
    1: "duplicate",
    10: "unknown_target",
    11: "not_permitted",
    12: "too_large",
    13: "rate_limited",
    14: "overloaded",
    15: "unsupported",
    16: "bad_request",
    17: "handler_failed",
    18: "timeout",
    19: "offline",
    20: "not_durable",
}


def test_the_close_codes_are_those_of_the_protocol() -> None:
    assert {int(code): code.label for code in CloseCode} == CLOSE_CODES


def test_the_statuses_are_those_of_the_protocol() -> None:
    assert {int(status): status.label for status in Status} == STATUSES


def test_a_device_may_reconnect_after_40xx_and_not_after_41xx() -> None:
    assert {int(code) for code in CloseCode if code.may_reconnect} == {n for n in CLOSE_CODES if n < 4100}


def test_faults_of_the_protocol_keep_a_device_away_for_a_minute_at_least() -> None:
    assert {int(code): code.least_retry_after_ms for code in CloseCode} == {
        number: 60_000 if number in (4009, 4010, 4011) else 0 for number in CLOSE_CODES
    }


def test_only_ok_and_duplicate_are_successes() -> None:
    assert [status for status in Status if status.is_success] == [Status.OK, Status.DUPLICATE]
