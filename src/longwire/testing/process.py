"""A node in a process of its own, to be killed, filled up and flooded, and a blunt client for it.

node = NodeProcess(folder)          longwire dev, on ports that stay the same over restarts
with RawClient(node.port) as client: client.connect("d-1", token)
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from longwire.wire.native import encode, node_decoder
from longwire.wire.packets import AnyPacket, Close, Connect, Connected, Received

READY_WITHIN_S = 60.0
_ANSWER_WITHIN_S = 30.0


class NodeProcess:
    """``longwire dev`` on a data folder. Start, kill and start again as often as the test likes."""

    def __init__(self, folder: Path, limits: Iterable[str] = (), environment: dict[str, str] | None = None) -> None:
        held = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
        self.port, self.http_port = (one.getsockname()[1] for one in held)
        for one in held:
            one.close()
        self.folder = folder
        self.log = folder.parent / f"{folder.name}.log"
        self._flags = [word for limit in limits for word in ("--limit", limit)]
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def http_url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def credentials(self) -> dict[str, str]:
        """What ``dev`` keeps in its folder."""
        found: dict[str, str] = json.loads((self.folder / "dev-credentials.json").read_text())
        return found

    def start(self) -> None:
        """Starts the process and waits until it is ready. Raises AssertionError with its log where it is not."""
        command = [sys.executable, "-m", "longwire.cli", "dev", "--data", str(self.folder)]
        command += ["--port", str(self.port), "--http-port", str(self.http_port), *self._flags]
        given = os.environ if self._environment is None else self._environment
        environment = {"LONGWIRE_LOG_FORMAT": "text", **given}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)  # noqa: S603 - ours
        deadline = time.monotonic() + READY_WITHIN_S
        while not self.is_ready():
            assert self.is_alive, self.log.read_text(errors="replace")
            assert time.monotonic() < deadline, self.log.read_text(errors="replace")
            time.sleep(0.02)

    def is_ready(self) -> bool:
        """Whether ``/readyz`` says so."""
        try:
            with urllib.request.urlopen(f"{self.http_url}/readyz", timeout=5) as answer:  # noqa: S310 - loopback
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def kill(self) -> None:
        """SIGKILL: no step of the stop is taken."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(15)

    def register(self, device_ids: list[str]) -> dict[str, str]:
        """Provisions devices through the API; their tokens."""
        body = json.dumps({"items": [{"device_id": one} for one in device_ids]}).encode()
        headers = {"Authorization": f"Bearer {self.credentials()['api_key']}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.http_url}/v1/devices/batch", body, headers)  # noqa: S310 - loopback
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - as above
            return {item["device_id"]: item["token"] for item in json.load(answer)["items"]}

    def resident_bytes(self) -> int:
        """What the process holds in memory."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("the process is gone")


class RawClient:
    """A blocking native client without manners; frames in, frames out."""

    def __init__(self, port: int, receive_buffer: int | None = None) -> None:
        self.socket = socket.socket()
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(_ANSWER_WITHIN_S)
        self.socket.connect(("127.0.0.1", port))
        self._decoder = node_decoder(1 << 20)
        self._frames: list[Received] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def connect(self, device_id: str, token: str) -> Connected:
        """CONNECT; the answer. Raises AssertionError where it is not CONNECTED."""
        self.send(Connect(token, device_id), 1)
        packet = self.next().packet
        assert isinstance(packet, Connected), packet
        return packet

    def send(self, packet: AnyPacket, correlation: int = 0, flags: int = 0) -> None:
        self.socket.sendall(encode(packet, correlation, flags))

    def next(self) -> Received:
        """The next frame. Raises EOFError at the end of the stream, TimeoutError after half a minute of nothing."""
        while not self._frames:
            data = self.socket.recv(1 << 16)
            if not data:
                raise EOFError
            self._frames = self._decoder.feed(data)
        return self._frames.pop(0)

    def read_close(self) -> Close | None:
        """Reads to the end of the stream; the CLOSE that came before it, if one did."""
        close = None
        with contextlib.suppress(EOFError, ConnectionError):
            while True:
                packet = self.next().packet
                if isinstance(packet, Close):
                    close = packet
        return close
