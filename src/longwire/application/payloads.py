"""Payloads: bytes from and to the values that handlers speak of.

A decoder is compiled once, when the handler is declared, from the annotation of its parameter:

    bytes                         the payload as it came
    str                           the payload as UTF-8 text (not a JSON string)
    anything else msgspec knows   JSON, checked: Struct, dataclass, TypedDict, dict, list, int, X | None, …

Encoding mirrors it. A type that msgspec would only take with a hook (a class of the user's own that is none of
these) is refused at once rather than at the first message.
"""

from collections.abc import Callable, Iterator

import msgspec
from msgspec import inspect

from longwire.application.errors import DeclarationError

Decode = Callable[[bytes], object]

MAX_DETAIL_CHARACTERS = 200


class PayloadError(ValueError):
    """The payload is not what the handler's annotation asks for. The text may be shown to the device."""


def compile_decoder(annotation: object, where: str) -> Decode:
    """A function from payload to value that raises PayloadError where the two do not fit.

    Raises DeclarationError, naming ``where`` and the type, for an annotation that nothing can be decoded to.
    """
    if annotation is bytes:
        return _as_it_came
    if annotation is str:
        return _text
    try:
        foreign = next(_foreign_types(inspect.type_info(annotation)), None)
        decode = msgspec.json.Decoder(annotation).decode
    except (TypeError, ValueError, NameError) as error:
        raise DeclarationError(f"{where}: messages cannot be decoded to {_show(annotation)}: {error}") from error
    if foreign is not None:
        inside = "" if foreign is annotation else f", for {_show(foreign)} inside it"
        raise DeclarationError(
            f"{where}: messages cannot be decoded to {_show(annotation)}{inside} is no msgspec Struct, dataclass, "
            "TypedDict, bytes, str or JSON type"
        )

    def checked(payload: bytes) -> object:
        try:
            return decode(payload)
        except msgspec.DecodeError as error:
            raise PayloadError(presentable(str(error))) from error
        except RecursionError as error:
            raise PayloadError("JSON is nested too deeply") from error

    return checked


def encode(value: object) -> bytes:
    """Bytes as they are, text as UTF-8, None as nothing, everything else as compact JSON.

    Raises TypeError or ValueError for what cannot be said in JSON.
    """
    match value:
        case bytes():
            return value
        case str():
            return value.encode()
        case None:
            return b""
        case bytearray() | memoryview():
            return bytes(value)
        case _:
            return msgspec.json.encode(value)


def presentable(text: str) -> str:
    """``text`` on one line, of bounded length, with everything unprintable escaped: safe to log and to send."""
    head = text[:MAX_DETAIL_CHARACTERS]
    if not head.isprintable():
        head = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in head)
    return head if len(text) <= MAX_DETAIL_CHARACTERS else head + "…"


def _as_it_came(payload: bytes) -> object:
    return payload


def _text(payload: bytes) -> object:
    try:
        return payload.decode()
    except UnicodeDecodeError as error:
        raise PayloadError(f"not UTF-8 text: invalid byte at {error.start}") from error


def _foreign_types(root: inspect.Type) -> Iterator[object]:
    """Every type inside ``root`` that msgspec cannot decode by itself; recursive types end where they began."""
    seen: set[int] = set()
    stack: list[object] = [root]
    while stack:
        node = stack.pop()
        if isinstance(node, tuple):
            stack.extend(node)
        elif isinstance(node, inspect.CustomType):
            yield node.cls
        elif isinstance(node, inspect.Type | inspect.Field) and id(node) not in seen:
            seen.add(id(node))
            stack.extend(getattr(node, name) for name in node.__struct_fields__)


def _show(annotation: object) -> str:
    return annotation.__qualname__ if isinstance(annotation, type) else str(annotation)
