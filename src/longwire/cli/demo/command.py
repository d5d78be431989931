"""``longwire demo``: the command, and how it ends."""

from typing import TYPE_CHECKING, Annotated

import typer

from longwire.cli.options import ApiKey
from longwire.cli.text import Failure

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from rich.console import Console

    from longwire.cli.demo.node import Target

_INTERRUPTED = 130


def demo(
    devices: Annotated[int, typer.Option(min=10, max=15_000, help="How many devices.")] = 2_000,
    stay: Annotated[
        bool, typer.Option("--stay", help="Leave the node and the devices running until Ctrl-C, to look around.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Chance: who writes to whom, whose line is cut.")] = 1,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="The HTTP API of a Longwire that runs and serves longwire.cli.demo.application:app; with three keys.",
        ),
    ] = None,
    api_key: ApiKey = None,
    app_key: Annotated[str | None, typer.Option(envvar="LONGWIRE_APP_KEY", help="With --against.")] = None,
    app_secret: Annotated[str | None, typer.Option(envvar="LONGWIRE_APP_SECRET", help="With --against.")] = None,
) -> None:
    """See it work: a node, two thousand devices, and a count of every message.

    Starts a node in a process of its own, registers and connects devices over TCP and WebSocket, sends one to one
    with receipts, cuts lines in the middle, sends to devices that are away and brings them back, has the
    application answer. Ends with one table, and with status 1 where its counts do not add up.
    """
    import logging
    import resource

    import uvloop
    from rich.console import Console

    from longwire.cli.demo.node import Elsewhere, Node

    target: Target
    if against is None:
        target = Node()
    elif api_key and app_key and app_secret:
        target = Elsewhere(against, api_key, app_key, app_secret)
    else:
        raise Failure("--against needs --api-key, --app-key and --app-secret", status=2)
    # What the SDK logs while lines are cut is expected; what matters is counted.
    logging.getLogger("longwire.client").addHandler(logging.NullHandler())
    logging.getLogger("longwire.client").propagate = False
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    status = uvloop.run(_run(target, devices, stay, seed, Console(), Console(stderr=True)))
    raise typer.Exit(status)


async def _run(target: "Target", devices: int, stay: bool, seed: int, out: "Console", err: "Console") -> int:
    import asyncio
    import signal

    loop = asyncio.get_running_loop()
    work = loop.create_task(_demonstrate(target, devices, stay, seed, out, err))
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, work.cancel)
    try:
        return await work
    except asyncio.CancelledError:
        err.print("[dim]interrupted; everything it started is gone[/]")
        return _INTERRUPTED


async def _demonstrate(target: "Target", devices: int, stay: bool, seed: int, out: "Console", err: "Console") -> int:
    import time

    from longwire.cli.demo.node import Node
    from longwire.cli.demo.phases import Demo
    from longwire.cli.demo.report import Row, Screen

    began = time.perf_counter()
    demo = None
    is_ours = isinstance(target, Node)
    try:
        with Screen(err) as screen:
            with screen.bar(
                "starting a node in a process of its own" if is_ours else "asking whether it is ready", 1
            ) as bar:
                await target.start()
                bar.advance()
            demo = Demo(target, devices, screen, seed)
            report = demo.report
            await _unless_it_dies(target, demo.run())
            if isinstance(target, Node) and not stay:
                with screen.bar("stopping the node", 1) as bar:
                    await demo.fleet.leave()
                    status = await target.stop()
                    bar.advance()
                report.stop = f", of which {bar.took_s:.1f} s to stop the node, whose exit status was {status}"
                if status:
                    report.rows.append(Row("stopping the node", fault=f"exit status {status}"))
        report.took_s = time.perf_counter() - began
        report.show(out)
        if stay:
            await _stay(target, devices, out)
        return 1 if report.faults else 0
    finally:
        if demo is not None:
            await demo.fleet.leave()
        await target.close()


async def _unless_it_dies(node: "Target", work: "Coroutine[object, object, None]") -> None:
    """Does the work while the node lives. Raises Failure where either cannot go on."""
    import asyncio

    working, dying = asyncio.ensure_future(work), asyncio.ensure_future(node.died())
    try:
        await asyncio.wait((working, dying), return_when=asyncio.FIRST_COMPLETED)
        await (working if working.done() else dying)
    except ExceptionGroup as group:
        first: BaseException = group
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise Failure(f"the demo cannot go on: {first or type(first).__name__}") from group
    finally:
        for task in (working, dying):
            task.cancel()
        await asyncio.gather(working, dying, return_exceptions=True)


async def _stay(node: "Target", devices: int, out: "Console") -> None:
    """Tells how to reach the node, and waits for Ctrl-C."""
    import asyncio
    import shlex
    import signal

    from rich.markup import escape

    from longwire.cli.demo.node import Node

    out.print(f"[bold]It stays, with {devices:,} devices connected.[/]")
    where = f"HTTP {node.http_url}"
    if isinstance(node, Node):
        data = shlex.quote(str(node.data))
        where = f"devices {node.credentials['device_address']} · {where}"
        out.print("[dim]Another terminal can say:[/]")
        for line in (
            f"longwire devices list --data {data}",
            f"longwire device listen alice --data {data}",
            f"longwire device send --as bob device:alice 'hello' --data {data}",
            f"longwire device request --as bob demo.sum '[1, 2, 3]' --data {data}",
        ):
            out.print(f"  [cyan]{escape(line)}[/]", highlight=False, soft_wrap=True)
    out.print(f"[dim]{where} · Ctrl-C ends it[/]\n")
    told = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    dying = asyncio.ensure_future(node.died())
    ending = asyncio.ensure_future(told.wait())
    try:
        await asyncio.wait((dying, ending), return_when=asyncio.FIRST_COMPLETED)
        if not ending.done():
            await dying
    finally:
        dying.cancel()
        ending.cancel()
        await asyncio.gather(dying, ending, return_exceptions=True)
