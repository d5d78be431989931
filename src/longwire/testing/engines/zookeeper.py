"""ZooKeeper, alone, from Debian's package."""

import re
import socket
from pathlib import Path

from longwire.testing.engines.base import Engine, find_program, missing

_JARS = (Path("/usr/share/java/zookeeper.jar"), Path("/usr/share/java/slf4j-simple.jar"))
_TICK_MS = 500


class ZooKeeper(Engine):
    """One ZooKeeper server; sessions of 1 to 20 s."""

    name = "zookeeper"

    @property
    def hosts(self) -> str:
        return f"127.0.0.1:{self.port}"

    def configure(self) -> None:
        lines = [
            f"tickTime={_TICK_MS}",
            f"dataDir={self.folder / 'data'}",
            "clientPortAddress=127.0.0.1",
            f"clientPort={self.port}",
            "admin.enableServer=false",
            "4lw.commands.whitelist=*",
            "maxClientCnxns=0",
            "minSessionTimeout=1000",
            "maxSessionTimeout=20000",
            "forceSync=no",
        ]
        (self.folder / "zoo.cfg").write_text("\n".join(lines) + "\n")

    def command(self) -> list[str]:
        for jar in _JARS:
            if not jar.exists():
                raise missing(self.name, str(jar))
        java = [find_program("java", self.name), "-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        java += ["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", ":".join(map(str, _JARS))]
        return [*java, "org.apache.zookeeper.server.ZooKeeperServerMain", str(self.folder / "zoo.cfg")]

    def answers(self) -> bool:
        # `ruok` is answered before clients are; `srvr` names the mode only when they are.
        return re.search("^Mode: ", self.four_letters("srvr"), re.MULTILINE) is not None

    def four_letters(self, word: str) -> str:
        """The answer to a four-letter word, as ``dump`` or ``cons``."""
        with socket.create_connection(("127.0.0.1", self.port), 2) as connection:
            connection.settimeout(2)
            connection.sendall(word.encode())
            answer = b""
            while data := connection.recv(1 << 16):
                answer += data
        return answer.decode()
