"""Settings: each source and their order; a wrong one names itself, who said it, and what is allowed."""

from pathlib import Path

import pytest

from longwire.app.settings import SettingsError, flag_of, load, names, value_of


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
