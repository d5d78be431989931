"""What several settings have to say together; each check raises ValueError with a sentence for the operator."""

import dataclasses
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from longwire.app.roles import ALL_ROLES, CONSOLE_ALONE, Role, listed
from longwire.ids import new_node_id
from longwire.limits import MAX_HEARTBEAT_S, MIN_HEARTBEAT_S

if TYPE_CHECKING:
    from longwire.app.settings import Settings

ENGINES = ("store_url", "redis_url", "kafka_servers", "zookeeper_hosts", "cluster_secret")
"""What makes a cluster: all of them or none."""
MIN_SECRET = 32
_STORES = {"mysql+asyncmy": "MySQL/MariaDB", "postgresql+asyncpg": "PostgreSQL"}
_STORE_URLS = "MySQL/MariaDB (mysql+asyncmy://) or PostgreSQL (postgresql+asyncpg://)"
_BODY_OVERHEAD_BYTES = 2_048
_NODE_NAME_OF_WORKERS = 12
_ANYWHERE = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - to refuse them


def check(settings: "Settings") -> None:
    """Raises ValueError for the first thing that is wrong."""
    try:
        new_node_id(settings.node_name)
    except ValueError as error:
        raise ValueError(f"node_name: {error}") from None
    _check_limits(settings)
    if settings.proxy_protocol and not settings.trusted_proxies:
        raise ValueError(
            "proxy_protocol is on and trusted_proxies is empty: name the proxies whose headers are to be believed"
        )
    for name in ("certificate", "internal_certificate"):
        if getattr(settings, f"{name}_key") is not None and getattr(settings, name) is None:
            raise ValueError(f"{name}_key is set and {name} is not")
    if settings.otlp_headers is not None and settings.otlp_url is None:
        raise ValueError("otlp_headers is set and otlp_url, where they would be sent, is not")
    if settings.roles == CONSOLE_ALONE:
        _check_console(settings)
        return
    _check_engines(settings)
    if settings.is_cluster:
        _check_cluster(settings)
    if settings.workers > 1:
        _check_workers(settings)


def _check_limits(settings: "Settings") -> None:
    limits = settings.limits
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


def _check_engines(settings: "Settings") -> None:
    missing = [name for name in ENGINES if getattr(settings, name) is None]
    names = _and(ENGINES)
    if 0 < len(missing) < len(ENGINES):
        raise ValueError(f"a cluster needs {names}; missing: {', '.join(missing)}")
    if not missing:
        return
    if settings.roles | CONSOLE_ALONE != ALL_ROLES:
        raise ValueError(
            f"roles = {listed(settings.roles)} needs shared engines, for its other roles are in other processes:"
            f" set {names}"
        )
    if settings.workers > 1:
        raise ValueError(
            f"workers = {settings.workers} makes {settings.workers} nodes, which need shared engines: set {names}"
        )


def _check_console(settings: "Settings") -> None:
    """Of a console alone: engines that are set for the others' sake are not looked at."""
    if settings.console_port is None:
        raise ValueError("roles = console needs console_port: where else would the pages be")
    if settings.workers > 1:
        raise ValueError(f"workers = {settings.workers} are gateway nodes, and roles = console is none")


def _check_cluster(settings: "Settings") -> None:
    assert settings.store_url is not None
    assert settings.cluster_secret is not None
    scheme = urlsplit(settings.store_url.get_secret_value()).scheme
    if scheme.startswith("sqlite"):
        raise ValueError(f"store_url is SQLite, which is one process's alone; a cluster needs {_STORE_URLS}")
    if scheme not in _STORES:
        raise ValueError(f"store_url begins with {scheme!r}; a cluster needs {_STORE_URLS}")
    if len(settings.cluster_secret.get_secret_value()) < MIN_SECRET:
        raise ValueError(
            f"cluster_secret is shorter than {MIN_SECRET} characters; `openssl rand -hex 32` makes a good one"
        )
    if Role.GATEWAY not in settings.roles:
        return
    if settings.internal_port is None:
        raise ValueError("a gateway node of a cluster needs internal_port: other nodes reach it there")
    if settings.internal_url is None and settings.internal_address in _ANYWHERE:
        raise ValueError(
            f"internal_host must be an address that other nodes can reach, not {settings.internal_address or 'empty'};"
            " set internal_host, or internal_url where others reach it under another address"
        )


def _check_workers(settings: "Settings") -> None:
    count = settings.workers
    if settings.roles != {Role.GATEWAY}:
        raise ValueError("workers are gateway nodes: give roles = gateway, and start the other roles apart")
    if len(settings.node_name) > _NODE_NAME_OF_WORKERS:
        raise ValueError(
            f"node_name = {settings.node_name} is longer than {_NODE_NAME_OF_WORKERS} characters, which"
            f" workers = {count} need to number it"
        )
    if settings.internal_url is not None:
        raise ValueError(f"internal_url is one node's, and workers = {count} are {count}: start nodes with it apart")
    if settings.share_port and not settings.port:
        raise ValueError("share_port is set and port is 0, which gives each worker a port of its own: set port")
    taken: list[tuple[str, range]] = []
    for name, first, is_one in _ports(settings):
        own = range(first, first + (1 if is_one else count))
        if own[-1] > 65_535:
            raise ValueError(f"with workers = {count} ports {own[0]}-{own[-1]} are needed by {name}; there are 65535")
        for other, ports in taken:
            if own[0] <= ports[-1] and ports[0] <= own[-1]:
                lies = f"{name} = {first} lies among them" if first in ports else f"they meet those of {name} = {first}"
                raise ValueError(
                    f"with workers = {count} ports {_span(ports)} are taken by {other}, and {lies};"
                    f" set {name} to {ports[-1] + 1} or above"
                )
        taken.append((name, own))


def _ports(settings: "Settings") -> list[tuple[str, int, bool]]:
    """(setting, first port, whether all workers share it) of those that are bound and not picked by the system."""
    ports = [("port", settings.port, settings.share_port)]
    if settings.certificate is not None:
        ports.append(("tls_port", settings.tls_port, settings.share_port))
    ports.append(("internal_port", settings.internal_port or 0, False))
    return [port for port in ports if port[1]]


def _span(ports: range) -> str:
    return str(ports[0]) if len(ports) == 1 else f"{ports[0]}-{ports[-1]}"


def _and(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"
