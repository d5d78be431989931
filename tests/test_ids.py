"""Names and ids."""

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longwire import ids

TEXT = "0193b5a8-c400-7a1b-8c2d-3e4f50617283"


def test_message_ids_rise_and_never_repeat() -> None:
    made = [ids.new_message_id() for _ in range(20_000)]  # more than the counter of one millisecond holds
    assert made == sorted(set(made))


def test_a_message_id_is_a_uuid_of_version_7_with_the_time_in_front(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids, "_last_ms", 0)
    monkeypatch.setattr(ids.time, "time_ns", lambda: 1_764_000_000_123_999_999)
    made = uuid.UUID(bytes=ids.new_message_id())
    assert made.version == 7
    assert made.variant == uuid.RFC_4122
    assert made.int >> 80 == 1_764_000_000_123


def test_message_ids_rise_when_the_wall_clock_falls(monkeypatch: pytest.MonkeyPatch) -> None:
    before = ids.new_message_id()
    monkeypatch.setattr(ids.time, "time_ns", lambda: 0)
    after = [ids.new_message_id() for _ in range(5_000)]
    assert [before, *after] == sorted({before, *after})


@given(st.binary(min_size=16, max_size=16))
def test_a_message_id_survives_its_text(value: bytes) -> None:
    text = ids.message_id_text(value)
    assert text == str(uuid.UUID(bytes=value))
    assert ids.message_id_bytes(text) == value
    assert ids.message_id_bytes(text.upper()) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        TEXT[:-1],
        TEXT + "0",
        TEXT.replace("-", ""),
        "{" + TEXT + "}",
        "urn:uuid:" + TEXT,
        " " + TEXT[1:],
        TEXT[:-1] + "\n",
        TEXT.replace("-", "_"),
        TEXT[:1] + "_" + TEXT[2:],
        "0x" + TEXT[2:],
        TEXT[:1] + "-" + TEXT[2:],
        TEXT[:-2] + "  ",
        TEXT[:-1] + "g",
        TEXT[:-1] + "٣",
        "0193b5a8c-400-7a1b-8c2d-3e4f50617283",
    ],
)
def test_text_that_is_no_uuid_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        ids.message_id_bytes(text)


@given(st.text(alphabet="0123456789abcdefABCDEF-_ {}gx\n", min_size=34, max_size=38))
def test_only_the_text_of_rfc_9562_is_a_uuid(text: str) -> None:
    try:
        value = ids.message_id_bytes(text)
    except ValueError:
        return
    assert ids.message_id_text(value) == text.lower()


@pytest.mark.parametrize("name", ["a", "d-1", "A.b_c:d@e-9", "x" * 64])
def test_a_device_id_is_1_to_64_plain_characters(name: str) -> None:
    assert ids.is_device_id(name)


@pytest.mark.parametrize("name", ["", "x" * 65, "a b", "a\n", "a/b", "é", "a\x00"])
def test_other_text_is_no_device_id(name: str) -> None:
    assert not ids.is_device_id(name)


def test_a_node_that_comes_back_has_another_id_of_at_most_24_bytes() -> None:
    first, second = ids.new_node_id("n" * 15), ids.new_node_id("n" * 15)
    assert first != second
    assert first.startswith("n" * 15 + "~")
    assert len(first) <= ids.MAX_NODE_ID_BYTES


@pytest.mark.parametrize("name", ["", "n" * 16, "a~b", "a b", "a\n", "é"])
def test_a_bad_node_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="node name"):
        ids.new_node_id(name)


def test_an_id_of_the_http_api_is_a_prefix_and_32_hex_digits() -> None:
    assert ids.prefixed("msg", ids.message_id_bytes(TEXT)) == "msg_0193b5a8c4007a1b8c2d3e4f50617283"


def test_a_secret_is_43_url_safe_characters_and_never_the_same() -> None:
    made = {ids.new_secret() for _ in range(100)}
    assert len(made) == 100
    assert {len(secret) for secret in made} == {43}


def test_many_ids_at_once_rise_too() -> None:
    made = [ids.new_message_id(), *ids.new_message_ids(5_000), ids.new_message_id()]
    assert made == sorted(set(made))
    assert ids.new_message_ids(0) == []
