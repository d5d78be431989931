"""A cluster of one machine: engines that clusters may share, and a process for each role.

SharedEngines: Redis · ZooKeeper · Kafka · MariaDB or PostgreSQL
Cluster        gateways · apis · routes · sinks, on a database, topics, keys and paths of their own
"""

import contextlib
import itertools
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from longwire.client import Device
from longwire.testing.engines import Engine, EngineFailed, Kafka, MariaDb, Postgres, Redis, ZooKeeper, free_ports
from longwire.testing.engines.process import family

SECRET = "0123456789abcdef0123456789abcdef"  # noqa: S105 - of clusters on loopback, which live for a test
_POLL_S = 0.1
_CALL_WITHIN_S = 30.0
_BATCH = 500
_TAIL_LINES = 40
_LONG_LIVED = ("-Xms512m", "-Xmx512m")
_CLUSTERS = itertools.count(1)


@dataclass
class SharedEngines:
    """One engine of each kind, running. Several clusters may stand on them, each under a name of its own."""

    redis: Redis
    zookeeper: ZooKeeper
    kafka: Kafka
    store: MariaDb | Postgres

    @classmethod
    def start(cls, folder: Path, *, store: str = "mariadb", durable: bool = False) -> "SharedEngines":
        """Starts all four at once. ``store``: mariadb or postgres. Raises EngineFailed, EngineMissing.

        ``durable``: as in production: SQL syncs each commit, Kafka has its machine's whole compiler.
        """
        stores: dict[str, type[MariaDb | Postgres]] = {"mariadb": MariaDb, "postgres": Postgres}
        engines = cls(
            Redis(folder / "redis", keeps_data=False),
            ZooKeeper(folder / "zookeeper"),
            Kafka(folder / "kafka", java_flags=_LONG_LIVED) if durable else Kafka(folder / "kafka"),
            stores[store](folder / store, durable=durable),
        )
        try:
            at_once([engine.start for engine in engines.all()])
        except BaseException:
            engines.stop()
            raise
        return engines

    def all(self) -> list[Engine]:
        """Each of the four."""
        return [self.redis, self.zookeeper, self.kafka, self.store]

    def environment(self, name: str, store_url: str) -> dict[str, str]:
        """The settings, as environment variables, of every process of the cluster ``name``."""
        return {
            "LONGWIRE_STORE_URL": store_url,
            "LONGWIRE_REDIS_URL": self.redis.url,
            "LONGWIRE_KAFKA_SERVERS": self.kafka.servers,
            "LONGWIRE_ZOOKEEPER_HOSTS": self.zookeeper.hosts,
            "LONGWIRE_CLUSTER_SECRET": SECRET,
            "LONGWIRE_CLUSTER_NAME": name,
        }

    def stop(self) -> None:
        """Stops those that run."""
        at_once([engine.stop for engine in self.all()])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class RoleProcess(Engine):
    """``longwire serve --roles …``: kill, freeze, stop and start it again as often as the test likes.

    Its ports stay the same. ``variables`` may be changed before a start: a proxy's address in an engine's place.
    """

    stop_within_s = 90.0
    port_count = 3

    def __init__(
        self,
        folder: Path,
        name: str,
        roles: str,
        variables: Mapping[str, str],
        flags: Sequence[str] = (),
        *,
        workers: int = 1,
    ) -> None:
        """``workers``: how many nodes it is; those further take the ports behind the first one's."""
        self.name = name  # type: ignore[misc]  # of the class in engines, of which there is one of a kind
        super().__init__(folder)
        self.roles = roles
        self.variables = dict(variables)
        self.workers = workers
        self._flags = [*flags, "--workers", str(workers)] if workers > 1 else list(flags)
        if workers > 1:
            device, internal = _ports_in_a_row(workers), _ports_in_a_row(workers)
            self.ports = [device, free_ports(1)[0], internal]

    @property
    def http_port(self) -> int:
        return self.ports[1]

    @property
    def internal_port(self) -> int:
        return self.ports[2]

    @property
    def http_url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def address(self) -> str:
        """Of the device port."""
        return f"127.0.0.1:{self.port}"

    @property
    def exit_status(self) -> int | None:
        """None while it runs, and before its first start."""
        return None if self._process is None else self._process.poll()

    def command(self) -> list[str]:
        serve = [sys.executable, "-m", "longwire.cli", "serve", *self._flags]
        return [*serve, "--roles", self.roles, "--data", str(self.folder / "data"), "--node-name", self.name]

    def environment(self) -> Mapping[str, str]:
        return {
            "LONGWIRE_PORT": str(self.port),
            "LONGWIRE_HTTP_PORT": str(self.http_port),
            "LONGWIRE_INTERNAL_PORT": str(self.internal_port),
            "LONGWIRE_LOG_FORMAT": "text",
            **self.variables,
        }

    def is_ready(self) -> bool:
        """Whether ``/readyz`` of the internal port says so; of every worker's."""
        return all(self.readiness(worker)[0] == 200 for worker in range(self.workers))

    def readiness(self, worker: int = 0) -> tuple[int, str]:
        """Status and body of ``/readyz``; (0, why) where nobody answers."""
        url = f"http://127.0.0.1:{self.internal_port + worker}/readyz"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def cpu_s(self) -> float:
        """User and system time of the process and its children so far."""
        ticks = 0
        for pid in family(self.pid):
            words = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
            ticks += int(words[11]) + int(words[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def _is_ready(self) -> bool:
        # Which ports it listens on depends on its roles; the internal one is there in all.
        return self.is_running and self.is_ready()


class Cluster:
    """Processes of every role on shared engines. A context manager that leaves nothing running.

    ``application``: ``module:attr``, found in ``python_path``. ``settings``: further ``LONGWIRE_…`` variables of all.
    ``workers``: above 0, the gateways are the workers of one process.
    """

    def __init__(
        self,
        folder: Path,
        engines: SharedEngines,
        *,
        gateways: int = 3,
        apis: int = 1,
        routes: int = 1,
        sinks: int = 1,
        application: str | None = None,
        python_path: Path | None = None,
        settings: Mapping[str, str] | None = None,
        workers: int = 0,
    ) -> None:
        self.folder = folder
        self.engines = engines
        self.name = f"c{os.getpid()}-{next(_CLUSTERS)}"
        self._application = application
        self._python_path = python_path
        self._settings = dict(settings or {})
        self._counts = {"gateway": 1 if workers else gateways, "api": apis, "route": routes, "sink": sinks}
        self._workers = workers
        self._numbers = {role: itertools.count(1) for role in self._counts}
        self._processes: dict[str, list[RoleProcess]] = {role: [] for role in self._counts}
        self._credentials: dict[str, str] | None = None
        self._clients: dict[int, httpx.Client] = {}
        self._tokens: dict[str, str] = {}
        self.store_url = ""

    # What it is made of.

    @property
    def gateways(self) -> list[RoleProcess]:
        return self._processes["gateway"]

    @property
    def apis(self) -> list[RoleProcess]:
        return self._processes["api"]

    @property
    def routes(self) -> list[RoleProcess]:
        return self._processes["route"]

    @property
    def sinks(self) -> list[RoleProcess]:
        return self._processes["sink"]

    def processes(self) -> list[RoleProcess]:
        """All, in the order of the roles."""
        return [process for processes in self._processes.values() for process in processes]

    @property
    def http_url(self) -> str:
        """Of the first api."""
        return self.apis[0].http_url

    @property
    def credentials(self) -> dict[str, str]:
        """What the api that started first has written: app_key, app_secret, master_secret, api_key."""
        if self._credentials is None:
            files = [api.folder / "data" / "credentials.json" for api in self.apis]
            found: dict[str, str] = json.loads(next(file for file in files if file.exists()).read_text())
            self._credentials = found
        return self._credentials

    # Coming and going.

    def start(self) -> Self:
        """An empty database, migrated, and all processes, ready. Raises EngineFailed with the log of who is not."""
        self.store_url = self.engines.store.fresh_url()
        self._migrate()
        for role, count in self._counts.items():
            for _ in range(count):
                self._make(role)
        try:
            at_once([process.start for process in self.processes()])
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stops what runs: gateways first, without waiting for devices to move."""
        for client in self._clients.values():
            client.close()
        self._clients.clear()
        for process in self.processes():
            if process.is_running:
                process.thaw()
        at_once([gateway.kill for gateway in self.gateways])
        at_once([process.stop for process in self.processes()])

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            sys.stderr.write(self.tails())
        self.stop()

    def add(self, role: str, *, is_started: bool = True, **variables: str) -> RoleProcess:
        """One more process of a role; ``variables`` as LONGWIRE_…, such as ``redis_url=…``."""
        process = self._make(role)
        process.variables |= {f"LONGWIRE_{name.upper()}": value for name, value in variables.items()}
        return process.start() if is_started else process

    def remove(self, process: RoleProcess) -> None:
        """Stops a process that is not needed any more."""
        if process.is_running:
            process.thaw()
            process.stop()
        for processes in self._processes.values():
            if process in processes:
                processes.remove(process)

    def tails(self) -> str:
        """The last lines of every log."""
        return "".join(f"\n== {one.name}\n{_tail(one.log)}" for one in self.processes())

    # What a test asks of it.

    def api(self, number: int = 0) -> httpx.Client:
        """A client of that api with a key of every scope; closed with the cluster."""
        if number not in self._clients:
            headers = {"Authorization": f"Bearer {self.credentials['api_key']}"}
            url = self.apis[number].http_url
            self._clients[number] = httpx.Client(base_url=url, headers=headers, timeout=_CALL_WITHIN_S, verify=False)  # noqa: S501 - loopback
        return self._clients[number]

    def call(self, method: str, path: str, *, number: int = 0, **options: Any) -> Any:
        """One call of that api, which must be answered well; the JSON of the answer, None where there is none."""
        answer = self.api(number).request(method, path, **options)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def register(self, device_ids: Iterable[str], **about: object) -> dict[str, str]:
        """Provisions devices through the API; their tokens. ``about``: ``user``, and whatever else an item has."""
        wanted, tokens = list(device_ids), dict[str, str]()
        for at in range(0, len(wanted), _BATCH):
            items = [{"device_id": one, **about} for one in wanted[at : at + _BATCH]]
            told = self.call("POST", "/v1/devices/batch", json={"items": items})
            tokens |= {item["device_id"]: item["token"] for item in told["items"]}
        self._tokens |= tokens
        return tokens

    def device(self, device_id: str, *, via: int | None = None, **options: Any) -> Device:
        """A device of the SDK, not entered: on gateway number ``via``, or wherever the api sends it.

        One with ``via`` is registered here and stays with its gateway; the other registers itself, unless ``register``
        has done it.
        """
        if via is None and device_id in self._tokens:
            return Device(self.http_url, device_id, token=self._tokens[device_id], **options)
        if via is None:
            keys = {name: self.credentials[name] for name in ("app_key", "app_secret")}
            return Device(self.http_url, device_id, **{**keys, **options})
        if device_id not in self._tokens:
            self.register([device_id])
        return Device(device_id=device_id, token=self._tokens[device_id], address=self.gateways[via].address, **options)

    def nodes(self, number: int = 0) -> list[dict[str, Any]]:
        """What that api lists as live nodes."""
        items: list[dict[str, Any]] = self.call("GET", "/v1/nodes", number=number)["items"]
        return items

    def node_id(self, gateway: RoleProcess) -> str:
        """Of the node that the gateway is now. Raises AssertionError where it is not listed."""
        found = [node for node in self.nodes() if node["port"] == gateway.port]
        assert found, f"{gateway.name} is not among the live nodes"
        # One that was killed is listed until its session ends; the process that came after it has connections.
        return str(max(found, key=lambda node: node["cpu_share"] is not None)["node_id"])

    def wait_until(self, is_so: Callable[[], bool], what: str, within_s: float = 60.0) -> None:
        """Polls. Raises AssertionError, which says what was waited for."""
        deadline = time.monotonic() + within_s
        while not is_so():
            assert time.monotonic() < deadline, f"within {within_s:g} s not so: {what}"
            time.sleep(_POLL_S)

    def routes_equal_nodes(self, within_s: float = 60.0) -> None:
        """Waits until the route table has, of every node, as many routes as that node has sessions, and no others."""
        deadline = time.monotonic() + within_s
        while True:
            nodes = self.nodes()
            alive = sum(gateway.is_running for gateway in self.gateways) * max(1, self._workers)
            if len(nodes) == alive and all(node["drift"] == 0 for node in nodes):
                return
            told = ", ".join(f"{node['node_id']}: {node['connections']} of {node['routed']} routed" for node in nodes)
            assert time.monotonic() < deadline, f"{alive} gateways run; after {within_s:g} s: {told}"
            time.sleep(_POLL_S)

    # How.

    def _make(self, role: str) -> RoleProcess:
        name = f"{role}{next(self._numbers[role])}"
        variables = self.engines.environment(self.name, self.store_url) | {
            "LONGWIRE_REREGISTER": "allow",
            "LONGWIRE_KAFKA_PARTITIONS": "4",
            "LONGWIRE_API_CALLS_PER_S": "0",
            "LONGWIRE_DRAIN_S": "10",
            **self._settings,
        }
        if self._python_path is not None:
            variables["PYTHONPATH"] = str(self._python_path)
        flags = [self._application] if self._application is not None else []
        workers = self._workers if role == "gateway" and self._workers else 1
        process = RoleProcess(self.folder / name, name, role, variables, flags, workers=workers)
        self._processes[role].append(process)
        return process

    def _migrate(self) -> None:
        command = [sys.executable, "-m", "longwire.cli", "migrate", "--store-url", self.store_url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)  # noqa: S603 - ours
        if done.returncode != 0:
            raise EngineFailed(f"longwire migrate ended with {done.returncode}: {done.stderr[-4000:]}")


def at_once(works: Sequence[Callable[[], object]]) -> None:
    """Does all of them, each in a thread; raises the first error when all have ended."""
    with ThreadPoolExecutor(max(1, len(works))) as pool:
        done = [pool.submit(work) for work in works]
    for one in done:
        one.result()


def _ports_in_a_row(count: int) -> int:
    """The first of so many ports, one behind the other, that nobody listens on now."""
    while True:
        first = free_ports(1)[0]
        with contextlib.suppress(OSError), contextlib.ExitStack() as held:
            for port in range(first, first + count):
                held.enter_context(socket.create_server(("127.0.0.1", port)))
            return first


def _tail(log: Path) -> str:
    with contextlib.suppress(FileNotFoundError):
        return "\n".join(log.read_text(errors="replace").splitlines()[-_TAIL_LINES:]) + "\n"
    return "(no log)\n"
