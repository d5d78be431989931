"""Redis, alone and as a cluster of three masters.

Without ``keeps_data`` a restart brings it back empty; with it, what was answered before a kill is there after it.
"""

import contextlib
import socket
import time
from pathlib import Path
from typing import Self

from longwire.testing.engines.base import Engine, EngineFailed, find_program

_SLOTS = ((0, 5460), (5461, 10922), (10923, 16383))
_ANSWER_WITHIN_S = 2.0


class Redis(Engine):
    """One Redis server."""

    name = "redis"

    def __init__(self, folder: Path, *, keeps_data: bool = True, options: tuple[str, ...] = ()) -> None:
        """``options``: further arguments of redis-server, as ``("--maxmemory", "10mb")``."""
        super().__init__(folder)
        self._options = [*options]
        # Not synced: a process that is killed loses nothing by it, only a machine would.
        self._options += ["--appendonly", "yes" if keeps_data else "no", "--appendfsync", "no"]

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def command(self) -> list[str]:
        program = find_program("redis-server", self.name)
        flags = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.folder), "--save", ""]
        return [program, *flags, *self._options]

    def answers(self) -> bool:
        return self.call("PING") == "+PONG"

    def call(self, command: str) -> str:
        """One command, its words separated by blanks; the answer as it stands on the wire, without its end."""
        with socket.create_connection(("127.0.0.1", self.port), _ANSWER_WITHIN_S) as connection:
            connection.settimeout(_ANSWER_WITHIN_S)
            connection.sendall(command.encode() + b"\r\nQUIT\r\n")
            answer = b""
            while data := connection.recv(1 << 16):
                answer += data
        return answer.decode(errors="replace").removesuffix("+OK\r\n").strip()


class _ClusterNode(Redis):
    port_count = 2

    def command(self) -> list[str]:
        flags = ["--cluster-enabled", "yes", "--cluster-port", str(self.ports[1]), "--cluster-node-timeout", "2000"]
        flags += ["--cluster-config-file", "nodes.conf", "--cluster-require-full-coverage", "no"]
        return [*super().command(), *flags]


class RedisCluster(Engine):
    """Three masters that share the slots; no replicas. ``nodes`` are to be stopped one by one too."""

    name = "redis-cluster"

    def __init__(self, folder: Path, *, keeps_data: bool = True) -> None:
        super().__init__(folder)
        self.nodes = [
            _ClusterNode(self.folder / f"node{number}", keeps_data=keeps_data) for number in range(len(_SLOTS))
        ]

    @property
    def url(self) -> str:
        return self.nodes[0].url

    @property
    def urls(self) -> list[str]:
        return [node.url for node in self.nodes]

    @property
    def is_running(self) -> bool:
        """Whether all masters run."""
        return all(node.is_running for node in self.nodes)

    def start(self) -> Self:
        """Starts the masters that do not run and waits until each calls the cluster whole."""
        try:
            for node in self.nodes:
                node.start()
            if not self._is_prepared:
                self._form()
                self._is_prepared = True
            self._wait_until_whole()
        except BaseException:
            self.kill()
            raise
        self.ports = [node.port for node in self.nodes]
        return self

    def stop(self) -> None:
        for node in self.nodes:
            node.stop()

    def kill(self) -> None:
        for node in self.nodes:
            node.kill()

    def freeze(self) -> None:
        for node in self.nodes:
            node.freeze()

    def thaw(self) -> None:
        for node in self.nodes:
            node.thaw()

    def _form(self) -> None:
        for epoch, (node, (first, last)) in enumerate(zip(self.nodes, _SLOTS, strict=True), 1):
            _expect_ok(node, f"CLUSTER ADDSLOTSRANGE {first} {last}")
            _expect_ok(node, f"CLUSTER SET-CONFIG-EPOCH {epoch}")
        for node in self.nodes[1:]:
            _expect_ok(self.nodes[0], f"CLUSTER MEET 127.0.0.1 {node.ports[0]} {node.ports[1]}")

    def _wait_until_whole(self) -> None:
        deadline = time.monotonic() + self.ready_within_s
        while not all(_is_whole(node) for node in self.nodes):
            if time.monotonic() > deadline:
                raise EngineFailed(f"the Redis cluster was not whole within {self.ready_within_s:g} s")
            time.sleep(0.05)


def _expect_ok(node: Redis, command: str) -> None:
    if (answer := node.call(command)) != "+OK":
        raise EngineFailed(f"{command}: {answer}")


def _is_whole(node: Redis) -> bool:
    with contextlib.suppress(OSError):
        info = node.call("CLUSTER INFO")
        return "cluster_state:ok" in info and "cluster_slots_ok:16384" in info
    return False
