"""``make cluster``: everything of a cluster on this machine, a table of it, and the demo against it.

    engines ─► migrate ─► gateways (workers of one process) · apis · routes · sinks ─► nginx ─► the demo

Devices come through nginx, which listens on another loopback address on each node's own port. Ends with status 1
where the demo does not add up; everything stops in the opposite order, and dies with us in any case.
"""

import argparse
import contextlib
import os
import re
import select
import shutil
import signal
import sys
import termios
import time
import tty
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.live import Live

from longwire.testing.cluster.demo import APPLICATION, DemoRun
from longwire.testing.cluster.harness import Cluster, SharedEngines
from longwire.testing.cluster.table import picture
from longwire.testing.engines import Engine, EngineFailed, EngineMissing, Nginx
from longwire.testing.engines.install import cache_folder, install, lacking
from longwire.testing.engines.process import family, listening_ports
from longwire.testing.nginx_config import nginx_config

_LOCAL, _FRONT = "127.0.0.1", "127.0.0.2"
_LOOK_EVERY_S = 1.0
_ANSWER_WITHIN_S = 2.0
_DRAINED_WITHIN_S = 30
_STATUS_INTERRUPTED = 130
_KEYS = "k1 kill node 1 · d1 drain it · u1 undrain it · r rebalance · fr freeze Redis · tr thaw it · q end"


class House:
    """The cluster, its nginx, and what can be done to them."""

    def __init__(self, engines: SharedEngines, cluster: Cluster, nginx: Nginx, nodes: int) -> None:
        self.cluster = cluster
        self.nginx = nginx
        self.frozen: set[str] = set()
        self._engines = engines
        self._first_port = cluster.gateways[0].port
        self._count = nodes
        self._nodes: list[dict[str, Any]] = []
        self._client = httpx.Client(
            base_url=self.http_url,
            headers={"Authorization": f"Bearer {cluster.credentials['api_key']}"},
            timeout=_ANSWER_WITHIN_S,
        )

    @property
    def http_url(self) -> str:
        """Of the api, through nginx."""
        return f"http://{_LOCAL}:{self.nginx.port}"

    def parts(self) -> list[Engine]:
        """Every process that was started here."""
        return [*self.cluster.processes(), self.nginx, *self._engines.all()]

    def nodes(self) -> list[dict[str, Any]]:
        """What the api says now; what it said last where it does not answer."""
        with contextlib.suppress(httpx.HTTPError, ValueError, KeyError):
            self._nodes = self._client.get("/v1/nodes").raise_for_status().json()["items"]
        return self._nodes

    def do(self, keys: str) -> str | None:
        """Does what two keys say; a line about it, None where they say nothing yet."""
        what, whom = keys[:1], keys[1:2]
        if what == "r":
            return self._call("/v1/rebalance")
        if what not in "kduft" or not whom:
            return None if what in "kduft" else f"{keys!r} means nothing"
        if what in "ft":
            return self._hold(whom, is_held=what == "f")
        if not whom.isdigit() or not 1 <= int(whom) <= self._count:
            return f"there is no node {whom}"
        port = self._first_port + int(whom) - 1
        if what == "k":
            return self._kill(port)
        node_id = next((node["node_id"] for node in self._nodes if node["port"] == port), None)
        if node_id is None:
            return f"node {whom} is not listed"
        if what == "d":
            return self._call(f"/v1/nodes/{node_id}/drain", {"within_s": _DRAINED_WITHIN_S})
        return self._call(f"/v1/nodes/{node_id}/undrain")

    def close(self) -> None:
        self._client.close()

    def _kill(self, port: int) -> str:
        for pid in family(self.cluster.gateways[0].pid):
            if port in listening_ports(pid):
                os.kill(pid, signal.SIGKILL)
                return f"killed the node on port {port}, process {pid}; another will take its place"
        return f"no node listens on port {port} now"

    def _hold(self, letter: str, *, is_held: bool) -> str:
        engines = {"r": self._engines.redis, "z": self._engines.zookeeper, "k": self._engines.kafka}
        engine: Engine | None = engines.get(letter, self._engines.store if letter == "s" else None)
        if engine is None:
            return f"no engine is called {letter}"
        if is_held:
            engine.freeze()
            self.frozen.add(engine.name)
        else:
            engine.thaw()
            self.frozen.discard(engine.name)
        return f"{engine.name} is {'held' if is_held else 'running again'}"

    def _call(self, path: str, body: object = None) -> str:
        try:
            answer = self._client.post(path, json=body)
        except httpx.HTTPError as error:
            return f"POST {path}: {error or type(error).__name__}"
        return f"POST {path}: {answer.status_code} {answer.text[:100]}"


def main() -> int:
    options = _options()
    console = Console(highlight=False)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # Settings of whoever runs this are for a Longwire of theirs.
    for name in [name for name in os.environ if name.startswith("LONGWIRE_")]:
        del os.environ[name]
    folder = cache_folder().parent / "cluster"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        with contextlib.ExitStack() as stack:
            if not options.keep:
                stack.callback(shutil.rmtree, folder, ignore_errors=True)
            stack.callback(console.print, "[dim]stopping everything[/]")
            return _run(options, folder, console, stack)
    except KeyboardInterrupt:
        console.print("[dim]interrupted; everything it started is gone[/]")
        return _STATUS_INTERRUPTED
    except (EngineMissing, EngineFailed) as error:
        console.print(f"error: {error}", style="red", markup=False, soft_wrap=True)
        return 1


def _run(options: argparse.Namespace, folder: Path, console: Console, stack: contextlib.ExitStack) -> int:
    engines_wanted = ("redis", "zookeeper", "kafka", options.store, "nginx")
    if wanted := lacking(*engines_wanted):
        console.print(f"installing {', '.join(wanted)}")
        install(*engines_wanted)
    with _step(console, f"engines: Redis, ZooKeeper, Kafka, {options.store}"):
        engines = SharedEngines.start(folder / "engines", store=options.store)
        stack.callback(engines.stop)
    cluster = Cluster(
        folder / "processes",
        engines,
        apis=options.apis,
        routes=options.routes,
        sinks=options.sinks,
        application=APPLICATION,
        settings={
            "LONGWIRE_PROXY_PROTOCOL": "true",
            "LONGWIRE_TRUSTED_PROXIES": _LOCAL,
            "LONGWIRE_PUBLIC_HOST": _FRONT,
        },
        workers=options.gateways,
    )
    counts = f"{options.gateways} gateways, {options.apis} apis, {options.routes} routes, {options.sinks} sinks"
    with _step(console, counts):
        cluster.start()
        stack.callback(cluster.stop)
    with _step(console, "nginx in front"):
        nginx = Nginx(folder / "nginx", _front(cluster, options.gateways)).start()
        stack.callback(nginx.stop)
    house = House(engines, cluster, nginx, options.gateways)
    stack.callback(house.close)
    _tell(house, console)
    log = folder / "demo.log"
    keys = cluster.credentials
    demo = DemoRun(house.http_url, keys, options.devices, console.width, log, stays=options.stay)
    stack.callback(demo.stop)
    _watch(house, console, demo, stays=False)
    console.print(demo.said, markup=False)
    if options.stay:
        with contextlib.suppress(KeyboardInterrupt):
            _watch(house, console, demo, stays=True)
        demo.stop()
    return 1 if demo.status else 0


def _front(cluster: Cluster, count: int) -> str:
    """nginx's configuration: of deploy/nginx, and for each node a server on the node's own port."""
    first = cluster.gateways[0].port
    ports = range(first, first + count)
    text = nginx_config([f"{_LOCAL}:{api.http_port}" for api in cluster.apis], [f"{_LOCAL}:{port}" for port in ports])
    servers = "".join(
        f"    server {{ listen {_FRONT}:{port}; proxy_pass {_LOCAL}:{port}; proxy_protocol on; }}\n" for port in ports
    )
    return re.sub(r"^stream {\n", lambda found: found[0] + servers, text, count=1, flags=re.MULTILINE)


def _tell(house: House, console: Console) -> None:
    """How another terminal reaches it."""
    keys = house.cluster.credentials
    console.print(f"HTTP API  {house.http_url}  [dim]API key[/] {keys['api_key']}", soft_wrap=True)
    console.print(f"[dim]app key[/] {keys['app_key']}  [dim]app secret[/] {keys['app_secret']}", soft_wrap=True)
    console.print(f"[dim]logs and data are in {house.cluster.folder.parent}[/]", soft_wrap=True)


def _watch(house: House, console: Console, demo: DemoRun, *, stays: bool) -> None:
    """Shows the table until the demo is done; where it ``stays``, until its devices end, q, or Ctrl-C."""
    keys, said = "", ""
    with _screen(console) as show, _keyboard() as typed:
        while demo.status is None if stays else not demo.is_done:
            lines = [said or _KEYS if typed is not None else "Ctrl-C ends it"]
            if not stays:
                lines.insert(0, f"demo: {demo.last_line}")
            show(picture(house.nodes(), house.parts(), house.frozen, lines))
            if typed is None:
                time.sleep(_LOOK_EVERY_S)
                continue
            keys += _read(typed, _LOOK_EVERY_S)
            if keys.startswith("q"):
                raise KeyboardInterrupt
            if keys and (done := house.do(keys)) is not None:
                keys, said = "", done


@contextlib.contextmanager
def _screen(console: Console) -> Iterator[Any]:
    """Shows a picture in place of the one before; where there is no terminal, only the last one."""
    if console.is_terminal:
        with Live(console=console, auto_refresh=False) as live:
            yield lambda seen: live.update(seen, refresh=True)
        return
    last: list[Any] = []

    def keep(seen: object) -> None:
        last[:] = [seen]

    yield keep
    for seen in last:
        console.print(seen)


@contextlib.contextmanager
def _keyboard() -> Iterator[int | None]:
    """The terminal's descriptor, giving each key as it is pressed; None where nobody types."""
    if not sys.stdin.isatty():
        yield None
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield descriptor
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _read(descriptor: int, within_s: float) -> str:
    ready, _, _ = select.select([descriptor], [], [], within_s)
    return os.read(descriptor, 16).decode(errors="ignore").strip() if ready else ""


@contextlib.contextmanager
def _step(console: Console, name: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    console.print(f"[green]✓[/] {name} [dim]{time.monotonic() - began:.1f} s[/]")


def _options(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make cluster", description=__doc__.partition("\n")[0] if __doc__ else "")
    for name, default in (("gateways", 3), ("apis", 2), ("routes", 2), ("sinks", 2), ("devices", 600)):
        parser.add_argument(f"--{name}", type=_above_0, default=default, metavar="N", help=f"default: {default}")
    parser.add_argument("--store", choices=("mariadb", "postgres"), default="mariadb", help="default: mariadb")
    parser.add_argument("--stay", action="store_true", help="leave it running when the demo is over, until Ctrl-C")
    parser.add_argument("--keep", action="store_true", help="leave .cache/cluster with the logs there afterwards")
    return parser.parse_args(words)


def _above_0(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
