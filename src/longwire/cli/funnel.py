"""What became of a push: its funnel as rows, and a live look at it while it is being sent."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

from longwire.cli.operator import Answer, Api, quoted
from longwire.cli.table import moment, number, show
from longwire.cli.text import Failure, note, one_line

STATES = ("acked", "expired", "failed", "collapsed", "canceled", "withdrawn", "pending")
"""Every targeted device is in exactly one of these."""
ENDED = ("completed", "canceled", "withdrawn", "failed")

_QUIET_S = 5.0
"""Dispatched, and nothing has changed for so long: who is left is away."""


def push_path(push_id: str) -> str:
    return f"/v1/pushes/{quoted(push_id)}"


def difference(stats: Answer) -> int:
    """By how much the states miss what was targeted; 0 where they add up."""
    return int(stats["targeted"]) - sum(int(stats[state]) for state in STATES)


def show_funnel(push: Answer) -> None:
    """Prints how many devices are in which state, those that stand at 0 left out but for acked and pending."""
    stats = push["stats"]
    targeted = stats["targeted"]

    def row(state: str) -> tuple[str, str, str]:
        return state, number(stats[state]), f"{stats[state] / targeted * 100:.1f} %" if targeted else ""

    shown = [state for state in STATES if stats[state] or state in ("acked", "pending")]
    show(("state", "devices", "share"), [row("targeted"), *map(row, shown)], "")


def facts(push: Answer) -> Iterator[tuple[str, str]]:
    """A push, one fact a line."""
    progress, stats = push["progress"], push["stats"]
    yield "push", push["id"]
    yield "status", push["status"]
    yield "audience", audience_text(push["audience"])
    yield "kind", push["kind"]
    yield "priority", push["priority"]
    if push["collapse_key"]:
        yield "collapse key", push["collapse_key"]
    yield "created", moment(push["created_at"])
    if push["send_at"]:
        yield "send at", moment(push["send_at"])
    yield "expires", moment(push["expires_at"])
    if push["ended_at"]:
        yield "ended", moment(push["ended_at"])
    if push["failure"]:
        yield "failure", push["failure"]
    if push["retry_of"]:
        yield "retry of", push["retry_of"]
    if push["rate_per_s"]:
        yield "rate", f"{push['rate_per_s']}/s"
    yield "dispatched", f"{number(progress['dispatched'])} of {number(progress['targeted'])}"
    yield "online at send", number(stats["online_at_send"])
    yield "written", number(stats["written"])
    if latency := latency_text(stats["latency_ms"]):
        yield "to the ack", latency
    if unresolved := push["unresolved"]:
        yield "unresolved", f"{unresolved['count']}, among them {' '.join(unresolved['sample'])}"


def latency_text(latency_ms: Answer) -> str:
    """Percentiles in a line; "" where there are none."""
    if latency_ms["p50"] is None:
        return ""
    return " · ".join(f"{name} {latency_ms[name]:.1f} ms" for name in ("p50", "p95", "p99"))


def audience_text(audience: Answer) -> str:
    """An audience in a few words: ``tags any(a b) none(c)``, ``devices x y … (12)``."""
    match audience:
        case {"all": True}:
            return "everyone"
        case {"tags": dict(tags)}:
            return "tags " + " ".join(
                f"{word}({' '.join(tags[word])})" for word in ("any", "all", "none") if tags.get(word)
            )
        case _:
            return " ".join(f"{name} {_few(value)}" for name, value in audience.items() if value)


def _few(value: object) -> str:
    if not isinstance(value, list):
        return one_line(str(value))
    return " ".join(map(str, value[:3])) + (f" … ({len(value)})" if len(value) > 3 else "")


def watch(api: Api, push_id: str) -> None:
    """A live bar over server-sent events until the push is done, then its funnel. Raises Failure where it failed.

    Done is: ended; or dispatched, and whoever is left has been silent for a while, because it is away.
    """
    push = api.get(push_path(push_id))
    try:
        with _bar(push) as told:
            while push["status"] not in ENDED:
                for name, data in api.events(f"{push_path(push_id)}/events", _QUIET_S):
                    if name == "progress":
                        told(data)
                push = api.get(push_path(push_id))
                told(push)
                if push["status"] == "dispatched":
                    break
    except KeyboardInterrupt:
        note(f"{push_id} goes on; `longwire pushes watch {push_id}` looks again")
        raise
    finally:
        show_funnel(push)
    if push["status"] == "failed":
        raise Failure(f"{push_id} failed: {push['failure']}")
    if pending := push["stats"]["pending"]:
        who = "1 device has" if pending == 1 else f"{pending} devices have"
        note(f"{who} not acknowledged it; who is away gets it until {moment(push['expires_at'])}")


@contextmanager
def _bar(push: Answer) -> Iterator[Callable[[Answer], None]]:
    if not sys.stderr.isatty():
        told = [""]

        def tell(push: Answer) -> None:
            if push["status"] != told[0]:
                told[0] = push["status"]
                note(f"{push['id']} is {push['status']}")

        tell(push)
        yield tell
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[counts]}"))
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(push["status"], total=1, counts="")

        def move(push: Answer) -> None:
            stats, sent = push["stats"], push["progress"]
            ended = stats["targeted"] - stats["pending"]
            rate = f" · {sent['rate_per_s']:,}/s" if sent["rate_per_s"] else ""
            counts = f"{sent['dispatched']:,} dispatched · {stats['acked']:,} acked of {stats['targeted']:,}{rate}"
            progress.update(
                task, description=push["status"], total=max(1, stats["targeted"]), completed=ended, counts=counts
            )

        move(push)
        yield move


def print_id(push: Answer) -> None:
    """The push's id alone, for scripts; what else there is to know goes to standard error."""
    unresolved = push["unresolved"]
    if unresolved:
        note(f"{unresolved['count']} are not registered, among them {' '.join(unresolved['sample'])}")
    typer.echo(push["id"])
