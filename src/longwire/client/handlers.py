"""The application's functions: which arguments they want, decoded as their annotations say.

bytes: the payload · str: as UTF-8 · Message: the message itself · anything else: JSON of that type
"""

import inspect
from collections.abc import Callable

import msgspec

from longwire.client.message import Message

Function = Callable[..., object]
"""Sync or async. A sync one runs on the event loop: it must be quick, or hand off to a thread itself."""

UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError)

_Argument = Callable[[bytes], object] | None


class Handler:
    """A function with its arguments' decoders. None among them stands for the message itself."""

    __slots__ = ("_arguments", "_function", "name")

    def __init__(self, function: Function, arguments: tuple[_Argument, ...]) -> None:
        self.name = getattr(function, "__qualname__", repr(function))
        self._function = function
        self._arguments = arguments

    def arguments(self, payload: bytes, message: Message | None = None) -> list[object]:
        """What to call with. Raises one of ``UNDECODABLE``."""
        return [message if decode is None else decode(payload) for decode in self._arguments]

    def call(self, arguments: list[object]) -> object:
        """What the function returns: to be awaited where it is awaitable. Raises what it raises."""
        return self._function(*arguments)


def message_handler(function: Function) -> Handler:
    """A callback for messages. An argument without annotation gets the Message. Raises TypeError."""
    return Handler(function, tuple(_decoders(function, unannotated=Message)))


def method_handler(function: Function) -> Handler:
    """A callback for requests. An argument without annotation gets the bytes. Raises TypeError."""
    arguments = tuple(_decoders(function, unannotated=bytes))
    if len(arguments) > 1 or None in arguments:
        raise TypeError(f"{function!r} is to take the payload and nothing else")
    return Handler(function, arguments)


def _decoders(function: Function, unannotated: type) -> list[_Argument]:
    try:
        parameters = inspect.signature(function, eval_str=True).parameters.values()
    except NameError as error:
        raise TypeError(f"an annotation of {function!r} cannot be resolved: {error}") from error
    decoders: list[_Argument] = []
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if parameter.kind is parameter.KEYWORD_ONLY:
            if parameter.default is parameter.empty:
                raise TypeError(f"{function!r} takes {parameter.name} by keyword only")
            continue
        if parameter.default is not parameter.empty:
            continue
        wanted = unannotated if parameter.annotation is parameter.empty else parameter.annotation
        decoders.append(_decoder(wanted))
    return decoders


def _decoder(wanted: type) -> _Argument:
    if wanted is Message:
        return None
    if wanted is bytes:
        return bytes
    if wanted is str:
        return bytes.decode
    return msgspec.json.Decoder(wanted).decode
