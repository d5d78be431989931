"""OpenSearch, one node without security. Its jars come by Maven; see ``install``.

There is no distribution in Maven, so a few lines of Java start the node with the only module that it needs.
"""

import json
import urllib.request
from typing import Any

from longwire.testing.engines.base import Engine, find_program, missing
from longwire.testing.engines.install import jars_of

_STARTER = """\
import java.util.List;
import java.util.Map;
import org.opensearch.common.settings.Settings;
import org.opensearch.node.InternalSettingsPreparer;
import org.opensearch.node.Node;
import org.opensearch.transport.Netty4Plugin;

public class Starter extends Node {
    Starter(Settings settings) {
        super(InternalSettingsPreparer.prepareEnvironment(settings, Map.of(), null, () -> "n1"),
              List.of(Netty4Plugin.class), false);
    }

    public static void main(String[] args) throws Exception {
        Settings.Builder settings = Settings.builder();
        for (String arg : args) {
            String[] pair = arg.split("=", 2);
            settings.put(pair[0], pair[1]);
        }
        new Starter(settings.build()).start();
        Thread.currentThread().join();
    }
}
"""
_LOG = """\
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = [%d] %p %m (%c)%n
rootLogger.level = warn
rootLogger.appenderRef.console.ref = console
"""
# The second compiler earns its time back only under load.
_SMALL_AND_QUICK = ("-Xms384m", "-Xmx384m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")


class OpenSearch(Engine):
    """One OpenSearch node."""

    name = "opensearch"
    ready_within_s = 120.0
    port_count = 2

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def configure(self) -> None:
        config = self.folder / "home/config"
        config.mkdir(parents=True, exist_ok=True)
        (config / "opensearch.yml").write_text("")
        (config / "log4j2.properties").write_text(_LOG)
        (self.folder / "Starter.java").write_text(_STARTER)

    def prepare(self) -> None:
        javac = find_program("javac", self.name)
        self.run([javac, "-cp", f"{self._jars()}/*", "-d", str(self.folder), str(self.folder / "Starter.java")])

    def command(self) -> list[str]:
        http, transport = self.ports
        settings = {
            "path.home": self.folder / "home",
            "path.data": self.folder / "data",
            "http.port": http,
            "transport.port": transport,
            "network.host": "127.0.0.1",
            "discovery.type": "single-node",
            "http.type": "netty4",
            "transport.type": "netty4",
            "cluster.routing.allocation.disk.threshold_enabled": "false",
        }
        log = f"-Dlog4j2.configurationFile=file:{self.folder / 'home/config/log4j2.properties'}"
        java = [find_program("java", self.name), *_SMALL_AND_QUICK, log, "-Dopensearch.networkaddress.cache.ttl=60"]
        arguments = [f"{name}={value}" for name, value in settings.items()]
        return [*java, "-cp", f"{self.folder}:{self._jars()}/*", "Starter", *arguments]

    def answers(self) -> bool:
        return bool(self.call("GET", "/_cluster/health")["status"] in ("green", "yellow"))

    def call(self, method: str, path: str, body: object = None) -> Any:
        """One call of the engine's API; its answer. Raises OSError where it is an error."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}{path}", data, headers, method=method)  # noqa: S310 - loopback
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - as above
            return json.load(answer)

    def _jars(self) -> str:
        jars = jars_of(self.name)
        if not jars.exists():
            raise missing(self.name, str(jars))
        return str(jars)
