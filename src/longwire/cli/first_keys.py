"""The keys that ``dev`` and ``serve`` make at first start, and the file that they are told in.

dev    DATA/dev-credentials.json   kept in step with the store: what is lost or not taken any more is made anew
serve  DATA/credentials.json       made once; its owner may move it away
"""

import logging
from dataclasses import dataclass, field

from longwire.accounts.api_keys import Scope
from longwire.accounts.people import PersonRole
from longwire.accounts.refusals import RefusalCode, Refused
from longwire.app.build import System
from longwire.app.roles import Role
from longwire.app.run import Addresses
from longwire.cli import credentials
from longwire.cli.console_process import has_libraries
from longwire.cli.credentials import DEV_FILE, SERVE_FILE, Credentials
from longwire.cli.text import Failure

log = logging.getLogger(__name__)

_ADMIN = "admin"


@dataclass
class DevKeys:
    """An ``OnStarted`` hook; afterwards ``told`` is what the file says."""

    told: Credentials = field(default_factory=dict)
    news: str = ""
    """What to tell about keys that had to be made anew."""

    async def __call__(self, system: System, addresses: Addresses) -> None:
        path = system.settings.data_dir / DEV_FILE
        had_keys = bool(await system.api_keys.all_keys())
        try:
            kept = credentials.read(path)
        except Failure as failure:
            log.warning("%s; it is written anew", failure)
            kept = None
        known = kept or {}
        made: list[str] = []
        if not await _is_app(system, known):
            app = await system.apps.create()
            known = known | {"app_key": app.app_key, "app_secret": app.app_secret}
            made.append("an app key")
        if not await _is_api_key(system, known):
            _, text = await system.api_keys.create("dev", Scope)
            known = known | {"api_key": text}
            made.append("an API key")
        if made and kept is not None:
            self.news = f"{path} named keys that this data folder does not know: made {' and '.join(made)} anew"
        elif made and had_keys:
            self.news = f"{path} was gone: made {' and '.join(made)} anew; earlier ones go on to be valid"
        person = await _first_person(system, is_one_time=False) or await _kept_person(system, known)
        kept_names = ("app_key", "app_secret", "api_key")
        self.told = {name: known[name] for name in kept_names} | person | _reached(addresses)
        credentials.write(path, self.told)


@dataclass
class ServeKeys:
    """An ``OnStarted`` hook. ``makes_new``: makes keys although there are some, as for an owner who lost them."""

    makes_new: bool = False

    async def __call__(self, system: System, addresses: Addresses) -> None:
        if addresses.http_url is None:
            return  # keys are for the API, and made where it is
        path = system.settings.data_dir / SERVE_FILE
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        person = await _first_person(system, is_one_time=True)
        if person:
            log.warning("made the person admin for the console, with a one-time password; it is in %s", path)
        text = None
        if self.makes_new or not await system.api_keys.all_keys():
            text = await self._make_key(system)
        if text is not None:
            app = await system.apps.create()
            made = {
                "app_key": app.app_key,
                "app_secret": app.app_secret,
                "master_secret": app.master_secret,
                "api_key": text,
            }
            credentials.write(path, made | person | _reached(addresses))
            log.warning("made an app key and an API key with every scope; they are in %s, and nowhere else", path)
            return
        kept = credentials.read(path)
        if person:
            credentials.write(path, (kept or {}) | person | _reached(addresses))
        elif kept is not None and kept | _reached(addresses) != kept:
            credentials.write(path, kept | _reached(addresses))

    async def _make_key(self, system: System) -> str | None:
        """A first key; None where another process that starts at this moment has made it."""
        key, text = await system.api_keys.create("first", Scope)
        if not self.makes_new:
            first = min(await system.api_keys.all_keys(), key=lambda one: (one.created_at_ms, one.key_id))
            if first.key_id != key.key_id:
                await system.api_keys.revoke(key.key_id)
                return None
        return text


async def _first_person(system: System, *, is_one_time: bool) -> Credentials:
    """An admin for the console, where there is one and nobody can sign in yet; else nothing."""
    settings = system.settings
    is_there = Role.CONSOLE in settings.roles and settings.console_port is not None and has_libraries()
    if not is_there or await system.people.all_people():
        return {}
    try:
        _, password = await system.people.create(_ADMIN, PersonRole.ADMIN, is_one_time=is_one_time)
    except Refused:  # another process that starts at this moment has made it
        return {}
    return {"console_name": _ADMIN, "console_password": password}


async def _kept_person(system: System, known: Credentials) -> Credentials:
    """What the file says of a person, as long as it is right: whoever changed the password knows it."""
    name, password = known.get("console_name", ""), known.get("console_password", "")
    if not password or not await system.people.is_right(name, password):
        return {}
    return {"console_name": name, "console_password": password}


def _reached(addresses: Addresses) -> Credentials:
    reached = {
        "device_address": addresses.device_address,
        "http_url": addresses.http_url,
        "device_tls_address": addresses.device_tls_address,
    }
    return {name: place for name, place in reached.items() if place is not None}


async def _is_app(system: System, known: Credentials) -> bool:
    app = await system.apps.find(known.get("app_key", ""))
    return app is not None and app.secret == known.get("app_secret")


async def _is_api_key(system: System, known: Credentials) -> bool:
    try:
        await system.api_keys.authenticate_key(known.get("api_key", ""))
    except Refused as refusal:
        if refusal.code is RefusalCode.AUTH_INVALID:
            return False
        raise
    return True
