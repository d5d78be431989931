"""The head of an HTTP message: bounds, strictness, and that any split reads the same."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longwire.errors import LocalProtocolError
from longwire.wire.websocket.head import (
    MAX_HEAD_BYTES,
    HeadError,
    HeadReader,
    has_member,
    join_head,
    list_members,
    split_head,
)


@given(st.binary(max_size=40), st.binary(max_size=20), st.lists(st.integers(0, 80), max_size=8))
def test_a_head_ends_at_the_first_empty_line_at_any_split(head: bytes, behind: bytes, cuts: list[int]) -> None:
    stream = head + b"\r\n\r\n" + behind
    expected_head, _, expected_behind = stream.partition(b"\r\n\r\n")
    reader, got, start = HeadReader(), None, 0
    for cut in [*sorted(cuts), len(stream)]:
        piece, start = stream[start:cut], max(start, cut)
        if got is None:
            got = reader.feed(piece)
        else:
            got = (got[0], got[1] + piece)
    assert got == (expected_head, expected_behind)


def test_a_head_at_the_limit_passes_and_one_byte_more_does_not() -> None:
    head = b"x" * (MAX_HEAD_BYTES - 4)
    assert HeadReader().feed(head + b"\r\n\r\nbehind") == (head, b"behind")
    for size in (1, 4_096, MAX_HEAD_BYTES + 100):
        reader, stream = HeadReader(), b"x" + head + b"\r\n\r\n"
        pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
        for piece in pieces[:-2]:
            assert reader.feed(piece) is None
        with pytest.raises(HeadError) as caught:
            any(map(reader.feed, pieces[-2:]))
        assert caught.value.status == 431


def test_a_head_without_an_end_is_let_go_at_the_limit() -> None:
    reader = HeadReader()
    with pytest.raises(HeadError, match="exceeds 8192 bytes"):
        reader.feed(b"x" * 100_000)
    assert not reader._held


def test_names_are_lower_case_values_stripped_and_repeats_joined() -> None:
    line, headers = split_head(b"GET / HTTP/1.1\r\nX-One:  a\t\r\nx-one:b\r\nEmpty:\r\nLatin: \xe9")
    assert line == "GET / HTTP/1.1"
    assert headers == {"x-one": "a, b", "empty": "", "latin": "é"}


BAD_LINES = [
    b" folded",
    b"\tfolded",
    b"Name : value",
    b"Name\t: value",
    b"no colon",
    b": no name",
    b"",
    b"Na me: value",
    b"N\xe9: value",
    b"Name: a\x00b",
    b"Name: a\x7fb",
    b"Name: a\rb",
    b"Name: a\nOther: b",
]


@pytest.mark.parametrize("line", BAD_LINES)
def test_a_line_that_two_readers_might_read_differently_is_400(line: bytes) -> None:
    with pytest.raises(HeadError) as caught:
        split_head(b"GET / HTTP/1.1\r\nHost: a\r\n" + line)
    assert caught.value.status == 400


def test_a_folded_line_is_called_so() -> None:
    with pytest.raises(HeadError, match="folded"):
        split_head(b"GET / HTTP/1.1\r\nHost: a\r\n b")


@pytest.mark.parametrize("name", ["Host", "Origin", "Sec-WebSocket-Key", "Sec-WebSocket-Version", "Content-Length"])
def test_a_header_that_must_stand_once_is_400_when_repeated(name: str) -> None:
    with pytest.raises(HeadError, match="repeated"):
        split_head(f"GET / HTTP/1.1\r\n{name}: 0\r\n{name.lower()}: 0".encode())


def test_a_start_line_with_a_control_character_is_400() -> None:
    with pytest.raises(HeadError):
        split_head(b"GET / HTTP/1.1\n\r\nHost: a")


@given(st.binary(max_size=200))
def test_garbage_is_a_head_or_a_head_error(head: bytes) -> None:
    headers: dict[str, str] = {}
    with suppress(HeadError):
        _, headers = split_head(head)
    assert not any(set(name + value) & set("\r\n\0") for name, value in headers.items())


def test_lists_leave_out_empty_members_and_members_are_found_in_any_case() -> None:
    assert list_members(" a,, b\t,") == ["a", "b"]
    assert has_member("keep-alive, UPGRADE", "upgrade")
    assert not has_member("upgraded", "upgrade")
    assert not has_member("", "upgrade")


@pytest.mark.parametrize(
    ("line", "headers"),
    [
        ("GET /\r\nX: y HTTP/1.1", {}),
        ("GET / HTTP/1.1", {"X": "a\r\nY: b"}),
        ("GET / HTTP/1.1", {"X": "a\n"}),
        ("GET / HTTP/1.1", {"X": "a\0"}),
        ("GET / HTTP/1.1", {"X": "€"}),
        ("GET / HTTP/1.1", {"X: a\r\nY": "b"}),
        ("GET / HTTP/1.1", {"": "b"}),
    ],
)
def test_what_is_written_cannot_carry_another_line(line: str, headers: dict[str, str]) -> None:
    with pytest.raises(LocalProtocolError):
        join_head(line, headers)


@given(st.dictionaries(st.from_regex(r"[a-z0-9-]{1,10}", fullmatch=True), st.text(max_size=20), max_size=4))
def test_what_is_written_reads_back_as_it_was_said_or_is_not_written(headers: dict[str, str]) -> None:
    try:
        head = join_head("HTTP/1.1 101 x", headers)
    except LocalProtocolError:
        return
    assert head.endswith(b"\r\n\r\n")
    assert split_head(head[:-4]) == (
        "HTTP/1.1 101 x",
        {name: value.strip(" \t") for name, value in headers.items()},
    )
