"""The composition root: the one place that names concrete adapters and puts the process together."""

from dataclasses import dataclass

from longwire.accounts.api_keys import ApiKeys
from longwire.accounts.apps import Apps
from longwire.accounts.devices import Devices
from longwire.accounts.placement import Placement
from longwire.accounts.registration import Admission, Applicant, Authenticate, Registration
from longwire.accounts.tokens import Tokens, TokenSettings
from longwire.adapters.embedded.registry import EmbeddedRegistry
from longwire.adapters.embedded.routes import EmbeddedRoutes
from longwire.adapters.sql.accounts import SqlAccounts
from longwire.adapters.sql.database import SqliteDatabase
from longwire.adapters.sql.messages import SqlMessageStore
from longwire.adapters.sql.retention import Sweeper
from longwire.adapters.sql.uplink import SqlUplinkLog
from longwire.api import ApiSettings, Services
from longwire.api.services import Readiness
from longwire.app.services import HandlerServices
from longwire.app.settings import Settings
from longwire.application import Longwire
from longwire.application import Registration as HookRegistration
from longwire.clock import SystemClock
from longwire.gateway.node import Engines, Node, NodeSettings
from longwire.ids import new_node_id
from longwire.ports.accounts import AccountStore
from longwire.sink import Sink, SinkSettings


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
    sweeper: Sweeper
    apps: Apps
    api_keys: ApiKeys
    node: Node
    sink: Sink
    api: Services


def build(settings: Settings, application: Longwire, readiness: Readiness) -> System:
    """All roles in one process, on the embedded engines."""
    clock = SystemClock()
    limits = settings.limits
    database = SqliteDatabase(settings.data_dir)
    accounts = SqlAccounts(database)
    messages = SqlMessageStore(database, clock, limits.max_inbox)
    uplink = SqlUplinkLog(database, clock)
    registry = EmbeddedRegistry()
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
        Engines(accounts, messages, uplink, EmbeddedRoutes(clock), registry),
        tokens,
        application,
        clock,
        limits,
    )
    application.bind(HandlerServices(accounts, node, clock, limits))
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
        sweeper=Sweeper(database, clock),
        apps=apps,
        api_keys=api_keys,
        node=node,
        sink=Sink(uplink, application, clock=clock, settings=SinkSettings(attempts=10, stop_within_s=3.0)),
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
            devices=Devices(accounts, clock, tokens, node),
            api_keys=api_keys,
            dead_letters=uplink,
            readiness=readiness,
            limits=limits,
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
