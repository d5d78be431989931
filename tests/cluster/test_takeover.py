"""A device that comes to another node while its session stands on one."""

import contextlib
import socket
import threading

import pytest

from longwire.reasons import CloseCode
from longwire.testing.cluster import Mesh
from longwire.testing.process import RawClient
from longwire.wire.packets import Ack, Close, Push


class Wanderer:
    """One device of the bare protocol that connects wherever it is told, and acknowledges what it gets."""

    def __init__(self, cluster, device_id: str, token: str) -> None:
        self.device_id, self.token, self.cluster = device_id, token, cluster
        self.got: list[str] = []
        self.closes: list[int] = []
        self.clients: list[RawClient] = []
        self.threads: list[threading.Thread] = []

    def come_to(self, gateway: int) -> None:
        client = RawClient(self.cluster.gateways[gateway].port)
        client.socket.settimeout(60)
        self.clients.append(client)
        client.connect(self.device_id, self.token)
        self.threads.append(threading.Thread(target=self._read, args=(client,), daemon=True))
        self.threads[-1].start()

    def _read(self, client: RawClient) -> None:
        try:
            while True:
                frame = client.next()
                if isinstance(frame.packet, Push):
                    text = bytes(frame.packet.payload).decode()
                    if text not in self.got:  # the SDK would know it too
                        self.got.append(text)
                    client.send(Ack(), frame.correlation)
                elif isinstance(frame.packet, Close):
                    self.closes.append(frame.packet.code)
        except (EOFError, OSError):
            pass

    def close(self) -> None:
        for client in self.clients:
            with contextlib.suppress(OSError):  # the node has closed it
                client.socket.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join(5)
        for client in self.clients:
            client.socket.close()


@pytest.fixture
def wanderer(cluster, prefix):
    name = f"{prefix}-wanderer"
    wanderer = Wanderer(cluster, name, cluster.register([name])[name])
    yield wanderer
    wanderer.close()
    cluster.routes_equal_nodes()


def test_the_earlier_session_ends_and_no_message_is_lost_on_the_way(cluster, prefix, wanderer) -> None:
    wanderer.come_to(0)
    count = 0
    with Mesh(cluster, 3, prefix=prefix, via=lambda number: number) as mesh:
        sending = mesh.devices[2]
        for move in range(12):
            for _ in range(25):
                mesh.run(sending.send(f"device:{wanderer.device_id}", str(count), "n"))
                count += 1
            wanderer.come_to((move + 1) % 3)
        cluster.wait_until(lambda: len(wanderer.got) >= count, f"{count} messages come", 75)
    assert wanderer.got == [str(number) for number in range(count)]
    cluster.wait_until(lambda: len(wanderer.closes) == 12, "each earlier session was ended", 40)
    assert set(wanderer.closes) == {CloseCode.TAKEN_OVER}


@pytest.mark.parametrize("rounds", [10, pytest.param(100, marks=pytest.mark.chaos)])
def test_of_two_that_come_to_two_nodes_at_once_one_stays(cluster, wanderer, rounds) -> None:
    for _ in range(rounds):
        before = len(wanderer.closes)

        def come(gateway: int) -> None:
            try:
                wanderer.come_to(gateway)
            except AssertionError as refused:  # CLOSE was the answer
                wanderer.closes.append(refused.args[0].code)

        first, second = (threading.Thread(target=come, args=(gateway,)) for gateway in (0, 1))
        first.start()
        second.start()
        first.join()
        second.join()
        # One of the two, and whoever stood before them.
        wanted = before + (1 if before == 0 and len(wanderer.clients) <= 2 else 2)
        cluster.wait_until(lambda wanted=wanted: len(wanderer.closes) >= wanted, "all sessions but one have ended", 40)
    assert set(wanderer.closes) == {CloseCode.TAKEN_OVER}
