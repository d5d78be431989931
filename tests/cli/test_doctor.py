"""``longwire doctor``: what it prints, and how it ends."""

import json
import os
from collections.abc import Callable
from typing import Any

import pytest

Run = Callable[..., Any]


@pytest.fixture(autouse=True)
def _one_day_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine under the tests may have any limits; the settings are made for it."""
    monkeypatch.setenv("LONGWIRE_PORT", "0")
    monkeypatch.setenv("LONGWIRE_HTTP_PORT", "0")
    monkeypatch.setenv("LONGWIRE_INTERNAL_PORT", "none")
    monkeypatch.setenv("LONGWIRE_CONSOLE_PORT", "none")


def test_it_tells_every_finding_by_its_area_and_what_to_do(run: Run) -> None:
    outcome = run("doctor", "--limit", "max_connections=100000000")
    assert outcome.status == 1
    lines = outcome.out.splitlines()
    assert [line for line in lines if line and not line.startswith(" ")][:3] == ["machine", "capacity", "files"]
    at = next(number for number, line in enumerate(lines) if line.startswith("  ✗ open files:"))
    assert lines[at + 1].startswith("      allow at least 100,000,256")
    assert lines[at + 2] == "      ulimit -n 100000256"
    assert "failure" in lines[-1]


def test_as_json_it_has_the_capacity_and_every_field(run: Run) -> None:
    outcome = run("doctor", "--json", "--limit", "max_connections=10")
    answer = json.loads(outcome.out)
    assert answer["capacity"]["connections"] == 10
    assert answer["capacity"]["bound"] == "limits.max_connections of 1 node"
    assert answer["state"] in ("ok", "warning", "failure")
    assert outcome.status == (answer["state"] == "failure")
    assert set(answer["findings"][0]) == {"area", "name", "state", "fact", "advice", "command"}


def test_roles_say_what_is_looked_for(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "STORE_URL": "mysql+asyncmy://longwire:hunter2@127.0.0.1:1/longwire",
        "REDIS_URL": "redis://:hunter2@127.0.0.1:1/0",
        "KAFKA_SERVERS": "127.0.0.1:1",
        "ZOOKEEPER_HOSTS": "127.0.0.1:1",
        "CLUSTER_SECRET": "hunter2" * 5,
    }.items():
        monkeypatch.setenv(f"LONGWIRE_{name}", value)
    outcome = run("doctor", "--roles", "sink", "--json")
    found = json.loads(outcome.out)
    assert outcome.status == 1
    assert found["capacity"] is None
    assert {"store", "Redis", "Kafka", "ZooKeeper"} <= {finding["area"] for finding in found["findings"]}
    assert "net.core.somaxconn" not in {finding["name"] for finding in found["findings"]}
    assert "hunter2" not in outcome.out + outcome.err


def test_the_limits_of_a_running_process_are_looked_at_by_its_pid(run: Run) -> None:
    assert run("doctor", "--pid", os.getpid(), "--limit", "max_connections=10").status in (0, 1)
    outcome = run("doctor", "--pid", 4_194_303)
    assert (outcome.status, "there is no process 4194303" in outcome.err) == (2, True)


def test_a_wrong_setting_is_told_as_by_serve(run: Run) -> None:
    outcome = run("doctor", "--limit", "max_conections=10")
    assert (outcome.status, "did you mean limits.max_connections?" in outcome.err) == (2, True)
