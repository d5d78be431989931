"""Handlers as they are declared: a user's function, looked at once, and what each call needs to know of it.

Everything that can be wrong with a function is found here, at declaration, and named; calls find no surprises.
"""

import inspect
import typing
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from longwire.application.context import Context
from longwire.application.errors import DeclarationError
from longwire.application.payloads import Decode, compile_decoder
from longwire.application.threads import HandlerThreads

DURABLE_TIMEOUT_S = 30.0
IN_PLACE_TIMEOUT_S = 5.0
MAX_TIMEOUT_S = 3_600.0


@dataclass(frozen=True, slots=True)
class Handler:
    """A function for messages of one kind, requests of one method, or one of the hooks."""

    name: str
    """The kind, the method or the hook's name."""
    function: Callable[..., object]
    where: str
    """The function and the line it stands on, for people."""
    is_async: bool
    timeout_s: float
    threads: HandlerThreads
    decode: Decode | None = None
    """From payload to the first argument; None for a function that takes no payload."""
    takes_context: bool = False


@dataclass(frozen=True, slots=True)
class UplinkHandler(Handler):
    """Takes messages to the application of one kind, or those that nobody else takes (``*``)."""

    is_durable: bool = True
    """Whether messages come from the uplink log; else they are handled in place, on the gateway."""


@dataclass(frozen=True, slots=True)
class RequestHandler(Handler):
    """Answers requests of one method, in place."""


@dataclass(frozen=True, slots=True)
class HookHandler(Handler):
    """Answers one of the hooks."""

    takes: int = 1
    """How many of the hook's arguments the function wants, from the first."""


class Shape(typing.NamedTuple):
    """What a function looks like from outside."""

    where: str
    is_async: bool
    parameters: list[inspect.Parameter]


def shape_of(function: Callable[..., object]) -> Shape:
    """Looks at a function that is to be declared.

    Raises DeclarationError for what is no function, is a generator, or needs keyword arguments.
    """
    where = describe(function)
    if not callable(function):
        raise DeclarationError(f"{where} is no function")
    called = _called(function)
    if inspect.isgeneratorfunction(called) or inspect.isasyncgenfunction(called):
        raise DeclarationError(f"{where} is a generator; a handler returns its answer")
    positional = []
    for parameter in inspect.signature(function).parameters.values():
        has_default = parameter.default is not parameter.empty
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            positional.append(parameter)
        elif parameter.kind is parameter.KEYWORD_ONLY and not has_default:
            raise DeclarationError(f"{where}: keyword argument {parameter.name!r} would never be given")
    return Shape(where, inspect.iscoroutinefunction(called), positional)


def message_arguments(function: Callable[..., object], shape: Shape) -> tuple[Decode | None, bool]:
    """How a function of () · (payload) · (payload, ctx) · (ctx: Context) is called: decoder, and whether with ctx.

    Raises DeclarationError where it takes anything else or its payload has no annotation that can be decoded.
    """
    needed = [p for p in shape.parameters if p.default is p.empty]
    if len(needed) > 2:
        raise DeclarationError(f"{shape.where} takes {len(needed)} arguments; a handler takes (payload, ctx)")
    taken = shape.parameters[: max(len(needed), 1)] if shape.parameters else []
    # A second parameter with a default is still the context, if it says so.
    if len(taken) == 1 and len(shape.parameters) > 1 and _is_context(function, shape.parameters[1]):
        taken = shape.parameters[:2]
    if not taken:
        return None, False
    if len(taken) == 1 and _is_context(function, taken[0]):
        return None, True
    first = taken[0]
    if first.annotation is first.empty:
        raise DeclarationError(
            f"{shape.where}: parameter {first.name!r} has no annotation; bytes gives the payload as it came"
        )
    return compile_decoder(_annotation(function, first, shape.where), shape.where), len(taken) == 2


def hook_arguments(shape: Shape, least: int, most: int) -> int:
    """How many of a hook's arguments the function is called with. Raises DeclarationError where it never could be."""
    needed = sum(p.default is p.empty for p in shape.parameters)
    if needed > most or len(shape.parameters) < least:
        wanted = str(most) if least == most else f"{least} to {most}"
        raise DeclarationError(f"{shape.where} takes {needed} arguments; this hook gives {wanted}")
    return min(most, len(shape.parameters))


def check_timeout(timeout_s: float, where: str) -> float:
    """Raises DeclarationError for a budget that is none."""
    if not 0 < timeout_s <= MAX_TIMEOUT_S:
        raise DeclarationError(f"{where}: timeout_s {timeout_s} is not above 0 and at most {MAX_TIMEOUT_S:g}")
    return timeout_s


def describe(function: object) -> str:
    """``shop.order_created (/srv/shop.py:12)``."""
    called = _called(function)
    name = f"{getattr(called, '__module__', '?')}.{getattr(called, '__qualname__', repr(called))}"
    code = getattr(called, "__code__", None)
    return f"{name} ({code.co_filename}:{code.co_firstlineno})" if code is not None else name


def _called(function: object) -> object:
    """The code that a call reaches first: of a partial its function, of an object its ``__call__``."""
    while isinstance(function, partial):
        function = function.func
    if callable(function) and not hasattr(function, "__code__") and not inspect.isclass(function):
        return type(function).__call__
    return function


def _annotation(function: Callable[..., object], parameter: inspect.Parameter, where: str) -> object:
    """The parameter's annotation, evaluated by itself: others may name what only a type checker sees."""
    annotation: object = parameter.annotation
    if not isinstance(annotation, str):
        return annotation

    def only() -> None: ...

    only.__annotations__ = {"it": annotation}
    called = inspect.unwrap(typing.cast("Callable[..., object]", _called(function)))
    names = getattr(getattr(called, "__func__", called), "__globals__", {})
    try:
        return typing.get_type_hints(only, globalns=names, include_extras=True)["it"]
    except Exception as error:
        raise DeclarationError(
            f"{where}: annotation {annotation!r} of {parameter.name!r} means nothing in its module: {error}"
        ) from error


def _is_context(function: Callable[..., object], parameter: inspect.Parameter) -> bool:
    if parameter.annotation is parameter.empty:
        return False
    if isinstance(parameter.annotation, str):
        return parameter.annotation.rpartition(".")[2] == Context.__name__
    return parameter.annotation is Context
