"""All checks of one process's settings, in the order in which they are told."""

import importlib.util
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx

from longwire.app.doctor import capacity, certificates, engines, files, machine, ports
from longwire.app.doctor.capacity import Capacity
from longwire.app.doctor.kernel import AskClock, Kernel, clock_state
from longwire.app.doctor.machine import Needs
from longwire.app.doctor.ports import Wanted
from longwire.app.doctor.report import Finding, State, warning, worst
from longwire.app.roles import CONSOLE_ALONE, Role
from longwire.app.settings import Settings

_API_WITHIN_S = 5.0


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was found."""

    findings: tuple[Finding, ...]
    capacity: Capacity | None
    """None without a gateway, or where the machine does not tell."""

    @property
    def state(self) -> State:
        return worst(self.findings)


async def diagnose(
    settings: Settings, *, root: Path = Path("/"), pid: str = "self", ask_clock: AskClock = clock_state
) -> Diagnosis:
    """Looks at everything; takes seconds where engines do not answer. Raises StartFailed without the extra `cluster`.

    ``root`` is where /proc and /sys are read; ``pid`` whose limits and control group are meant.
    """
    kernel = Kernel(root, pid)
    needs = needs_of(settings)
    room = capacity.capacity(kernel, needs)
    found = [*machine.look(kernel, needs, ask_clock)]
    if needs.nodes:
        found.append(capacity.look(room, needs))
    found += _extras(settings)
    if settings.roles == CONSOLE_ALONE:
        found.append(await _api(settings))
    else:
        found += files.look(settings.data_dir, has_store=not settings.is_cluster)
    found += ports.look(kernel, ports_of(settings))
    found += _certificates(settings)
    if settings.is_cluster:
        found += await engines.look(settings)
    return Diagnosis(tuple(found), room)


def needs_of(settings: Settings) -> Needs:
    """What the settings let the processes of this command have."""
    nodes = settings.workers if Role.GATEWAY in settings.roles else 0
    return Needs(nodes, settings.limits.max_connections, settings.certificate is not None)


def ports_of(settings: Settings) -> list[Wanted]:
    """Every port that the processes of this command listen on; those that the system picks are none."""
    numbers: list[tuple[str, str, int | None, bool]] = []
    is_shared = settings.share_port
    if Role.GATEWAY in settings.roles:
        numbers.append(("port", settings.host, settings.port, is_shared))
        if settings.certificate is not None:
            numbers.append(("tls_port", settings.host, settings.tls_port, is_shared))
    if Role.API in settings.roles:
        numbers.append(("http_port", settings.host, settings.http_port, True))
    numbers.append(("internal_port", settings.internal_address, settings.internal_port, False))
    if Role.CONSOLE in settings.roles:
        numbers.append(("console_port", settings.console_host or settings.host, settings.console_port, True))
    return [
        Wanted(setting, host, port + at)
        for setting, host, port, is_one in numbers
        if port
        for at in range(1 if is_one else settings.workers)
    ]


def _extras(settings: Settings) -> Iterator[Finding]:
    """Whether the libraries are there that the settings ask for."""
    for module, extra, what, is_asked in (
        ("nicegui", "console", "the console", Role.CONSOLE in settings.roles and settings.console_port is not None),
        ("opentelemetry.sdk", "otel", "otlp_url", settings.otlp_url is not None),
    ):
        if is_asked and not _is_installed(module):
            fact = f"{what} needs the libraries of the extra `{extra}`"
            yield warning(machine.AREA, f"extra {extra}", fact, "install them", f"pip install 'longwire[{extra}]'")


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of a parent
        return False


async def _api(settings: Settings) -> Finding:
    """What a console apart is a client of."""
    url = settings.console_api_url or f"http://{settings.host}:{settings.http_port}"
    began = time.perf_counter()
    try:
        async with httpx.AsyncClient(trust_env=False, timeout=_API_WITHIN_S) as client:
            answer = await client.get(f"{url.rstrip('/')}/livez")
    except httpx.HTTPError as error:
        return engines.away("API", "console_api_url", url, str(error) or type(error).__name__, "nobody can sign in")
    if not answer.is_success:
        why = f"it answers {answer.status_code}"
        return engines.away("API", "console_api_url", url, why, "nobody can sign in")
    return engines.answered("API", url, began)


def _certificates(settings: Settings) -> Iterator[Finding]:
    now = datetime.now(UTC)
    for setting, chain, key in (
        ("certificate", settings.certificate, settings.certificate_key),
        ("internal_certificate", settings.internal_certificate, settings.internal_certificate_key),
    ):
        if chain is not None:
            yield from certificates.look(setting, chain, key, now)
    if settings.internal_ca is not None:
        yield certificates.dates("internal_ca", settings.internal_ca, now)
