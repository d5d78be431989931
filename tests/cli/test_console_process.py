"""The console's process: what it is given, and what happens where its libraries are missing."""

import importlib.util
import logging
from types import SimpleNamespace
from typing import cast

import pytest

from longwire.app.build import System
from longwire.app.roles import ALL_ROLES
from longwire.app.settings import SettingsError, load
from longwire.cli import console_process, first_keys
from longwire.cli.console_process import child_environment, local_url, wants_child
from longwire.cli.text import Failure

SECRET = "s" * 32
CLUSTER = {
    "LONGWIRE_STORE_URL": "postgresql+asyncpg://user:password@db/longwire",
    "LONGWIRE_REDIS_URL": "redis://redis",
    "LONGWIRE_KAFKA_SERVERS": "kafka:9092",
    "LONGWIRE_ZOOKEEPER_HOSTS": "zk:2181",
    "LONGWIRE_CLUSTER_SECRET": SECRET,
}


def settings(**environ: str):
    return load({}, {f"LONGWIRE_{name.upper()}": value for name, value in environ.items()}).settings


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def without_libraries(monkeypatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        console_process.importlib.util, "find_spec", lambda name: None if name == "nicegui" else find(name)
    )


def test_the_child_is_given_what_a_console_needs_and_no_secret() -> None:
    given = load({"console_url": "https://c.example", "trusted_proxies": "10.0.0.0/8"}, CLUSTER).settings
    environ = CLUSTER | {"PATH": "/bin", "LONGWIRE_API_KEY": "lwk_1_2", "LONGWIRE_LIMITS__MAX_INBOX": "5"}
    child = child_environment(given, "http://127.0.0.1:7380", environ)
    assert child["PATH"] == "/bin"
    assert {name for name in child if name.startswith("LONGWIRE_") and "CONSOLE" not in name} == {
        "LONGWIRE_INTERNAL_PORT",
        "LONGWIRE_LOG_LEVEL",
        "LONGWIRE_LOG_FORMAT",
        "LONGWIRE_TRUSTED_PROXIES",
    }
    assert not [value for value in child.values() if "password" in value or SECRET in value or "lwk_" in value]
    alone = load({"roles": "console"}, child).settings
    assert (alone.console_api_url, alone.console_url) == ("http://127.0.0.1:7380", "https://c.example")
    assert (alone.internal_port, alone.console_port) == (None, 7390)


def test_a_console_is_a_child_where_the_role_and_the_port_say_so() -> None:
    assert wants_child(settings())
    assert not wants_child(settings(console_port="none"))
    assert not wants_child(settings(roles="gateway,api,route,sink"))


def test_without_its_libraries_there_is_none_and_one_line_says_so(without_libraries, caplog) -> None:
    with caplog.at_level(logging.INFO):
        assert not wants_child(settings())
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert "pip install 'longwire[console]'" in caplog.text


async def test_without_its_libraries_no_person_is_made_for_it(without_libraries) -> None:
    system = cast("System", SimpleNamespace(settings=settings()))  # nothing else of it is asked
    assert await first_keys._first_person(system, is_one_time=True) == {}


async def test_without_its_libraries_who_asks_for_it_by_name_is_told_what_to_install(without_libraries) -> None:
    with pytest.raises(Failure, match=r"pip install 'longwire\[console\]'"):
        wants_child(settings(roles=",".join(ALL_ROLES)))
    with pytest.raises(Failure, match=r"pip install 'longwire\[console\]'"):
        await console_process.serve_console(settings(roles="console"))


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:7380"),
        ("0.0.0.0", "http://127.0.0.1:7380"),
        ("::", "http://[::1]:7380"),
        ("::1", "http://[::1]:7380"),
        ("10.1.2.3", "http://10.1.2.3:7380"),
    ],
)
def test_the_child_reaches_the_api_where_it_listens(host, url) -> None:
    assert local_url(settings(host=host)) == url


def test_a_console_alone_needs_no_engine_and_looks_at_none() -> None:
    assert settings(roles="console").roles == {"console"}
    assert load({"roles": "console"}, CLUSTER | {"LONGWIRE_CLUSTER_SECRET": "short"}).settings
    with pytest.raises(SettingsError, match="console_port"):
        settings(roles="console", console_port="none")
    with pytest.raises(SettingsError, match="workers"):
        settings(roles="console", workers="2")


def test_the_embedded_engines_take_all_roles_with_the_console_or_without() -> None:
    assert settings(roles="gateway,api,route,sink")
    with pytest.raises(SettingsError, match="needs shared engines"):
        settings(roles="gateway,console")


@pytest.mark.parametrize("url", ["console.example", "https://console.example/path", "ftp://x"])
def test_the_console_s_address_is_an_origin(url) -> None:
    with pytest.raises(SettingsError, match="console_url"):
        settings(console_url=url)
