"""What a device is put together from, as its arguments say: TLS, HTTP client, account."""

import ssl
from collections.abc import Mapping

import httpx

from longwire.client.account import Account, GivenAccount, HttpAccount
from longwire.client.address import parse_address
from longwire.client.storage import Storage
from longwire.client.timers import Timers
from longwire.errors import LocalProtocolError


def tls_context(tls: ssl.SSLContext | bool | None, http_url: str | None) -> ssl.SSLContext | None:
    """The context for the device port; where nothing is said, TLS follows the scheme of the api."""
    if tls is None:
        tls = http_url is not None and http_url.startswith("https:")
    return ssl.create_default_context() if tls is True else tls or None


def own_client(http_url: str, context: ssl.SSLContext | None) -> httpx.AsyncClient:
    """A client for one device. Reading the platform's certificates takes 20 ms: not for plain HTTP."""
    return httpx.AsyncClient(verify=(context or True) if http_url.startswith("https:") else False)


def make_account(
    http: httpx.AsyncClient | None,
    http_url: str | None,
    device_id: str,
    *,
    app_key: str,
    app_secret: str,
    credentials: str,
    token: str,
    address: str | None,
    about: Mapping[str, str],
    storage: Storage,
    timers: Timers,
) -> Account:
    """The account that these arguments describe. Raises LocalProtocolError where they describe none."""
    if address is not None:
        if not token:
            raise LocalProtocolError("an address without a token")
        return GivenAccount(token, parse_address(address), storage, timers)
    if http_url is None or http is None:
        raise LocalProtocolError("neither http_url nor address")
    if not http_url.startswith(("http://", "https://")):
        raise LocalProtocolError(f"http_url {http_url!r} does not begin with http:// or https://")
    if not token and not (app_key and (app_secret or credentials)):
        raise LocalProtocolError("neither a token nor app_key with app_secret or credentials")
    return HttpAccount(
        http,
        http_url,
        device_id,
        app_key=app_key,
        app_secret=app_secret,
        credentials=credentials,
        token=token,
        about={name: value for name, value in about.items() if value},
        storage=storage,
        timers=timers,
    )
