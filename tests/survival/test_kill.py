"""kill -9 in the middle of durable traffic: what got SENT arrives, once in the application's eyes."""

import random
import threading

import pytest

from longwire.ids import new_message_id
from longwire.reasons import Status
from longwire.testing.process import RawClient
from longwire.wire.packets import FLAG_RECEIPT, Ack, Push, Send, Sent


@pytest.mark.parametrize("run", [0, *(pytest.param(n, marks=pytest.mark.chaos) for n in range(1, 11))])
def test_every_message_that_was_confirmed_before_a_kill_arrives_after_it(node, run) -> None:
    rng = random.Random(run or None)
    names = [f"d-{n}" for n in range(8)]
    tokens = node.register([*names, "receiver"])
    confirmed: set[bytes] = set()
    # Fewer than the inbox takes: what is never acknowledged fills the window, then the inbox, and then SENT is 14.
    kill_at = rng.randrange(200, 900)
    enough = threading.Event()

    def send(name: str) -> None:
        with RawClient(node.port) as client:
            client.connect(name, tokens[name])
            waiting: dict[int, bytes] = {}
            try:
                for n in range(100_000):
                    waiting[n] = message_id = new_message_id()
                    client.send(Send(message_id, "device:receiver", "k", message_id), n, FLAG_RECEIPT)
                    while len(waiting) > 16:
                        frame = client.next()
                        if isinstance(frame.packet, Sent):
                            sent = waiting.pop(frame.correlation)
                            if frame.packet.status in (Status.OK, Status.DUPLICATE):
                                confirmed.add(sent)
                    if len(confirmed) >= kill_at:
                        enough.set()
            except (OSError, EOFError):
                pass

    got: list[bytes] = []

    def receive_until_cut() -> None:
        # Acks some of what comes, so that the kill falls among acks too.
        with RawClient(node.port) as client:
            client.connect("receiver", tokens["receiver"])
            try:
                while True:
                    frame = client.next()
                    if isinstance(frame.packet, Push):
                        got.append(frame.packet.payload)
                        if len(got) % 3:
                            client.send(Ack(), frame.correlation)
            except (OSError, EOFError):
                pass

    threads = [threading.Thread(target=send, args=(name,), daemon=True) for name in names]
    threads.append(threading.Thread(target=receive_until_cut, daemon=True))
    for thread in threads:
        thread.start()
    assert enough.wait(60)
    node.kill()
    for thread in threads:
        thread.join(30)
    node.start()
    again: list[bytes] = []
    with RawClient(node.port) as client:
        client.connect("receiver", tokens["receiver"])
        missing = confirmed - set(got)
        client.socket.settimeout(10)
        try:
            while missing:
                frame = client.next()
                if isinstance(frame.packet, Push):
                    again.append(frame.packet.payload)
                    missing.discard(frame.packet.payload)
                    client.send(Ack(), frame.correlation)
        except TimeoutError:
            pass
    assert not missing, f"{len(missing)} of {len(confirmed)} confirmed messages did not arrive"
    assert len(again) == len(set(again)), "the same message came twice on one connection within its window"
