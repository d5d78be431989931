"""The proxy that breaks connections: each fault as a client sees it."""

import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from longwire.testing.engines import Redis
from longwire.testing.faults import Direction, FaultProxy


class Echo:
    """Gives back what comes, in capitals; remembers what has come."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.heard = b""
        self.ends: list[str] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.listener.getsockname()[1]

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=[connection], daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(1 << 16):
                    self.heard += data
                    connection.sendall(data.upper())
                self.ends.append("end")
            except OSError as error:
                self.ends.append(type(error).__name__)


@pytest.fixture
def echo() -> Iterator[Echo]:
    echo = Echo()
    yield echo
    echo.listener.close()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[FaultProxy]:
    with FaultProxy(echo.address) as proxy:
        yield proxy


@pytest.fixture
def client(proxy: FaultProxy) -> Iterator[socket.socket]:
    """Connected through, and known to be so."""
    with connect(proxy) as client:
        assert ask(client, b"hello") == b"HELLO"
        yield client


def connect(proxy: FaultProxy, timeout_s: float = 5) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout_s)


def ask(client: socket.socket, data: bytes) -> bytes:
    client.sendall(data)
    answer = b""
    while len(answer) < len(data):
        piece = client.recv(1 << 16)
        assert piece, "the connection ended"
        answer += piece
    return answer


def hears_nothing(client: socket.socket, for_s: float = 0.1) -> bool:
    client.settimeout(for_s)
    try:
        client.recv(1)
    except TimeoutError:
        return True
    finally:
        client.settimeout(5)
    return False


def until(fact: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not fact():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_bytes_pass_in_order_and_an_end_passes_too(proxy: FaultProxy, echo: Echo) -> None:
    sent = bytes(range(97, 123)) * 40_000
    with connect(proxy) as client:
        threading.Thread(target=lambda: (client.sendall(sent), client.shutdown(socket.SHUT_WR)), daemon=True).start()
        answer = b""
        while data := client.recv(1 << 16):
            answer += data
    assert answer == sent.upper()
    until(lambda: echo.ends == ["end"])
    until(lambda: proxy.open_connections == 0)
    assert proxy.connections_seen == 1


def test_refuse_lets_nobody_in_and_leaves_those_who_are(proxy: FaultProxy, client: socket.socket) -> None:
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        connect(proxy)
    assert ask(client, b"still here") == b"STILL HERE"
    proxy.pass_on()
    with connect(proxy) as another:
        assert ask(another, b"back") == b"BACK"


def test_blackhole_accepts_and_swallows_and_cuts_when_it_ends(
    proxy: FaultProxy, client: socket.socket, echo: Echo
) -> None:
    proxy.blackhole()
    client.sendall(b"lost")
    with connect(proxy) as another:
        another.sendall(b"lost too")
        assert hears_nothing(client)
        assert hears_nothing(another)
        assert echo.heard == b"hello"
        proxy.pass_on()
        for cut in (client, another):
            with pytest.raises(ConnectionResetError):
                cut.recv(1)


def test_a_connection_that_lost_nothing_outlives_the_blackhole(proxy: FaultProxy, client: socket.socket) -> None:
    proxy.blackhole()
    proxy.pass_on()
    assert ask(client, b"fine") == b"FINE"


def test_a_blackhole_hides_that_the_target_is_gone(proxy: FaultProxy, echo: Echo) -> None:
    proxy.blackhole()
    echo.listener.shutdown(socket.SHUT_RDWR)
    echo.listener.close()
    with connect(proxy) as client:
        assert hears_nothing(client)
        proxy.pass_on()
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_drop_swallows_one_direction_only(proxy: FaultProxy, client: socket.socket, echo: Echo) -> None:
    proxy.drop(Direction.DOWN)
    client.sendall(b" and more")
    until(lambda: echo.heard == b"hello and more")
    assert hears_nothing(client)
    proxy.drop(Direction.UP)
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    with connect(proxy) as another:
        another.sendall(b"unheard")
        assert hears_nothing(another)
    assert echo.heard == b"hello and more"


def test_stall_holds_all_and_loses_nothing(proxy: FaultProxy, client: socket.socket, echo: Echo) -> None:
    proxy.stall()
    client.sendall(b"late")
    with connect(proxy) as another:
        another.sendall(b"r")
        assert hears_nothing(client)
        assert hears_nothing(another)
        assert echo.heard == b"hello"
        proxy.pass_on()
        assert client.recv(4) == b"LATE"
        assert another.recv(1) == b"R"


def test_delay_holds_each_direction_back_and_keeps_the_order(proxy: FaultProxy, client: socket.socket) -> None:
    proxy.delay(40, jitter_ms=30)
    started = time.monotonic()
    for number in range(10):
        client.sendall(b"%d" % number)
        time.sleep(0.002)
    answer = b""
    while len(answer) < 10:
        answer += client.recv(10)
    assert answer == b"0123456789"
    assert time.monotonic() - started >= 0.08
    proxy.delay(60_000)
    client.sendall(b"held")
    assert hears_nothing(client)
    proxy.pass_on()
    assert client.recv(4) == b"HELD", "what was held goes on at once"
    with pytest.raises(ValueError, match="-1"):
        proxy.delay(-1)


def test_cut_resets_both_ends_and_lets_new_ones_in(proxy: FaultProxy, client: socket.socket, echo: Echo) -> None:
    proxy.cut()
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    until(lambda: echo.ends == ["ConnectionResetError"])
    assert proxy.open_connections == 0
    with connect(proxy) as another:
        assert ask(another, b"again") == b"AGAIN"


def test_a_target_that_is_away_resets_the_client(proxy: FaultProxy, echo: Echo) -> None:
    echo.listener.shutdown(socket.SHUT_RDWR)
    echo.listener.close()
    with pytest.raises(ConnectionResetError), connect(proxy) as client:
        client.recv(1)


def test_stop_ends_connections_and_it_may_start_again_on_its_port(proxy: FaultProxy, client: socket.socket) -> None:
    address = proxy.address
    proxy.stop()
    proxy.stop()
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    with pytest.raises(ConnectionRefusedError):
        connect(proxy)
    with pytest.raises(RuntimeError, match="has not started"):
        proxy.cut()
    proxy.start()
    assert proxy.address == address
    with connect(proxy) as another:
        assert ask(another, b"again") == b"AGAIN"


def test_a_proxy_that_never_started_leaves_nothing_behind() -> None:
    FaultProxy("127.0.0.1:1").stop()


def test_it_stands_between_a_client_and_an_engine(redis_engine: Redis) -> None:
    with FaultProxy(f"127.0.0.1:{redis_engine.port}") as proxy, connect(proxy) as client:
        client.sendall(b"PING\r\n")
        assert client.recv(100) == b"+PONG\r\n"
        proxy.blackhole()
        client.sendall(b"PING\r\n")
        assert hears_nothing(client)
