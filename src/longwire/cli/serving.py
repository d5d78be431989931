"""``longwire dev`` and ``longwire serve``: a process with every role."""

import logging
import resource
import shlex
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, NoReturn
from urllib.parse import urlsplit

import typer

from longwire import __version__
from longwire.cli import options
from longwire.cli.options import DEFAULT_DATA, Reregister, load_settings
from longwire.cli.text import complain
from longwire.errors import LongwireError

if TYPE_CHECKING:
    from longwire.app.run import Addresses, OnStarted
    from longwire.app.settings import Settings
    from longwire.application import Longwire
    from longwire.cli.first_keys import DevKeys

    Told = Callable[[Addresses, str | None], None]
    """Told where a process that has started is reached, and its console."""

log = logging.getLogger(__name__)

_SPARE_DESCRIPTORS = 256


def dev(
    application: options.Application = None,
    data: options.Data = None,
    port: options.Port = None,
    http_port: options.HttpPort = None,
    console_port: options.ConsolePort = None,
    host: options.Host = None,
    public_host: options.PublicHost = None,
    certificate: options.Certificate = None,
    certificate_key: options.CertificateKey = None,
    tls_port: options.TlsPort = None,
    reregister: options.ReregisterOption = None,
    limit: options.Limit = None,
    log_level: options.LogLevelOption = None,
    log_format: options.LogFormatOption = None,
    config: options.Config = None,
) -> None:
    """Run everything in one process to develop against.

    Makes an app key and an API key at first start, prints them, and keeps them in DIR/dev-credentials.json, where
    the other commands find them.
    """
    settings = load_settings(
        {
            "data_dir": data,
            "port": port,
            "http_port": http_port,
            "console_port": console_port,
            "host": host,
            "public_host": public_host,
            "certificate": certificate,
            "certificate_key": certificate_key,
            "tls_port": tls_port,
            "reregister": reregister,
            "log_level": log_level,
            "log_format": log_format,
        },
        limit,
        config,
        command="longwire dev",
        command_defaults={"internal_port": None, "reregister": Reregister.ALLOW},
    ).settings
    from longwire.cli.first_keys import DevKeys

    keys = DevKeys()
    _run(settings, application, keys, lambda addresses, console: _welcome(settings, keys, addresses, console))


def serve(
    application: options.Application = None,
    roles: options.Roles = None,
    workers: options.Workers = None,
    data: options.Data = None,
    port: options.Port = None,
    http_port: options.HttpPort = None,
    console_port: options.ConsolePort = None,
    internal_port: options.InternalPort = None,
    host: options.Host = None,
    public_host: options.PublicHost = None,
    certificate: options.Certificate = None,
    certificate_key: options.CertificateKey = None,
    tls_port: options.TlsPort = None,
    node_name: options.NodeName = None,
    store_url: options.StoreUrl = None,
    redis_url: options.RedisUrl = None,
    kafka_servers: options.KafkaServers = None,
    zookeeper_hosts: options.ZooKeeperHosts = None,
    internal_host: options.InternalHost = None,
    console_url: options.ConsoleUrl = None,
    console_api_url: options.ConsoleApiUrl = None,
    share_port: options.SharePort = None,
    reregister: options.ReregisterOption = None,
    limit: options.Limit = None,
    log_level: options.LogLevelOption = None,
    log_format: options.LogFormatOption = None,
    trace_ratio: options.TraceRatio = None,
    otlp_url: options.OtlpUrl = None,
    config: options.Config = None,
    new_credentials: Annotated[
        bool,
        typer.Option(
            "--new-credentials", help="Make keys and DIR/credentials.json anew; earlier keys go on to be valid."
        ),
    ] = False,
) -> None:
    """Run everything in one process, as it is run for real; or one part of a cluster.

    Settings come from flags, LONGWIRE_... in the environment and longwire.toml, in this order. At first start an
    app key and an API key are made and laid in DIR/credentials.json: move them to where you keep secrets.

    A cluster's processes share MySQL/MariaDB or PostgreSQL, Redis, Kafka and ZooKeeper, and LONGWIRE_CLUSTER_SECRET;
    each has the roles that --roles names. Run `longwire migrate` before the first of them.
    """
    settings = load_settings(
        {
            "roles": roles,
            "workers": workers,
            "store_url": store_url,
            "redis_url": redis_url,
            "kafka_servers": kafka_servers,
            "zookeeper_hosts": zookeeper_hosts,
            "internal_host": internal_host,
            "console_url": console_url,
            "console_api_url": console_api_url,
            "share_port": share_port,
            "data_dir": data,
            "port": port,
            "http_port": http_port,
            "console_port": console_port,
            "internal_port": internal_port,
            "host": host,
            "public_host": public_host,
            "certificate": certificate,
            "certificate_key": certificate_key,
            "tls_port": tls_port,
            "node_name": node_name,
            "reregister": reregister,
            "log_level": log_level,
            "log_format": log_format,
            "trace_ratio": trace_ratio,
            "otlp_url": otlp_url,
        },
        limit,
        config,
    ).settings
    if [*settings.roles] == ["console"]:
        _serve_console(settings)
    from longwire.cli.first_keys import ServeKeys

    _run(
        settings,
        application,
        ServeKeys(makes_new=new_credentials),
        lambda addresses, console: _tell(settings, addresses, console),
    )


def _tell(settings: "Settings", addresses: "Addresses", console: str | None = None) -> None:
    """One line: what the process is, and where it is reached."""
    from longwire.app.roles import listed

    places = (
        ("devices at", addresses.device_address),
        ("devices with TLS at", addresses.device_tls_address),
        ("HTTP at", addresses.http_url),
        ("health pages at", addresses.internal_url),
        ("the console at", console),
    )
    told = ", ".join(f"{what} {place}" for what, place in places if place is not None)
    log.info("ready%s: %s", f" as {listed(settings.roles)}" if settings.is_cluster else "", told or "no port")


def _serve_console(settings: "Settings") -> NoReturn:
    """The console alone: nothing of what a node is made of is even imported."""
    import uvloop

    from longwire.app import logs
    from longwire.cli.console_process import serve_console

    logs.configure_for(settings)
    raise typer.Exit(uvloop.run(serve_console(settings)))


def _run(settings: "Settings", application: str | None, on_started: "OnStarted", told: "Told") -> None:
    """Serves until it is told to stop; the process ends with its exit status."""
    import uvloop

    from longwire.app import logs
    from longwire.app.roles import CONSOLE_ALONE
    from longwire.cli.console_process import serve_console

    logs.configure_for(settings)
    if settings.roles == CONSOLE_ALONE:
        raise typer.Exit(uvloop.run(serve_console(settings)))
    from longwire.application import Longwire, load

    _raise_descriptors(settings.limits.max_connections)
    app = load(application) if application is not None else Longwire()
    if settings.workers == 1:
        raise typer.Exit(_serve(settings, app, on_started, told))
    from longwire.app.engines import extra_is_named
    from longwire.app.workers import run_workers

    with extra_is_named():  # what a worker imports, each of them shares
        import longwire.app.cluster
        import longwire.app.run  # noqa: F401

    def run_one(own: "Settings", ready: Callable[[], None]) -> int:
        logs.configure_for(own, own.node_name)

        def told_and_ready(addresses: "Addresses", console: str | None) -> None:
            _tell(own, addresses, console)
            ready()

        try:
            return _serve(own, app, on_started, told_and_ready)
        except LongwireError as error:
            complain(str(error))
            return 1

    raise typer.Exit(run_workers(settings, run_one))


def _serve(settings: "Settings", app: "Longwire", on_started: "OnStarted", told: "Told") -> int:
    import uvloop

    from longwire.app.run import Process
    from longwire.cli.console_process import ConsoleChild, local_url, wants_child

    async def run() -> int:
        has_console = wants_child(settings)
        process = Process(settings, app)
        process.heed_signals()
        addresses = await process.start(on_started)
        if not has_console:
            told(addresses, None)
            return await process.run()
        http_port = urlsplit(addresses.http_url or "").port
        console = ConsoleChild(settings, settings.console_api_url or local_url(settings, http_port))
        console.start()
        try:
            told(addresses, await console.url())
            return await process.run()
        finally:
            await console.stop()

    return uvloop.run(run())


def _raise_descriptors(max_connections: int) -> None:
    """As many descriptors as this user may have; says so where they are fewer than the connections allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard != resource.RLIM_INFINITY and hard < max_connections + _SPARE_DESCRIPTORS:
        log.warning("limits.max_connections = %d needs more open files than the %d allowed", max_connections, hard)


def _welcome(settings: "Settings", keys: "DevKeys", addresses: "Addresses", url: str | None) -> None:
    """What a developer wants to know. Lines are never wrapped: they are there to be pasted."""
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False, soft_wrap=True)
    told, folder = keys.told, settings.data_dir
    at = "" if folder == DEFAULT_DATA else f" --data {shlex.quote(str(folder))}"

    def fact(name: str, value: str, more: str = "") -> None:
        console.print(f"  [dim]{name:<11}[/] {escape(value)}  [dim]{escape(more)}[/]".rstrip())

    def line(text: str) -> None:
        console.print(f"  [cyan]{escape(text)}[/]")

    console.print(f"\n[bold]Longwire {__version__}[/] [dim]· development[/]\n")
    assert addresses.device_address is not None
    assert addresses.http_url is not None
    fact("devices", addresses.device_address, f"TCP, and WebSocket at ws://{addresses.device_address}/ws")
    if addresses.device_tls_address is not None:
        fact("with TLS", addresses.device_tls_address, f"and wss://{addresses.device_tls_address}/ws")
    fact("HTTP", addresses.http_url, f"to try it: {addresses.http_url}/docs")
    if url is not None:
        password = told.get("console_password")
        fact("console", url, f"sign in as {told['console_name']} with {password}" if password else "")
    fact("app key", told["app_key"])
    fact("app secret", told["app_secret"])
    fact("API key", told["api_key"])
    fact("kept in", str(folder), f"keys in {folder / 'dev-credentials.json'}")
    if keys.news:
        console.print(f"\n  [yellow]{escape(keys.news)}[/]")
    console.print("\n[bold]In another terminal[/]")
    line(f"longwire device listen alice{at}")
    line(f"longwire device send --as bob device:alice 'hello'{at}")
    line(f"curl -s -H 'Authorization: Bearer {told['api_key']}' {addresses.http_url}/v1/devices")
    console.print("\n[bold]Register a device without the SDK[/]")
    line("ts=$(date +%s%3N) nonce=$RANDOM$RANDOM$RANDOM")
    line(
        "proof=$(printf '%s\\n%s\\n%s' carol $ts $nonce"
        f" | openssl dgst -sha256 -hmac '{told['app_secret']}' | sed 's/.* //')"
    )
    line(
        f"curl -s {addresses.http_url}/device/v1/register -H 'Content-Type: application/json' -d"
        f' "{{\\"app_key\\": \\"{told["app_key"]}\\", \\"device_id\\": \\"carol\\", \\"ts_ms\\": $ts,'
        ' \\"nonce\\": \\"$nonce\\", \\"proof\\": \\"$proof\\"}"'
    )
    console.print("\n[dim]Ctrl-C stops it.[/]\n")
