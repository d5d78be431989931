"""What every engine has: a folder, ports, a process and its children, a log, and an end.

    start: pick ports → configure → prepare (once) → spawn → wait until OUR process listens and answers
    stop:  thaw → the engine's own signal → wait → SIGKILL

An engine dies with the process that started it, also when that is killed with -9.
"""

import contextlib
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from longwire.testing.engines.process import family, is_gone, listening_ports

_POLL_S = 0.02
_TAIL_BYTES = 4000
_PORT_TRIES = 5
_PREPARED_WITHIN_S = 60.0
_IS_TAKEN = re.compile(r"address already in use", re.IGNORECASE)
_FURTHER_FOLDERS = ("/usr/local/sbin", "/usr/sbin", "/sbin")

# The kernel tells children of their parent's death when the THREAD that started them ends. This one ends last.
_SPAWNER = ThreadPoolExecutor(1, "engines")


class EngineMissing(Exception):
    """An engine is not installed; the message has the command that installs it."""


class EngineFailed(Exception):
    """An engine did not start, or did not stay; the message has the end of its log."""


def free_ports(count: int) -> list[int]:
    """Different loopback ports that nobody listens on now.

    They lie below the range from which the kernel gives out ports by itself, so that an engine that is down for
    a while finds its own port free when it comes back.
    """
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    with contextlib.ExitStack() as held:
        ports: list[int] = []
        while len(ports) < count:
            port = random.randrange(max(2048, lowest - 10_000), lowest) if lowest > 4096 else 0  # noqa: S311
            with contextlib.suppress(OSError):
                ports.append(held.enter_context(socket.create_server(("127.0.0.1", port))).getsockname()[1])
        return ports


def find_program(name: str, engine: str, folders: Sequence[Path | str] = ()) -> str:
    """The program's path, also where PATH lacks the folders of the system. Raises EngineMissing."""
    path = os.pathsep.join(map(str, (*folders, os.environ.get("PATH", ""), *_FURTHER_FOLDERS)))
    found = shutil.which(name, path=path)
    if found is None:
        raise missing(engine, name)
    return found


def missing(engine: str, what: str) -> EngineMissing:
    """The error for an engine of which ``what`` is not there."""
    return EngineMissing(f"{engine} is not installed ({what} was not found); run: make engines")


class Engine:
    """One engine on loopback. Start, stop, kill, freeze and start again as often as the test likes; one thread."""

    name: ClassVar[str]
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    ready_within_s: ClassVar[float] = 60.0
    stop_within_s: ClassVar[float] = 20.0
    death_signal: ClassVar[str] = "KILL"
    """What the process gets when we die."""
    user: str | None = None
    """Whom the process runs as; None is ourselves."""
    port_count: int = 1

    def __init__(self, folder: Path) -> None:
        """``folder`` becomes the engine's own and is made where it is not there; nothing runs yet."""
        self.folder = folder.absolute()
        self.log = self.folder / f"{self.name}.log"
        self.ports: list[int] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._is_prepared = False
        self._log_start = 0

    # What an engine says of itself.

    def configure(self) -> None:
        """Writes the configuration for ``self.ports``; before each start."""

    def prepare(self) -> None:
        """Makes an empty data folder; once."""

    def command(self) -> list[str]:
        """The program and its arguments. Raises EngineMissing."""
        raise NotImplementedError

    def environment(self) -> Mapping[str, str]:
        """What the process is to have in its environment besides ours."""
        return {}

    def answers(self) -> bool:
        """Whether the engine serves clients; asked once its ports are open. May raise OSError for no."""
        return True

    # What a test does with it.

    @property
    def port(self) -> int:
        return self.ports[0]

    @property
    def pid(self) -> int:
        """Raises EngineFailed where nothing runs."""
        if self._process is None or not self.is_running:
            raise EngineFailed(f"{self.name} does not run")
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Starts the engine and waits until it serves; nothing where it runs. Raises EngineFailed, EngineMissing."""
        if self.is_running:
            return self
        self.folder.mkdir(parents=True, exist_ok=True)
        may_pick = not self.ports
        for tries_left in reversed(range(_PORT_TRIES)):
            if may_pick:
                self.ports = free_ports(self.port_count)
            try:
                self._start_once()
            except BaseException as error:
                self._end()
                if not (isinstance(error, EngineFailed) and tries_left and _IS_TAKEN.search(self._tail())):
                    raise
                time.sleep(0 if may_pick else 0.5)
            else:
                break
        return self

    def stop(self) -> None:
        """Lets the engine stop by itself, and kills it after ``stop_within_s``; nothing where it does not run."""
        if self._process is not None and self.is_running:
            self.thaw()
            self._process.send_signal(self.stop_signal)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(self.stop_within_s)
        self._end()

    def kill(self) -> None:
        """SIGKILL for the process and its children; nothing where it does not run."""
        self._end()

    def freeze(self) -> None:
        """SIGSTOP: connections stay open, and nobody answers on them. Raises EngineFailed where nothing runs."""
        for _ in self._stopped_family(self.pid):
            pass

    def thaw(self) -> None:
        """SIGCONT. Raises EngineFailed where nothing runs."""
        for pid in reversed(list(family(self.pid))):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def restart(self) -> None:
        """Starts again on the same ports and data, after a stop where it runs."""
        self.stop()
        self.start()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # How.

    def run(self, command: Sequence[str], within_s: float = _PREPARED_WITHIN_S) -> str:
        """Runs a program of the engine to its end, as its user; what it said. Raises EngineFailed."""
        try:
            done = subprocess.run(  # noqa: S603 - ours
                [*self._as_user(), *command],
                cwd=self.working_folder,
                env={**os.environ, **self.environment()},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=within_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise EngineFailed(f"{Path(command[0]).name} did not end within {within_s:g} s") from None
        said = done.stdout.decode(errors="replace")
        if done.returncode != 0:
            self._refuse_the_dead()
            raise EngineFailed(f"{Path(command[0]).name} ended with {done.returncode}: {said[-_TAIL_BYTES:]}")
        return said

    def _refuse_the_dead(self) -> None:
        # A program that cannot reach the engine says less of the cause than the engine's own log.
        if self._process is not None and self._process.poll() is not None:
            raise EngineFailed(f"{self.name} ended with {self._process.returncode}; its log: {self._tail()}")

    @property
    def working_folder(self) -> Path:
        """Where the process and its programs run."""
        return self.folder

    def log_text(self) -> str:
        """What the engine logged since its last start."""
        try:
            with self.log.open("rb") as log:
                log.seek(self._log_start)
                return log.read().decode(errors="replace")
        except FileNotFoundError:
            return ""

    def _start_once(self) -> None:
        self.configure()
        if not self._is_prepared:
            self.prepare()
            self._is_prepared = True
        command = [*self._as_user(), *self.command()]
        self._process = _SPAWNER.submit(self._spawn, command).result()
        deadline = time.monotonic() + self.ready_within_s
        while not self._is_ready():
            self._refuse_the_dead()
            if time.monotonic() > deadline:
                raise EngineFailed(
                    f"{self.name} was not ready on {self.ports} within {self.ready_within_s:g} s; "
                    f"its log: {self._tail()}"
                )
            time.sleep(_POLL_S)

    def _spawn(self, command: list[str]) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            return subprocess.Popen(  # noqa: S603 - ours
                command,
                cwd=self.working_folder,
                env={**os.environ, **self.environment()},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a Ctrl-C is for the tests; they stop their engines themselves
            )

    def _as_user(self) -> list[str]:
        # setpriv keeps the pid, and sets the signal after the change of user, which would clear it.
        command = [find_program("setpriv", self.name), "--pdeathsig", self.death_signal]
        if self.user is not None:
            command += [f"--reuid={self.user}", f"--regid={self.user}", "--init-groups"]
        return [*command, "--"]

    def _is_ready(self) -> bool:
        try:
            return self.is_running and set(self.ports) <= listening_ports(self.pid) and self.answers()
        except (OSError, EngineFailed):
            return False

    def _end(self) -> None:
        process = self._process
        if process is None or process.poll() is not None:
            return
        # Stopped first, so that none starts another while we look.
        members = list(self._stopped_family(process.pid))
        for pid in members:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
        deadline = time.monotonic() + self.stop_within_s
        while not all(is_gone(pid) for pid in members) and time.monotonic() < deadline:
            time.sleep(_POLL_S)

    @staticmethod
    def _stopped_family(pid: int) -> Iterator[int]:
        for member in family(pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(member, signal.SIGSTOP)
                yield member

    def _tail(self) -> str:
        return self.log_text()[-_TAIL_BYTES:] or "(empty)"
