"""The console's process: as a child of the process that has other roles too, or alone.

    parent ── spawn ──► serve --roles console          a child that ends by itself is started again, after 1, 2 … 30 s
       │ stdin: its end is the parent's, however the parent ends          stdout: one line, the port, when it serves

The child is given what a console needs and nothing else: no engine's URL, no secret, no settings file.
"""

import asyncio
import contextlib
import importlib.util
import logging
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from longwire.app.roles import CONSOLE_ALONE, Role
from longwire.cli.text import Failure

if TYPE_CHECKING:
    import httpx

    from longwire.api import Unready
    from longwire.app.http_server import HttpServer
    from longwire.app.settings import Settings
    from longwire.gateway.lag import LoopWatch

    Part = HttpServer | LoopWatch

log = logging.getLogger(__name__)

CHILD_VARIABLE = "LONGWIRE_CONSOLE_CHILD"
_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 30.0
_SETTLED_S = 60.0
_READY_WITHIN_S = 30.0
_STOPS_WITHIN_S = 3.0
_LOOK_EVERY_S = 2.0
_ANYWHERE = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - to reach who listens there
_MISSING = "the console needs the libraries of the extra `console`: pip install 'longwire[console]'"


def wants_child(settings: "Settings") -> bool:
    """Whether a console runs beside the process's other roles.

    Raises Failure where it was asked for by name and its libraries are missing; where it is only the default, that
    is said in passing.
    """
    if Role.CONSOLE not in settings.roles or settings.console_port is None:
        return False
    if has_libraries():
        return True
    if "roles" in settings.model_fields_set:
        raise Failure(_MISSING)
    log.info("there is no console: %s", _MISSING)
    return False


def has_libraries() -> bool:
    """Whether the extra is installed; imports nothing of it."""
    return importlib.util.find_spec("nicegui") is not None


def local_url(settings: "Settings", http_port: int | None = None) -> str:
    """The API as a process of this machine reaches it."""
    host = _ANYWHERE.get(settings.host, settings.host)
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{http_port or settings.http_port}"


class ConsoleChild:
    """Starts the console, starts it again where it ends, and stops it."""

    def __init__(self, settings: "Settings", api_url: str) -> None:
        self._settings = settings
        self._api_url = api_url
        self._task: asyncio.Task[None] | None = None
        self._port: asyncio.Future[int] | None = None

    def start(self) -> None:
        """Begins; whoever waits for the port awaits ``url``."""
        loop = asyncio.get_running_loop()
        self._port = loop.create_future()
        self._task = loop.create_task(self._keep(), name="the console")

    async def url(self) -> str | None:
        """Where browsers reach it; None where it does not serve within half a minute."""
        settings = self._settings
        if settings.console_url is not None:
            return settings.console_url
        port = settings.console_port
        if not port:
            assert self._port is not None, "start comes before"
            with contextlib.suppress(TimeoutError):
                port = await asyncio.wait_for(asyncio.shield(self._port), _READY_WITHIN_S)
        if not port:
            return None
        host = settings.console_address
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"

    async def stop(self) -> None:
        """SIGTERM, and after three seconds SIGKILL."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _keep(self) -> None:
        pause_s = _FIRST_PAUSE_S
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                status = await self._once()
            except (OSError, ValueError) as error:  # ValueError: it said something without end instead of its port
                log.warning("the console cannot be started: %s", error)
            else:
                log.warning("the console ended with status %d", status)
            if loop.time() - began > _SETTLED_S:
                pause_s = _FIRST_PAUSE_S
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def _once(self) -> int:
        """Runs it until it ends by itself; its status."""
        command = [sys.executable, "-m", "longwire.cli", "serve", "--roles", "console", "--config", os.devnull]
        pipe = asyncio.subprocess.PIPE
        environment = child_environment(self._settings, self._api_url, os.environ)
        if self._port is not None and self._port.done():  # where browsers know it
            environment["LONGWIRE_CONSOLE_PORT"] = str(self._port.result())
        # Its own group: Ctrl-C goes to the parent, who tells it.
        child = await asyncio.create_subprocess_exec(
            *command, stdin=pipe, stdout=pipe, env=environment, start_new_session=True
        )
        assert child.stdout is not None
        try:
            line = await child.stdout.readline()
            if line.strip().isdigit() and self._port is not None and not self._port.done():
                self._port.set_result(int(line))
            return await child.wait()
        finally:
            if child.returncode is None:
                await _end(child)


async def _end(child: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        child.terminate()
    try:
        await asyncio.wait_for(child.wait(), _STOPS_WITHIN_S)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()


def child_environment(settings: "Settings", api_url: str, environ: Mapping[str, str]) -> dict[str, str]:
    """What the child is given: the surroundings without any setting, and those of a console."""
    given = {name: value for name, value in environ.items() if not name.startswith("LONGWIRE_")}
    own = {
        CHILD_VARIABLE: "1",
        "LONGWIRE_CONSOLE_PORT": str(settings.console_port),
        "LONGWIRE_CONSOLE_HOST": settings.console_address,
        "LONGWIRE_CONSOLE_API_URL": api_url,
        "LONGWIRE_INTERNAL_PORT": "none",
        "LONGWIRE_LOG_LEVEL": settings.log_level,
        "LONGWIRE_LOG_FORMAT": settings.log_format,
    }
    if settings.console_url is not None:
        own["LONGWIRE_CONSOLE_URL"] = settings.console_url
    if settings.trusted_proxies:
        own["LONGWIRE_TRUSTED_PROXIES"] = ",".join(sorted(settings.trusted_proxies))
    return given | own


# -- the process itself -------------------------------------------------------------------------------------------


async def serve_console(settings: "Settings") -> int:
    """Serves the console until a signal ends it. The exit status. Raises Failure, StartFailed."""
    if not has_libraries():
        raise Failure(_MISSING)
    from longwire.app.http_server import HttpServer
    from longwire.console import ConsoleSettings
    from longwire.console.server import create_console

    assert settings.roles == CONSOLE_ALONE
    assert settings.console_port is not None
    is_child = CHILD_VARIABLE in os.environ
    api_url = (settings.console_api_url or local_url(settings)).rstrip("/")
    console = create_console(ConsoleSettings(api_url=api_url, public_url=settings.console_url))
    has_to_stop = asyncio.Event()
    _heed(has_to_stop, is_child=is_child)
    with _names_setting(settings, "console_port"):
        public = HttpServer(
            console,
            settings.console_address,
            settings.console_port,
            settings.trusted_proxies or (),
            has_sockets=True,
        )
    await public.start()
    watch = ApiWatch(api_url)
    looking = asyncio.get_running_loop().create_task(watch.run(), name="the look at the API")
    parts: list[Part] = [public]
    try:
        health = ""
        if settings.internal_port is not None:
            internal, lag = await _serve_health(settings, watch, settings.internal_port)
            parts += (internal, lag)
            health = f", health pages at port {internal.port}"
        _warn_of_plain_text(settings)
        if is_child:
            sys.stdout.write(f"{public.port}\n")
            sys.stdout.flush()
        else:
            log.info("ready as console: pages at port %d%s, the API at %s", public.port, health, api_url)
        await has_to_stop.wait()
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
        for part in reversed(parts):
            stopped = part.stop()
            if stopped is not None:
                await stopped
    return 0


async def _serve_health(settings: "Settings", watch: "ApiWatch", port: int) -> "tuple[HttpServer, LoopWatch]":
    """The internal port of a console alone: health pages and metrics."""
    # Here, for a child has no such port and starts in half the time without these.
    from longwire.api import create_internal_api
    from longwire.app.http_server import HttpServer
    from longwire.app.metrics import create_bare_metrics
    from longwire.gateway.lag import LoopWatch

    lag = LoopWatch()
    pages = create_internal_api(watch.readiness, metrics=create_bare_metrics("console", watch.readiness, lag))
    with _names_setting(settings, "internal_port"):
        internal = HttpServer(pages, settings.internal_address, port)
    await internal.start()
    lag.start()
    return internal, lag


@contextlib.contextmanager
def _names_setting(settings: "Settings", name: str) -> Iterator[None]:
    """Raises StartFailed for a port that cannot be had."""
    try:
        yield
    except OSError:
        # Only now: it brings everything that a node is made of.
        from longwire.app.run import names_setting

        with names_setting(settings, name):
            raise


def _heed(has_to_stop: asyncio.Event, *, is_child: bool) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, has_to_stop.set)
    if is_child:

        def ended() -> None:
            if not os.read(0, 64):
                loop.remove_reader(0)
                has_to_stop.set()

        loop.add_reader(0, ended)


def _warn_of_plain_text(settings: "Settings") -> None:
    is_near = settings.console_address in ("127.0.0.1", "::1", "localhost")
    if not is_near and not (settings.console_url or "").startswith("https://"):
        log.warning(
            "the console listens on %s without TLS: passwords go there in the clear."
            " Put a proxy with TLS before it, and its address into console_url",
            settings.console_address,
        )


class ApiWatch:
    """Whether the API answers: asked every two seconds, for ``/readyz`` of a console alone."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._trouble = f"the API at {url} was not asked yet"

    def readiness(self) -> "Unready | None":
        """What ``/readyz`` answers."""
        from longwire.api import Unready

        return Unready("no-node", self._trouble) if self._trouble else None

    async def run(self) -> None:
        """Asks until it is cancelled."""
        import httpx

        async with httpx.AsyncClient(timeout=_LOOK_EVERY_S, trust_env=False) as client:
            while True:
                self._trouble = await self._look(client)
                await asyncio.sleep(_LOOK_EVERY_S)

    async def _look(self, client: "httpx.AsyncClient") -> str:
        import httpx

        try:
            answer = await client.get(f"{self._url}/livez")
        except httpx.HTTPError as error:
            return f"the API at {self._url} does not answer: {error or type(error).__name__}"
        return "" if answer.is_success else f"the API at {self._url} answers {answer.status_code}"
