"""Settings: each source and their order; a wrong one names itself, who said it, and what is allowed."""

from pathlib import Path

import pytest

from longwire.app.roles import Role
from longwire.app.settings import SettingsError, flag_of, load, names, shown, store_url_of, value_of
from longwire.app.workers import settings_of_worker


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(text: str, name: str = "longwire.toml") -> Path:
    Path(name).write_text(text)
    return Path(name)


def test_without_any_source_the_defaults_hold() -> None:
    settings, sources = load({}, {})
    assert (settings.port, settings.tls_port, settings.http_port, settings.internal_port) == (7300, 7301, 7380, 7381)
    assert settings.reregister == "prove"
    assert set(sources) == set(names())
    assert set(sources.values()) == {"default"}


def test_each_source_goes_before_those_that_are_further_from_the_hand() -> None:
    own = {"command": "longwire dev", "command_defaults": {"port": 1, "http_port": 1, "tls_port": 1, "node_name": "a"}}
    write("port = 2\nhttp_port = 2\ntls_port = 2\n[limits]\nwindow = 2\nmax_inbox = 2")
    environ = {"LONGWIRE_PORT": "3", "LONGWIRE_HTTP_PORT": "3", "LONGWIRE_LIMITS__WINDOW": "3"}
    settings, sources = load({"port": 4, "http_port": None}, environ, **own)
    assert (settings.port, sources["port"]) == (4, "--port")
    assert (settings.http_port, sources["http_port"]) == (3, "environment LONGWIRE_HTTP_PORT")
    assert (settings.limits.window, sources["limits.window"]) == (3, "environment LONGWIRE_LIMITS__WINDOW")
    assert (settings.tls_port, sources["tls_port"]) == (2, "longwire.toml")
    assert (settings.limits.max_inbox, sources["limits.max_inbox"]) == (2, "longwire.toml")
    assert (settings.node_name, sources["node_name"]) == ("a", "default of longwire dev")
    assert (settings.internal_port, sources["internal_port"]) == (7381, "default")


def test_a_named_file_is_read_instead_of_the_one_in_the_folder() -> None:
    write("port = 1")
    settings, sources = load({}, {}, write("port = 2", "other.toml"))
    assert (settings.port, sources["port"]) == (2, "other.toml")


@pytest.mark.parametrize("source", ["flag", "environment", "file"])
def test_every_source_can_say_that_there_is_no_internal_port(source: str) -> None:
    if source == "file":
        write('internal_port = "none"')
    flags = {"internal_port": "none"} if source == "flag" else {}
    environ = {"LONGWIRE_INTERNAL_PORT": "None"} if source == "environment" else {}
    assert load(flags, environ).settings.internal_port is None


def test_the_environment_names_several_origins_with_commas() -> None:
    settings = load({}, {"LONGWIRE_ALLOWED_ORIGINS": "https://a.example, https://b.example"}).settings
    assert settings.allowed_origins == {"https://a.example", "https://b.example"}


def test_what_the_command_lines_clients_read_is_no_setting() -> None:
    load({}, {"LONGWIRE_URL": "http://x", "LONGWIRE_API_KEY": "k", "LONGWIRE_APP_SECRET": "s", "PATH": "/bin"})


@pytest.mark.parametrize(
    ("flags", "environ", "said"),
    [
        ({"port": 99_999}, {}, ("port = 99999 (--port)", "65535")),
        ({"data_dir": 5}, {}, ("data_dir = 5 (--data)",)),
        ({}, {"LONGWIRE_TOKEN_TTL_S": "5"}, ("token_ttl_s = '5' (environment LONGWIRE_TOKEN_TTL_S)", "60")),
        ({"reregister": "maybe"}, {}, ("reregister = 'maybe' (--reregister)", "'prove' or 'allow'")),
        ({"limits.max_inbox": "many"}, {}, ("limits.max_inbox = 'many' (--limit max_inbox)", "integer")),
        ({"limits.window": 0}, {}, ("limits.window = 0 is less than 1", "--limit window")),
        (
            {"limits.heartbeat_min_s": "901"},
            {},
            ("heartbeat_min_s = 901 and heartbeat_max_s = 900", "--limit heartbeat_min_s"),
        ),
        ({}, {"LONGWIRE_NODE_NAME": "a b"}, ("node_name", "1-15 characters", "environment LONGWIRE_NODE_NAME")),
        ({"certificate_key": "k.pem"}, {}, ("certificate_key is set and certificate is not", "--certificate-key")),
        ({}, {"LONGWIRE_PROT": "1"}, ("prot (environment LONGWIRE_PROT) is no setting", "did you mean port?")),
        ({"limits.max_inbux": 1}, {}, ("(--limit max_inbux) is no setting", "did you mean limits.max_inbox?")),
    ],
)
def test_a_wrong_value_names_itself_its_source_and_what_is_allowed(flags, environ, said) -> None:
    with pytest.raises(SettingsError) as caught:
        load(flags, environ)
    for words in said:
        assert words in str(caught.value)


def test_all_wrong_values_are_told_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        load({"port": -1, "http_port": 70_000}, {})
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("port = ", "is not TOML"),
        ("prot = 1", "prot (longwire.toml) is no setting; did you mean port?"),
        ("[limits]\nwindow = 0", "limits.window from longwire.toml"),
        ("limits = 3", "limits (longwire.toml) is no setting"),
    ],
)
def test_a_wrong_file_is_told_with_its_name(text: str, said: str) -> None:
    write(text)
    with pytest.raises(SettingsError, match=r"longwire\.toml") as caught:
        load({}, {})
    assert said in str(caught.value)


def test_a_file_that_was_named_must_be_there() -> None:
    with pytest.raises(SettingsError, match=r"gone\.toml does not exist"):
        load({}, {}, Path("gone.toml"))


def test_every_setting_can_be_shown_and_given() -> None:
    settings = load({}, {}).settings
    for name in names():
        value_of(settings, name)
        assert flag_of(name).startswith("--")


def test_headers_without_anybody_to_believe_are_refused() -> None:
    with pytest.raises(SettingsError, match="trusted_proxies is empty"):
        load({}, {"LONGWIRE_PROXY_PROTOCOL": "on"})
    settings = load({}, {"LONGWIRE_PROXY_PROTOCOL": "on", "LONGWIRE_TRUSTED_PROXIES": "127.0.0.1, 10.0.0.0/8"}).settings
    assert settings.proxy_protocol
    assert settings.trusted_proxies == {"127.0.0.1", "10.0.0.0/8"}


def test_what_is_no_network_is_refused_with_what_it_has_to_be() -> None:
    with pytest.raises(SettingsError, match=r"such as 10\.0\.0\.0/8: .*10\.0\.0\.1/8 has host bits set"):
        load({}, {"LONGWIRE_TRUSTED_PROXIES": "10.0.0.1/8"})


# -- a cluster ------------------------------------------------------------------------------------------------------

CLUSTER = {
    "store_url": "mysql+asyncmy://lw:hunter2@db/lw",
    "redis_url": "redis://cache:6379/0",
    "kafka_servers": "log:9092",
    "zookeeper_hosts": "zoo:2181",
    "cluster_secret": "s" * 32,
}
NEEDED = "store_url, redis_url, kafka_servers, zookeeper_hosts and cluster_secret"


def test_without_engines_a_process_is_alone_and_with_all_of_them_it_is_of_a_cluster() -> None:
    assert not load({}, {}).settings.is_cluster
    assert load(CLUSTER, {}).settings.is_cluster


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (
            {"store_url": "mysql+asyncmy://db/lw", "redis_url": "redis://cache", "zookeeper_hosts": "zoo"},
            f"a cluster needs {NEEDED}; missing: kafka_servers, cluster_secret",
        ),
        (
            {"roles": "gateway"},
            "roles = gateway needs shared engines, for its other roles are in other processes: set " + NEEDED,
        ),
        ({"workers": 4}, f"workers = 4 makes 4 nodes, which need shared engines: set {NEEDED}"),
        (
            CLUSTER | {"store_url": "sqlite:///x.db"},
            "store_url is SQLite, which is one process's alone; a cluster needs MySQL/MariaDB (mysql+asyncmy://) or"
            " PostgreSQL (postgresql+asyncpg://)",
        ),
        (CLUSTER | {"store_url": "mysql://lw:hunter2@db/lw"}, "store_url begins with 'mysql'; a cluster needs"),
        (CLUSTER | {"cluster_secret": "hunter2"}, "cluster_secret is shorter than 32 characters"),
        (CLUSTER | {"workers": 2}, "workers are gateway nodes: give roles = gateway, and start the other roles apart"),
        (
            CLUSTER | {"internal_port": "none", "roles": "gateway"},
            "a gateway node of a cluster needs internal_port: other nodes reach it there",
        ),
        (CLUSTER | {"host": "0.0.0.0"}, "internal_host must be an address that other nodes can reach, not 0.0.0.0"),
        (
            CLUSTER | {"roles": "gateway", "workers": 4, "certificate": "c.pem"},
            "with workers = 4 ports 7300-7303 are taken by port, and tls_port = 7301 lies among them; set tls_port to"
            " 7304 or above",
        ),
        (
            CLUSTER | {"roles": "gateway", "workers": 100},
            "ports 7300-7399 are taken by port, and internal_port = 7381 lies among them; set internal_port to 7400",
        ),
        (
            CLUSTER | {"roles": "gateway", "workers": 4, "port": 65534},
            "with workers = 4 ports 65534-65537 are needed by port; there are 65535",
        ),
        (
            CLUSTER | {"roles": "gateway", "workers": 2, "node_name": "n" * 13},
            "is longer than 12 characters, which workers = 2 need to number it",
        ),
        (
            CLUSTER | {"roles": "gateway", "workers": 2, "internal_url": "http://10.0.0.7:1"},
            "internal_url is one node's, and workers = 2 are 2",
        ),
        (
            CLUSTER | {"roles": "gateway", "workers": 2, "share_port": True, "port": 0},
            "share_port is set and port is 0",
        ),
        (CLUSTER | {"roles": "gateway,apy"}, "roles"),
        (CLUSTER | {"cluster_name": "a/b"}, "cluster_name"),
        (CLUSTER | {"internal_certificate_key": "k.pem"}, "internal_certificate is not"),
    ],
)
def test_a_cluster_that_cannot_be_is_refused_with_what_to_do(flags: dict[str, object], sentence: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(flags, {})
    assert sentence in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_roles_are_listed_with_commas_in_every_source() -> None:
    expected = {Role.GATEWAY, Role.SINK}
    assert load(CLUSTER | {"roles": "gateway, sink"}, {}).settings.roles == expected
    assert load(CLUSTER, {"LONGWIRE_ROLES": "gateway,sink"}).settings.roles == expected
    write('roles = ["gateway", "sink"]')
    assert load(CLUSTER, {}).settings.roles == expected


def test_ports_that_workers_share_or_that_the_system_picks_do_not_meet() -> None:
    gateways = CLUSTER | {"roles": "gateway", "workers": 100}
    assert load(gateways | {"share_port": True}, {}).settings.share_port
    assert load(gateways | {"port": 0}, {}).settings.port == 0


def test_kafkas_own_settings_come_as_a_table_or_as_json() -> None:
    environ = {"LONGWIRE_KAFKA_OPTIONS": '{"sasl.password": "hunter2"}'}
    settings = load({}, environ).settings
    assert settings.kafka_options == {"sasl.password": "hunter2"}
    assert shown(settings, "kafka_options") == "sasl.password=…"
    write('[kafka_options]\n"security.protocol" = "SSL"')
    assert load({}, {}).settings.kafka_options == {"security.protocol": "SSL"}
    with pytest.raises(SettingsError, match=r"kafka_options .* is not JSON such as"):
        load({}, {"LONGWIRE_KAFKA_OPTIONS": "a=b"})


def test_secrets_are_not_shown() -> None:
    settings = load(CLUSTER | {"redis_url": "rediss://:hunter2@cache:6379/0"}, {}).settings
    assert shown(settings, "store_url") == "mysql+asyncmy://lw:…@db/lw"
    assert shown(settings, "redis_url") == "rediss://:…@cache:6379/0"
    assert shown(settings, "cluster_secret") == "…"
    assert "hunter2" not in repr(settings)
    assert "s" * 32 not in repr(settings)


def test_the_stores_url_alone_is_enough_to_migrate() -> None:
    write('store_url = "mysql+asyncmy://db/lw"')
    assert store_url_of({}, {}) == "mysql+asyncmy://db/lw"
    assert store_url_of({"store_url": "mysql+asyncmy://other/lw"}, {}) == "mysql+asyncmy://other/lw"
    assert store_url_of({}, {"LONGWIRE_STORE_URL": "mysql+asyncmy://third/lw"}) == "mysql+asyncmy://third/lw"


def test_each_worker_has_a_name_and_ports_of_its_own() -> None:
    settings = load(CLUSTER | {"roles": "gateway", "workers": 3, "port": 0}, {}).settings
    second = settings_of_worker(settings, 1)
    assert (second.workers, second.node_name, second.port, second.internal_port) == (1, "node-2", 0, 7382)
    shared = load(CLUSTER | {"roles": "gateway", "workers": 3, "share_port": True}, {}).settings
    assert [settings_of_worker(shared, at).port for at in range(3)] == [7300] * 3


def test_headers_for_a_collector_that_is_not_named_are_refused() -> None:
    with pytest.raises(SettingsError, match="otlp_headers is set and otlp_url, where they would be sent, is not"):
        load({}, {"LONGWIRE_OTLP_HEADERS": "authorization=x"})
