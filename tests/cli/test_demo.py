"""The demo: counts that add up, an end that leaves nothing, and faults that are told."""

import random
import re
import signal
import tempfile
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from longwire.cli.demo.fleet import Member, strangers
from longwire.cli.demo.report import Funnel, Report, Row, percentiles
from longwire.cli.demo.traffic import PushArrivals, Traffic
from longwire.cli.funnel import STATES, difference
from longwire.client import Message

NUMBER = re.compile(r"[\d,]+")


def folders() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob("longwire-demo-*"))


@pytest.fixture
def temporary(tmp_path: Path) -> str:
    """A folder for temporary folders of this test alone."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    return str(folder)


def test_a_small_demo_adds_up_and_leaves_nothing(launch, temporary: str) -> None:
    program = launch("demo", "--devices", "60", TMPDIR=temporary)
    assert program.process.wait(60) == 0, program.output.read_text()
    said = program.output.read_text()
    assert "Everything adds up" in said
    assert "whose exit status was 0" in said
    rows = dict(re.findall(r"^ ([^\d\n]+?) +([\d,]+ +[\d,]+ +[\d,]+) .*✓ ?$", said, re.MULTILINE))
    counts = {name.strip(): [int(n.replace(",", "")) for n in NUMBER.findall(row)] for name, row in rows.items()}
    assert counts == {
        "register (HTTP)": [60] * 3,
        "connect (TCP)": [30] * 3,
        "connect (WebSocket)": [30] * 3,
        "device → device": [60] * 3,
        "device → device, flat out": [300] * 3,
        "lines cut → resumed": [6] * 3,
        "device → device, away": [36] * 3,
        "device → app → device": [60] * 3,
        "request → reply": [60] * 3,
        "in all": [642] * 3,
    }
    funnels = {
        name.strip(): [int(n.replace(",", "")) for n in row.split()]
        for name, row in re.findall(r"^ (.+?) ((?: +[\d,]+){5}) ?$", said, re.MULTILINE)
    }
    to_tags, *others = funnels["targeted"]
    assert others == [60] * 4
    assert funnels["acked"][:4] == [to_tags, 60, 51, 60]
    assert funnels["pending"] == [0, 0, 9, 0, 0]
    assert funnels["states together"] == funnels["demo: targeted"] == funnels["targeted"]
    assert funnels["demo: got it once"] == funnels["acked"]
    assert 30 <= funnels["acked"][4] == 60 - funnels["canceled"][4] < 60
    assert list(Path(temporary).iterdir()) == []


def test_against_a_longwire_that_runs_already_it_counts_only_its_own(launch, tmp_path: Path) -> None:
    system = launch("dev", "longwire.cli.demo.application:app", "--data", "data", "--port", "0", "--http-port", "0")
    keys = system.ready()
    settings = {f"LONGWIRE_{name.upper()}": keys[name] for name in ("api_key", "app_key", "app_secret")}
    for _ in range(2):
        program = launch("demo", "--against", keys["http_url"], "--devices", "30", **settings)
        program.output = system.output
        assert program.process.wait(90) == 0, program.output.read_text()
    said = program.output.read_text()
    assert said.count("Everything adds up") == 2
    assert f"30 devices on {keys['http_url']}" in said
    assert "of the node for each" not in said
    assert system.process.poll() is None


def test_against_needs_three_keys_and_an_answer(run) -> None:
    refused = run("demo", "--against", "http://127.0.0.1:1", "--api-key", "k")
    assert (refused.status, "--app-secret" in refused.err) == (2, True)
    away = run("demo", "--against", "http://127.0.0.1:1", "--api-key", "k", "--app-key", "a", "--app-secret", "s")
    assert (away.status, "http://127.0.0.1:1" in away.err) == (1, True)


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.chaos), signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing(launch, temporary: str, number: int) -> None:
    program = launch("demo", "--devices", "200", TMPDIR=temporary)
    program.wait_until(lambda: "registering over HTTP" in program.output.read_text(), "some of it")
    node = next(Path("/proc").glob(f"{program.process.pid}/task/*/children")).read_text().split()
    assert program.stop(number) == 130
    assert "interrupted" in program.output.read_text()
    assert list(Path(temporary).iterdir()) == []
    assert node
    assert not any(Path(f"/proc/{pid}").exists() for pid in node)


def test_a_demo_that_stays_is_there_to_talk_to_until_it_is_told(launch, run, temporary: str) -> None:
    program = launch("demo", "--devices", "20", "--stay", TMPDIR=temporary)
    program.wait_until(lambda: "Ctrl-C ends it" in program.output.read_text(), "the lines to paste")
    said = program.output.read_text()
    data = re.search(r"longwire devices list --data (\S+)", said)
    assert data is not None
    assert len(run("devices", "list", "--data", data[1]).out.splitlines()) == 20
    asked = run("device", "request", "--as", "bob", "demo.sum", "[1, 2, 3]", "--data", data[1])
    assert asked.out == "6\n"
    assert program.stop(signal.SIGINT) == 0
    assert list(Path(temporary).iterdir()) == []


def message(number: int) -> Message:
    return Message("device:a", "demo", b"", "", number.to_bytes(16, "big"), 0)


class Sender:
    """A device whose sends all succeed."""

    async def send(self, *_arguments: object, **_options: object) -> None:
        return


async def traffic_of(count: int) -> tuple[Traffic, Member, list[bytes]]:
    traffic, member = Traffic("demo", count), Member("b", "tcp")
    member._device = Sender()  # type: ignore[assignment]
    for _ in range(count):
        await traffic.send(member, "device:b", {})
    return traffic, member, list(traffic.sent)


async def test_what_arrives_once_adds_up() -> None:
    traffic, member, ids = await traffic_of(3)
    for message_id in ids:
        assert traffic.fault
        traffic.arrived(member, message_id)
    assert (traffic.confirmed, traffic.once, traffic.fault) == (3, 3, "")
    assert await traffic.completed(0.1)


async def test_what_is_lost_comes_twice_or_goes_astray_does_not_add_up() -> None:
    traffic, member, ids = await traffic_of(3)
    traffic.arrived(member, ids[0])
    traffic.arrived(member, ids[0])
    traffic.arrived(Member("c", "tcp"), ids[1])
    traffic.arrived(member, b"unknown")
    assert traffic.once == 0
    assert traffic.fault == "2 lost, 1 more than once, 2 astray"
    assert not await traffic.completed(0.01)


def test_what_does_not_add_up_is_seen_in_the_table() -> None:
    report = Report(2, node_bytes=(1 << 20, 2 << 20, 3 << 20))
    report.rows += [Row("good", 2, 2, 2, 10.0, [0.001, 0.002], ""), Row(""), Row("bad", 2, 1, 1, fault="1 lost")]
    out = StringIO()
    report.show(Console(file=out, width=100))
    said = out.getvalue()
    assert "✗ bad: 1 lost" in said
    assert "It does not add up." in said
    assert "Everything adds up" not in said
    assert re.search(r"in all +4 +3 +3 .*✗", said)
    assert "512.0 KB of the node for each connected device" in said


def counts(**states: int) -> dict[str, int]:
    return dict.fromkeys(("targeted", *STATES), 0) | states


def test_a_push_that_does_not_add_up_is_seen_beside_those_that_do() -> None:
    report = Report(3)
    report.funnels.append(Funnel("to all", counts(targeted=3, acked=3), 3, 3, [0.1, 0.2, 0.3]))
    report.funnels.append(Funnel("to tags", counts(targeted=3, acked=2), 3, 2, fault="its states miss 1"))
    out = StringIO()
    report.show(Console(file=out, width=80))
    said = out.getvalue()
    assert re.search(r"acked +3 +2", said)
    assert "✗ push to tags: its states miss 1" in said
    assert "It does not add up." in said


def test_a_push_is_counted_by_device_and_who_was_not_meant_is_astray() -> None:
    arrivals = PushArrivals("demo.push", ["a", "b"])
    for name in ("a", "a", "c"):
        arrivals.received(Member(name, "tcp"), message(1))
    assert (dict(arrivals.copies), arrivals.once, arrivals.repeated, arrivals.astray) == ({"a": 2}, 0, 1, 1)


def test_the_difference_of_a_funnel_is_what_its_states_miss() -> None:
    assert (
        difference(counts(targeted=7, acked=1, expired=1, failed=1, collapsed=1, canceled=1, withdrawn=1, pending=1))
        == 0
    )
    assert difference(counts(targeted=3, acked=1, pending=1)) == 1


def test_the_table_fits_a_terminal_of_eighty_columns() -> None:
    report = Report(2_000)
    report.rows.append(Row("device → device, flat out", 10_000, 10_000, 10_000, 12_345.0, [1.234, 5.678, 9.99], ""))
    out = StringIO()
    report.show(Console(file=out, width=80))
    assert "device → device, flat out 10,000" in out.getvalue()
    assert "…" not in out.getvalue()


def test_everyone_writes_to_another_and_is_written_to() -> None:
    members = [Member(str(n), "tcp") for n in range(50)]
    to = strangers(members, random.Random(1))
    assert set(to) == set(to.values()) == set(members)
    assert all(sender is not receiver for sender, receiver in to.items())


def test_percentiles_are_what_their_names_say() -> None:
    assert percentiles([float(n) for n in range(101)]) == (50.0, 95.0, 99.0)
