"""Kafka, one process that is broker and controller. Its jars come by Maven; see ``install``."""

import base64
import uuid
from collections.abc import Sequence
from pathlib import Path

from longwire.testing.engines.base import Engine, find_program, missing
from longwire.testing.engines.install import jars_of

_LOG = """\
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = [%d] %p %m (%c)%n
rootLogger.level = WARN
rootLogger.appenderRef.console.ref = console
logger.server.name = kafka.server.KafkaRaftServer
logger.server.level = INFO
"""
# The second compiler costs a second of each start on two cores, and earns it back only under load.
_SMALL_AND_QUICK = ("-Xms384m", "-Xmx384m", "-XX:TieredStopAtLevel=1")
_STARTED = "Kafka Server started"


class Kafka(Engine):
    """One Kafka broker; no topic comes into being by itself."""

    name = "kafka"
    ready_within_s = 90.0
    port_count = 2

    def __init__(
        self, folder: Path, *, advertised: str | None = None, java_flags: Sequence[str] = _SMALL_AND_QUICK
    ) -> None:
        """``advertised``: the ``host:port`` of a proxy; clients go where Kafka tells them in its first answer."""
        super().__init__(folder)
        self._java_flags = java_flags
        self._advertised = advertised

    @property
    def servers(self) -> str:
        """Its own address, also where clients are sent to a proxy."""
        return f"127.0.0.1:{self.port}"

    def configure(self) -> None:
        client, controller = self.ports
        lines = [
            "process.roles=broker,controller",
            "node.id=1",
            f"controller.quorum.voters=1@127.0.0.1:{controller}",
            f"listeners=PLAINTEXT://127.0.0.1:{client},CONTROLLER://127.0.0.1:{controller}",
            f"advertised.listeners=PLAINTEXT://{self._advertised or self.servers}",
            "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name=PLAINTEXT",
            "controller.listener.names=CONTROLLER",
            f"log.dirs={self.folder / 'data'}",
            "num.network.threads=2",
            "num.io.threads=2",
            "offsets.topic.num.partitions=4",
            "offsets.topic.replication.factor=1",
            "transaction.state.log.num.partitions=4",
            "transaction.state.log.replication.factor=1",
            "transaction.state.log.min.isr=1",
            # A broker that was killed is let in again when its last session has run out.
            "broker.heartbeat.interval.ms=500",
            "broker.session.timeout.ms=3000",
            "group.initial.rebalance.delay.ms=0",
            "group.min.session.timeout.ms=1000",
            "group.consumer.min.session.timeout.ms=1000",
            "group.consumer.min.heartbeat.interval.ms=250",
            "auto.create.topics.enable=false",
        ]
        (self.folder / "server.properties").write_text("\n".join(lines) + "\n")
        (self.folder / "log4j2.properties").write_text(_LOG)

    def prepare(self) -> None:
        # As Kafka makes its own: one that began with a "-" would be taken for an option.
        number = uuid.uuid4().int >> 1
        cluster = base64.urlsafe_b64encode(number.to_bytes(16)).decode().rstrip("=")
        arguments = ["format", "-t", cluster, "-c", str(self.folder / "server.properties")]
        self.run([*self._java("-Xmx128m", "-XX:TieredStopAtLevel=1"), "kafka.tools.StorageTool", *arguments])

    def command(self) -> list[str]:
        java = self._java(*self._java_flags)
        return [*java, "kafka.Kafka", str(self.folder / "server.properties")]

    def answers(self) -> bool:
        return _STARTED in self.log_text()

    def _java(self, *flags: str) -> list[str]:
        jars = jars_of("kafka")
        if not jars.exists():
            raise missing(self.name, str(jars))
        log = f"-Dlog4j2.configurationFile=file:{self.folder / 'log4j2.properties'}"
        return [find_program("java", self.name), *flags, "-XX:+UseSerialGC", log, "-cp", f"{jars}/*"]
