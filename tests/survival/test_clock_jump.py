"""The wall clock jumps while the process runs: no deadline moves; after a restart it is believed (DESIGN §7)."""

import os
import signal
import textwrap
import time

import pytest

from longwire.ids import new_message_id
from longwire.reasons import Status
from longwire.testing.process import RawClient
from longwire.wire.packets import FLAG_RECEIPT, Ping, Pong, Push, Send, Sent

DAYS_S = 100 * 86_400

# Loaded by the interpreter itself: SIGUSR1 moves the wall clock, and the start may be moved too.
_JUMPY = """
import os, signal, time
_true_time, _true_ns = time.time, time.time_ns
_shift = [int(os.environ["JUMP_AT_START_S"])]
time.time = lambda: _true_time() + _shift[0]
time.time_ns = lambda: _true_ns() + _shift[0] * 1_000_000_000
def _jump(*_):
    _shift[0] += int(os.environ["JUMP_S"])
signal.signal(signal.SIGUSR1, _jump)
"""


def environment(folder, jump_s: int, at_start_s: int = 0) -> dict[str, str]:
    (folder / "sitecustomize.py").write_text(textwrap.dedent(_JUMPY))
    return os.environ | {"PYTHONPATH": str(folder), "JUMP_S": str(jump_s), "JUMP_AT_START_S": str(at_start_s)}


def tell(client: RawClient, to: str, ttl_s: int = 3_600) -> bytes:
    message_id = new_message_id()
    client.send(Send(message_id, to, "k", b"x", ttl_s), 7, FLAG_RECEIPT)
    while not isinstance((packet := client.next().packet), Sent):
        pass
    assert packet.status == Status.OK
    return message_id


@pytest.mark.parametrize("jump_s", [DAYS_S, -DAYS_S])
def test_a_jump_ends_no_session_no_token_and_no_message(new_node, tmp_path, jump_s) -> None:
    node = new_node(environment=environment(tmp_path, jump_s))
    tokens = node.register(["here", "away", "late"])
    with RawClient(node.port) as here:
        connected = here.connect("here", tokens["here"])
        first = tell(here, "device:away")
        os.kill(node.pid, signal.SIGUSR1)
        time.sleep(1.1)  # the wheel turns a few times under the new wall clock
        here.send(Ping(), 3)
        assert isinstance(here.next().packet, Pong)
        second = tell(here, "device:away")
        with RawClient(node.port) as away:
            told = away.connect("away", tokens["away"])
            assert abs(told.server_time_ms - connected.server_time_ms) < 60_000
            assert abs(told.token_expires_in_s - connected.token_expires_in_s) < 60
            pushes = [away.next().packet for _ in range(2)]
            assert [push.message_id for push in pushes if isinstance(push, Push)] == [first, second]
        with RawClient(node.port) as late:
            late.connect("late", tokens["late"])


def test_after_a_restart_the_wall_clock_is_believed_and_a_ttl_is_clamped(new_node, tmp_path) -> None:
    node = new_node(environment=environment(tmp_path, 0, at_start_s=DAYS_S))
    tokens = node.register(["here", "away"])
    with RawClient(node.port) as here:
        here.connect("here", tokens["here"])
        tell(here, "device:away", 600)
    assert node.stop() == 0
    node._environment = environment(tmp_path, 0, at_start_s=0)
    node.start()
    with RawClient(node.port) as here:
        here.connect("here", tokens["here"])
        tell(here, "device:away", 600)
    assert node.stop() == 0
    # Eleven days later by the second clock everything is over, also what the first one dated a hundred days ahead.
    node._environment = environment(tmp_path, 0, at_start_s=11 * 86_400)
    node.start()
    tokens = node.register(["here", "away"])
    with RawClient(node.port) as away:
        away.connect("away", tokens["away"])
        away.send(Ping(), 3)
        assert isinstance(away.next().packet, Pong)
