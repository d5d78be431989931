"""Options that several commands share, and the settings that they make."""

import os
import sys
from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from longwire.cli.text import Failure

if TYPE_CHECKING:
    from longwire.app.settings import Loaded

_PROCESS = "Where it listens"
_KEPT = "Where things are kept"
_CLUSTER = "Part of a cluster"
_MORE = "More"
_REACH = "How Longwire is reached"

DEFAULT_DATA = Path("longwire-data")
WRONG_SETTING = 2

Application = Annotated[
    str | None, typer.Argument(metavar="[MODULE:ATTR]", help="Your application, such as shop:app.", show_default=False)
]


class Reregister(StrEnum):
    """Setting ``reregister``."""

    PROVE = "prove"
    ALLOW = "allow"


class LogLevel(StrEnum):
    """Setting ``log_level``."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    """Setting ``log_format``."""

    AUTO = "auto"
    TEXT = "text"
    JSON = "json"


Config = Annotated[
    Path | None,
    typer.Option(
        envvar="LONGWIRE_CONFIG",
        metavar="FILE",
        help="Settings file.  [dim]\\[default: ./longwire.toml where there is one][/]",
        show_default=False,
        rich_help_panel=_KEPT,
    ),
]
Data = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Data folder; one process's alone.  [dim]\\[default: longwire-data][/]",
        show_default=False,
        rich_help_panel=_KEPT,
    ),
]
Host = Annotated[
    str | None,
    typer.Option(
        help="Address to listen on.  [dim]\\[default: 127.0.0.1][/]", show_default=False, rich_help_panel=_PROCESS
    ),
]
Port = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Device port; 0: a free one.  [dim]\\[default: 7300][/]",
        show_default=False,
        rich_help_panel=_PROCESS,
    ),
]
TlsPort = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Device port with TLS, where there is a certificate.  [dim]\\[default: 7301][/]",
        show_default=False,
        rich_help_panel=_PROCESS,
    ),
]
HttpPort = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="HTTP port; 0: a free one.  [dim]\\[default: 7380][/]",
        show_default=False,
        rich_help_panel=_PROCESS,
    ),
]
InternalPort = Annotated[
    str | None,
    typer.Option(
        metavar="N|none",
        help="Health pages for the operator's network.  [dim]\\[default: 7381][/]",
        show_default=False,
        rich_help_panel=_PROCESS,
    ),
]
ConsolePort = Annotated[
    str | None,
    typer.Option(
        metavar="N|none",
        help="The console, for browsers; 0: a free port.  [dim]\\[default: 7390][/]",
        show_default=False,
        rich_help_panel=_PROCESS,
    ),
]
ConsoleUrl = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Where browsers reach the console, such as https://longwire.example.",
        show_default=False,
        rich_help_panel=_PROCESS,
    ),
]
ConsoleApiUrl = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Role console apart: where the API is.  [dim]\\[default: this machine, --http-port][/]",
        show_default=False,
        rich_help_panel=_CLUSTER,
    ),
]
PublicHost = Annotated[
    str | None,
    typer.Option(
        metavar="HOST",
        help="Host that clients are told to connect to.  [dim]\\[default: --host][/]",
        show_default=False,
        rich_help_panel=_PROCESS,
    ),
]
Certificate = Annotated[
    Path | None,
    typer.Option(metavar="PEM", help="Certificate chain; turns TLS on.", show_default=False, rich_help_panel=_PROCESS),
]
CertificateKey = Annotated[
    Path | None,
    typer.Option(metavar="PEM", help="Key of the certificate.", show_default=False, rich_help_panel=_PROCESS),
]
Roles = Annotated[
    str | None,
    typer.Option(
        metavar="ROLE,…",
        help="Which of gateway, api, route and sink this process is.  [dim]\\[default: all][/]",
        show_default=False,
        rich_help_panel=_CLUSTER,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Nodes to start, each a process on ports of its own.  [dim]\\[default: 1][/]",
        show_default=False,
        rich_help_panel=_CLUSTER,
    ),
]
SharePort = Annotated[
    bool | None,
    typer.Option(
        "--share-port/--own-ports",
        help="Have workers listen on one device port.",
        show_default=False,
        rich_help_panel=_CLUSTER,
    ),
]
InternalHost = Annotated[
    str | None,
    typer.Option(
        metavar="HOST",
        help="Address of the internal port, for other nodes.  [dim]\\[default: --host][/]",
        show_default=False,
        rich_help_panel=_CLUSTER,
    ),
]
StoreUrl = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="The store that processes share; in the environment nobody else reads it.",
        show_default=False,
        rich_help_panel=_CLUSTER,
    ),
]
RedisUrl = Annotated[
    str | None, typer.Option(metavar="URL", help="Redis.", show_default=False, rich_help_panel=_CLUSTER)
]
KafkaServers = Annotated[
    str | None,
    typer.Option(metavar="HOST:PORT,…", help="Kafka.", show_default=False, rich_help_panel=_CLUSTER),
]
ZooKeeperHosts = Annotated[
    str | None,
    typer.Option(
        "--zookeeper-hosts", metavar="HOST:PORT,…", help="ZooKeeper.", show_default=False, rich_help_panel=_CLUSTER
    ),
]
NodeName = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="First part of the node's id.  [dim]\\[default: node][/]",
        show_default=False,
        rich_help_panel=_MORE,
    ),
]
ReregisterOption = Annotated[
    Reregister | None,
    typer.Option(
        "--reregister",
        help="Whether a known device must prove itself to register again.  [dim]\\[default: prove; dev: allow][/]",
        show_default=False,
        rich_help_panel=_MORE,
    ),
]
LogLevelOption = Annotated[
    LogLevel | None,
    typer.Option(
        "--log-level",
        help="What is logged, to standard error.  [dim]\\[default: info][/]",
        show_default=False,
        rich_help_panel=_MORE,
    ),
]
LogFormatOption = Annotated[
    LogFormat | None,
    typer.Option(
        "--log-format",
        help="Text, or JSON in ECS.  [dim]\\[default: auto, text on a terminal][/]",
        show_default=False,
        rich_help_panel=_MORE,
    ),
]
TraceRatio = Annotated[
    float | None,
    typer.Option(
        metavar="0…1",
        help="Share of traces told beside those that are marked.  [dim]\\[default: 0][/]",
        show_default=False,
        rich_help_panel=_MORE,
    ),
]
OtlpUrl = Annotated[
    str | None,
    typer.Option(
        "--otlp-url",
        metavar="URL",
        help="OpenTelemetry collector for traces, such as http://127.0.0.1:4318.",
        show_default=False,
        rich_help_panel=_MORE,
    ),
]
Limit = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE",
        help="A bound of the device port, such as max_inbox=5000; may be repeated. `longwire config show` lists them.",
        show_default=False,
        rich_help_panel=_MORE,
    ),
]
Url = Annotated[
    str | None,
    typer.Option(
        envvar="LONGWIRE_URL",
        help="The HTTP API.  [dim]\\[default: of the credentials file][/]",
        show_default=False,
        rich_help_panel=_REACH,
    ),
]
ApiKey = Annotated[
    str | None,
    typer.Option(
        envvar="LONGWIRE_API_KEY",
        help="API key.  [dim]\\[default: of the credentials file][/]",
        show_default=False,
        rich_help_panel=_REACH,
    ),
]
CredentialsFolder = Annotated[
    Path,
    typer.Option(
        "--data",
        envvar="LONGWIRE_DATA_DIR",
        metavar="DIR",
        help="Data folder of `longwire dev` or `serve`, for its credentials file.",
        rich_help_panel=_REACH,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Most = Annotated[int, typer.Option("--limit", min=1, help="At most so many.")]
DeviceId = Annotated[str, typer.Argument(metavar="DEVICE_ID", show_default=False)]


def listed(texts: Iterable[str] | None) -> list[str]:
    """What an option that may be repeated, and whose values may stand in one with commas, was given."""
    return [part for text in texts or () for part in text.replace(",", " ").split()]


def named(words: Iterable[str], what: str) -> list[str]:
    """The names that arguments give, or with the one argument ``-`` the lines of standard input. Raises Failure."""
    names = list(words)
    if names == ["-"]:
        names = sys.stdin.read().split()
    if not names:
        raise Failure(f"no {what} is named", WRONG_SETTING)
    return names


def load_settings(
    flags: Mapping[str, object],
    limits: list[str] | None,
    config: Path | None,
    *,
    command: str = "",
    command_defaults: Mapping[str, object] | None = None,
) -> "Loaded":
    """The settings that these flags, the environment and the file make. Raises Failure."""
    from longwire.app.settings import SettingsError, load

    wanted = dict(flags)
    for text in limits or ():
        name, equals, value = text.partition("=")
        if not equals:
            raise Failure(f"--limit {text} is not NAME=VALUE, such as max_inbox=5000", WRONG_SETTING)
        wanted[f"limits.{name.replace('-', '_')}"] = value
    try:
        return load(wanted, os.environ, config, command=command, command_defaults=command_defaults)
    except SettingsError as error:
        raise Failure(str(error), WRONG_SETTING) from None
