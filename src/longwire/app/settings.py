"""Settings: what may be set, where each value came from, and a plain error for a wrong one.

Later sources win: default, the command's own default, ``longwire.toml``, environment (``LONGWIRE_PORT``,
``LONGWIRE_LIMITS__MAX_INBOX``), flag. They are read here and nowhere else, checked once, and handed down as frozen
values.
"""

import dataclasses
import difflib
import ipaddress
import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator

from longwire.accounts.placing import PlacementStrategy
from longwire.app import settings_checks
from longwire.app.roles import ALL_ROLES, Role
from longwire.errors import LongwireError
from longwire.limits import Limits

PREFIX = "LONGWIRE_"
FILE_NAME = "longwire.toml"
# What the command line itself reads from the environment beside the settings.
_CLIENT_NAMES = frozenset(
    {"URL", "API_KEY", "CONFIG", "CREDENTIALS", "APP_KEY", "APP_SECRET", "DEVICE_TOKEN", "CONSOLE_CHILD"}
)
# Flags that are not called as their setting is.
_FLAGS = {"data_dir": "--data"}
# Separated by commas in the environment and in flags.
_LISTS = frozenset({"allowed_origins", "trusted_proxies", "roles"})
# What is shown of them is masked: they are, or have in them, secrets.
_SECRETS = frozenset({"store_url", "redis_url", "cluster_secret", "kafka_options", "otlp_headers"})
_CLUSTER_NAME = re.compile(r"[A-Za-z0-9._-]{1,48}")

Port = Annotated[int, Field(ge=0, le=65_535)]


class SettingsError(LongwireError):
    """A setting is wrong; the message names it, where it came from, and what is allowed."""


class Settings(BaseModel):
    """One process of Longwire."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    roles: frozenset[Role] = Field(
        ALL_ROLES, min_length=1, description="parts of this process; apart only in a cluster"
    )
    data_dir: Path = Field(Path("longwire-data"), description="folder of the embedded store; one process's alone")
    host: str = Field("127.0.0.1", description="address that devices' and HTTP ports listen on")
    port: Port = Field(7300, description="device port; 0 picks a free one")
    tls_port: Port = Field(7301, description="device port with TLS, where there is a certificate")
    http_port: Port = Field(7380, description="HTTP port: the API")
    internal_port: Port | None = Field(7381, description="health pages for the operator's network; none: no such port")
    public_host: str | None = Field(None, description="host that clients are told to connect to; default: host")
    certificate: Path | None = Field(None, description="PEM chain; turns TLS on")
    certificate_key: Path | None = Field(None, description="PEM key of the certificate")
    node_name: str = Field("node", description="1-15 characters; the node's id is this and a random part")
    allowed_origins: frozenset[str] | None = Field(None, description="web origins that may connect; none: any")
    proxy_protocol: bool = Field(
        False, description="whether trusted_proxies begin device connections with a PROXY header, version 1 or 2"
    )
    trusted_proxies: frozenset[str] | None = Field(
        None, description="addresses and networks believed when they say whose traffic they relay; none: nobody"
    )
    reregister: Literal["prove", "allow"] = Field(
        "prove", description="whether a known device must prove itself to register again"
    )
    token_ttl_s: int = Field(86_400, ge=60, le=31_536_000, description="how long a device's token holds")
    api_calls_per_s: float = Field(200, ge=0, description="calls of one API key a second; 0: no limit")
    api_call_burst: int = Field(400, ge=1, description="calls of one API key at once")
    webhook_private_addresses: bool = Field(False, description="whether webhooks may go to private addresses")
    store_url: SecretStr | None = Field(None, description="cluster: mysql+asyncmy:// or postgresql+asyncpg:// URL")
    redis_url: SecretStr | None = Field(None, description="cluster: redis://, rediss:// or redis+cluster:// URL")
    kafka_servers: str | None = Field(None, description="cluster: host:port of some brokers, with commas")
    zookeeper_hosts: str | None = Field(None, description="cluster: host:port of the servers, with commas")
    cluster_secret: SecretStr | None = Field(None, description="cluster: what its processes know each other by; 32 up")
    cluster_name: str = Field("longwire", description="what keys, topics and paths in the engines begin with")
    kafka_partitions: int = Field(12, ge=1, description="partitions of a topic that is made")
    kafka_replication: int = Field(-1, ge=-1, description="copies of a topic that is made; -1: the brokers' default")
    kafka_options: dict[str, str] = Field(default_factory=dict, description="settings of librdkafka, such as TLS, SASL")
    zookeeper_session_s: float = Field(6.0, ge=1, le=120, description="silence after which a node counts as dead")
    redis_timeout_s: float = Field(2.0, gt=0, le=30, description="how long a call of Redis may take")
    internal_host: str | None = Field(None, description="address of internal_port, for other nodes; default: host")
    internal_url: str | None = Field(None, pattern=r"^https?://[^/]+$", description="where others reach internal_port")
    internal_certificate: Path | None = Field(None, description="PEM chain of internal_port; turns TLS on there")
    internal_certificate_key: Path | None = Field(None, description="PEM key of internal_certificate")
    internal_ca: Path | None = Field(None, description="PEM of who signs the nodes' internal certificates")
    placement: PlacementStrategy = Field(PlacementStrategy.AUTO, description="how nodes are chosen for devices")
    node_weight: float = Field(1.0, gt=0, le=1_000, description="share of devices that a node gets, to others'")
    workers: int = Field(1, ge=1, le=256, description="gateway nodes that one command starts, each a process")
    share_port: bool = Field(False, description="whether workers listen on one port, not on ports that rise")
    drain_s: float = Field(30.0, ge=0, le=3_600, description="how long a stop may take to move devices elsewhere")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="what is logged")
    log_format: Literal["auto", "text", "json"] = Field(
        "auto", description="auto: text on a terminal, else JSON in ECS"
    )
    trace_ratio: float = Field(0.0, ge=0, le=1, description="share of traces exported beside those that are marked")
    otlp_url: str | None = Field(None, pattern=r"^https?://", description="OpenTelemetry collector, such as :4318")
    otlp_headers: SecretStr | None = Field(None, description="sent to the collector: name=value, with commas")
    console_port: Port | None = Field(7390, description="the operators' console; none: no console")
    console_host: str | None = Field(None, description="address that the console listens on; default: host")
    console_url: str | None = Field(None, pattern=r"^https?://[^/]+/?$", description="where browsers reach the console")
    console_api_url: str | None = Field(
        None, pattern=r"^https?://[^/]+/?$", description="role console apart: where the API is"
    )
    limits: Limits = Field(default_factory=Limits, description="bounds of the device port")

    @field_validator("trusted_proxies")
    @classmethod
    def _check_networks(cls, networks: frozenset[str] | None) -> frozenset[str] | None:
        for network in networks or ():
            try:
                ipaddress.ip_network(network)
            except ValueError as error:
                raise ValueError(f"no address and no network such as 10.0.0.0/8: {error}") from None
        return networks

    @field_validator("cluster_name")
    @classmethod
    def _check_cluster_name(cls, name: str) -> str:
        if _CLUSTER_NAME.fullmatch(name) is None:
            raise ValueError("not 1-48 characters of A-Z a-z 0-9 . _ -")
        return name

    @model_validator(mode="after")
    def _check(self) -> "Settings":
        settings_checks.check(self)
        return self

    @property
    def is_cluster(self) -> bool:
        """Whether the process stands on engines that others share; else on those in its own memory and folder."""
        return self.store_url is not None

    @property
    def console_address(self) -> str:
        """Where the console listens."""
        return self.console_host or self.host

    @property
    def internal_address(self) -> str:
        """Where the internal port listens, and other nodes reach it."""
        return self.internal_host or self.host


class Loaded(NamedTuple):
    """Settings, and for each name (``port``, ``limits.max_inbox``) where its value came from."""

    settings: Settings
    sources: dict[str, str]


def load(
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    file: Path | None = None,
    *,
    command: str = "",
    command_defaults: Mapping[str, object] | None = None,
) -> Loaded:
    """Puts the sources together and checks the whole. ``flags`` that are None were not given.

    ``file`` None: ``longwire.toml`` of the working folder, where there is one. ``command_defaults`` are what
    ``command`` sets where nobody says otherwise. Raises SettingsError.
    """
    values, sources = _gather(flags, environ, file, command, command_defaults)
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        raise SettingsError("\n".join(_explain(problem, sources) for problem in error.errors())) from None
    for name in names():
        sources.setdefault(name, "default")
    return Loaded(settings, sources)


def store_url_of(flags: Mapping[str, object], environ: Mapping[str, str], file: Path | None = None) -> str | None:
    """The store's URL, for who needs nothing else of a cluster. Raises SettingsError."""
    values, _ = _gather(flags, environ, file, "", None)
    return values.get("store_url")


def names() -> list[str]:
    """Every setting, as ``config show`` lists them."""
    own = [name for name in Settings.model_fields if name != "limits"]
    return own + [f"limits.{field.name}" for field in dataclasses.fields(Limits)]


def flag_of(name: str) -> str:
    """How a setting is given on the command line."""
    if name.startswith("limits."):
        return f"--limit {name.partition('.')[2]}"
    return _FLAGS.get(name) or "--" + name.replace("_", "-")


def value_of(settings: Settings, name: str) -> object:
    """The value of a setting of ``names``."""
    if name.startswith("limits."):
        return getattr(settings.limits, name.partition(".")[2])
    return getattr(settings, name)


def shown(settings: Settings, name: str) -> str:
    """The value as it may be shown to whoever sees the screen."""
    value = value_of(settings, name)
    match value:
        case None:
            return "none"
        case frozenset():
            return ", ".join(sorted(map(str, value)))
        case dict():
            return ", ".join(f"{key}=…" for key in sorted(value)) or "none"
        case SecretStr():
            return _without_password(value.get_secret_value())
        case _:
            return str(value)


def _without_password(text: str) -> str:
    """A URL but for its password; of anything else nothing."""
    scheme, slashes, rest = text.partition("://")
    if not slashes:
        return "…"
    account, at, place = rest.rpartition("@")
    return f"{scheme}://{account.partition(':')[0]}:…@{place}" if at else text


def _gather(
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    file: Path | None,
    command: str,
    command_defaults: Mapping[str, object] | None,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Each value and its source, unchecked but for the names."""
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for name, value in (command_defaults or {}).items():
        _put(values, sources, name, value, f"default of {command}")
    _take_file(file, values, sources)
    _take_environment(environ, values, sources)
    for name, value in flags.items():
        if value is not None:
            _put(values, sources, name, value, flag_of(name))
    return values, sources


def _take_file(file: Path | None, values: dict[str, Any], sources: dict[str, str]) -> None:
    path = file or Path(FILE_NAME)
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        if file is None:
            return
        raise SettingsError(f"settings file {path} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"settings file {path} cannot be read: {error}") from error
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"settings file {path} is not TOML: {error}") from error
    for name, value in content.items():
        if name == "limits" and isinstance(value, dict):
            for inner, number in value.items():
                _put(values, sources, f"limits.{inner}", number, str(path))
        else:
            _put(values, sources, name, value, str(path))


def _take_environment(environ: Mapping[str, str], values: dict[str, Any], sources: dict[str, str]) -> None:
    for variable, text in environ.items():
        if not variable.startswith(PREFIX) or variable[len(PREFIX) :] in _CLIENT_NAMES:
            continue
        name = variable[len(PREFIX) :].lower().replace("__", ".")
        value: object = text
        if name == "kafka_options":
            value = _read_options(text, variable)
        _put(values, sources, name, value, f"environment {variable}")


def _read_options(text: str, variable: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise SettingsError(
            f'kafka_options (environment {variable}) is not JSON such as {{"a": "b"}}: {error}'
        ) from None


def _put(values: dict[str, Any], sources: dict[str, str], name: str, value: object, source: str) -> None:
    known = names()
    if name not in known:
        by_last = {one.rpartition(".")[2]: one for one in known}
        near = difflib.get_close_matches(name.rpartition(".")[2], by_last, 1)
        hint = f"; did you mean {by_last[near[0]]}?" if near else ""
        raise SettingsError(f"{name} ({source}) is no setting{hint}")
    sources[name] = source
    if name in ("internal_port", "console_port") and isinstance(value, str) and value.lower() == "none":
        value = None
    if name in _LISTS and isinstance(value, str):
        value = frozenset(item.strip() for item in value.split(",") if item.strip())
    if name.startswith("limits."):
        values.setdefault("limits", {})[name.partition(".")[2]] = value
    else:
        values[name] = value


def _explain(problem: Any, sources: Mapping[str, str]) -> str:
    name = ".".join(str(part) for part in problem["loc"])
    message = problem["msg"].removeprefix("Value error, ")
    if not name:  # about several together: the message names them, and here is who said so
        said = [f"{flag} from {source}" for flag, source in sources.items() if flag.rpartition(".")[2] in message]
        return f"{message} ({', '.join(said)})" if said else str(message)
    source = sources.get(name) or sources.get(name.partition(".")[0], "default")
    value = "…" if name.partition(".")[0] in _SECRETS else repr(problem["input"])
    return f"{name} = {value} ({source}): {message}"
