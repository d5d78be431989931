"""The composition root: the one place that names concrete adapters and puts the process together."""

from dataclasses import dataclass
from functools import partial

from longwire.accounts.api_keys import ApiKeys
from longwire.accounts.apps import Apps
from longwire.accounts.devices import Devices
from longwire.accounts.groups import Groups
from longwire.accounts.imports import Imports
from longwire.accounts.placement import Placement
from longwire.accounts.presence import Presence
from longwire.accounts.registration import Admission, Applicant, Authenticate, Registration
from longwire.accounts.tags import Tags
from longwire.accounts.tokens import Tokens, TokenSettings
from longwire.accounts.uploads import Uploads
from longwire.adapters.embedded.receipts import EmbeddedReceipts
from longwire.adapters.embedded.registry import EmbeddedRegistry
from longwire.adapters.embedded.routes import EmbeddedRoutes
from longwire.adapters.sql import push_segments
from longwire.adapters.sql.accounts import SqlAccounts
from longwire.adapters.sql.audiences import SqlAudiences
from longwire.adapters.sql.audit import SqlAudit
from longwire.adapters.sql.commands import SqlCommands
from longwire.adapters.sql.database import SqliteDatabase
from longwire.adapters.sql.events import SqlEvents
from longwire.adapters.sql.idempotency import SqlIdempotency
from longwire.adapters.sql.imports import SqlImports
from longwire.adapters.sql.messages import SqlMessageStore
from longwire.adapters.sql.presence import SqlPresence
from longwire.adapters.sql.push_events import PushEvents
from longwire.adapters.sql.push_waiting import SqlPushWaiting
from longwire.adapters.sql.pushes import SqlPushes
from longwire.adapters.sql.retention import Sweeper
from longwire.adapters.sql.uplink import SqlUplinkLog
from longwire.adapters.sql.webhooks import SqlWebhooks
from longwire.api import ApiSettings, Services
from longwire.api.nodes import Nodes
from longwire.api.services import Readiness
from longwire.app.services import HandlerServices
from longwire.app.settings import Settings
from longwire.application import Longwire
from longwire.application import Registration as HookRegistration
from longwire.clock import SystemClock
from longwire.gateway.node import Engines, Node, NodeSettings
from longwire.ids import new_node_id
from longwire.ports.accounts import AccountStore
from longwire.push.audience import Audiences
from longwire.push.check import Check
from longwire.push.commands import Commands
from longwire.push.messages import Messages
from longwire.push.pushes import Pushes
from longwire.push.schedule import Schedule
from longwire.push.worker import Worker
from longwire.sink import Sink, SinkSettings
from longwire.webhooks import Endpoints, PostSettings


@dataclass(frozen=True, slots=True)
class System:
    """A process's parts, built and not started."""

    settings: Settings
    clock: SystemClock
    application: Longwire
    database: SqliteDatabase
    accounts: AccountStore
    messages: SqlMessageStore
    uplink: SqlUplinkLog
    webhook_store: SqlWebhooks
    push_store: SqlPushes
    push_waiting: SqlPushWaiting
    sweeper: Sweeper
    apps: Apps
    api_keys: ApiKeys
    node: Node
    sink: Sink
    worker: Worker
    schedule: Schedule
    check: Check
    imports: Imports
    commands: Commands
    webhooks: Endpoints
    api: Services


def build(settings: Settings, application: Longwire, readiness: Readiness) -> System:
    """All roles in one process, on the embedded engines."""
    clock = SystemClock()
    limits = settings.limits
    database = SqliteDatabase(settings.data_dir)
    events = SqlEvents(database)
    webhook_store = SqlWebhooks(database, events)
    forget_in_pushes = partial(push_segments.forget_device, events=PushEvents(events.note, events.wants))
    accounts = SqlAccounts(database, forget_in_pushes, limits.max_device_tags)
    sets = SqlAudiences(database, limits.max_device_tags)
    messages = SqlMessageStore(database, clock, limits.max_inbox, events)
    uplink = SqlUplinkLog(database, clock, events)
    waiting = SqlPushWaiting(database, clock)
    push_store = SqlPushes(
        database, clock, waiting, max_live=limits.max_live_pushes, note_events=events.note, wants=events.wants
    )
    presence = SqlPresence(database)
    command_store = SqlCommands(database)
    registry = EmbeddedRegistry()
    routes = EmbeddedRoutes(clock)
    tokens = Tokens(accounts, clock, TokenSettings(token_ttl_s=settings.token_ttl_s))
    node = Node(
        NodeSettings(
            node_id=new_node_id(settings.node_name),
            host=settings.host,
            port=settings.port,
            tls_port=settings.tls_port,
            certificate=str(settings.certificate) if settings.certificate else None,
            certificate_key=str(settings.certificate_key) if settings.certificate_key else None,
            public_host=settings.public_host or settings.host,
            allowed_origins=settings.allowed_origins,
        ),
        Engines(
            accounts=accounts,
            messages=messages,
            uplink=uplink,
            routes=routes,
            registry=registry,
            pushes=push_store,
            push_waiting=waiting,
            receipts=EmbeddedReceipts(push_store),
            sets=sets,
            presence=presence,
            commands=command_store,
            events=events,
        ),
        tokens,
        application,
        clock,
        limits,
    )
    one_to_one = Messages(accounts, sets, push_store, node, clock, limits)
    application.bind(HandlerServices(accounts, one_to_one))
    audiences = Audiences(sets, push_store, clock, limits)
    check = Check(push_store, clock)
    commands = Commands(accounts, node, command_store, clock, limits)
    imports = Imports(accounts, SqlImports(database), clock, limits, settings.data_dir / "imports")
    webhooks = Endpoints(
        webhook_store, events, uplink, clock, PostSettings(allows_private=settings.webhook_private_addresses)
    )
    apps = Apps(accounts, clock)
    placement = Placement(registry)
    api_keys = ApiKeys(accounts, clock)
    return System(
        settings=settings,
        clock=clock,
        application=application,
        database=database,
        accounts=accounts,
        messages=messages,
        uplink=uplink,
        webhook_store=webhook_store,
        push_store=push_store,
        push_waiting=waiting,
        sweeper=Sweeper(database, clock),
        apps=apps,
        api_keys=api_keys,
        node=node,
        sink=Sink(uplink, application, clock=clock, settings=SinkSettings(attempts=10, stop_within_s=3.0)),
        worker=Worker(node.node_id, push_store, routes, registry, node, clock),
        schedule=Schedule(push_store, push_store, audiences, node, clock),
        check=check,
        imports=imports,
        commands=commands,
        webhooks=webhooks,
        api=Services(
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
            devices=Devices(accounts, clock, tokens, node, routes),
            api_keys=api_keys,
            dead_letters=uplink,
            readiness=readiness,
            limits=limits,
            pushes=Pushes(push_store, audiences, accounts, routes, registry, node, clock, limits),
            messages=one_to_one,
            uploads=Uploads(sets, clock, limits),
            tags=Tags(accounts, sets, clock, limits),
            groups=Groups(accounts, sets, clock),
            imports=imports,
            presence=Presence(accounts, sets, node, presence),
            commands=commands,
            webhooks=webhooks,
            nodes=Nodes(registry, node, routes, sets, clock, lambda: check.drift),
            idempotency=SqlIdempotency(database),
            audit=SqlAudit(database),
            uplink=uplink,
            message_store=messages,
            push_waiting=waiting,
            settings=ApiSettings(calls_per_s=settings.api_calls_per_s, call_burst=settings.api_call_burst),
        ),
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
