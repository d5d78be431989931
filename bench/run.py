"""`python -m bench.run`: the works, the servers, the rounds.

In every round each server does each work once, in a fresh process, and the servers' order turns from round to round:
so that slow drifts of the machine fall on all of them, and ratios are taken between neighbours in time.
"""

import argparse
import math
import re
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from subprocess import SubprocessError

from rich.console import Console
from rich.markup import escape

from bench import generator, machine
from bench.generator import GeneratorFailedError
from bench.processes import ServerFailedError, raise_file_limit
from bench.report import Run, judge, print_work, write_json
from bench.servers import BareEpoll, Custom, Longwire, Mosquitto, Server
from bench.work import QUICK, Scale, Work
from bench.works import WORKS

RESULTS = Path(__file__).resolve().parent / "results"
BUSY_LOAD = 0.5
DEFAULT_ROUNDS = 5
WIDTH_IN_A_FILE = 110


@dataclass
class Plan:
    """What is to be measured."""

    works: list[Work]
    servers: list[Server]
    rounds: int
    scale: Scale

    def pairs(self, work: Work, round_number: int) -> list[tuple[Server, str]]:
        """Who does this work in this round, in turning order, and by which protocol."""
        chosen = [(server, work.protocol_for(server)) for server in self.servers]
        pairs = [(server, protocol) for server, protocol in chosen if protocol is not None]
        turn = round_number % len(pairs) if pairs else 0
        return pairs[turn:] + pairs[:turn]


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _custom(text: str) -> Custom:
    name, _, command = text.partition("=")
    if not name or "{port}" not in command:
        raise argparse.ArgumentTypeError("NAME=COMMAND, and COMMAND names {port}")
    return Custom(name, command)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.run", description="Longwire beside its peers.")
    parser.add_argument("--only", type=_names, metavar="WORK,…", help="these works; `relay` means relay alone")
    parser.add_argument("--servers", type=_names, metavar="NAME,…", help="longwire, mosquitto, bare-epoll")
    parser.add_argument("--rounds", type=int, help=f"{DEFAULT_ROUNDS}; 1 with --quick")
    parser.add_argument("--quick", action="store_true", help="small and short: shows that it works, no more")
    parser.add_argument("--seconds", type=float, help="measured time of each relay (10)")
    parser.add_argument(
        "--server",
        type=_custom,
        action="append",
        default=[],
        metavar="NAME=COMMAND",
        help="one more native server, e.g. 'sketch=python relay.py {port}'",
    )
    parser.add_argument("--list", action="store_true", help="the works, then end")
    return parser.parse_args()


def _chosen_works(only: list[str] | None) -> list[Work]:
    """All, or those named; `memory` names all of its family. Raises SystemExit for a name that is none."""
    if not only:
        return list(WORKS)
    for name in only:
        if not any(work.name == name or work.name.startswith(f"{name}-") for work in WORKS):
            raise SystemExit(f"no work {name}; there are {', '.join(work.name for work in WORKS)}")
    exact = {work.name for work in WORKS}
    return [
        work
        for work in WORKS
        if any(work.name == name or (name not in exact and work.name.startswith(f"{name}-")) for name in only)
    ]


def _chosen_servers(names: list[str] | None, given: list[Custom], console: Console) -> list[Server]:
    known: list[Server] = [Longwire(), Mosquitto(), BareEpoll(), *given]
    for name in names or []:
        if name not in {server.name for server in known}:
            raise SystemExit(f"no server {name}; there are {', '.join(server.name for server in known)}")
    present = []
    for server in known:
        if names and server.name not in names and server not in given:
            continue
        what = server.missing()
        if what is None:
            present.append(server)
        else:
            console.print(f"[yellow]without {server.name}: {what}[/yellow]", highlight=False)
    return present


def _without_paths(failure: Exception) -> str:
    """What went wrong, without this machine's folders: results are for others to read."""
    return re.sub(r"(?<![\w.])/[\w.@+-]+(?:/[\w.@+-]+)*/", "…/", str(failure))


def _measure(work: Work, server: Server, protocol: str, round_number: int, scale: Scale) -> Run:
    with tempfile.TemporaryDirectory(prefix="longwire-bench-") as folder:
        try:
            measured = work.measure(server, protocol, Path(folder), scale)
        except (ServerFailedError, GeneratorFailedError) as failure:
            return Run(work.name, server.name, round_number, {}, [], [], [], _without_paths(failure))
    broken, notes = judge(measured.raw, measured.notes)
    return Run(work.name, server.name, round_number, measured.figures, measured.raw, notes, broken)


def _headline(work: Work, run: Run) -> str:
    metric = work.metrics[0]
    if run.error:
        return f"[red]not measured: {escape(run.error)}[/red]"
    figure = run.figures[metric.key]
    return "not told" if math.isnan(figure) else f"{figure:,.{metric.digits}f} {metric.label}"


def _run_all(plan: Plan, console: Console) -> list[Run]:
    runs: list[Run] = []
    for round_number in range(1, plan.rounds + 1):
        for work in plan.works:
            for server, protocol in plan.pairs(work, round_number):
                run = _measure(work, server, protocol, round_number, plan.scale)
                runs.append(run)
                console.print(
                    f"round {round_number}  {work.name:<21}{server.name:<12} {_headline(work, run)}", highlight=False
                )
    return runs


def _prepared(servers: list[Server], scale: Scale, folder: Path, console: Console) -> list[Server]:
    ready = []
    for server in servers:
        try:
            server.prepare(folder / server.name, scale.devices)
        except (ServerFailedError, SubprocessError) as failure:
            console.print(f"[red]without {server.name}: {escape(_without_paths(failure))}[/red]", highlight=False)
        else:
            ready.append(server)
    return ready


def main() -> int:
    """Measures what the command line asks for; 1 when a server did what none may, or nothing could be measured."""
    arguments = _arguments()
    console = Console(width=None if sys.stdout.isatty() else WIDTH_IN_A_FILE)
    if arguments.list:
        for work in WORKS:
            console.print(f"{work.name:<21}{work.title}", highlight=False)
        return 0

    raise_file_limit()
    scale = QUICK if arguments.quick else Scale()
    if arguments.seconds:
        scale = replace(scale, seconds=arguments.seconds)
    rounds = arguments.rounds or (1 if arguments.quick else DEFAULT_ROUNDS)
    works = _chosen_works(arguments.only)
    began = datetime.now(UTC)
    facts: dict[str, object] = dict(machine.facts())
    if float(str(facts["load_average_before"])) > BUSY_LOAD:
        console.print("[yellow]this machine is busy: what follows are no figures to quote[/yellow]")
    try:
        generator.build()
    except GeneratorFailedError as failure:
        console.print(str(failure), style="red", highlight=False)
        return 1

    with tempfile.TemporaryDirectory(prefix="longwire-bench-") as folder:
        servers = _chosen_servers(arguments.servers, arguments.server, console)
        servers = _prepared(servers, scale, Path(folder), console)
        runs = _run_all(Plan(works, servers, rounds, scale), console)
    if not any(run.figures for run in runs):
        console.print("[red]nothing could be measured[/red]")
        return 1

    console.print()
    for work in works:
        if any(run.work == work.name for run in runs):
            print_work(console, work, runs)
    facts |= {
        "servers": {server.name: server.version() for server in servers},
        "quick": arguments.quick,
        "rounds": rounds,
        "scale": asdict(scale),
    }
    path = write_json(RESULTS, began, facts, runs, works)
    console.print(f"written: bench/results/{path.name}", highlight=False)
    return 1 if any(run.broken for run in runs) else 0


if __name__ == "__main__":
    sys.exit(main())
