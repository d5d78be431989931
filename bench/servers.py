"""The servers under test: how each is started, in a private folder and on free ports.

    Server.missing()  what to install, if it is not here
    Server.prepare()  once a run: what may be done before (devices and their tokens)
    Server.running()  a fresh process for each measurement

Each peer gets the settings that suit it best here; README.md says what is fair and what is not.
"""

import copy
import json
import os
import shlex
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.processes import ServerFailedError, ServerProcess, answers_tcp, free_ports, started

EPOLL_RELAY = Path(__file__).resolve().parent / "load" / "build" / "epoll_relay"
TIMED_CALLBACKS = Path(__file__).resolve().parent / "callbacks.py"
START_ATTEMPTS = 3
CREATE_WITHIN_S = 300.0
SEED_WITHIN_S = 900.0
TOKENS = "bench-tokens.csv"


@dataclass(frozen=True)
class Endpoint:
    """Where a running server is reached, and how."""

    process: ServerProcess
    protocol: str
    port: int
    tokens: Path | None = None
    http_url: str | None = None
    is_tls: bool = False
    data: Path | None = None


@dataclass(frozen=True)
class Launch:
    """How one process is to be started. `tokens` is a file that is there by the time it is ready, or never."""

    command: list[str]
    protocol: str
    port: int
    tokens: Path | None = None
    http_url: str | None = None
    is_tls: bool = False
    data: Path | None = None
    environment: dict[str, str] = field(default_factory=dict)

    def until_ready(self, process: ServerProcess) -> Endpoint:
        """Waits for the port, or for /readyz where the server has one. Raises ServerFailedError."""
        url = self.http_url
        process.wait_until(lambda: answers_tcp(self.port) if url is None else _answers_http(f"{url}/readyz"))
        tokens = self.tokens if self.tokens is not None and self.tokens.exists() else None
        return Endpoint(process, self.protocol, self.port, tokens, url, self.is_tls, self.data)


class Server(ABC):
    """One kind of server."""

    name: str
    protocols: frozenset[str]
    # Connects on their way at a time: more than Mosquitto's backlog of 100 takes would stall it for seconds.
    connecting = 256
    # Whether SENT (or PUBACK) says that the message is on disk; None: we cannot know.
    is_durable: bool | None = False

    def missing(self) -> str | None:
        """What to do so that this server can run here; None when it can."""
        return None

    def offers_tls(self) -> bool:
        return False

    def prepare(self, folder: Path, devices: int) -> None:
        """Done once, before the first measurement; not measured. Most servers need nothing."""
        return

    @abstractmethod
    def version(self) -> str: ...

    @abstractmethod
    def _launch(self, folder: Path, ports: list[int], protocol: str, tls: bool) -> "Launch": ...

    @contextmanager
    def running(self, folder: Path, protocol: str, tls: bool = False) -> Iterator[Endpoint]:
        """A fresh process, ready. Another program may take a port meanwhile: then again, with other ports."""
        folder.mkdir(parents=True, exist_ok=True)
        for attempt in range(START_ATTEMPTS):
            launch = self._launch(folder, free_ports(4), protocol, tls)
            with started(launch.command, folder, launch.environment) as process:
                try:
                    endpoint = launch.until_ready(process)
                except ServerFailedError as failure:
                    if attempt == START_ATTEMPTS - 1 or "in use" not in str(failure):
                        raise
                    continue
                yield endpoint
                process.require_alive()
                return


def _answers_http(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


class Longwire(Server):
    """`longwire dev`: one process, SQLite with full sync, real tokens checked at every connect."""

    name = "longwire"
    protocols = frozenset({"native", "websocket"})
    is_durable = True

    _program = Path(sys.executable).parent / "longwire"  # not resolved: a venv's python is a link
    start: tuple[str, ...] = (str(_program),)
    seed: Path | None = None  # a data folder with the devices in it

    def __init__(self) -> None:
        self._seeds: dict[tuple[str, ...], Path] = {}

    def with_timed_callbacks(self) -> "Longwire":
        """The same, on the same devices, with every callback of its loop timed (bench/callbacks.py)."""
        timed = copy.copy(self)
        timed.start = (sys.executable, "-P", str(TIMED_CALLBACKS))
        return timed

    def seeded(self, *steps: tuple[object, ...]) -> "Longwire":
        """The same on a data folder that bench/seed.py has filled further: made once a run, copied for each process."""
        assert self.seed is not None
        words = tuple(" ".join(map(str, step)) for step in steps)
        data = self._seeds.get(words)
        if data is None:
            data = self.seed.parent / f"seeded-{len(self._seeds)}"
            shutil.copytree(self.seed, data)
            for what, *numbers in steps:
                self._fill([str(word) for word in (what, data, *numbers)])
            self._seeds[words] = data
        fuller = copy.copy(self)
        fuller.seed = data
        return fuller

    @staticmethod
    def _fill(words: list[str]) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "bench.seed", *words],
            cwd=Path(__file__).resolve().parent.parent,
            capture_output=True,
            text=True,
            check=False,
            timeout=SEED_WITHIN_S,
        )
        if done.returncode != 0:
            raise ServerFailedError(f"bench.seed {words[0]} failed: {done.stderr.strip()[-500:]}")

    def missing(self) -> str | None:
        if self._program.exists():
            return None
        return "the `longwire` command is not in this environment: pip install -e ."

    def offers_tls(self) -> bool:
        return shutil.which("openssl") is not None

    def version(self) -> str:
        told = subprocess.run([self._program, "--version"], capture_output=True, text=True, check=False)
        return told.stdout.strip()

    def prepare(self, folder: Path, devices: int) -> None:
        """Registers the devices in a server of its own: the heap that this leaves behind would otherwise be there
        for the connections to use, and hide what they cost. Measured processes start on a copy of its data."""
        data = folder / "data"
        with self.running(folder, "native") as endpoint:
            self._create_devices(endpoint, devices, data / TOKENS)
        self.seed = data

    def _create_devices(self, endpoint: Endpoint, count: int, tokens: Path) -> None:
        """The one place that knows how devices are made."""
        credentials = json.loads((tokens.parent / "dev-credentials.json").read_text())
        made = ["--count", str(count), "--prefix", "dev-", "--tokens", str(tokens)]
        done = subprocess.run(
            [str(self._program), "devices", "create", *made],
            env={
                **os.environ,
                "LONGWIRE_URL": endpoint.http_url or "",
                "LONGWIRE_API_KEY": credentials["api_key"],
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=CREATE_WITHIN_S,
        )
        if done.returncode != 0 or not tokens.exists():
            raise ServerFailedError(f"`longwire devices create` failed: {done.stderr.strip()[-500:]}")

    def _launch(self, folder: Path, ports: list[int], protocol: str, tls: bool) -> Launch:
        """The one place that knows how `longwire dev` is called."""
        data = folder / "data"
        if self.seed is not None and not data.exists():
            shutil.copytree(self.seed, data)
        command = [*self.start, "dev", "--data", data, "--port", ports[0], "--http-port", ports[1]]
        if tls:
            certificate, key = make_certificate(folder)
            command += ["--certificate", certificate, "--certificate-key", key, "--tls-port", ports[2]]
        return Launch(
            [str(word) for word in command],
            protocol,
            ports[2] if tls else ports[0],
            tokens=data / TOKENS,
            http_url=f"http://127.0.0.1:{ports[1]}",
            is_tls=tls,
            data=data,
            # The bench has one key for all its callers; a console is a process of its own.
            environment={"LONGWIRE_API_CALLS_PER_S": "0", "LONGWIRE_CONSOLE_PORT": "none"},
        )


class Mosquitto(Server):
    """Eclipse Mosquitto, the C broker: no authentication, nothing on disk, TCP_NODELAY on."""

    name = "mosquitto"
    protocols = frozenset({"mqtt"})
    connecting = 64

    def missing(self) -> str | None:
        if self._program():
            return None
        return "apt-get install -y --no-install-recommends mosquitto"

    def version(self) -> str:
        told = subprocess.run([self._program() or "", "-h"], capture_output=True, text=True, check=False).stdout
        return told.partition("\n")[0].removeprefix("mosquitto version ")

    def offers_tls(self) -> bool:
        return shutil.which("openssl") is not None

    @staticmethod
    def _program() -> str | None:
        return shutil.which("mosquitto", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")

    def _launch(self, folder: Path, ports: list[int], protocol: str, tls: bool) -> Launch:
        settings = [
            f"listener {ports[0]} 127.0.0.1",
            "allow_anonymous true",
            "persistence false",
            "set_tcp_nodelay true",
            "log_dest stderr",
            "log_type error",
        ]
        if os.geteuid() == 0:
            settings.append("user root")  # else it drops to a user who cannot read this private folder
        if tls:
            certificate, key = make_certificate(folder)
            settings += [f"certfile {certificate}", f"keyfile {key}"]
        config = folder / "mosquitto.conf"
        config.write_text("\n".join(settings) + "\n")
        return Launch([self._program() or "", "-c", str(config)], protocol, ports[0], is_tls=tls)


class BareEpoll(Server):
    """bench/load/epoll_relay.c: the least a server can do, as a floor for what this machine allows."""

    name = "bare-epoll"
    protocols = frozenset({"native"})

    def version(self) -> str:
        return "of this commit"

    def _launch(self, folder: Path, ports: list[int], protocol: str, tls: bool) -> Launch:
        return Launch([str(EPOLL_RELAY), str(ports[0])], protocol, ports[0])


class Custom(Server):
    """`--server NAME=COMMAND`: anything that speaks the native protocol on {port}, and may write `tok.csv`
    (`device_id,token`) into its working folder before it listens."""

    protocols = frozenset({"native"})
    is_durable = None

    def __init__(self, name: str, command: str) -> None:
        self.name = name
        self._command = command

    def version(self) -> str:
        return "as given"

    def _launch(self, folder: Path, ports: list[int], protocol: str, tls: bool) -> Launch:
        words = shlex.split(self._command.replace("{port}", str(ports[0])))
        return Launch(words, protocol, ports[0], tokens=folder / "tok.csv")


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 and its key, good for a day."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    request = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=127.0.0.1"
    subprocess.run(
        ["openssl", *request.split(), "-keyout", str(key), "-out", str(certificate)],
        check=True,
        capture_output=True,
    )
    return certificate, key
