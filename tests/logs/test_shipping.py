"""What deploy/logging ships: real rsyslog brings a real run's log to a real OpenSearch, where a trace is found."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from log_run import TRACE_ID, WITHIN_S, Run

from longwire.testing.engines import OpenSearch, Rsyslog

DEPLOYED = Path(__file__).parents[2] / "deploy/logging"
# Beside the run's own events: what a crash leaves, and what no index takes.
STRAY = 'Traceback (most recent call last): "\\x" \t é'
REFUSED = {"@timestamp": "2026-01-02T03:04:05.000Z", "message": "from elsewhere", "event": {"duration": "long"}}


@pytest.fixture(scope="module")
def search(
    run: Run, opensearch_engine: OpenSearch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[OpenSearch, Rsyslog]]:
    """The run's log, shipped; rsyslog still reads."""
    opensearch_engine.call(
        "PUT", "/_index_template/longwire", json.loads((DEPLOYED / "index-template.json").read_text())
    )
    folder = tmp_path_factory.mktemp("shipping")
    (folder / "longwire.log").write_text(run.text + STRAY + "\n" + json.dumps(REFUSED) + "\n")
    text = (DEPLOYED / "rsyslog-longwire.conf").read_text()
    for deployed, here in (
        ("/var/log/longwire", str(folder)),
        ("http://127.0.0.1:9200", opensearch_engine.url),
        ("/var/spool/rsyslog", "@FOLDER@/spool"),
    ):
        assert deployed in text
        text = text.replace(deployed, here)
    with Rsyslog(folder / "rsyslog", text) as rsyslog:
        _until(lambda: _count(opensearch_engine) >= _lines(run))
        yield opensearch_engine, rsyslog


def _until(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not what():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.1)


def _lines(run: Run) -> int:
    """Those of the file that say anything, with what `longwire dev` itself prints, and the stray one."""
    return sum(bool(line.strip()) for line in run.text.splitlines()) + 1


def _count(engine: OpenSearch) -> int:
    engine.call("POST", "/_refresh")
    return int(engine.call("GET", "/longwire-*/_count?ignore_unavailable=true")["count"])


def _found(engine: OpenSearch, query: dict[str, Any]) -> list[dict[str, Any]]:
    body = {"query": query, "size": 500, "sort": ["@timestamp", "event.sequence"]}
    return [hit["_source"] for hit in engine.call("POST", "/longwire-*/_search", body)["hits"]["hits"]]


def test_every_event_of_the_run_is_there_once(run: Run, search) -> None:
    engine, _ = search
    assert _count(engine) == _lines(run)
    numbers = [one["event"]["sequence"] for one in _found(engine, {"exists": {"field": "event.sequence"}})]
    assert sorted(numbers) == sorted(event["event"]["sequence"] for event in run.events)


def test_a_search_by_trace_tells_one_message_s_whole_way_in_its_order(run: Run, search) -> None:
    engine, _ = search
    events = _found(engine, {"term": {"trace.id": TRACE_ID}})
    hops = [event["labels"]["hop"] for event in events if "hop" in event.get("labels", {})]
    way = [hop for hop in hops if hop in ("message.accepted", "message.written", "message.acked")]
    assert way == ["message.accepted", "message.written", "message.acked"]
    calls = [event for event in events if event["log"]["logger"] == "longwire.api.calls"]
    assert [call["http"]["response"]["status_code"] for call in calls] == [202]


def test_events_are_found_by_the_words_beside_them(run: Run, search) -> None:
    engine, _ = search
    message_id = run.message_id.removeprefix("msg_")
    assert _found(engine, {"term": {"labels.message_id": message_id}})
    assert _found(
        engine, {"bool": {"must": [{"term": {"log.level": "info"}}, {"term": {"event.dataset": "longwire.api"}}]}}
    )
    assert _found(engine, {"term": {"client.ip": "127.0.0.0/8"}})


def test_a_line_that_is_no_event_becomes_a_message(search) -> None:
    engine, _ = search
    (event,) = _found(engine, {"match_phrase": {"message": "most recent call last"}})
    assert event["message"] == STRAY
    assert event["event"]["dataset"] == "longwire.other"


def test_what_the_index_refuses_is_kept_with_the_reason(search) -> None:
    _, rsyslog = search
    refused = rsyslog.folder / "spool/longwire-refused.log"
    _until(refused.exists)
    assert "from elsewhere" in refused.read_text()
    assert "event.duration" in refused.read_text()


def test_only_the_fields_of_the_template_are_mapped(search) -> None:
    engine, _ = search
    template = json.loads((DEPLOYED / "index-template.json").read_text())["template"]["mappings"]["properties"]
    for mapping in engine.call("GET", "/longwire-*/_mapping").values():
        assert mapping["mappings"]["properties"] == template
