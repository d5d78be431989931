"""Settings: what may be set, where each value came from, and a plain error for a wrong one.

Later sources win: default, the command's own default, ``longwire.toml``, environment (``LONGWIRE_PORT``,
``LONGWIRE_LIMITS__MAX_INBOX``), flag. They are read here and nowhere else, checked once, and handed down as frozen
values.
"""

import dataclasses
import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from longwire.errors import LongwireError
from longwire.ids import new_node_id
from longwire.limits import MAX_HEARTBEAT_S, MIN_HEARTBEAT_S, Limits

PREFIX = "LONGWIRE_"
FILE_NAME = "longwire.toml"
# What the command line's own clients read from the environment beside the settings.
_CLIENT_NAMES = frozenset({"URL", "API_KEY", "CONFIG", "CREDENTIALS", "APP_KEY", "APP_SECRET", "DEVICE_TOKEN"})
# Flags that are not called as their setting is.
_FLAGS = {"data_dir": "--data"}

Port = Annotated[int, Field(ge=0, le=65_535)]
_BODY_OVERHEAD_BYTES = 2_048


class SettingsError(LongwireError):
    """A setting is wrong; the message names it, where it came from, and what is allowed."""


class Settings(BaseModel):
    """One process of Longwire."""

    model_config = ConfigDict(frozen=True, extra="forbid")

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
    reregister: Literal["prove", "allow"] = Field(
        "prove", description="whether a known device must prove itself to register again"
    )
    token_ttl_s: int = Field(86_400, ge=60, le=31_536_000, description="how long a device's token holds")
    api_calls_per_s: float = Field(200, ge=0, description="calls of one API key a second; 0: no limit")
    api_call_burst: int = Field(400, ge=1, description="calls of one API key at once")
    webhook_private_addresses: bool = Field(False, description="whether webhooks may go to private addresses")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="what is logged")
    limits: Limits = Field(default_factory=Limits, description="bounds of the device port")

    @model_validator(mode="after")
    def _check(self) -> "Settings":
        try:
            new_node_id(self.node_name)
        except ValueError as error:
            raise ValueError(f"node_name: {error}") from None
        limits = self.limits
        for field in dataclasses.fields(limits):
            least = 0 if field.name == "max_connections_per_address" else 1
            if getattr(limits, field.name) < least:
                raise ValueError(f"limits.{field.name} = {getattr(limits, field.name)} is less than {least}")
        if not MIN_HEARTBEAT_S <= limits.heartbeat_min_s <= limits.heartbeat_max_s <= MAX_HEARTBEAT_S:
            raise ValueError(
                f"limits.heartbeat_min_s = {limits.heartbeat_min_s} and heartbeat_max_s = {limits.heartbeat_max_s}"
                f" are not rising within {MIN_HEARTBEAT_S} to {MAX_HEARTBEAT_S}"
            )
        if limits.max_payload_bytes + _BODY_OVERHEAD_BYTES > limits.max_body_bytes:
            raise ValueError(
                f"limits.max_payload_bytes = {limits.max_payload_bytes} leaves less than {_BODY_OVERHEAD_BYTES} bytes"
                f" of max_body_bytes = {limits.max_body_bytes}"
            )
        if self.certificate_key is not None and self.certificate is None:
            raise ValueError("certificate_key is set and certificate is not")
        return self


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
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for name, value in (command_defaults or {}).items():
        _put(values, sources, name, value, f"default of {command}")
    _take_file(file, values, sources)
    _take_environment(environ, values, sources)
    for name, value in flags.items():
        if value is not None:
            _put(values, sources, name, value, flag_of(name))
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        raise SettingsError("\n".join(_explain(problem, sources) for problem in error.errors())) from None
    for name in names():
        sources.setdefault(name, "default")
    return Loaded(settings, sources)


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
        if name == "allowed_origins":
            value = frozenset(origin.strip() for origin in text.split(",") if origin.strip())
        _put(values, sources, name, value, f"environment {variable}")


def _put(values: dict[str, Any], sources: dict[str, str], name: str, value: object, source: str) -> None:
    known = names()
    if name not in known:
        by_last = {one.rpartition(".")[2]: one for one in known}
        near = difflib.get_close_matches(name.rpartition(".")[2], by_last, 1)
        hint = f"; did you mean {by_last[near[0]]}?" if near else ""
        raise SettingsError(f"{name} ({source}) is no setting{hint}")
    sources[name] = source
    if name == "internal_port" and isinstance(value, str) and value.lower() == "none":
        value = None
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
    return f"{name} = {problem['input']!r} ({sources.get(name, 'default')}): {message}"
