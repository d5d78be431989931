"""Payloads: what annotations decode, what is refused, and what is sent."""

import dataclasses
import typing

import msgspec
import pytest

from longwire.application.payloads import PayloadError, compile_decoder, encode, presentable


class Order(msgspec.Struct):
    number: int
    parent: "Order | None" = None


@dataclasses.dataclass
class Position:
    lat: float
    lon: float


class Reading(typing.TypedDict):
    value: float


@pytest.mark.parametrize(
    ("annotation", "payload", "value"),
    [
        (bytes, b"\xff\x00", b"\xff\x00"),
        (str, "größe".encode(), "größe"),
        (Order, b'{"number": 1, "parent": {"number": 2}}', Order(1, Order(2))),
        (Position, b'{"lat": 1, "lon": 2.5}', Position(1.0, 2.5)),
        (Reading, b'{"value": 1.5}', {"value": 1.5}),
        (dict, b'{"a": [1]}', {"a": [1]}),
        (list[int], b"[1, 2]", [1, 2]),
        (int | None, b"null", None),
        (typing.Any, b"[true]", [True]),
    ],
)
def test_payloads_decode_to_what_the_annotation_says(annotation: object, payload: bytes, value: object) -> None:
    assert compile_decoder(annotation, "here")(payload) == value


@pytest.mark.parametrize(
    ("annotation", "payload", "reason"),
    [
        (Order, b'{"number": "one"}', "Expected `int`"),
        (Order, b"{}", "missing required field `number`"),
        (Order, b"", "truncated"),
        (dict, b"\xff", "malformed"),
        (str, b"ab\xff", "invalid byte at 2"),
        (list, b"[" * 100_000, "nested too deeply"),
    ],
)
def test_a_payload_that_does_not_fit_says_why(annotation: object, payload: bytes, reason: str) -> None:
    with pytest.raises(PayloadError, match=reason):
        compile_decoder(annotation, "here")(payload)


def test_the_reason_never_carries_control_characters_or_a_flood() -> None:
    class Strict(msgspec.Struct, forbid_unknown_fields=True):
        pass

    with pytest.raises(PayloadError) as caught:
        compile_decoder(Strict, "here")(msgspec.json.encode({"evil\n\x1b[31m" + "x" * 9_000: 1}))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("value", "payload"),
    [
        (b"\x00", b"\x00"),
        (bytearray(b"a"), b"a"),
        ("hé", "hé".encode()),
        (None, b""),
        ({"a": 1}, b'{"a":1}'),
        (Position(1.0, 2.0), b'{"lat":1.0,"lon":2.0}'),
        (False, b"false"),
    ],
)
def test_what_handlers_send_mirrors_what_they_take(value: object, payload: bytes) -> None:
    assert encode(value) == payload


def test_presentable_text_is_one_bounded_printable_line() -> None:
    assert presentable("grün") == "grün"
    assert presentable("a\nb\x00") == "a\\nb\\x00"
    assert len(presentable("x" * 10_000)) == 201
