"""What seeing costs: the same works with and without it, in turns, round after round.

    .venv/bin/python -m bench.seeing [--before FOLDER] [--rounds 8] [--only relay,memory] [--quick]

`off`: warnings as text, nobody asks. `on`: what an operator has all day: two Prometheus scrape each second, a console
asks for numbers each second, lines are JSON at info. `marked`: also a device is marked that takes no part, which makes
the node look at each message. `before`: the program of another source tree, such as a work tree of an older commit:
what the counters themselves cost. Each round does each work once with each; who begins turns. Costs are differences
within a round, with the 95 % confidence interval of their mean (Student's t).
"""

import argparse
import copy
import json
import math
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean, median, stdev

from rich.console import Console
from rich.table import Table

from bench import generator, machine
from bench.generator import Result, held_idle, number, run
from bench.processes import raise_file_limit
from bench.report import judge
from bench.run import BUSY_LOAD, RESULTS
from bench.servers import Endpoint, Launch, Longwire
from bench.work import QUICK, Scale

ROUNDS = 8
SCRAPERS = 2
EVERY_S = 1.0
SCRAPES = 40
BASE = "off"
# Two-sided 95 % of Student's t by degrees of freedom; further ones are close to the last.
_T = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13, 2.12, 2.11, 2.10, 2.09)

Figures = dict[str, float]
Work = Callable[["Variant", Path, Scale], tuple[Figures, list[Result]]]


class Variant(Longwire):
    """A node that is looked at in a certain way."""

    def __init__(self, name: str, *, is_watched: bool = False, is_marked: bool = False, source: Path | None = None):
        super().__init__()
        self.name = name
        self.is_watched = is_watched
        self.is_marked = is_marked
        self._source = source
        if source is not None:
            self.start = (sys.executable, "-m", "longwire.cli")

    def _launch(self, folder: Path, ports: list[int], protocol: str, tls: bool) -> Launch:
        launch = super()._launch(folder, ports, protocol, tls)
        # On in all of them, so that memory is compared like with like.
        launch.environment["LONGWIRE_INTERNAL_PORT"] = str(ports[3])
        self.metrics_url = f"http://127.0.0.1:{ports[3]}/metrics"
        if self._source is not None:
            launch.environment["PYTHONPATH"] = str(self._source / "src")
            return launch
        launch.environment["LONGWIRE_CONSOLE_PORT"] = "none"  # a process of its own: this is the node's cost
        if self.is_watched:
            launch.environment.update(LONGWIRE_LOG_FORMAT="json", LONGWIRE_LOG_LEVEL="info")
        return launch

    @contextmanager
    def looked_at(self, folder: Path) -> Iterator[Endpoint]:
        """A fresh process, with who looks at it while the block lasts."""
        with self.running(folder, "native") as endpoint:
            if not self.is_watched:
                yield endpoint
                return
            assert endpoint.data is not None
            key = json.loads((endpoint.data / "dev-credentials.json").read_text())["api_key"]
            if self.is_marked:
                _mark(endpoint, key)
            over = threading.Event()
            asked = [self.metrics_url] * SCRAPERS + [f"{endpoint.http_url}/v1/stats"]
            watchers = [threading.Thread(target=_watch, args=(url, key, over)) for url in asked]
            for watcher in watchers:
                watcher.start()
            try:
                yield endpoint
            finally:
                over.set()
                for watcher in watchers:
                    watcher.join()


def _ask(url: str, key: str, body: object = None) -> bytes:
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=30) as answer:
        read: bytes = answer.read()
        return read


def _watch(url: str, key: str, over: threading.Event) -> None:
    while not over.wait(EVERY_S):
        _ask(url, key)


def _mark(endpoint: Endpoint, key: str) -> None:
    """Marks the last device, which no relay uses, and waits until the node knows."""
    [device_id] = _last_device(endpoint)
    _ask(f"{endpoint.http_url}/v1/marks", key, {"device_id": device_id, "for_s": 1_800})
    time.sleep(4)  # processes look each two seconds


def _last_device(endpoint: Endpoint) -> list[str]:
    assert endpoint.tokens is not None
    return [endpoint.tokens.read_text().strip().splitlines()[-1].partition(",")[0]]


# -- works -------------------------------------------------------------------------------------------------------------


def _relay(
    variant: Variant, folder: Path, scale: Scale, *, receipt: bool, rate: int = 0
) -> tuple[Figures, list[Result]]:
    with variant.looked_at(folder) as endpoint:
        options = {**scale.relay(receipt=receipt, rate=rate), "server_pid": endpoint.process.pid}
        if not (receipt or rate):
            options["spin"] = 1
        result = run("relay", endpoint, scale.relay_connections, **options)
    return {"cpu_us": number(result, "server_cpu_us_per_message")}, [result]


def _saturated(variant: Variant, folder: Path, scale: Scale) -> tuple[Figures, list[Result]]:
    return _relay(variant, folder, scale, receipt=False)


def _paced(variant: Variant, folder: Path, scale: Scale) -> tuple[Figures, list[Result]]:
    return _relay(variant, folder, scale, receipt=False, rate=scale.open_rate)


def _durable(variant: Variant, folder: Path, scale: Scale) -> tuple[Figures, list[Result]]:
    return _relay(variant, folder, scale, receipt=True)


def _memory(variant: Variant, folder: Path, scale: Scale) -> tuple[Figures, list[Result]]:
    """Bytes of one connection more, and how long a scrape takes with all of them there."""
    first, rest = scale.idle_first, scale.idle_connections - scale.idle_first
    with variant.looked_at(folder) as endpoint, held_idle(endpoint, first) as one:
        some = endpoint.process.settled_memory(at_least_s=scale.settle_s)
        with held_idle(endpoint, rest, first=first) as two:
            full = endpoint.process.settled_memory(at_least_s=scale.settle_s)
            scrapes = _scrapes(variant) if variant.is_watched else [math.nan]
    return {
        "bytes": (full.pss_kb - some.pss_kb) * 1024 / max(two.connected, 1),
        "scrape_ms": median(scrapes),
        "scrape_most_ms": max(scrapes),
    }, [one.final, two.final]


def _scrapes(variant: Variant) -> list[float]:
    """Milliseconds from here and back: more than the loop was held for."""
    found = []
    for _ in range(SCRAPES):
        time.sleep(0.51)  # the page is kept for half a second
        began = time.perf_counter()
        with urllib.request.urlopen(variant.metrics_url, timeout=30) as answer:
            answer.read()
        found.append((time.perf_counter() - began) * 1000)
    return found


WORKS: dict[str, tuple[Work, str]] = {
    "relay": (_saturated, "cpu_us"),
    "relay-10k": (_paced, "cpu_us"),
    "relay-durable": (_durable, "cpu_us"),
    "memory": (_memory, "bytes"),
}


# -- what came of it ---------------------------------------------------------------------------------------------------


def interval(differences: list[float]) -> tuple[float, float]:
    """The mean and half the width of its 95 % confidence interval; infinite for one alone."""
    if len(differences) < 2:
        return differences[0], math.inf
    t = _T[min(len(differences) - 2, len(_T) - 1)]
    return fmean(differences), t * stdev(differences) / math.sqrt(len(differences))


def _cost(values: dict[str, list[float]], name: str, base: str, headline: str) -> str:
    pairs = list(zip(values[name], values[base], strict=True))
    if headline == "bytes":
        mean, half = interval([one - other for one, other in pairs])
        return f"{mean:+,.0f} ± {half:,.0f} bytes"
    mean, half = interval([100 * (one / other - 1) for one, other in pairs])
    return f"{mean:+.2f} ± {half:.2f} %"


def _print(console: Console, work: str, rows: list[dict[str, Figures]]) -> None:
    headline = WORKS[work][1]
    values = {name: [row[name][headline] for row in rows] for name in rows[0]}
    table = Table(f"{work}: {headline}, median of {len(rows)}")
    for name in values:
        table.add_column(name, justify="right")
    table.add_row("", *(f"{median(each):,.2f}" for each in values.values()))
    for base in [BASE, *(["before"] if "before" in values else [])]:
        costs = ["" if name == base else _cost(values, name, base, headline) for name in values]
        table.add_row(f"against {base}", *costs)
    console.print(table)
    for name in values:
        scrapes = [row[name].get("scrape_ms", math.nan) for row in rows]
        if not math.isnan(scrapes[0]):
            most = max(row[name]["scrape_most_ms"] for row in rows)
            console.print(f"a scrape, {name}: {median(scrapes):.1f} ms, at most {most:.1f}", highlight=False)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.seeing", description="What seeing costs.")
    parser.add_argument("--before", type=Path, metavar="FOLDER", help="another source tree, to be compared as well")
    parser.add_argument("--rounds", type=int, default=0, help=f"{ROUNDS}; 1 with --quick")
    parser.add_argument("--only", help=f"of {','.join(WORKS)}")
    parser.add_argument("--quick", action="store_true", help="small and short: shows that it works, no more")
    return parser.parse_args()


def _round(
    work: str, variants: list[Variant], turn: int, folder: Path, scale: Scale, console: Console
) -> dict[str, Figures]:
    found: dict[str, Figures] = {}
    for variant in variants[turn:] + variants[:turn]:
        figures, raw = WORKS[work][0](copy.copy(variant), folder / f"{work}-{turn}-{variant.name}", scale)
        broken, notes = judge(raw, [])
        for word in broken + notes:
            console.print(f"[yellow]{work}, {variant.name}: {word}[/yellow]", highlight=False)
        found[variant.name] = figures
    return {variant.name: found[variant.name] for variant in variants}


def main() -> int:
    """Measures, prints and writes; 0 unless something could not be measured."""
    arguments = _arguments()
    console = Console()
    raise_file_limit()
    scale = QUICK if arguments.quick else Scale()
    rounds = arguments.rounds or (1 if arguments.quick else ROUNDS)
    works = arguments.only.split(",") if arguments.only else list(WORKS)
    facts: dict[str, object] = dict(machine.facts())
    if float(str(facts["load_average_before"])) > BUSY_LOAD:
        console.print("[yellow]this machine is busy: what follows are no figures to quote[/yellow]")
    generator.build()
    variants = [
        *([Variant("before", source=arguments.before.resolve())] if arguments.before else []),
        Variant(BASE),
        Variant("on", is_watched=True),
        Variant("marked", is_watched=True, is_marked=True),
    ]
    began = datetime.now(UTC)
    results: dict[str, list[dict[str, Figures]]] = {work: [] for work in works}
    with tempfile.TemporaryDirectory(prefix="longwire-bench-") as name:
        for variant in variants:
            variant.prepare(Path(name) / f"seed-{variant.name}", scale.devices)
        for number_ in range(rounds):
            for work in works:
                with tempfile.TemporaryDirectory(dir=name) as folder:
                    row = _round(work, variants, number_ % len(variants), Path(folder), scale, console)
                results[work].append(row)
                told = "  ".join(f"{one} {figures[WORKS[work][1]]:,.2f}" for one, figures in row.items())
                console.print(f"round {number_ + 1}  {work:<14}{told}", highlight=False)
    for work, rows in results.items():
        _print(console, work, rows)
    path = RESULTS / f"{began:%Y%m%dT%H%M%SZ}-{facts['commit']}-seeing.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {**facts, "began": began.isoformat(timespec="seconds"), "quick": arguments.quick, "results": results}
    path.write_text(json.dumps(document, indent=1).replace("NaN", "null") + "\n")
    console.print(f"written: bench/results/{path.name}", highlight=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
