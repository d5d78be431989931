"""What the doctor found: one finding a check, each with its fact, what to do, and the command that does it."""

from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple


class State(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"
    """It works, and will not for what the settings allow, or not for long."""
    FAILURE = "failure"
    """Longwire does not work so, or not as it is set."""
    UNKNOWN = "unknown"
    """It could not be looked at; ``fact`` says why."""


class Finding(NamedTuple):
    """One check. No field ever holds a secret: places are shown without their passwords."""

    area: str
    """``machine``, ``capacity``, ``files``, ``ports``, ``certificates`` or the name of an engine."""
    name: str
    state: State
    fact: str
    advice: str = ""
    """What to do; "" where nothing is to be done."""
    command: str = ""
    """What does it, to be pasted into a shell; "" where no one command does."""


def ok(area: str, name: str, fact: str) -> Finding:
    return Finding(area, name, State.OK, fact)


def warning(area: str, name: str, fact: str, advice: str, command: str = "") -> Finding:
    return Finding(area, name, State.WARNING, fact, advice, command)


def failure(area: str, name: str, fact: str, advice: str, command: str = "") -> Finding:
    return Finding(area, name, State.FAILURE, fact, advice, command)


def unknown(area: str, name: str, fact: str, advice: str = "", command: str = "") -> Finding:
    return Finding(area, name, State.UNKNOWN, fact, advice, command)


def worst(findings: Iterable[Finding]) -> State:
    """The state that the whole is in; ``ok`` of none. What could not be looked at does not make it worse."""
    states = {finding.state for finding in findings}
    return next((state for state in (State.FAILURE, State.WARNING) if state in states), State.OK)
