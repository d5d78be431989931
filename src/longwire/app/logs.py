"""Logs: one line an event, to standard error; JSON in ECS field names, or text on a terminal.

    event ─► level of its area ─► fields: what it says, its call's trace, this process ─► secrets masked, cut ─► line

Nothing from outside breaks a line: what is not printable is escaped. The format is Elastic Common Schema's, by
Elastic's own formatter; its fields are those of ``ECS_FIELDS`` and no others, so that an index never grows by what
somebody sends. What code says beside its text goes into ``labels``, ECS' place for words of one's own.
"""

import itertools
import logging
import re
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, TextIO
from urllib.parse import unquote, urlsplit

import ecs_logging
from pydantic import SecretStr

from longwire import __version__
from longwire.traces import CALL

if TYPE_CHECKING:
    from longwire.app.settings import Settings

Form = Literal["auto", "text", "json"]

ECS_VERSION: Final = "8.11.0"
ECS_FIELDS: Final = frozenset(
    {
        "client.ip",
        "event.duration",
        "http.request.id",
        "http.request.method",
        "http.response.status_code",
        "trace.id",
        "url.path",
        "user.name",
    }
)
"""What ``extra`` of a log call may name by itself; everything else of it becomes a label."""

LEVELS: Final = ("debug", "info", "warning", "error")
AREAS: Final[Mapping[str, Sequence[str]]] = {
    "gateway": ("longwire.gateway",),
    "net": ("longwire.net",),
    "link": ("longwire.adapters.http",),
    "push": ("longwire.push",),
    "sink": ("longwire.sink",),
    "webhooks": ("longwire.webhooks",),
    "accounts": ("longwire.accounts",),
    "api": ("longwire.api",),
    "sql": ("longwire.adapters.sql",),
    "redis": ("longwire.adapters.redis",),
    "kafka": ("longwire.adapters.kafka",),
    "zookeeper": ("longwire.adapters.zookeeper", "longwire.zookeeper"),
    "hops": ("longwire.hops",),
    "console": ("longwire.console",),
    "app": (
        "longwire.app",
        "longwire.application",
        "longwire.cli",
        "longwire.seeing",
        "longwire.adapters.embedded",
        "longwire.adapters.node_list",
    ),
}
"""Each area of the log, and the loggers that are in it."""

_TEXT: Final = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
_MAX_CHARACTERS: Final = 8_192
_TAIL_CHARACTERS: Final = 2_048
_MAX_LABELS: Final = 24
_MIN_SECRET: Final = 8
_MIN_WORD: Final = 16
"""Shorter secrets, or those of small letters alone, are not masked wherever they stand: they may be words."""

# Each of these says at info what our own lines say already.
_QUIET: Final = (
    "alembic",
    "asyncio",
    "engineio",
    "httpcore",
    "httpx",
    "kazoo",
    "nicegui",
    "opentelemetry",
    "python_multipart",
    "socketio",
    "sqlalchemy",
    "urllib3",
    "uvicorn",
)
_SECRET_FORMS: Final = (
    (re.compile(r"(lw[a-z]_)[A-Za-z0-9_-]+"), r"\1…"),
    (re.compile(r"\b(Bearer|Basic) +[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE), r"\1 …"),
    (re.compile(r"(://[^\s:/@]{0,256}):\S{1,1024}@"), r"\1:…@"),
    # Longer than every id of ours: digests, proofs, keys.
    (re.compile(r"\b[0-9A-Fa-f]{40,}\b"), "…"),
)
_OF_RECORDS: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class _State:
    """What ``configure`` decided; one a process."""

    areas: Mapping[str, str] = {}
    secrets: re.Pattern[str] | None = None
    service: Mapping[str, object] = {}


class Counted(logging.StreamHandler[TextIO]):
    """Writes lines, and counts them by level."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self.counts = dict.fromkeys((*LEVELS, "critical"), 0)

    def emit(self, record: logging.LogRecord) -> None:
        """Called under the handler's lock."""
        name = record.levelname.lower()
        if name in self.counts:
            self.counts[name] += 1
        super().emit(record)


class OneLine(logging.Formatter):
    """Text: escapes what would begin a new line or move the terminal; a stack of our own keeps its lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """The line; behind it the last digits of its trace, where it has one: the first tell but the time."""
        text = harmless(super().formatMessage(record))
        trace_id = _context(record).get("trace.id")
        if isinstance(trace_id, str) and trace_id:
            text = f"{text} [{trace_id[-8:]}]"
        return _printable(text)

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        """The stack, a line a frame; none of them is what came from outside."""
        lines = harmless(super().formatException(ei)).split("\n")
        return "\n".join(map(_printable, lines))


class EcsLine(ecs_logging.StdlibFormatter):
    """JSON: one object a line, all of it ASCII."""

    def __init__(self) -> None:
        super().__init__(exclude_fields=("log.original", "log.origin", "process"))
        self._numbers = itertools.count(1)

    def format_to_ecs(self, record: logging.LogRecord) -> dict[str, Any]:
        """The event's fields."""
        own = logging.makeLogRecord({key: value for key, value in record.__dict__.items() if key in _OF_RECORDS})
        own.msg, own.args = _message(record), None
        own.__dict__.update(_context(record))
        fields = super().format_to_ecs(own)
        fields["ecs.version"] = ECS_VERSION
        # Events of one millisecond are in their order by their number.
        fields["event"] = {
            **fields.get("event", {}),
            "dataset": dataset_of(record.name),
            "sequence": next(self._numbers),
        }
        fields["service"] = dict(_State.service)
        if labels := _labels(record):
            fields["labels"] = labels
        cleaned: dict[str, Any] = _clean(fields)
        return cleaned


handler: Counted | None = None
"""Where the process's log goes since ``configure``."""


def configure(
    level: str,
    name: str = "",
    *,
    form: Form = "auto",
    areas: Mapping[str, str] | None = None,
    service: Mapping[str, object] | None = None,
    secrets: Collection[str] = (),
) -> None:
    """Sends every log of the process to standard error; with ``name`` where several write text there.

    ``areas``: levels of their own. ``service``: ECS' fields of that name. ``secrets``: masked wherever they
    stand, but for those that may be words.
    """
    global handler
    handler = Counted(sys.stderr)
    is_text = form == "text" or (form == "auto" and sys.stderr.isatty())
    handler.setFormatter(OneLine(f"{name} {_TEXT}" if name else _TEXT) if is_text else EcsLine())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for quiet in _QUIET:
        logging.getLogger(quiet).setLevel(logging.WARNING)
    _State.areas = dict(areas or {})
    _State.service = {"name": "longwire", "version": __version__, **(service or {})}
    known = sorted({one for one in secrets if _is_no_word(one)}, key=len, reverse=True)
    _State.secrets = re.compile("|".join(map(re.escape, known))) if known else None
    set_levels({})


def configure_for(settings: "Settings", name: str = "") -> None:
    """As ``configure``, with what the settings say."""
    configure(
        settings.log_level,
        name,
        form=settings.log_format,
        service={"node": {"name": settings.node_name, "roles": sorted(settings.roles)}},
        secrets=frozenset(_secrets_of(settings)),
    )


def name_node(node_id: str) -> None:
    """From now on lines have the node's id, which is made when the process is built."""
    node = _State.service.get("node")
    _State.service = {**_State.service, "node": {**(node if isinstance(node, dict) else {}), "name": node_id}}


def set_levels(levels: Mapping[str, str]) -> None:
    """The whole wanted state: has these areas log at levels of their own, and all others as ``configure`` said.

    Names that are no area, and words that are no level, change nothing: another version may have set them.
    """
    wanted = {**_State.areas, **levels}
    for area, loggers in AREAS.items():
        level = wanted.get(area, "")
        for name in loggers:
            logging.getLogger(name).setLevel(level.upper() if level in LEVELS else logging.NOTSET)


def area_of(name: str) -> str | None:
    """The area of a logger; None for one that is not ours."""
    for area, loggers in AREAS.items():
        if any(name == one or name.startswith(f"{one}.") for one in loggers):
            return area
    return None


def dataset_of(name: str) -> str:
    """``event.dataset`` of a logger: ``longwire.gateway``; of one that is not ours its first word."""
    area = area_of(name)
    return f"longwire.{area}" if area is not None else name.partition(".")[0]


def harmless(text: str) -> str:
    """Text without what looks like a secret or is one of this process's, and not longer than 8 KiB."""
    if len(text) > 4 * _MAX_CHARACTERS:
        text = text[: 3 * _MAX_CHARACTERS] + text[-_MAX_CHARACTERS:]
    if _State.secrets is not None:
        text = _State.secrets.sub("…", text)
    for form, instead in _SECRET_FORMS:
        text = form.sub(instead, text)
    if len(text) > _MAX_CHARACTERS:
        text = f"{text[: _MAX_CHARACTERS - _TAIL_CHARACTERS]} … {text[-_TAIL_CHARACTERS:]}"
    return text


def _is_no_word(secret: str) -> bool:
    return len(secret) >= (_MIN_WORD if secret.isalpha() and secret.islower() else _MIN_SECRET)


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 - a call that does not fit its own text must not lose its event
        return f"{record.msg} {record.args!r}"


def _context(record: logging.LogRecord) -> dict[str, object]:
    """Fields that the event itself names, and those of the call that it happened in."""
    given = record.__dict__
    fields = {name: given[name] for name in ECS_FIELDS & given.keys() if given[name] not in (None, "")}
    call = CALL.get()
    if call is not None:
        fields.setdefault("trace.id", call.trace_id)
        if call.request_id:
            fields.setdefault("http.request.id", call.request_id)
    return fields


def _labels(record: logging.LogRecord) -> dict[str, str | list[str]]:
    """What is said beside the text: ``labels`` of ``extra``, and what else of it is a word or a number."""
    given = record.__dict__
    found: dict[str, object] = {
        name.removeprefix("longwire.").replace(".", "_"): value
        for name, value in given.items()
        if name not in _OF_RECORDS and name not in ECS_FIELDS and isinstance(value, str | int | float)
    }
    labels = given.get("labels")
    if isinstance(labels, Mapping):
        found |= labels
    return {
        name: [str(one) for one in value[:_MAX_LABELS]] if isinstance(value, list) else str(value)
        for name, value in itertools.islice(found.items(), _MAX_LABELS)
    }


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        # Half a surrogate is no text to a search engine, and to a shipper in C a zero is the end.
        return harmless(value).encode("utf-8", "replace").decode().replace("\0", "\\x00")
    if isinstance(value, dict):
        return {key: _clean(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_clean(inner) for inner in value]
    return value


def _secrets_of(settings: "Settings") -> Iterator[str]:
    """Secrets that this process was given, also as parts of URLs."""
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if not isinstance(value, SecretStr):
            continue
        text = value.get_secret_value()
        if "://" in text:
            password = urlsplit(text).password or ""
            yield from (password, unquote(password))
        else:
            # otlp_headers: name=value,name=value
            yield text
            yield from (part.partition("=")[2].strip() for part in text.split(","))
    for name, text in settings.kafka_options.items():
        if any(word in name for word in ("password", "secret", "jaas", "key", "token")):
            yield text
