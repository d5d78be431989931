"""A full disk: SENT says so, the node stays up, and goes on when there is room again."""

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from longwire.ids import new_message_id
from longwire.reasons import Status
from longwire.testing.process import NodeProcess, RawClient
from longwire.wire.packets import FLAG_RECEIPT, Send, Sent

_SIZE = "24m"
_FREE_BYTES = 192 << 10


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={_SIZE}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no tmpfs can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Takes nearly all the room that is left."""
    ballast = folder / "ballast"
    free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
    ballast.write_bytes(b"\0" * max(free - _FREE_BYTES, 0))
    return ballast


def status_of(client: RawClient, payload: bytes) -> Status:
    client.send(Send(new_message_id(), "device:other", "k", payload), 5, FLAG_RECEIPT)
    while not isinstance((packet := client.next().packet), Sent):
        pass
    return Status(packet.status)


def test_a_full_disk_is_answered_not_durable_and_survived(new_node, small_disk) -> None:
    node: NodeProcess = new_node(folder=small_disk / "data", limits=["max_inbox=100000"])
    tokens = node.register(["sender", "other"])
    with RawClient(node.port) as client:
        client.connect("sender", tokens["sender"])
        assert status_of(client, b"x") is Status.OK
        ballast = fill(small_disk)
        statuses = [status_of(client, b"x" * 32_000) for _ in range(30)]
        assert statuses[-1] is Status.NOT_DURABLE
        assert not node.is_ready()
        assert node.is_alive
        ballast.unlink()
        deadline = time.monotonic() + 30
        while status_of(client, b"after") is not Status.OK:
            assert time.monotonic() < deadline, "the store did not come back"
        confirmed = statuses.count(Status.OK) + 2
    assert node.is_ready()
    with RawClient(node.port) as other:
        other.connect("other", tokens["other"])
        got = 0
        while got < min(confirmed, 60):
            other.next()
            got += 1
