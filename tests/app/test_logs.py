"""Lines of the log: their form, what is masked, what is cut, and their levels by area."""

import contextlib
import io
import json
import logging
from collections.abc import Iterator
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from longwire.api.shapes.logs import AREAS as NAMED
from longwire.api.shapes.logs import LevelName
from longwire.app import logs
from longwire.app.settings import Settings
from longwire.traces import CALL, Call

SECRET = "Kx9-planted-Zq7"


class _Stream(io.StringIO):
    """Standard error of a process."""

    is_terminal = False

    def isatty(self) -> bool:
        return self.is_terminal

    def configure(self, *words: str, **options: Any) -> None:
        with contextlib.redirect_stderr(self):
            logs.configure(*words, **options)


@pytest.fixture
def stream() -> Iterator[_Stream]:
    """Where the log goes; the process's own is put back as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers[:] = []  # the tests' own would be closed
    made = _Stream()
    yield made
    made.configure("warning")  # forgets secrets and service
    root.handlers[:] = handlers
    root.setLevel(level)


def _event(stream: io.StringIO) -> dict[str, Any]:
    (line,) = stream.getvalue().splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


def _fail(text: str) -> None:
    raise ValueError(text)


def test_a_line_is_an_event_in_ecs(stream) -> None:
    stream.configure("info", form="json", service={"node": {"name": "n-1", "roles": ["api"]}})
    logging.getLogger("longwire.gateway.node").info("%d went", 3, extra={"labels": {"push_id": "psh_1", "n": 2}})
    event = _event(stream)
    assert event.pop("@timestamp").endswith("Z")
    assert event["service"].pop("version")
    assert event == {
        "log.level": "info",
        "message": "3 went",
        "ecs.version": "8.11.0",
        "log": {"logger": "longwire.gateway.node"},
        "event": {"dataset": "longwire.gateway", "sequence": 1},
        "service": {"name": "longwire", "node": {"name": "n-1", "roles": ["api"]}},
        "labels": {"push_id": "psh_1", "n": "2"},
    }


def test_a_line_has_the_trace_of_the_call_it_was_written_in(stream) -> None:
    stream.configure("info", form="json")
    call = Call("req_0192f0c1b0a07c3e8d1f2a3b4c5d6e7f")
    token = CALL.set(call)
    try:
        logging.getLogger("longwire.api").info("in the call")
    finally:
        CALL.reset(token)
    event = _event(stream)
    assert event["trace"] == {"id": "0192f0c1b0a07c3e8d1f2a3b4c5d6e7f"}
    assert event["http"] == {"request": {"id": "req_0192f0c1b0a07c3e8d1f2a3b4c5d6e7f"}}


def test_what_the_event_says_itself_goes_before_its_call(stream) -> None:
    stream.configure("info", form="json")
    token = CALL.set(Call("req_0192f0c1b0a07c3e8d1f2a3b4c5d6e7f"))
    try:
        logging.getLogger("longwire.hops").info("hop", extra={"trace.id": "ab" * 16})
    finally:
        CALL.reset(token)
    assert _event(stream)["trace"] == {"id": "ab" * 16}


def test_what_an_application_says_beside_its_text_is_a_label_and_no_field(stream) -> None:
    stream.configure("info", form="json")
    logging.getLogger("shop").info("sold", extra={"order": 7, "service": "mine", "error": "x", "deep": {"a": object()}})
    event = _event(stream)
    assert event["labels"] == {"order": "7", "service": "mine", "error": "x"}
    assert event["event"]["dataset"] == "shop"
    assert "deep" not in event
    assert "error" not in event


def test_an_error_brings_its_kind_its_words_and_its_stack(stream) -> None:
    stream.configure("info", form="json")
    try:
        _fail("no\nsuch thing")
    except ValueError:
        logging.getLogger("longwire.sink").exception("failed")
    error = _event(stream)["error"]
    assert (error["type"], error["message"]) == ("ValueError", "no\nsuch thing")
    assert "test_logs.py" in error["stack_trace"]


@pytest.mark.parametrize("form", ["json", "text"])
@given(text=st.text(), other=st.text())
def test_nothing_from_outside_breaks_a_line(form, text, other) -> None:
    formatter = logs.EcsLine() if form == "json" else logs.OneLine("%(levelname)s %(message)s")
    record = logging.makeLogRecord({"msg": "got %s", "args": (text,), "labels": {"device_id": other}, "name": text})
    line = formatter.format(record)
    assert line.isprintable()
    if form == "json":
        json.loads(line)


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_huge_value_is_cut_and_its_end_is_kept(form, stream) -> None:
    stream.configure("info", form=form)
    logging.getLogger("longwire.api").info("%s", "way " * 250_000 + "end")
    line = stream.getvalue()
    assert 8_000 < len(line) < 9_000
    assert "way end" in line


def test_a_call_that_does_not_fit_its_own_text_is_written_all_the_same(stream) -> None:
    stream.configure("info", form="json")
    logging.getLogger("longwire.api").info("%d and %d", "one")
    assert _event(stream)["message"] == "%d and %d ('one',)"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("key lwk_0a1b2c_Zx-9 of", "key lwk_… of"),
        ("Authorization: Bearer abc.def-ghi_jkl", "Authorization: Bearer …"),
        ("basic dXNlcjpwYXNz and", "basic … and"),
        ("redis://push:p@ss:w/rd@db:6379/0 is away", "redis://push:…@db:6379/0 is away"),
        ("proof " + "a1" * 32, "proof …"),
        ("message msg_" + "a1" * 16, "message msg_" + "a1" * 16),
        ("trace " + "a1" * 16, "trace " + "a1" * 16),
        ("http://127.0.0.1:9200/x", "http://127.0.0.1:9200/x"),
    ],
)
def test_what_looks_like_a_secret_is_masked(text, expected) -> None:
    assert logs.harmless(text) == expected


@pytest.mark.parametrize("form", ["json", "text"])
def test_no_secret_of_the_settings_stands_in_a_line(form, stream) -> None:
    """Wherever it comes up: in text, arguments, labels, errors and their stacks."""
    secrets = {name: f"{SECRET}-{name}-0123456789012345" for name in ("store", "redis", "cluster", "sasl", "otlp")}
    settings = Settings(
        store_url=SecretStr(f"mysql+asyncmy://push:{secrets['store']}@db/push"),
        redis_url=SecretStr(f"redis://:{secrets['redis']}@db:6379/0"),
        kafka_servers="k:9092",
        zookeeper_hosts="z:2181",
        cluster_secret=SecretStr(secrets["cluster"]),
        kafka_options={"sasl.password": secrets["sasl"]},
        otlp_url="http://127.0.0.1:4318",
        otlp_headers=SecretStr(f"x-team=blue, x-key={secrets['otlp']}"),
        log_format=form,
    )
    with contextlib.redirect_stderr(stream):
        logs.configure_for(settings)
    log = logging.getLogger("longwire.adapters.sql")
    for secret in secrets.values():
        try:
            _fail(f"refused {secret}")
        except ValueError:
            log.exception("%s again", secret, extra={"labels": {"why": secret}, "user.name": secret})
    assert stream.getvalue().count("refused") >= 5
    assert SECRET not in stream.getvalue()


def test_a_password_that_is_a_word_masks_no_words(stream) -> None:
    stream.configure("info", form="text", secrets=("longwire", "short7!", ""))
    logging.getLogger("longwire.app").info("short7! is not masked either")
    assert stream.getvalue().endswith("longwire.app: short7! is not masked either\n")


def test_text_is_for_terminals_and_json_for_files(stream) -> None:
    stream.configure("info")
    logging.getLogger("longwire.app").info("one")
    stream.is_terminal = True
    stream.configure("info", "n-1")
    token = CALL.set(Call("req_0192f0c1b0a07c3e8d1f2a3b4c5d6e7f"))
    try:
        logging.getLogger("longwire.app").info("two")
    finally:
        CALL.reset(token)
    first, second = stream.getvalue().splitlines()
    assert json.loads(first)["message"] == "one"
    assert second.startswith("n-1 ")
    assert second.endswith("INFO    longwire.app: two [4c5d6e7f]")


def test_an_areas_level_is_its_own_until_it_is_taken_back(stream) -> None:
    stream.configure("info", form="json")
    gateway, hidden = logging.getLogger("longwire.gateway.node"), logging.getLogger("longwire.net.wheel")
    assert not gateway.isEnabledFor(logging.DEBUG)
    logs.set_levels({"gateway": "debug", "net": "error", "of-another-version": "debug", "sql": "loud"})
    assert gateway.isEnabledFor(logging.DEBUG)
    assert not hidden.isEnabledFor(logging.WARNING)
    assert not logging.getLogger("longwire.adapters.sql").isEnabledFor(logging.DEBUG)
    logs.set_levels({})
    assert not gateway.isEnabledFor(logging.DEBUG)
    assert hidden.isEnabledFor(logging.INFO)


def test_libraries_say_warnings_alone(stream) -> None:
    stream.configure("debug", form="json")
    assert not logging.getLogger("httpcore.connection").isEnabledFor(logging.DEBUG)
    assert logging.getLogger("shop").isEnabledFor(logging.DEBUG)


def test_lines_are_counted_by_level(stream) -> None:
    stream.configure("info", form="json")
    log = logging.getLogger("longwire.app")
    log.debug("no")
    log.info("one")
    log.warning("two")
    log.warning("three")
    assert logs.handler is not None
    assert logs.handler.counts == {"debug": 0, "info": 1, "warning": 2, "error": 0, "critical": 0}


def test_every_area_has_a_name_in_the_api_and_every_logger_an_area() -> None:
    assert set(logs.AREAS) == set(NAMED)
    assert get_args(LevelName) == logs.LEVELS
    ours = [name for name in logging.root.manager.loggerDict if name.startswith("longwire.")]
    # The SDK's and the tests' own are no parts of a process.
    rest = [name for name in ours if not name.startswith(("longwire.client", "longwire.testing"))]
    parents = {"longwire.adapters"}
    assert [name for name in rest if logs.area_of(name) is None and name not in parents] == []
