"""The composition root: puts the parts of a process together, as its roles and engines say."""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from longwire import __version__
from longwire.accounts.api_keys import ApiKeys
from longwire.accounts.apps import Apps
from longwire.accounts.devices import Devices
from longwire.accounts.directives import Directives
from longwire.accounts.groups import Groups
from longwire.accounts.imports import Imports
from longwire.accounts.people import People
from longwire.accounts.placement import Placement
from longwire.accounts.presence import Presence
from longwire.accounts.registration import Admission, Applicant, Authenticate, Registration
from longwire.accounts.tags import Tags
from longwire.accounts.tokens import Tokens, TokenSettings
from longwire.accounts.uploads import Uploads
from longwire.adapters.http import Courier, HttpLink, LinkClient, LinkServer
from longwire.adapters.sql.push_minutes import SqlPushProgress
from longwire.adapters.sql.retention import Sweeper
from longwire.api import ApiSettings, Services
from longwire.api.nodes import Nodes
from longwire.api.services import Readiness
from longwire.app import logs
from longwire.app.backlog_watch import BacklogWatch
from longwire.app.directives_watch import DirectivesWatch
from longwire.app.engines import EngineSet, StartFailed, embedded, extra_is_named
from longwire.app.roles import Role
from longwire.app.services import HandlerServices
from longwire.app.settings import Settings
from longwire.application import Longwire
from longwire.application import Registration as HookRegistration
from longwire.clock import SystemClock
from longwire.gateway.node import Engines, Node, NodeSettings
from longwire.ids import new_node_id
from longwire.ports.link import Link
from longwire.push.audience import Audiences
from longwire.push.check import Check
from longwire.push.commands import Commands
from longwire.push.messages import Messages
from longwire.push.pushes import Pushes
from longwire.push.route_sweep import RouteSweep
from longwire.push.schedule import Schedule
from longwire.push.worker import Worker
from longwire.seeing.history import History
from longwire.seeing.lookup import Lookup
from longwire.sink import Sink, SinkSettings
from longwire.traces import Traces, hops_log
from longwire.webhooks import Endpoints, PostSettings

if TYPE_CHECKING:
    from longwire.app.otlp import OtlpTell


@dataclass(frozen=True, slots=True)
class System:
    """A process's parts, built and not started. What its roles do not need is None."""

    settings: Settings
    clock: SystemClock
    application: Longwire
    engines: EngineSet
    node_id: str
    """What the process is called; its node's id where it has one."""
    link: Link
    apps: Apps
    api_keys: ApiKeys
    people: People
    courier: Courier | None
    """What goes between nodes; None where there is one alone."""
    http_link: HttpLink | None
    link_client: LinkClient | None
    link_server: LinkServer | None
    node: Node | None
    sink: Sink | None
    worker: Worker | None
    schedule: Schedule | None
    check: Check | None
    route_sweep: RouteSweep | None
    """Of a cluster: routes of nodes that have died."""
    sweeper: Sweeper | None
    imports: Imports | None
    commands: Commands | None
    webhooks: Endpoints | None
    history: History | None
    backlog: BacklogWatch | None
    """Of processes that route or answer HTTP."""
    traces: Traces
    otlp: "OtlpTell | None"
    directives: DirectivesWatch
    api: Services | None


def build(settings: Settings, application: Longwire, readiness: Readiness) -> System:
    """The parts of one process. Raises StartFailed."""
    clock = SystemClock()
    limits, roles = settings.limits, settings.roles
    node_id = new_node_id(settings.node_name)
    engines = _engines(settings, clock, node_id)
    stores, registry, routes, leads = engines.stores, engines.registry, engines.routes, engines.leadership.leads
    accounts, sets, pushes = stores.accounts, stores.sets, stores.pushes
    tokens = Tokens(accounts, clock, TokenSettings(token_ttl_s=settings.token_ttl_s))
    apps, api_keys = Apps(accounts, clock), ApiKeys(accounts, clock)
    people = People(stores.people, clock)

    # -- traces, and who is told of them
    otlp = _otlp(settings, node_id)
    tells = (hops_log,) if otlp is None else (hops_log, otlp)
    lost = (lambda: 0) if otlp is None else (lambda: otlp.dropped)
    traces = Traces(ratio=settings.trace_ratio, tells=tells, clock=clock, lost=lost)

    # -- nodes, and the way to those that are elsewhere
    link_client, courier = None, None
    if engines.is_shared:
        assert settings.cluster_secret is not None
        link_client = LinkClient(settings.cluster_secret.get_secret_value(), ca=settings.internal_ca)
        courier = Courier(node_id, link_client, routes, registry, clock, traces=traces)
    node = None
    if Role.GATEWAY in roles:
        node = Node(
            _node_settings(settings, node_id),
            Engines(
                accounts=accounts,
                messages=stores.messages,
                uplink=engines.uplink,
                routes=routes,
                registry=registry,
                pushes=pushes,
                push_waiting=stores.push_waiting,
                receipts=engines.receipts,
                sets=sets,
                presence=stores.presence,
                commands=stores.commands,
                events=stores.events,
                across=courier,
                tokens=engines.tokens,
            ),
            tokens,
            application,
            clock,
            limits,
            traces,
        )
    http_link, link_server = None, None
    link: Link | None = node
    if link_client is not None and courier is not None:
        courier.local = node
        link = http_link = HttpLink(
            link_client, courier, routes, registry, stores.messages, clock, limits, local=node, traces=traces
        )
        if node is not None and settings.cluster_secret is not None:
            link_server = LinkServer(node, settings.cluster_secret.get_secret_value(), traces)
    assert link is not None  # without shared engines every process has a node
    messages = Messages(accounts, sets, pushes, link, clock, limits, traces)
    application.bind(HandlerServices(accounts, messages))

    # -- what brings pushes to the nodes, and what happens at a time
    worker, schedule, check, sweeper, route_sweep = None, None, None, None, None
    audiences = Audiences(sets, pushes, clock, limits)
    if Role.ROUTE in roles:
        worker = Worker(node_id, pushes, routes, registry, link, clock, traces=traces)
        schedule = Schedule(pushes, pushes, audiences, link, clock, leads=partial(leads, "schedule"))
        check = Check(pushes, clock, leads=partial(leads, "check"))
        sweeper = Sweeper(engines.database, clock, leads=partial(leads, "sweeper"))
        if engines.is_shared:
            route_sweep = RouteSweep(routes, registry, partial(leads, "route-sweep"), clock)

    # -- what reads what devices sent, and what goes to webhooks
    sink, webhooks = None, None
    if Role.SINK in roles:
        sink = Sink(
            engines.uplink_reader,
            application,
            clock=clock,
            settings=SinkSettings(attempts=10, stop_within_s=3.0),
            traces=traces,
        )
    if roles & {Role.SINK, Role.API}:
        webhooks = Endpoints(
            stores.webhooks,
            stores.events,
            stores.uplink,
            clock,
            PostSettings(allows_private=settings.webhook_private_addresses),
            leads=partial(leads, "webhooks") if engines.is_shared else None,
        )

    # -- how much waits
    backlog = None
    if roles & {Role.ROUTE, Role.API}:
        leads_counts = partial(leads, "sweeper") if Role.ROUTE in roles else lambda: False
        backlog = BacklogWatch(stores.backlog, leads=leads_counts, always=Role.API in roles)

    # -- HTTP
    imports, commands, history, api = None, None, None, None
    if Role.API in roles:
        assert webhooks is not None
        placement = Placement(registry, settings.placement)
        imports = Imports(
            accounts,
            stores.imports,
            clock,
            limits,
            settings.data_dir / "imports",
            is_shared=engines.is_shared,
        )
        commands = Commands(accounts, link, stores.commands, clock, limits, traces)
        nodes = Nodes(registry, link, routes, clock, lambda: 0 if check is None else check.drift)
        history = History(nodes.sample, lambda: None if backlog is None else backlog.latest, clock)
        api = Services(
            clock=clock,
            registration=Registration(
                accounts,
                clock,
                apps,
                tokens,
                placement,
                reregister=settings.reregister,
                authenticate=_authenticate(application),
            ),
            tokens=tokens,
            placement=placement,
            devices=Devices(accounts, clock, tokens, link, routes, registry, engines.bar_tokens),
            api_keys=api_keys,
            dead_letters=engines.dead_letters,
            readiness=readiness,
            limits=limits,
            pushes=Pushes(pushes, audiences, accounts, routes, registry, link, clock, limits, traces),
            messages=messages,
            uploads=Uploads(sets, clock, limits),
            tags=Tags(accounts, sets, clock, limits),
            groups=Groups(accounts, sets, clock),
            imports=imports,
            presence=Presence(accounts, sets, link, stores.presence),
            commands=commands,
            webhooks=webhooks,
            nodes=nodes,
            idempotency=stores.idempotency,
            audit=stores.audit,
            uplink=stores.uplink,
            message_store=stores.messages,
            push_waiting=stores.push_waiting,
            push_progress=SqlPushProgress(engines.database),
            history=history,
            people=people,
            directives=Directives(stores.directives, accounts, clock),
            traces=traces,
            lookup=Lookup(
                stores.trace_rows,
                pushes,
                stores.presence,
                link,
                accounts,
                stores.commands,
                registry,
                routes,
                clock,
                limits.window,
            ),
            settings=ApiSettings(calls_per_s=settings.api_calls_per_s, call_burst=settings.api_call_burst),
        )
    return System(
        settings=settings,
        clock=clock,
        application=application,
        engines=engines,
        node_id=node_id,
        link=link,
        apps=apps,
        api_keys=api_keys,
        people=people,
        courier=courier,
        http_link=http_link,
        link_client=link_client,
        link_server=link_server,
        node=node,
        sink=sink,
        worker=worker,
        schedule=schedule,
        check=check,
        route_sweep=route_sweep,
        sweeper=sweeper,
        imports=imports,
        commands=commands,
        webhooks=webhooks,
        history=history,
        backlog=backlog,
        traces=traces,
        otlp=otlp,
        directives=DirectivesWatch(stores.directives, accounts, traces, logs.set_levels, clock),
        api=api,
    )


def _otlp(settings: Settings, node_id: str) -> "OtlpTell | None":
    """What sends hops to the collector of traces; None where none is set. Raises StartFailed."""
    if settings.otlp_url is None:
        return None
    try:
        from longwire.app.otlp import OtlpTell
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("opentelemetry"):
            raise
        raise StartFailed("otlp_url needs the libraries of the extra `otel`: pip install 'longwire[otel]'") from error
    given = "" if settings.otlp_headers is None else settings.otlp_headers.get_secret_value()
    pairs = [pair.partition("=") for pair in given.split(",") if pair.strip()]
    if not all(name.strip() and equals for name, equals, _ in pairs):
        raise StartFailed("otlp_headers is not of the form name=value,name=value")
    resource = {
        "service.name": "longwire",
        "service.version": __version__,
        "service.instance.id": node_id,
        "longwire.roles": ",".join(sorted(settings.roles)),
    }
    headers = {name.strip(): value.strip() for name, _, value in pairs}
    return OtlpTell(settings.otlp_url, headers, resource)


def _engines(settings: Settings, clock: SystemClock, node_id: str) -> EngineSet:
    if not settings.is_cluster:
        return embedded(settings, clock)
    with extra_is_named():
        from longwire.app.cluster import cluster
    return cluster(settings, clock, node_id)


def _node_settings(settings: Settings, node_id: str) -> NodeSettings:
    return NodeSettings(
        node_id=node_id,
        host=settings.host,
        port=settings.port,
        tls_port=settings.tls_port,
        certificate=str(settings.certificate) if settings.certificate else None,
        certificate_key=str(settings.certificate_key) if settings.certificate_key else None,
        public_host=settings.public_host or settings.host,
        allowed_origins=settings.allowed_origins,
        proxy_protocol=settings.proxy_protocol,
        trusted_proxies=settings.trusted_proxies or frozenset(),
        weight=settings.node_weight,
        reuse_port=settings.share_port,
    )


def _authenticate(application: Longwire) -> Authenticate | None:
    """The application's own hook as registration asks it, or None where it declares none."""
    hooks = application.hooks
    if hooks.authenticate is None:
        return None

    async def ask(applicant: Applicant) -> Admission | None:
        identity = await hooks.identify(
            HookRegistration(
                device_id=applicant.device_id,
                app_key=applicant.app_key,
                credentials=applicant.credentials,
                has_proof=applicant.has_proof,
                is_known=applicant.is_known,
                has_refresh_token=applicant.has_refresh_token,
                platform=applicant.platform,
                app_version=applicant.app_version,
            )
        )
        return None if identity is None else Admission(identity.user, identity.tags)

    return ask
